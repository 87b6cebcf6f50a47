"""`hktune bench`: one config on a GPU, proved and timed beside the vendor's library."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hktune.errors import InputError
from hktune.model import Failure, Problem
from hktune.settings import Settings
from hktune.shipped import space_file

if TYPE_CHECKING:
    from hktune.contained import ContainedStopwatch
    from hktune.measure.stopwatch import Attempt


def add_bench(parser: argparse.ArgumentParser, problem: Callable[[str], object]) -> None:
    """The options of `hktune bench`."""
    parser.add_argument("--space", type=space_file, metavar="FILE", help="the search space (default: the device's own)")
    parser.add_argument("--device", choices=("auto", "hip", "cuda"), default="auto")
    parser.add_argument(
        "--problem", type=problem, action="append", metavar="MxNxK", help="may be given again; without: only proved"
    )
    parser.add_argument("--prebuilt", type=Path, metavar="DIR", help="take the object from what hktune build left")
    parser.add_argument("--cache", choices=("cold", "warm"), default="cold")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("config", nargs="*", metavar="PARAMETER=VALUE", help="what differs from the defaults")
    parser.set_defaults(run=run_bench)


def run_bench(options: argparse.Namespace) -> int:
    """Prove and time; 1 when the config fails."""
    from hktune.bench import GpuBench, choose_device
    from hktune.space import load_space, require_legal

    settings = Settings.from_environment(os.environ)
    kind, space_file = choose_device(options.device, options.space, settings)
    if kind == "emulated":
        raise InputError("no GPU was found that this space is for: hktune verify proves on the emulated device")
    space = load_space(space_file)
    config = space.parse(options.config)
    problems: list[Problem] = options.problem or []
    require_legal(space, config, [None, *problems])
    bench = GpuBench(kind, space_file, options.seed, settings, prebuilt=options.prebuilt, cache=options.cache)
    work = bench.open(problems, {})
    try:
        assert work.confirming is not None, "a GPU's bench confirms"
        attempt = work.confirming.prove(bench()(config))
        if attempt.failure:
            print(f"{attempt.failure.status}: {attempt.failure.detail}")
            return 1
        print(f"proved: relative error {attempt.relative_error:.2e}")
        timed = [_timed(work.confirming, attempt, problem) for problem in problems]
        return int(not all(timed))
    finally:
        work.close()


def _timed(stopwatch: ContainedStopwatch, attempt: Attempt, problem: Problem) -> bool:
    """Print the attempt's time on `problem`; whether it has one."""
    confirmation = stopwatch.confirm([attempt], problem)
    [outcome] = confirmation.finalists
    if isinstance(outcome, Failure):
        print(f"{problem}: {outcome.status}: {outcome.detail}")
        return False
    print(f"{problem}: {outcome.time_us:.2f} us; {outcome.note}")
    for name, ratio in confirmation.rivals.items():
        print(f"    {name}: {ratio:.4f}x {outcome.baseline}")
    return True
