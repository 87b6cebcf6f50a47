"""Kernels that do an epilogue next to a product of the vendor's library and the epilogue behind it, on one NVIDIA GPU.

    python benchmarks/epilogues.py [--steps N] [--also "block_m=64 block_n=224" ...]
                                   [--problems "bf16.nt+bias+gelu 2048x14336x4096" ...]

The seeds of each problem, and configs given by what is not the default, are compiled, in parallel, and timed. Then, so
many times, what is one step away from the two fastest. The three fastest of all are timed again, cold, in rounds that
they share with these ways to have the same of torch:

    compiled   torch's product, and one kernel that Inductor made of all steps behind it: what torch.compile does
    eager      torch's product, and torch's own kernels behind it; where torch has a function for all, that
    library    the fastest of cuBLASLt's algorithms for all steps together, of the eight that it names first

Printed are the kernel's time, the time of each way over it (above 1 the kernel is faster), and the kernel's config as
far as it is not the default. A kernel whose C is not torch's, or within the bounds of a proof, is left out and printed.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from multiprocessing import get_context
from statistics import geometric_mean

import torch
from torch.nn import functional

from hktune.compile import compiler_for
from hktune.core.config import Config
from hktune.core.errors import DeviceError
from hktune.core.operand import factors_of
from hktune.core.operation import Operation
from hktune.core.outcome import Failure, Timing
from hktune.core.problem import Problem
from hktune.core.problem_text import problem_of
from hktune.core.settings import settings_here
from hktune.core.shipped import SPACE_OF
from hktune.core.variant import CodeObject
from hktune.device.device import Kernel, TimedDevice
from hktune.device.opening import open_device
from hktune.device.vendor_libraries import vendor_libraries
from hktune.measure.arena import OperandSet
from hktune.measure.baseline import TorchBaseline, torch_stream
from hktune.measure.measured import MeasuredStopwatch
from hktune.measure.stopwatch import Attempt, Side, attempt_of_algorithm
from hktune.measure.torch_epilogue import gates_and_up, product_of
from hktune.space import load_space
from hktune.template.templates import Templates

ROWS = (16, 128, 2048, 8192)
LAYERS = (
    *("bf16.nt+silu+gated 14336x4096", "bf16.nt+silu+gated 28672x8192"),
    *("bf16.nt+residual 4096x4096", "bf16.nt+residual 4096x14336", "bf16.nt+residual 8192x28672"),
    "bf16.nt+bias+gelu 16384x4096",
)
"""Gate and up of Llama-3 8B and 70B, attention's output and down of 8B, down of 70B; the first of a GPT's two."""
FINALISTS = 3
STARTS, STEPS = 2, 12
"""What is one step away from so many is tried; of that, so many by chance."""
ALGORITHMS = 8
PROCESSES = 15
ARCH = "sm90a"
COMPILE_S = 120.0
ACTIVATED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
}


OptionalTensor = torch.Tensor | None


class CompiledBaseline:
    """Baseline: torch's product without steps into a matrix that all sets share, as a model's step would, and one
    kernel of Inductor's that makes C of it."""

    name = "compiled"

    def prepare(self, problem: Problem, operands: OperandSet, stream: int) -> Callable[[OperandSet], None]:
        """See Baseline."""
        operation, external = problem.operation, torch_stream(stream)
        product = product_of(operation, operands)
        product = torch.empty_like(operands["c"]) if product is None else product
        behind = torch.compile(steps_of(operation), dynamic=False)

        def enqueue(operands: OperandSet) -> None:
            a, b = factors_of(operation, operands)
            with torch.cuda.stream(external), torch.no_grad():
                torch.mm(a, b, out=product)
                behind(product, operands.get("bias"), operands.get("residual"), operands["c"])

        enqueue(operands)
        external.synchronize()
        return enqueue


def steps_of(operation: Operation) -> Callable[..., None]:
    """What makes C of the product, as a model would write it."""

    def steps(product: torch.Tensor, bias: OptionalTensor, residual: OptionalTensor, c: torch.Tensor) -> None:
        value = product if bias is None else product + bias
        gates, up = gates_and_up(operation, value) if operation.is_gated else (value, None)
        for activation in operation.activations:
            gates = ACTIVATED[activation](gates)
        value = gates if up is None else gates * up
        c.copy_(value if residual is None else value + residual)

    return steps


