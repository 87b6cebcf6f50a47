"""What a directory of measured trials says, shape by shape, as the table of its README.

python benchmarks/measured_report.py results/sm90a-nvidia-h100-80gb-hbm3
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from statistics import geometric_mean

from hktune.core.outcome import Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.dispatch import read_table
from hktune.dispatch.table import Entry
from hktune.store import read_trials
from hktune.tuning.confirming.confirmation import deciding, finalists


def main() -> None:
    """Print a row per shape and the geometric means."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    trials = read_trials(directory / "trials.csv")
    entries = read_table(directory).entries
    rows = deciding(trials)
    print(
        "| m | n | k | vendor us | kernel us | vendor / kernel | interval | vendor / table | vendor's best / kernel |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    kernel, table, strongest, table_strongest = [], [], [], []
    for problem in sorted({row.problem for row in rows}, key=lambda it: (it.n, it.k, it.m)):
        close = finalists([row for row in rows if row.problem == problem and row.is_kernel])
        if not close:
            continue
        best = close[0]
        kernel.append(ratio(best))
        default, least = gains(serving(problem, entries), problem, rows)
        table.append(default)
        table_strongest.append(least)
        strongest.append(vendors_least_us(best) / (best.time_us or float("nan")))
        print(line(problem, best, table[-1], strongest[-1]))
    figures = {"kernel": kernel, "kernel, vendor's best algorithm": strongest}
    figures |= {"table": table, "table, vendor's best algorithm": table_strongest}
    for name, values in figures.items():
        print(f"\n{name}: geometric mean {geometric_mean(values):.4f}, worst {min(values):.4f}, {len(values)} shapes")
    failures = [row for row in trials if row.status is not Status.OK]
    print(f"\n{len(trials)} rows, {len({row.config_id for row in trials})} configs, {len(failures)} failures")


def serving(problem: Problem, entries: Iterable[Entry]) -> Entry:
    """The row of a table that serves a problem: it need not be the problem's own."""
    family = (problem.n, problem.k, str(problem.operation))
    return next(it for it in entries if it.family == family and it.rows[0] <= problem.m <= it.rows[1])


def gains(entry: Entry, problem: Problem, rows: Iterable[Trial]) -> tuple[float, float]:
    """The vendor's default and its best over the table's choice. A kernel of another m is timed by a row of its own."""
    if entry.problem == problem:
        default = entry.baseline_us or entry.time_us
        return default / entry.time_us, min(default, entry.vendor_best_us or default) / entry.time_us
    if entry.kernel is None:
        return 1.0, 1.0
    served = next(row for row in rows if row.problem == problem and row.config_id == entry.kernel.config_id)
    return ratio(served), vendors_least_us(served) / (served.time_us or float("nan"))


def line(problem: Problem, best: Trial, of_table: float, of_strongest: float) -> str:
    """One row."""
    assert best.baseline_us is not None
    assert best.time_us is not None
    low, high = (best.baseline_us / (end or best.time_us) for end in (best.time_us_high, best.time_us_low))
    times = f"{best.baseline_us:.2f} | {best.time_us:.2f} | {ratio(best):.3f} | {low:.3f}..{high:.3f}"
    return f"| {problem.m} | {problem.n} | {problem.k} | {times} | {of_table:.3f} | {of_strongest:.3f} |"


def vendors_least_us(row: Trial) -> float:
    """The time of the fastest of all the vendor's ways, in the same rounds."""
    return min(us for us in (row.baseline_us, row.vendor_best_us, float("inf")) if us is not None)


def ratio(row: Trial) -> float:
    """The vendor's time over the kernel's, in the same rounds."""
    return (row.baseline_us or float("nan")) / (row.time_us or float("nan"))


if __name__ == "__main__":
    main()
