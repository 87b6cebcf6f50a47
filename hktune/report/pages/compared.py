"""What is said of two directories, in sentences."""

from __future__ import annotations

from collections.abc import Callable

from hktune.core.outcome import Source
from hktune.report.pages.headlines import VERDICT_WORDS, shapes
from hktune.report.results.directory_comparison import Comparison


def warnings(comparison: Comparison, quoted: Callable[[str], str] = str) -> list[str]:
    """What keeps the ratios from being about kernels alone; `quoted` is for names from files."""
    said = []
    if comparison.of_unlike_devices:
        first, second = map(quoted, comparison.devices)
        said.append(f"The devices differ ({first}, then {second}): a ratio compares these too, and not kernels alone.")
    if unlike := comparison.differing_sources:
        said.append(f"{shapes(len(unlike))}: measured in one, modelled in the other. These are not compared.")
    hard = [each.field for each in comparison.differences or () if each.level == "hard"]
    if hard and not comparison.of_unlike_devices:
        said.append(f"What decides the meaning of a time differs: {', '.join(hard)}.")
    if comparison.differences is None:
        said.append("A directory has no environment.json: nothing says whether both were made alike.")
    return said


def findings(comparison: Comparison) -> list[str]:
    """What came of the comparison."""
    total = comparison.totals
    said = []
    if total is None:
        said.append("No shape has a time in both that can be compared.")
    else:
        counts = ", ".join(f"{total.counts[verdict]} {word}" for verdict, word in VERDICT_WORDS.items())
        calls = "all calls together" if comparison.after.weights else "one call of each together"
        said.append(
            f"The second is {total.geometric_mean:.3f} times as fast in the geometric mean of {shapes(total.shapes)}, "
            f"{total.worst:.3f} at worst, {total.all_calls:.3f} for {calls}: {counts}."
        )
    if lost := comparison.lost_kernels:
        said.append(f"{shapes(len(lost))} had a kernel in the first and none in the second.")
    if comparison.only_before or comparison.only_after:
        said.append(
            f"{shapes(len(comparison.only_before))} of the first alone, {len(comparison.only_after)} of the second."
        )
    return said


def compared_sources(comparison: Comparison) -> list[Source]:
    """The sources of the times that are compared."""
    return [
        source
        for source in Source
        if any(change.gain and change.after.source is source for change in comparison.changes)
    ]
