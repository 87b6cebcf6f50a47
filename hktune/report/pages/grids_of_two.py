"""The tables of a report on two directories."""

from __future__ import annotations

from collections.abc import Sequence

from hktune.report.pages.grid import Cell, Grid, Heading, cells, gain_cell, microseconds
from hktune.report.results.directory_comparison import Change, Comparison

_HEADINGS = (
    Heading("shape", foreign=True),
    Heading("problem"),
    Heading("calls", right=True),
    Heading("first, us", right=True),
    Heading("second, us", right=True),
    Heading("times as fast", right=True),
    Heading("low..high", right=True),
    Heading("all calls lose, us", right=True),
    Heading("config"),
    Heading("times are"),
)


def changes_grid(caption: str, changes: Sequence[Change], weighted: bool) -> Grid:
    """Each change, in the order given."""
    return Grid(caption, _HEADINGS, [_change_row(change, weighted) for change in changes]).without_empty()


def _change_row(change: Change, weighted: bool) -> list[Cell]:
    before, after, gain = change.before.best, change.after.best, change.gain
    sources = dict.fromkeys(str(trial.source) for trial in (before, after) if trial)
    return [
        *cells(change.after.name or change.before.name, change.after.problem),
        *cells(f"{change.after.weight:g}" if weighted else None),
        *cells(*(microseconds(trial.time_us) if trial else "no kernel" for trial in (before, after))),
        gain_cell(gain),
        *cells(f"{gain.low:.3f}..{gain.high:.3f}" if gain else None, _signed(change.lost_us) if gain else None),
        *cells(_configs(change), ", then ".join(sources)),
    ]


def _signed(time_us: float) -> str:
    rounded = round(time_us, 1) + 0.0  # no minus before a zero
    return f"{rounded:+.1f}"


def _configs(change: Change) -> str:
    ids = [trial.config_id[:8] if trial else "none" for trial in (change.before.best, change.after.best)]
    return ids[0] if change.same_kernel else ", then ".join(ids)


def only_grid(comparison: Comparison) -> Grid:
    """What one of the directories has and the other has not."""
    rows = [cells(problem, "the first alone") for problem in comparison.only_before]
    rows += [cells(problem, "the second alone") for problem in comparison.only_after]
    return Grid("Shapes of one directory", [Heading("problem"), Heading("is in")], rows)


def differences_grid(comparison: Comparison) -> Grid:
    """How the environments differ."""
    rows = [
        cells(each.field, each.saved, each.current, "times cannot be compared" if each.level == "hard" else "")
        for each in comparison.differences or ()
    ]
    headings = [Heading("what"), Heading("first", foreign=True), Heading("second", foreign=True), Heading("so")]
    return Grid("What differs in the environment", headings, rows).without_empty()
