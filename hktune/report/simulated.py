"""What simulated searches found, for a person and as JSON."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import fmean

from rich.console import Console

from hktune.report.columns import Column, print_columns, print_prose
from hktune.tuning.simulation import Replay, Simulated

BUDGETS = (25, 50, 100, 150)
WITHIN = (0.01, 0.02)


@dataclass(frozen=True)
class _Line:
    """One line of the table. `shares` are of the optimum after each budget, one for each seed; `reached` the trials to
    within each of WITHIN in the mean, `missed` how often they were not enough, which counts as all of them."""

    recording: str
    strategy: str
    shares: Mapping[int, Sequence[float]]
    reached: Sequence[float]
    missed: Sequence[int]
    ms_per_ask: float


def budgets(trials: int) -> list[int]:
    """After how many trials a search of so many is looked at."""
    return sorted({*(budget for budget in BUDGETS if budget < trials), trials})


def as_json(one: Simulated, trials: int) -> str:
    """One search as one JSON object on one line; `trials` is how many it was given."""
    found = one.replay
    return json.dumps(
        {
            "recording": one.recording.name,
            "configs": len(one.recording.rows),
            "optimum": found.best,
            "strategy": one.strategy,
            "seed": one.seed,
            "in_flight": one.in_flight,
            "trials": len(found.costs),
            "share": {str(budget): found.share(budget) for budget in budgets(trials)},
            "trials_to": {f"{within:g}": found.trials_to(within) for within in WITHIN},
            "ms_per_ask": found.ms_per_ask,
        }
    )


def print_simulated(console: Console, found: Sequence[Simulated], trials: int) -> None:
    """Print a line for each recording and strategy, and the means over several recordings."""
    groups: dict[tuple[str, str], list[Simulated]] = {}
    for one in found:
        groups.setdefault((one.recording.name, one.strategy), []).append(one)
    names = _short([name for name, _ in groups])
    lines = [
        _line(names[name], strategy, [one.replay for one in own], trials) for (name, strategy), own in groups.items()
    ]
    seeds = len(next(iter(groups.values())))
    print_prose(
        console,
        f"share of the optimum (best recorded / best found) in the mean of {seeds} seeds, and of the worst; "
        f"trials until within 1 and 2 % of it; {found[0].in_flight} in flight",
    )
    _print(console, [*lines, *(_means(lines) if len(names) > 1 else [])], trials)


def _line(name: str, strategy: str, replays: Sequence[Replay], trials: int) -> _Line:
    reached = [[replay.trials_to(within) for replay in replays] for within in WITHIN]
    return _Line(
        name,
        strategy,
        {budget: [replay.share(budget) for replay in replays] for budget in budgets(trials)},
        [fmean(trials if each is None else each for each in own) for own in reached],
        [own.count(None) for own in reached],
        fmean(replay.ms_per_ask for replay in replays),
    )


def _means(lines: Sequence[_Line]) -> list[_Line]:
    """Of each strategy, over the recordings."""
    means = []
    for strategy in dict.fromkeys(line.strategy for line in lines):
        own = [line for line in lines if line.strategy == strategy]
        means.append(
            _Line(
                f"mean of {len(own)}",
                strategy,
                {budget: [share for line in own for share in line.shares[budget]] for budget in own[0].shares},
                [fmean(line.reached[i] for line in own) for i in range(len(WITHIN))],
                [sum(line.missed[i] for line in own) for i in range(len(WITHIN))],
                fmean(line.ms_per_ask for line in own),
            )
        )
    return means


def _print(console: Console, lines: Sequence[_Line], trials: int) -> None:
    shares = [
        Column(
            f"after {budget}\nmean worst",
            [f"{_share(fmean(line.shares[budget]))} {_share(min(line.shares[budget])):>5}" for line in lines],
            rank=0 if budget in (50, trials) else 3,
            right=True,
        )
        for budget in budgets(trials)
    ]
    reached = [
        Column(f"to\n{within:.0%}", [_reached(line, i) for line in lines], rank=2 - i, right=True)
        for i, within in enumerate(WITHIN)
    ]
    console_columns = [
        Column("recording", [line.recording for line in lines], folds=True),
        Column("strategy", [line.strategy for line in lines]),
        *shares,
        *reached,
        Column("ms an\nask", [f"{line.ms_per_ask:.2f}" for line in lines], rank=1, right=True),
    ]
    print_columns(console, console_columns)
    if any(any(line.missed) for line in lines):
        print_prose(console, f"> N: not every seed came that near; those count as {trials} trials")


def _share(share: float) -> str:
    return f"{share:.3f}".removeprefix("0")


def _reached(line: _Line, which: int) -> str:
    return f"{'>' if line.missed[which] else ''}{line.reached[which]:.0f}"


def _short(names: Collection[str]) -> dict[str, str]:
    """Names without the folders, and the results directory, that all share, and without a file's suffixes."""
    alike = takewhile(lambda characters: len(set(characters)) == 1, zip(*names, strict=False))
    shared = "".join(first for first, *_ in alike) if len(set(names)) > 1 else next(iter(names)).partition(":")[0]
    begin = max(shared.rfind("/"), shared.rfind(":")) + 1
    return {name: name[begin:].removesuffix(".gz").removesuffix(".json").replace(":", " ") for name in names}
