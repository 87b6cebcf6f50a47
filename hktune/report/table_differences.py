"""What differs between two tables, for a person and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from hktune.core.problem import Problem
from hktune.dispatch.table import Entry
from hktune.report.columns import Column, print_columns, print_prose
from hktune.report.operations import problem_columns, some_problems
from hktune.tables.differences import Changed, Differences


def print_differences(console: Console, found: Differences, first: Path, second: Path) -> None:
    """Print the problems whose choice, time, rows or object differ, then what the whole comes to."""
    shown = [each for each in found.changed if each.choice or each.gain or each.object or each.rows]
    if shown:
        _print_rows(console, sorted(shown, key=lambda each: -abs(each.saved_us)))
    for line in said(found, first, second):
        print_prose(console, line, indent="  ")


def _print_rows(console: Console, rows: Sequence[Changed]) -> None:
    weighed = {row.weight for row in rows} != {1.0}
    columns = [
        Column("name", [row.after.name or row.before.name or "" for row in rows], folds=True),
        *problem_columns([row.problem for row in rows]),
        Column("weight", [f"{row.weight:.6g}" if weighed else "" for row in rows], rank=2, right=True),
        Column("A us", [_time(row.before, row) for row in rows], right=True),
        Column("B us", [_time(row.after, row) for row in rows], right=True),
        Column("A / B", [f"{row.before.time_us / row.after.time_us:.3f}" if row.comparable else "" for row in rows], 1),
        Column("time", [row.gain or ("tie" if row.comparable else "") for row in rows]),
        Column("A runs", [_runs(row.before) for row in rows]),
        Column("B runs", [_runs(row.after) for row in rows]),
        Column("differs in", [", ".join(_differs(row)) for row in rows], rank=3),
    ]
    print_columns(console, columns)


def _time(entry: Entry, row: Changed) -> str:
    word = "" if row.before.source is row.after.source else f" {entry.source}"
    return f"{entry.time_us:.1f}{word}"


def _runs(entry: Entry) -> str:
    if entry.vendor_algorithm:
        return f"{entry.vendor_algorithm.library} {entry.vendor_algorithm.known.config.id[:8]}"
    return entry.kernel.config_id[:8] if entry.kernel else "vendor"


def _differs(row: Changed) -> list[str]:
    named = (("choice", row.choice), ("object", row.object), ("m served", row.rows))
    return [name for name, differs in named if differs]


def said(found: Differences, first: Path, second: Path) -> Iterator[str]:
    """The whole, a line for each thing."""
    yield f"A: {first}; B: {second}"
    if found.equal:
        yield "the tables are equal"
        return
    if found.boards:
        yield f"of unlike boards, so their times are not compared: A {found.boards[0]}; B {found.boards[1]}"
    if found.compilers:
        yield f"of unlike compilers: A {found.compilers[0]}; B {found.compilers[1]}"
    both = len(found.changed)
    choices = sum(each.choice for each in found.changed)
    yield f"{both} problems in both, {choices} with another choice; {_objects(found)}"
    yield from _times(found)
    for name, entries in (("A", found.only_first), ("B", found.only_second)):
        if entries:
            yield f"only in {name}: {len(entries)} ({some_problems([entry.problem for entry in entries])})"


def _times(found: Differences) -> Iterator[str]:
    members = found.comparable
    if not members:
        return
    source = " and ".join(sorted({str(each.before.source) for each in members}))
    gains, losses = (sum(each.gain == word for each in members) for word in ("gain", "loss"))
    before, after = found.step_us()
    yield (
        f"times, {source}: {gains} gains, {losses} losses, {len(members) - gains - losses} ties; "
        f"by weight {before:.1f} us in A, {after:.1f} us in B (A / B {before / after:.4f})"
    )
    apart = len(found.changed) - len(members)
    if apart and not found.boards:
        yield f"{apart} problems are measured in one and modelled in the other: those times are not compared"


def _objects(found: Differences) -> str:
    first, second = found.unlike_objects
    return f"code objects: {first} only in A, {second} only in B" if first or second else "the same code objects"


def as_json(found: Differences) -> Iterator[str]:
    """First what holds for the whole; then one object for each problem, of both or of one."""
    before, after = found.step_us()
    yield json.dumps(
        {
            "equal": found.equal,
            "boards": found.boards,
            "compilers": found.compilers,
            "objects_only_in_a": found.unlike_objects[0],
            "objects_only_in_b": found.unlike_objects[1],
            "weighted_us": {"a": before, "b": after},
        }
    )
    for each in found.changed:
        yield json.dumps(
            {
                **_problem(each.problem),
                "weight": each.weight,
                "a": _entry(each.before),
                "b": _entry(each.after),
                "comparable": each.comparable,
                "time": each.gain or None,
                "differs_in": _differs(each),
            }
        )
    for name, entries in (("a", found.only_first), ("b", found.only_second)):
        for entry in entries:
            yield json.dumps({**_problem(entry.problem), name: _entry(entry)})


def _problem(problem: Problem) -> dict[str, object]:
    return {**problem.sizes, "operation": str(problem.operation)}


def _entry(entry: Entry) -> dict[str, object]:
    times = {"time_us": entry.time_us, "time_us_low": entry.time_us_low, "time_us_high": entry.time_us_high}
    kernel = entry.kernel
    made_of = {"config_id": kernel and kernel.config_id, "object_sha256": kernel and kernel.object_sha256}
    return {"choice": entry.choice, "source": str(entry.source), **times, **made_of, "rows": list(entry.rows)}
