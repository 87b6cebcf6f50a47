"""A dispatch table and the doctor's findings, printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hktune.core.arch import arch_named
from hktune.core.errors import TableError
from hktune.core.identity import Identity
from hktune.core.outcome import Source
from hktune.dispatch import Reason, content_sha256, read_table, validate
from hktune.dispatch import Table as DispatchTable
from hktune.report.columns import Column, print_columns, print_line, print_prose
from hktune.report.intervals import interval, interval_meaning, millijoules
from hktune.report.machine import Finding
from hktune.report.operations import problem_columns, shared_product
from hktune.tables import describe
from hktune.tables.describe import Row

DAMAGED = {
    Reason.OBJECT_MISSING,
    Reason.OBJECT_CHANGED,
    Reason.OBJECT_UNREADABLE,
    Reason.SYMBOL_MISSING,
    Reason.ARGUMENTS,
    Reason.RESOURCES,
}


def print_table(console: Console, directory: Path, other: Identity | None = None) -> None:
    """Print the table in `directory`, and what of it serves on the device `other`. Raises TableError when it, its
    architecture or one of its objects is no good; of damaged objects, after printing, for the first."""
    table = read_table(directory)
    arch_named(table.arch)
    judged = validate(table, directory, table.identity, allow_modelled=True)
    rows = describe(table, judged.skipped)
    sources = sorted({row.source for row in rows})
    times = f"every time is {sources[0]}" if len(sources) == 1 else "measured and modelled times"
    made = f"{len(rows)} {shared_product([row.problem for row in rows])}shapes, made {table.created_at}; {times}"
    print_prose(console, f"{table.arch}, {table.device.name}: {made}")
    print_prose(console, f"compiler: {table.compiler}", indent="  ")
    templates = sorted({row.template for row in rows if row.template})
    print_prose(console, f"kernels of: {', '.join(templates) or 'none'}", indent="  ")
    print_line(console, f"content_sha256: {content_sha256(table)}")
    _print_rows(console, rows, len(sources) > 1)
    if any(row.source == Source.MODELLED and row.time_us_low for row in rows):
        print_prose(console, interval_meaning(), indent="  ")
    configs = {(row.config_id, row.template, row.config) for row in rows if row.config}
    for config_id, template, config in sorted(configs):
        whose = f"{template}: " if len(templates) > 1 else ""
        print_prose(console, f"{config_id[:8]}  {whose}{config}", indent=" " * 10)
    for origin in sorted({origin for row in rows for origin in row.origins}):
        print_prose(console, f"from {origin}", indent=" " * 18)
    if other is not None:
        print_prose(console, _served_on(table, directory, other), indent="  ")
    for skipped in judged.skipped:
        if skipped.reason in DAMAGED:
            raise TableError(f"{skipped.entry.problem}: {skipped.reason}: {skipped.detail}")


def _served_on(table: DispatchTable, directory: Path, device: Identity) -> str:
    """How many rows serve on `device`, and by what word."""
    validated = validate(table, directory, device, allow_modelled=True, allow_sibling_board=True)
    without = validate(table, directory, device, allow_modelled=True)
    said = f"on {device.name}: {len(without.usable)} of {len(table.entries)} rows serve"
    if siblings := len(validated.of_sibling):
        said += f", {siblings} more with allow_sibling_board=True; calls of {siblings} count as sibling hits"
    skipped = "".join(f"; {reason}: {count}" for reason, count in validated.skipped_by_reason.items())
    return f"{said}{skipped}"


def _print_rows(console: Console, rows: Sequence[Row], several_sources: bool) -> None:
    ratios = [_ratio(row.vs_baseline) for row in rows]
    best = [_ratio(row.vs_best) for row in rows]
    vendor = {row.choice for row in rows} != {"kernel"}
    columns = [
        Column("name", [row.name for row in rows], folds=True),
        *problem_columns([row.problem for row in rows]),
        Column("serves", [row.serves for row in rows], rank=2),
        Column("choice", [row.choice if vendor else "" for row in rows]),
        Column("time us", [f"{row.time_us:.1f}" for row in rows], right=True),
        Column("low..high", [interval(row.time_us_low, row.time_us_high) for row in rows], rank=2, right=True),
        Column("ties", [str(row.ties or "") for row in rows], rank=3, right=True),
        Column("TFLOP/s", [f"{row.tflops:.0f}" for row in rows], rank=3, right=True),
        Column("vs\nvendor", ratios, rank=1, right=True),
        Column("vs\nbest", best, rank=1, right=True),
        Column("energy\nmJ", [millijoules(row.energy_j) for row in rows], rank=2, right=True),
        Column("vendor\nmJ", [millijoules(row.baseline_energy_j) for row in rows], rank=3, right=True),
        Column("time is", [row.source if several_sources else "" for row in rows]),
        Column("config", [row.config_id[:8] for row in rows]),
        Column("from", [" ".join(origin[:8] for origin in row.origins) for row in rows], rank=3),
        Column("object", [row.object_sha256 for row in rows], rank=4),
    ]
    print_columns(console, columns)


def _ratio(ratio: float | None) -> str:
    return f"{ratio:.2f}" if ratio is not None else ""


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print what was found, and under what was not, the line to type, whole."""
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        row = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        row.add_column(width=width, no_wrap=True)
        row.add_row(finding.name, finding.found or Text("none", "yellow"))
        console.print(row)
        if finding.fix:
            word = "needed" if finding.needed else "but" if finding.found else "to have it"
            style = "red" if finding.needed else ""
            console.print(f"{' ' * (width + 2)}{word}: {finding.fix}", style=style, soft_wrap=True)
