"""Writes results/README.md: what each directory of results/ holds, from the files in it.

    python scripts/results_index.py [--write]

Without --write it prints the page. A test holds the page to the directories.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from hktune.core.publish import publish
from hktune.core.trial import Trial, by_problem
from hktune.dispatch import Table, read_table
from hktune.store import Environment, read_environment, read_trials
from hktune.tuning.confirming.confirmation import deciding, finalists

ROOT = Path(__file__).resolve().parents[1] / "results"
_HEAD = """# Results

What `hktune tune` left, kept as examples and as evidence. Each row is a directory with a table; its own page says how
it was made and what was found. `hktune table show DIR` prints a table, `hktune table diff A B` compares two, and
`hktune compare DIR FILE` holds one against another tool's times.

A time is measured or modelled. A modelled one ranks kernels, and is no benchmark. *Table* is the time of the vendor's
library, as it is asked by default, over that of the table. *Kernels* is the time of the fastest other way that was
timed, over that of the best kernel. Such ways are the vendor's algorithms, and kernels of others. Both are geometric
means over the shapes, with the worst in brackets. Above 1, hktune's is faster.
"""
_TABLE = """
## {}

| directory | board | shapes | trials | date | table | kernels | report |
|---|---|---|---|---|---|---|---|
"""
_RECORDINGS = """
## Recordings

For `hktune simulate`: many configs of few shapes, and no table.

| file | board | shapes | configs | trials |
|---|---|---|---|---|
"""
_END = "\nThis page is generated: `python scripts/results_index.py --write`.\n"


def page(root: Path = ROOT) -> str:
    """The page of the directories in `root`; measured and modelled times are in tables of their own."""
    directories = sorted(path.parent for path in root.glob("*/table.json"))
    recordings = sorted(root.glob("*/*/trials.csv"))
    reports = {path: str(number) for number, path in enumerate(chain(*map(_reports, directories)), 1)}
    rows: dict[str, list[str]] = {}
    for directory in directories:
        table = read_table(directory)
        sources = " and ".join(sorted({str(entry.source) for entry in table.entries}))
        rows.setdefault(sources, []).append(_row(directory, table, reports))
    tables = [_TABLE.format(sources.capitalize()) + "\n".join(lines) for sources, lines in sorted(rows.items())]
    of_recordings = _RECORDINGS + "\n".join(_recording(path, root) for path in recordings)
    links = [f"[{directory.name}]: {directory.name}/README.md" for directory in directories]
    links += [f"[{path.parent.relative_to(root)}]: {path.relative_to(root)}" for path in recordings]
    links += [f"[{number}]: {path.relative_to(root)}" for path, number in reports.items()]
    return "\n".join([_HEAD + tables[0], *tables[1:], of_recordings, _END, *links]) + "\n"


def _row(directory: Path, table: Table, reports: Mapping[Path, str]) -> str:
    trials = read_trials(directory / "trials.csv")
    cells = (
        f"[{directory.name}]",
        table.identity.name,
        str(len(table.entries)),
        f"{len(trials):,}",
        _date(table, read_environment(directory)),
        _ratio((entry.baseline_us, entry.time_us) for entry in table.entries),
        _ratio(_best_of_each(trials)),
        ", ".join(f"[{path.stem}][{reports[path]}]" for path in _reports(directory)) or "-",
    )
    return f"|{'|'.join(cells)}|"  # without spaces: a line of a page has at most 120 characters


def _date(table: Table, environment: Environment | None) -> str:
    """When the run began, else when the table was made."""
    return (environment.started_at if environment else table.created_at)[:10]


def _best_of_each(trials: list[Trial]) -> Iterator[tuple[float | None, float]]:
    """Of each shape the fastest other way's time and the best kernel's, where both were timed."""
    for rows in by_problem(deciding(trials)).values():
        for best in finalists([row for row in rows if row.is_kernel])[:1]:
            others = [time for time in (best.baseline_us, best.vendor_best_us) if time is not None]
            assert best.time_us is not None, "a finalist has a time"
            yield (min(others) if best.vendor_best_us is not None else None), best.time_us


def _ratio(times_us: Iterable[tuple[float | None, float]]) -> str:
    """The geometric mean of other / own, and the worst; a dash where no shape has both."""
    ratios = [other / own for other, own in times_us if other is not None]
    if not ratios:
        return "-"
    return f"{math.exp(math.fsum(map(math.log, ratios)) / len(ratios)):.3f} ({min(ratios):.3f})"


def _reports(directory: Path) -> list[Path]:
    return [directory / name for name in ("report.html", "report.md") if (directory / name).exists()]


def _recording(path: Path, root: Path) -> str:
    trials = read_trials(path)
    where = path.parent.relative_to(root)
    configs, problems = {trial.made_from for trial in trials}, {trial.problem for trial in trials}
    boards = ", ".join(sorted(set(_devices(trials))))
    return f"| [{where}] | {boards} | {len(problems)} | {len(configs):,} | {len(trials):,} |"


def _devices(trials: Iterable[Trial]) -> Iterator[str]:
    yield from (trial.device for trial in trials if trial.device)


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        publish(ROOT / "README.md", page().encode())
    else:
        sys.stdout.write(page())
