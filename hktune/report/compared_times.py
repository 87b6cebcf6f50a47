"""A table compared with another tool's times, for a person and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from rich.console import Console

from hktune.core.outcome import Source
from hktune.core.problem import Problem
from hktune.dispatch import Table
from hktune.dispatch.table import Entry
from hktune.exchange import ForeignFile, Product
from hktune.exchange.foreign_shapes import grouped, reasons
from hktune.report.columns import Column, print_columns, print_prose
from hktune.report.intervals import interval
from hktune.report.operations import problem_columns, some_problems
from hktune.tables.other_times import Compared, Group, OtherTimes

_WAY_MAX = 60  # characters of a kernel's name
_LIKE = {
    True: "architecture and compute units as the table's",
    None: "which may be a board like the table's",
    False: "another board than the table's",
}


def print_compared(console: Console, table: Table, file: ForeignFile, found: OtherTimes) -> None:
    """Print the problems that both have, then what the times are of, then what only one has."""
    if found.both:
        _print_rows(console, found.both)
    modelled = any(row.entry.source is Source.MODELLED for row in found.both)
    no_benchmark = "; a modelled time is an expectation, and no benchmark" if modelled else ""
    print_prose(console, f"ours: {table.arch}, {table.identity.name}{no_benchmark}", indent="  ")
    facts = ", ".join(f"{name} {value}" for name, value in file.facts.items())
    print_prose(console, f"theirs: {file.format}{f' ({facts})' if facts else ''}", indent="  ")
    for group in found.groups:
        print_prose(console, _headline(group), indent="  ")
    for line in missing(found):
        print_prose(console, line, indent="  ")


def _print_rows(console: Console, rows: Sequence[Compared]) -> None:
    entries = [row.entry for row in rows]
    boards = {row.theirs.board for row in rows}
    columns = [
        Column("name", [entry.name or "" for entry in entries], folds=True),
        *problem_columns([entry.problem for entry in entries]),
        Column("ours\nus", [f"{entry.time_us:.1f}" for entry in entries], right=True),
        Column("low..high", [interval(entry.time_us_low, entry.time_us_high) for entry in entries], rank=3, right=True),
        Column("ours is", [str(entry.source) for entry in entries]),
        Column("theirs\nus", [f"{row.their_us:.1f}" for row in rows], right=True),
        Column("theirs\n/ ours", [f"{row.ratio:.3f}" for row in rows], right=True),
        Column("faster", [row.faster or "-" for row in rows]),
        Column("ours by", [_ours(entry) for entry in entries], rank=2),
        Column("theirs by", [row.theirs.way[:_WAY_MAX] for row in rows], rank=4, folds=True),
        Column("theirs on", [row.theirs.board if len(boards) > 1 else "" for row in rows], rank=1, folds=True),
    ]
    print_columns(console, columns)


def _ours(entry: Entry) -> str:
    return entry.kernel.config_id[:8] if entry.kernel else entry.baseline or "vendor"


def _headline(group: Group) -> str:
    count = len(group.members)
    wins, losses = group.count("ours"), group.count("theirs")
    what = f"{count} problems, ours {group.source}, theirs measured on {group.board} ({_LIKE[group.same_board]})"
    ratio = f"theirs / ours {group.mean_ratio:.3f} in the geometric mean"
    return f"{what}: {ratio}; ours faster in {wins}, theirs in {losses}, {count - wins - losses} within the interval"


def missing(found: OtherTimes) -> Iterator[str]:
    """What was not compared, a line for each kind."""
    if found.only_ours:
        yield f"only ours: {len(found.only_ours)} ({some_problems([entry.problem for entry in found.only_ours])})"
    if found.only_theirs:
        problems = [each.problem for each in found.only_theirs if each.problem]
        yield f"only theirs: {len(found.only_theirs)} ({some_problems(problems)})"
    if found.untimed:
        yield f"theirs without a time: {len(found.untimed)}"
    if found.unserved:
        yield f"theirs that no table can serve: {len(found.unserved)} ({reasons(grouped(found.unserved))})"


def as_json(table: Table, file: ForeignFile, found: OtherTimes) -> Iterator[str]:
    """First what the times are of; then one object for each problem, of both or of one; then one for each reason why
    products of theirs were left out."""
    yield json.dumps({"ours_on": str(table.identity), "theirs": file.format, **{"facts": dict(file.facts)}})
    for row in found.both:
        yield json.dumps(_said(row.entry.problem) | _of_ours(row.entry) | _of_theirs(row.theirs) | _of_both(row))
    for entry in found.only_ours:
        yield json.dumps(_said(entry.problem) | _of_ours(entry))
    for product in found.only_theirs:
        assert product.problem is not None
        yield json.dumps(_said(product.problem) | _of_theirs(product))
    for left in grouped(found.unserved):
        yield json.dumps({"left_out": left.why, "products": left.lines})


def _said(problem: Problem) -> dict[str, object]:
    return {**problem.sizes, "operation": str(problem.operation)}


def _of_ours(entry: Entry) -> dict[str, object]:
    times = {"ours_us": entry.time_us, "ours_us_low": entry.time_us_low, "ours_us_high": entry.time_us_high}
    return {**times, "ours_source": str(entry.source), "ours_by": _ours(entry)}


def _of_theirs(product: Product) -> dict[str, object]:
    board = {"theirs_arch": product.arch or None, "theirs_compute_units": product.compute_units or None}
    return {"theirs_us": product.time_us, "theirs_by": product.way, **board, "theirs_line": product.line}


def _of_both(row: Compared) -> dict[str, object]:
    return {"theirs_over_ours": row.ratio, "faster": row.faster or None, "same_board": row.same_board}
