"""How fast the emulator is: wave instructions per second, and seconds per problem, on one core.

    python benchmarks/emulator_speed.py [--repeats 5]

Runs the seeds of the space (the first: 256x256 blocks, 8 waves) on 512x512x512 and on their proof problems,
once recording a trace and once not. Compiles come from the object cache where they can. The best of the repeats is
printed: other programs only ever add to it.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import numpy as np

from hktune.compile import hip_compiler
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
) -> tuple[float, EmulatedDevice]:
    """Seconds of one launch on random operands, without loading, allocation and checking; and the device."""
    device = EmulatedDevice(space.arch.name, record_trace=record_trace, find_hazards=find_hazards)
    kernel = device.load(code.data, code.symbol)
    m, n, k = problem.m, problem.n, problem.k
    values: dict[str, Any] = {"m": m, "n": n, "k": k, "lda": k, "ldb": k, "ldc": n}
    rng = np.random.default_rng(0)
    for name, size in (("a", m * k), ("bt", n * k), ("c", m * n)):
        values[name] = device.allocate(2 * size)
        device.write(values[name], rng.integers(0x3F00, 0x3F80, size, dtype=np.uint16))
    launch = space.template.launch(config, problem)
    values |= {"bias": None, "workspace": device.allocate(launch.workspace_bytes) if launch.workspace_bytes else None}
    binding = {argument.name: values[argument.name] for argument in launch.arguments}
    started = time.perf_counter()
    device.launch(kernel, launch, binding)
    return time.perf_counter() - started, device


def wave_instructions(space: SearchSpace, config: Config, code: CodeObject, problem: Problem) -> int:
    """Instructions that all waves execute together: workgroup 0's, times the workgroups."""
    trace = launched(space, config, code, problem, record_trace=True)[1].trace
    assert trace is not None
    x, y, z = space.template.launch(config, problem).grid
    return sum(len(wave.steps) for wave in trace.waves) * x * y * z


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    space = load_space(DEFAULT_SPACE)
    compiler = hip_compiler(Settings.from_environment(os.environ))
    print(f"{'problem':>22} {'wave instr.':>11} {'plain s':>8} {'traced s':>8} {'proof s':>8} {'instr./s':>9}  config")
    for config in space.seeds:
        code = compiler.compile(space.template.render(config), 120.0)
        if isinstance(code, Failure):
            raise SystemExit(f"{config}: {code.detail}")
        problems = (PROBLEM, space.template.proof_problems(config)[0].problem)
        for problem in (problem for problem in problems if space.is_legal(config, problem)):
            count = wave_instructions(space, config, code, problem)
            plain, traced, proof = (
                min(launched(space, config, code, problem, *how)[0] for _ in range(repeats))
                for how in ((False, False), (True, False), (True, True))
            )
            times = f"{plain:8.3f} {traced:8.3f} {proof:8.3f}"
            print(f"{problem!s:>22} {count:11d} {times} {count / plain:9.0f}  {config!r}")


if __name__ == "__main__":
    main()
