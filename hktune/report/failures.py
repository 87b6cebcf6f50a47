"""What failed, an example of each kind, and the command that shows it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from hktune.core.command_words import command_line, spelled
from hktune.core.config import Config
from hktune.core.outcome import Status
from hktune.core.trial import Trial
from hktune.report.columns import print_line, print_prose


def print_failures(console: Console, trials: Sequence[Trial], directory: Path, again: Sequence[str]) -> None:
    """Of each way to fail, how many trials of `directory` did, the first one's detail, and the command that shows it
    again: `again` and what names the trial's config and problem."""
    counts = Counter(trial.status for trial in trials if trial.status is not Status.OK)
    for status, count in sorted(counts.items()):
        first = next(trial for trial in trials if trial.status is status)
        what = f"{first.config_id[:8]} on {first.problem}: {first.detail or 'no detail'}"
        print_prose(console, f"{count} {status}, for example {what}", indent="  ")
        print_line(console, f"  see it: {command_line(*again, *_named(first, directory))}")


def print_build_failures(
    console: Console,
    counts: Mapping[Status, int],
    examples: Mapping[Status, tuple[Config, str]],
    directory: Path,
    again: Sequence[str],
) -> None:
    """As `print_failures`, of what `hktune build` left in `directory`: the first config that failed in each way, with
    its detail."""
    for status, (config, detail) in sorted(examples.items()):
        print_prose(console, f"{counts[status]} {status}, for example {config.id[:8]}: {detail}", indent="  ")
        print_line(console, f"  see it: {command_line(*again, f'{directory}:{config.id}')}")


def _named(trial: Trial, directory: Path) -> list[str]:
    seed = ["--seed", str(trial.seed)] if trial.seed else []
    return ["--problem", spelled(trial.problem), *seed, f"{directory}:{trial.config_id}"]
