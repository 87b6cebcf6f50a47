"""`hktune bench`: one config on a GPU, proved and timed next to the vendor's library."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from hktune.commands.arguments import (
    add_aiter,
    add_cache,
    add_config_words,
    add_device,
    add_operation,
    add_prebuilt,
    add_seed,
    add_space,
    problem,
    settings_of,
)
from hktune.commands.parser import DONE, FAILED, Command
from hktune.core.errors import InputError
from hktune.core.outcome import Failure, Timing
from hktune.core.problem import Problem

if TYPE_CHECKING:
    from hktune.measure.stopwatch import Attempt
    from hktune.workers.gpu_worker import ContainedStopwatch


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune bench`."""
    add_space(parser, "the search space (default: the device's own)")
    add_device(parser, ("hip", "cuda"), "default: the one here")
    parser.add_argument(
        "--problem", type=problem, action="append", metavar="MxNxK", help="may be given again; without: only proved"
    )
    add_prebuilt(parser, "take the object from what hktune build left")
    add_aiter(parser)
    add_cache(parser)
    add_operation(parser, "prove the code of this operation (default: that of --problem, else the first)")
    add_seed(parser, "the random operands")
    add_config_words(parser)


def _run(options: argparse.Namespace) -> int:
    """Prove and time; 1 when the config fails."""
    from hktune.commands.asked_code import space_for
    from hktune.commands.config_words import ConfigWords
    from hktune.core.candidate import Candidate
    from hktune.report.heartbeat import working
    from hktune.space import load_space, require_legal
    from hktune.tuning.benches.device_choice import choose_device
    from hktune.tuning.benches.gpu_bench import GpuBench

    if options.cache == "warm" and not options.problem:
        raise InputError("--cache warm: nothing is timed without a problem: pass --problem MxNxK, or leave it out")
    settings = settings_of(options)
    kind, space_file = choose_device(options.device, options.space, settings)
    if kind == "emulated":
        raise InputError("no GPU was found that this space is for: hktune verify proves on the emulated device")
    space = load_space(space_file)
    words = ConfigWords(options.config)
    config = words.config(space)
    problems: list[Problem] = options.problem or []
    space = space_for(space, options.operation, problems)
    require_legal(space, config, [None, *problems])
    if note := words.note(space):
        print(note)
    bench = GpuBench(kind, space_file, options.seed, settings, prebuilt=options.prebuilt, cache=options.cache)
    work = bench.open(problems, {})
    try:
        with working(lambda: f"compiling and proving {config.id[:8]}"):
            attempt = work.stopwatch.prove(bench()(Candidate(config, space.template.operation)))
        if attempt.failure:
            print(f"{attempt.failure.status}: {attempt.failure.detail}")
            return FAILED
        print(f"proved as {space.template.operation}: relative error {attempt.relative_error:.2e}")
        timed = [_timed(work.stopwatch, attempt, problem) for problem in problems]
        return DONE if all(timed) else FAILED
    finally:
        work.close()


ALGORITHMS_MAX = 8
"""So many of the vendor's algorithms are measured with the config: those that the libraries name first."""


def _timed(stopwatch: ContainedStopwatch, attempt: Attempt, problem: Problem) -> bool:
    """Print the attempt's time on `problem`; whether it has one."""
    from hktune.measure.stopwatch import attempt_of_algorithm
    from hktune.report.heartbeat import working

    with working(lambda: f"measuring {problem}"):
        algorithms = stopwatch.algorithms(problem)[:ALGORITHMS_MAX]
        sides = [(str(each), attempt_of_algorithm(each, problem.operation)) for each in algorithms]
        confirmation = stopwatch.confirm([attempt], problem, sides)
    [outcome] = confirmation.finalists
    if isinstance(outcome, Failure):
        print(f"{problem}: {outcome.status}: {outcome.detail}")
        return False
    print(f"{problem}: {'; '.join(_words(outcome))}")
    for name, ratio in confirmation.rivals.items():
        print(f"    {name}: {ratio:.4f}x {outcome.baseline}")
    return True


def _words(timing: Timing) -> list[str]:
    """The time, and what else was seen while it was taken."""
    seen = [f"{timing.time_us:.2f} us", *([timing.note] if timing.note else [])]
    seen += [f"GPU {timing.gpu}"] if timing.gpu is not None else []
    seen += [f"{timing.clock_mhz} MHz"] if timing.clock_mhz is not None else []
    seen += [f"{timing.power_w:.0f} W"] if timing.power_w is not None else []
    return seen + ([f"throttled: {timing.throttled}"] if timing.throttled else [])


COMMAND = Command(
    "bench",
    "prove one config on a GPU and time it next to the vendor's library",
    _add_options,
    _run,
    examples=(
        "hktune bench block_m=128 block_n=128 split=1 --problem 4096x4096x4096",
        "hktune bench out/h100:c8c8c0f5 --problem 1024x28672x4096",
        "hktune bench --device cuda --problem 16x4096x4096 --problem 4096x4096x4096",
    ),
    failed="the config fails, or has no time on a problem",
)
