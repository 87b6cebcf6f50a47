"""What a calibration came to, for a person."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from hktune.core.calibration import CLOCK, Calibration
from hktune.report.columns import Column, print_columns, print_line, print_prose
from hktune.tuning.calibrating.measured_trials import Calibrated


def print_calibrated(console: Console, found: Calibrated) -> None:
    """Print how far the model was off, and which constants moved."""
    whole = found.classes[0]
    print_prose(console, f"{whole.rows} measured trials; each is judged by constants that its shape had no part in")
    _print_classes(console, found)
    _print_constants(console, found)
    for note in found.notes:
        print_prose(console, note, indent="  ")
    if found.calibration is None:
        print_prose(console, "these trials identify no constant, so none was written: measure more and larger shapes")
    elif whole.after >= whole.before:
        print_prose(console, "on shapes left out it is no better than what was: more trials may make it so")


def print_written(console: Console, calibration: Calibration, path: Path) -> None:
    """Print where it is, and how it is used."""
    print_line(console, f"calibration {calibration.id} is in {path}")
    print_line(console, f"next: {_next(calibration, path)}")


def _print_classes(console: Console, found: Calibrated) -> None:
    columns = [
        Column("", [each.name for each in found.classes]),
        Column("trials", [str(each.rows) for each in found.classes], right=True),
        Column("before", [f"{each.before:.1%}" for each in found.classes], right=True),
        Column("after", [f"{each.after:.1%}" for each in found.classes], right=True),
    ]
    print_columns(console, columns)


def _print_constants(console: Console, found: Calibrated) -> None:
    after = ["stays" if each.after is None else f"{each.after:.6g}" for each in found.constants]
    spread = ["not identified" if each.uncertainty is None else f"{each.uncertainty:.0%}" for each in found.constants]
    columns = [
        Column("constant", [each.name for each in found.constants]),
        Column("was", [f"{each.before:.6g}" for each in found.constants], right=True),
        Column("is", after, right=True),
        Column("within", spread, right=True),
    ]
    print_columns(console, columns)


def _next(calibration: Calibration, path: Path) -> str:
    if calibration.of == CLOCK:
        return f"hktune tune --device emulated --calibration {path} --shapes FILE"
    return f"hktune tune --calibration {path} --shapes FILE"
