"""What a directory of measured trials says, shape by shape, as the table of its README.

python benchmarks/measured_report.py results/sm90a-nvidia-h100-80gb-hbm3
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import geometric_mean

from hktune.core.outcome import Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.dispatch import read_table
from hktune.store import read_trials
from hktune.tuning.confirmation import deciding, finalists


def main() -> None:
    """Print a row per shape and the geometric means."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    trials = read_trials(directory / "trials.csv")
    entries = {entry.problem: entry for entry in read_table(directory).entries}
    rows = deciding(trials)
    print(
        "| m | n | k | vendor us | kernel us | vendor / kernel | interval | vendor / table | vendor's best / kernel |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    kernel, table, strongest = [], [], []
    for problem in sorted({row.problem for row in rows}, key=lambda it: (it.n, it.k, it.m)):
        close = finalists([row for row in rows if row.problem == problem and row.is_kernel])
        if not close:
            continue
        best = close[0]
        kernel.append(ratio(best))
        entry = entries[problem]
        table.append((entry.baseline_us or entry.time_us) / entry.time_us)
        strongest.append(vendors_least_us(best) / (best.time_us or float("nan")))
        print(line(problem, best, table[-1], strongest[-1]))
    for name, values in (("kernel", kernel), ("table", table), ("kernel, vendor's best algorithm", strongest)):
        print(f"\n{name}: geometric mean {geometric_mean(values):.4f}, worst {min(values):.4f}, {len(values)} shapes")
    failures = [row for row in trials if row.status is not Status.OK]
    print(f"\n{len(trials)} rows, {len({row.config_id for row in trials})} configs, {len(failures)} failures")


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