def main() -> None:
    """Search, time, and print a line for each problem, and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2, metavar="N")
    parser.add_argument("--also", nargs="+", default=[], metavar="CONFIG")
    parser.add_argument("--problems", nargs="+", type=problem_of, metavar="PROBLEM")
    options = parser.parse_args()
    problems = options.problems or [
        problem_of(f"{operation} {m}x{layer}") for operation, layer in map(str.split, LAYERS) for m in ROWS
    ]
    bench = Bench(problems)
    bench.search(options.steps, options.also)
    print("| problem | us | compiled | eager | library | config |\n|---|---|---|---|---|---|")
    lines = {problem: bench.line(problem) for problem in problems}
    for operation in dict.fromkeys(problem.operation for problem in problems):
        of_operation = [line for problem, line in lines.items() if problem.operation == operation]
        means = [geometric_mean(line[way] for line in of_operation) for way in ("compiled", "eager")]
        print(f"| {operation}, geometric mean | | {means[0]:.3f} | {means[1]:.3f} | | |", flush=True)


def built(operation: Operation, config: Config) -> CodeObject | Failure:
    """The kernel of a config that has been filled in for `operation`. Called in a process of its own."""
    template = load_space(SPACE_OF[ARCH]).for_operation(operation).template
    return compiler_for(template.language, settings_here()).compile(template.render(config), COMPILE_S)


class Bench:
    """One GPU, the kernels of some problems, and torch's ways."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        device = open_device("cuda")
        if not isinstance(device, TimedDevice):
            raise DeviceError("the device has no clock of its own")
        self._device, self._problems = device, problems
        self._space = load_space(SPACE_OF[ARCH])
        self._libraries = {library.name: library for library in vendor_libraries("cuda", settings_here())}
        self._kernels: dict[tuple[Operation, Config], Kernel] = {}
        self._times_us: dict[Problem, dict[Config, float]] = {problem: {} for problem in problems}
        self._stopwatch = MeasuredStopwatch(
            device=device,
            templates=Templates(self._space.template),
            loaded=lambda attempt: self._kernels[attempt.operation.code, attempt.config],
            baselines=(CompiledBaseline(), TorchBaseline("cublas", fused=True), TorchBaseline("cublaslt")),
            problems=problems,
            libraries=self._libraries,
        )

    def search(self, steps: int, also: Sequence[str]) -> None:
        """Times the seeds of each problem and `also`, and `steps` times neighbours of the fastest."""
        draw, given = random.Random(0), [self._space.parse(words.split()) for words in also]
        domains = {problem: self._space.domain(problem) for problem in self._problems}
        self._time({problem: [*each.seeds, *filter(each.is_legal, given)] for problem, each in domains.items()})
        for _ in range(steps):
            self._time({problem: self._neighbours(problem, draw) for problem in self._problems})

    def _neighbours(self, problem: Problem, draw: random.Random) -> list[Config]:
        known, domain = self._times_us[problem], self._space.domain(problem)
        near = chain.from_iterable(map(domain.neighbours, self._fastest(problem)[:STARTS]))
        fresh = sorted({config for config in near if config not in known}, key=lambda config: config.json)
        return draw.sample(fresh, min(STEPS, len(fresh)))

    def _fastest(self, problem: Problem) -> list[Config]:
        known = self._times_us[problem]
        return sorted(known, key=known.__getitem__)

    def _time(self, chosen: dict[Problem, Sequence[Config]]) -> None:
        """Builds and times configs of each problem; what fails is printed."""
        self._build({(problem.operation.code, config): None for problem, each in chosen.items() for config in each})
        for problem, configs in chosen.items():
            for config in configs:
                if (problem.operation.code, config) not in self._kernels:
                    continue
                timing = self._stopwatch.time(Attempt(config, operation=problem.operation), problem)
                if isinstance(timing, Timing):
                    self._times_us[problem][config] = timing.time_us
                else:
                    print(f"{problem} {config.json}: {timing}", flush=True)

    def _build(self, wanted: Iterable[tuple[Operation, Config]]) -> None:
        fresh = [each for each in wanted if each not in self._kernels]
        with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
            for (operation, config), code in zip(fresh, pool.map(built, *zip(*fresh, strict=True)), strict=True):
                if isinstance(code, Failure) or code.resources.spills:
                    print(f"{operation} {config.json}: {code if isinstance(code, Failure) else 'spills'}", flush=True)
                else:
                    self._kernels[operation, config] = self._device.load(code.data, code.symbol)

    def line(self, problem: Problem) -> dict[str, float]:
        """The time of each way over that of the fastest kernel, which is printed too."""
        finalists = [Attempt(each, operation=problem.operation) for each in self._fastest(problem)[:FINALISTS]]
        confirmation = self._stopwatch.confirm(finalists, problem, self._algorithms(problem))
        timings = {
            attempt.config: outcome
            for attempt, outcome in zip(finalists, confirmation.finalists, strict=True)
            if isinstance(outcome, Timing)
        }
        if len(timings) < len(finalists) or not timings:
            raise DeviceError(f"{problem}: {confirmation.finalists}")
        config, best = min(timings.items(), key=lambda each: each[1].time_us)
        assert best.baseline_us is not None
        ratio = best.baseline_us / best.time_us
        own = {name: each for name, each in confirmation.rivals.items() if "torch" in name}
        library = max((each for name, each in confirmation.rivals.items() if name not in own), default=None)
        line = {"compiled": ratio, "eager": ratio / max(own.values())}
        last = f"{ratio / library:.3f}" if library else ""
        usual = self._space.config({})
        told = " ".join(f"{name}={value}" for name, value in config.items() if value != usual[name])
        print(f"| {problem} | {best.time_us:.1f} | {ratio:.3f} | {line['eager']:.3f} | {last} | {told} |", flush=True)
        return line

    def _algorithms(self, problem: Problem) -> list[Side]:
        return [
            (str(each), attempt_of_algorithm(each, problem.operation))
            for library in self._libraries.values()
            for each in library.algorithms(problem)[:ALGORITHMS]
        ]


if __name__ == "__main__":
    main()
