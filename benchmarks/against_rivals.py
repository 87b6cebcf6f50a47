"""A run's best kernels against its rivals' best, shape by shape, and the profiles of both where a rival comes closest.

    python benchmarks/against_rivals.py DIR [--shapes shapes.yaml] [--closest 5] [--aiter DIR]

DIR is the results directory of a run without a GPU, so all times are modelled. Profiles come from the proofs that the
run left in the cache; what is not there is proved again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import geometric_mean

from hktune.commands.arguments import add_aiter, settings_of
from hktune.core.board import DEFAULT_BOARD
from hktune.core.candidate import Candidate
from hktune.core.command_words import words_of
from hktune.core.config import Config
from hktune.core.outcome import Status
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shapes import load_shapes
from hktune.core.shipped import DEFAULT_SPACE
from hktune.core.trial import Trial
from hktune.emulator.clock.launch_time import Modelled, Profile, modelled_time
from hktune.emulator.clock.memory_traffic import tile_order
from hktune.space import SearchSpace, load_space
from hktune.store.trials import read_trials
from hktune.tuning.benches.emulated_bench import EmulatedBench
from hktune.tuning.rivals import FOLDER, RIVALS, same_product


@dataclass(frozen=True)
class Race:
    """One shape: the fastest proved trial of the run and of its rivals. Each trial's problem says its own output."""

    name: str
    problem: Problem
    ours: Trial
    theirs: Trial

    @property
    def gain(self) -> float:
        return time_us(self.theirs) / time_us(self.ours)


def main() -> None:
    options = parsed()
    names = {shape.problem: shape.name for shape in load_shapes(options.shapes)}
    ours, theirs = fastest(options.directory / "trials.csv"), fastest(options.directory / FOLDER / "trials.csv")
    races, alone = [], []
    for problem, name in names.items():
        rival = min((theirs[twin] for twin in twins(problem) if twin in theirs), key=time_us, default=None)
        if problem in ours and rival:
            races.append(Race(name, problem, ours[problem], rival))
        else:
            alone.append(str(problem))
    if not races:
        raise SystemExit(f"{options.directory}: no shape of {options.shapes} has both a kernel and a rival's")
    print_table(races)
    if alone:
        print(f"not raced: {', '.join(alone)}")
    print_profiles(sorted(races, key=lambda race: race.gain)[: options.closest], settings_of(options))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--shapes", type=Path, default=Path("shapes.yaml"))
    parser.add_argument("--closest", type=int, default=5, help="profiles of so many shapes (default: 5)")
    add_aiter(parser)
    return parser.parse_args()


def time_us(trial: Trial) -> float:
    assert trial.time_us is not None, "an ok trial has a time"
    return trial.time_us


def fastest(path: Path) -> dict[Problem, Trial]:
    """Of each problem in a file of trials, the fastest that was right."""
    right = (trial for trial in read_trials(path) if trial.status is Status.OK)
    return {trial.problem: trial for trial in sorted(right, key=time_us, reverse=True)}


def twins(problem: Problem) -> set[Problem]:
    """`problem` as the rivals' kernels compute it."""
    found = (same_product(problem, space.template) for _, space in spaces().values())
    return {twin for twin in found if twin}


@lru_cache
def spaces() -> dict[str, tuple[Path, SearchSpace]]:
    """Every space of ours and of the rivals, and its file, by the name of its template."""
    paths = [DEFAULT_SPACE, *(path for rival in RIVALS.values() for path in rival.spaces)]
    return {space.template.name: (path, space) for path, space in zip(paths, map(load_space, paths), strict=True)}


def print_table(races: Iterable[Race]) -> None:
    print("| shape | m x n x k | hktune us | rival us | times as fast | rival's kernel |\n|---|---|---|---|---|---|")
    gains = []
    for race in races:
        problem, gain = race.problem, race.gain
        gains.append(gain)
        sizes = f"{problem.m} x {problem.n} x {problem.k}"
        print(
            f"| {race.name} | {sizes} | {time_us(race.ours):.1f} | {time_us(race.theirs):.1f} | {gain:.3f} "
            f"| {words(race.theirs)} |"
        )
    print(f"\n{len(gains)} shapes: geometric mean {geometric_mean(gains):.3f}, least {min(gains):.3f}\n")


def words(trial: Trial) -> str:
    shown = " ".join(word.partition("=")[2] for word in words_of(Config.from_json(trial.config)))
    name = str(trial.template).rpartition("/")[-1].removeprefix("aiter_bf16_")
    return shown if shown == name else f"{name} {shown}"


def print_profiles(races: Iterable[Race], settings: Settings) -> None:
    print("| m x n x k | whose | bound | GHz | clk of a k-step | prologue and epilogue clk | main loop us | all us |")
    print("|---|---|---|---|---|---|---|---|")
    for race in races:
        for whose, trial in (("hktune", race.ours), ("rival", race.theirs)):
            profile, modelled = modelled_trial(trial, settings)
            prologue_clk, _, epilogue_clk = profile.at(1, modelled.latency_clk)
            step_clk = modelled.clocks["step"]
            ends_clk = prologue_clk + epilogue_clk - profile.peeled_steps * step_clk
            sizes = f"{race.problem.m} x {race.problem.n} x {race.problem.k}"
            print(
                f"| {sizes} | {whose} | {modelled.bound} | {modelled.clock_ghz:.2f} | {step_clk:.0f} | {ends_clk:.0f} "
                f"| {modelled.loop_us:.1f} | {modelled.timing.time_us:.1f} |"
            )


def modelled_trial(trial: Trial, settings: Settings) -> tuple[Profile, Modelled]:
    """What `trial` is made of, from the profile that its proof left."""
    path, space = spaces()[str(trial.template)]
    config, template = Config.from_json(trial.config), space.template.for_operation(trial.operation)
    bench = EmulatedBench(path, trial.seed or 0, settings)
    attempt = bench()(Candidate(config, space.template.code_operation(trial.operation)))
    if attempt.profile is None:
        raise SystemExit(f"{words(trial)} is no longer right: {attempt.failure}")
    launch = template.launch(config, trial.problem)
    order = tile_order(template.order(config), DEFAULT_BOARD.arch)
    tile = template.tile(config)
    return attempt.profile, modelled_time(attempt.profile, trial.problem, launch, tile, DEFAULT_BOARD, order)


if __name__ == "__main__":
    main()
