"""How fast the emulator is: wave instructions per second, and CPU seconds per problem, on one core.

    python benchmarks/emulator_speed.py [--repeats 5] [--workers N]

Runs the seeds of the space (the first: 256x256 blocks, 8 waves) on 512x512x512 and on their proof problems,
once recording a trace, once looking for hazards too, and once with neither. Compiles come from the object cache where
they can. The best of the repeats is printed: other programs only ever add to it. The last line has the sums.

With --workers, only the first seed runs, on 4096x4096x256 (256 workgroups) and with hazards looked for: in turn on one
core and on N, wall clock.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hktune.compile import hip_compiler
from hktune.compile.compiler import Compiler
from hktune.core.config import Config
from hktune.core.outcome import Failure
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import DEFAULT_SPACE
from hktune.core.variant import CodeObject
from hktune.device.emulated import EmulatedDevice
from hktune.space import SearchSpace, load_space

PROBLEM = Problem(512, 512, 512)


def launched(
    space: SearchSpace,
    config: Config,
    code: CodeObject,
    problem: Problem,
    record_trace: bool = False,
    find_hazards: bool = False,
    workers: int = 1,
    clock: Callable[[], float] = time.process_time,
) -> tuple[float, EmulatedDevice]:
    """CPU seconds of one launch on random operands, without loading, allocation and checking; and the device."""
    device = EmulatedDevice(space.arch.name, record_trace=record_trace, find_hazards=find_hazards, workers=workers)
    kernel = device.load(code.data, code.symbol)
    m, n, k = problem.m, problem.n, problem.k
    values: dict[str, Any] = {"m": m, "n": n, "k": k, "lda": k, "ldb": k, "ldc": n}
    rng = np.random.default_rng(0)
    for name, size in (("a", m * k), ("b", n * k), ("c", m * n)):
        values[name] = device.allocate(2 * size)
        device.write(values[name], rng.integers(0x3F00, 0x3F80, size, dtype=np.uint16))
    launch = space.template.launch(config, problem)
    values |= {"bias": None, "workspace": device.allocate(launch.workspace_bytes) if launch.workspace_bytes else None}
    binding = launch.bound(values)
    started = clock()
    device.launch(kernel, launch, binding)
    return clock() - started, device


def wave_instructions(space: SearchSpace, config: Config, code: CodeObject, problem: Problem) -> int:
    """Instructions that all waves execute together: workgroup 0's, times the workgroups."""
    trace = launched(space, config, code, problem, record_trace=True)[1].trace
    assert trace is not None
    x, y, z = space.template.launch(config, problem).grid
    return sum(len(wave.steps) for wave in trace.waves) * x * y * z


def on_several_cores(space: SearchSpace, compiler: Compiler, workers: int, repeats: int) -> None:
    """Print the wall clock of a large launch on one core and on several."""
    config, problem = space.seeds[0], Problem(4096, 4096, 256)
    code = compiler.compile(space.template.render(config), 120.0)
    if isinstance(code, Failure):
        raise SystemExit(f"{config}: {code.detail}")
    spent_s: dict[int, list[float]] = {1: [], workers: []}
    for _ in range(repeats):
        for count, each in spent_s.items():
            seconds, _ = launched(space, config, code, problem, False, True, count, time.perf_counter)
            each.append(seconds)
    for count, each in spent_s.items():
        print(f"{problem}, hazards looked for, {count} workers: best {min(each):.2f} s of {len(each)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    repeats, space = options.repeats, load_space(DEFAULT_SPACE)
    compiler = hip_compiler(Settings.from_environment(os.environ))
    if options.workers:
        on_several_cores(space, compiler, options.workers, repeats)
        return
    print(f"{'problem':>22} {'wave instr.':>11} {'plain s':>8} {'traced s':>8} {'proof s':>8} {'instr./s':>9}  config")
    totals = [0.0] * 3
    for config in space.seeds:
        code = compiler.compile(space.template.render(config), 120.0)
        if isinstance(code, Failure):
            raise SystemExit(f"{config}: {code.detail}")
        problems = (PROBLEM, space.template.proof_problems(config)[0].problem)
        for problem in (problem for problem in problems if space.is_legal(config, problem)):
            count = wave_instructions(space, config, code, problem)
            spent_s = [
                min(launched(space, config, code, problem, *how)[0] for _ in range(repeats))
                for how in ((False, False), (True, False), (True, True))
            ]
            totals = [total + each for total, each in zip(totals, spent_s, strict=True)]
            times = " ".join(f"{each:8.3f}" for each in spent_s)
            print(f"{problem!s:>22} {count:11d} {times} {count / spent_s[0]:9.0f}  {config!r}")
    print(f"{'all':>34} " + " ".join(f"{total:8.3f}" for total in totals))


if __name__ == "__main__":
    main()
