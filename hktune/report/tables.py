"""A dispatch table and the doctor's findings, printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hktune.arch import arch_named
from hktune.dispatch import Reason, content_sha256, describe, read_table, validate
from hktune.doctor import Finding
from hktune.errors import TableError

DAMAGED = {
    Reason.OBJECT_MISSING,
    Reason.OBJECT_CHANGED,
    Reason.OBJECT_UNREADABLE,
    Reason.SYMBOL_MISSING,
    Reason.ARGUMENTS,
    Reason.RESOURCES,
}


def print_table(console: Console, directory: Path) -> None:
    """Print the table in `directory`. Raises TableError when it, its architecture or one of its objects is no good;
    of damaged objects, after printing, for the first."""
    table = read_table(directory)
    arch_named(table.arch)
    judged = validate(table, directory, table.identity, allow_modelled=True)
    device = table.device
    made = f"{len(table.entries)} shapes, made {table.created_at}"
    console.print(f"{table.arch}, {device.name}: {made}")
    console.print(f"compiler: {table.compiler}")
    console.print(f"content_sha256: {content_sha256(table)}")
    printed = Table(box=None)
    for column in ("shape", "serves", "choice"):
        printed.add_column(column, no_wrap=True)
    for column in ("time us", "TFLOP/s", "vs vendor"):
        printed.add_column(column, justify="right", no_wrap=True)
    for column in ("time is", "object"):
        printed.add_column(column, no_wrap=True)
    rows = describe(table, judged.skipped)
    for row in rows:
        ratio = f"{row.vs_baseline:.2f}x" if row.vs_baseline is not None else "-"
        cells = (f"{row.time_us:.1f}", f"{row.tflops:.0f}", ratio, row.source, row.object_sha256)
        printed.add_row(row.shape, row.serves, row.choice, *cells)
    console.print(printed)
    for object_sha256, config in sorted({(row.object_sha256, row.config) for row in rows if row.config}):
        console.print(f"{object_sha256}  {config}", soft_wrap=True)
    for skipped in judged.skipped:
        if skipped.reason in DAMAGED:
            raise TableError(f"{skipped.entry.problem}: {skipped.reason}: {skipped.detail}")


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
