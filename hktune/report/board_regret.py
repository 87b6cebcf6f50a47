"""What one board's table costs on another, for a person and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from rich.console import Console

from hktune.dispatch.table import Entry, Table
from hktune.report.columns import Column, print_columns, print_prose
from hktune.report.operations import problem_columns, some_problems
from hktune.tables.other_board import OnOtherBoard, exact, mean_regret, missing


def print_other_board(console: Console, first: Table, second: Table, found: Sequence[OnOtherBoard]) -> None:
    """Print each problem of both, then what it comes to."""
    if found:
        _print_rows(console, found)
    for line in said(first, second, found):
        print_prose(console, line, indent="  ")


def _print_rows(console: Console, found: Sequence[OnOtherBoard]) -> None:
    columns = [
        Column("name", [each.second.name or each.first.name or "" for each in found], folds=True),
        *problem_columns([each.second.problem for each in found]),
        Column("A runs", [_runs(each.first) for each in found]),
        Column("B runs", [_runs(each.second) for each in found]),
        Column("A's on B\nus", [_time(each) for each in found], right=True),
        Column("B us", [f"{each.second.time_us:.1f}" for each in found], right=True),
        Column("regret", [_regret(each) for each in found], right=True),
        Column("timed in", [_rounds(each) for each in found], rank=2),
    ]
    print_columns(console, columns)


def _runs(entry: Entry) -> str:
    if entry.vendor_algorithm:
        return f"{entry.vendor_algorithm.library} {entry.vendor_algorithm.known.config.id[:8]}"
    return entry.kernel.config_id[:8] if entry.kernel else "vendor"


def _time(each: OnOtherBoard) -> str:
    if each.time_us is None:
        return "missing"
    return f"{'>= ' * each.is_bound}{each.time_us:.1f}"


def _regret(each: OnOtherBoard) -> str:
    return "" if each.regret is None else f"{'>= ' * each.is_bound}{each.regret:+.1%}"


def _rounds(each: OnOtherBoard) -> str:
    if each.time_us is None:
        return ""
    return "same choice" if each.is_same else "the same rounds" if each.same_rounds else "other rounds"


def said(first: Table, second: Table, found: Sequence[OnOtherBoard]) -> Iterator[str]:
    """What holds for the whole, a line each."""
    known, mean = exact(found), mean_regret(found)
    sources = " and ".join(sorted({str(each.second.source) for each in found})) or "no"
    yield f"A, the table of {first.device.name}, on B, {second.device.name}: {sources} times"
    if mean is not None:
        worst, regret = max(known, key=lambda each: each[1])
        same = sum(each.is_same for each, _ in known)
        yield (
            f"regret {mean:+.2%} in the geometric mean over {len(known)} of {len(found)} problems of both, "
            f"worst {regret:+.1%} ({worst.second.problem}); {same} have the same choice"
        )
    if bounds := [each.second.problem for each in found if each.is_bound]:
        yield f"left early on B, so only a bound: {len(bounds)} ({some_problems(bounds)})"
    if lacking := missing(found):
        yield f"never timed on B: {len(lacking)} ({some_problems(lacking)})"
    if others := sum(each.other_source for each in found):
        yield f"{others} of A's kernels are of another version of their template on B"
    only = len(first.entries) - len(found)
    if only:
        yield f"{only} problems of A are none of B's table"


def as_json(found: Sequence[OnOtherBoard]) -> Iterator[str]:
    """First the whole, then one object for each problem."""
    known = exact(found)
    worst = max((regret for _, regret in known), default=None)
    counts = {"problems": len(found), "known": len(known), "missing": len(missing(found))}
    yield json.dumps({**counts, "mean_regret": mean_regret(found), "worst_regret": worst})
    for each in found:
        yield json.dumps(
            {
                **each.second.problem.sizes,
                "operation": str(each.second.problem.operation),
                "a": _runs(each.first),
                "b": _runs(each.second),
                "a_on_b_us": each.time_us,
                "b_us": each.second.time_us,
                "source": str(each.second.source),
                "regret": each.regret,
                "is_bound": each.is_bound,
                "same_rounds": each.same_rounds,
                "other_template": each.other_source,
            }
        )
