"""Kernels that do an epilogue next to a product of the vendor's library and the epilogue behind it, on one NVIDIA GPU.

    python benchmarks/epilogues.py DIR [--trials N] [--problems "bf16.nt+bias+gelu 2048x14336x4096" ...]

First `hktune tune` searches DIR for so many trials of each problem (0: what DIR has is enough). Then the three fastest
kernels of each are timed, cold, in rounds that they share with these ways to have the same of torch:

    compiled   torch's product, and one kernel that Inductor made of all steps behind it: what torch.compile does
    eager      torch's product, and torch's own kernels behind it; where torch has a function for all, that
    library    the fastest of cuBLASLt's algorithms for all steps together, of the eight that it names first

Printed are the kernel's time and the time of each way over it: above 1 the kernel is faster. A kernel whose C is not
torch's, or within the bounds of a proof, ends the script.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import torch
from torch.nn import functional

import hktune
from hktune.compile import compiler_for
from hktune.core.config import Config
from hktune.core.errors import DeviceError
from hktune.core.operand import factors_of
from hktune.core.operation import Operation
from hktune.core.outcome import Status, Timing
from hktune.core.problem import Problem
from hktune.core.problem_text import problem_of
from hktune.core.settings import settings_here
from hktune.core.shipped import SPACE_OF
from hktune.core.trial import Trial
from hktune.core.variant import CodeObject
from hktune.device.device import Kernel, TimedDevice
from hktune.device.opening import open_device
from hktune.device.vendor_libraries import vendor_libraries
from hktune.measure.arena import OperandSet
from hktune.measure.baseline import TorchBaseline, torch_stream
from hktune.measure.measured import MeasuredStopwatch
from hktune.measure.stopwatch import Attempt, Side, attempt_of_algorithm
from hktune.measure.torch_epilogue import product_of
from hktune.space import load_space
from hktune.store import read_trials
from hktune.template.templates import Templates

ROWS = (16, 128, 2048, 8192)
LAYERS = (
    *("bf16.nt+silu+gated 14336x4096", "bf16.nt+silu+gated 28672x8192"),
    *("bf16.nt+residual 4096x4096", "bf16.nt+residual 4096x14336", "bf16.nt+residual 8192x28672"),
    "bf16.nt+bias+gelu 16384x4096",
)
"""Gate and up of Llama-3 8B and 70B, attention's output and down of 8B, down of 70B; the first of a GPT's two."""
FINALISTS = 3
ALGORITHMS = 8
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
        gates, up = value.chunk(2, dim=1) if operation.is_gated else (value, None)
        for activation in operation.activations:
            gates = ACTIVATED[activation](gates)
        value = gates if up is None else gates * up
        c.copy_(value if residual is None else value + residual)

    return steps


def main() -> None:
    """Tune, time, and print a line for each problem, and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--trials", type=int, default=32, metavar="N")
    parser.add_argument("--problems", nargs="+", type=problem_of, metavar="PROBLEM")
    options = parser.parse_args()
    problems = options.problems or [
        problem_of(f"{operation} {m}x{layer}") for operation, layer in map(str.split, LAYERS) for m in ROWS
    ]
    if options.trials:
        hktune.tune(problems, out=options.directory, device="cuda", gpus=1, trials=options.trials, progress=False)
    bench = Bench(problems, read_trials(options.directory / "trials.csv"))
    print("| problem | us | compiled | eager | library |\n|---|---|---|---|---|")
    lines = {problem: bench.line(problem) for problem in problems}
    for operation in dict.fromkeys(problem.operation for problem in problems):
        of_operation = [line for problem, line in lines.items() if problem.operation == operation]
        means = [geometric_mean(line[way] for line in of_operation) for way in ("compiled", "eager")]
        print(f"| {operation}, geometric mean | | {means[0]:.3f} | {means[1]:.3f} | |", flush=True)


class Bench:
    """One GPU, the kernels of the rows of a run, and torch's ways."""

    def __init__(self, problems: Sequence[Problem], rows: Sequence[Trial]) -> None:
        settings, device = settings_here(), open_device("cuda")
        if not isinstance(device, TimedDevice):
            raise DeviceError("the device has no clock of its own")
        self._device, self._rows = device, rows
        self._template = load_space(SPACE_OF[device.identity.arch]).template
        self._compiler = compiler_for(self._template.language, settings)
        self._libraries = {library.name: library for library in vendor_libraries("cuda", settings)}
        self._stopwatch = MeasuredStopwatch(
            device=device,
            templates=Templates(self._template),
            loaded=self._loaded,
            baselines=(CompiledBaseline(), TorchBaseline("cublas", fused=True), TorchBaseline("cublaslt")),
            problems=problems,
            libraries=self._libraries,
        )

    def line(self, problem: Problem) -> dict[str, float]:
        """The time of each way over that of the fastest kernel, which is printed too."""
        confirmation = self._stopwatch.confirm(self._finalists(problem), problem, self._algorithms(problem))
        timings = [outcome for outcome in confirmation.finalists if isinstance(outcome, Timing)]
        if len(timings) < len(confirmation.finalists) or not timings:
            raise DeviceError(f"{problem}: {confirmation.finalists}")
        best = min(timings, key=lambda timing: timing.time_us)
        assert best.baseline_us is not None
        ratio = best.baseline_us / best.time_us
        own = {name: each for name, each in confirmation.rivals.items() if "torch" in name}
        library = max((each for name, each in confirmation.rivals.items() if name not in own), default=None)
        line = {"compiled": ratio, "eager": ratio / max(own.values())}
        last = f"{ratio / library:.3f}" if library else ""
        print(f"| {problem} | {best.time_us:.1f} | {ratio:.3f} | {line['eager']:.3f} | {last} |", flush=True)
        return line

    def _finalists(self, problem: Problem) -> list[Attempt]:
        """The kernels with the least times in the run's rows."""
        rows = [
            row
            for row in self._rows
            if row.problem == problem and row.is_kernel and row.status is Status.OK and not row.left_early
        ]
        chosen = list(dict.fromkeys(row.config for row in sorted(rows, key=lambda row: row.time_us or 0.0)))[:FINALISTS]
        return [Attempt(Config.from_json(config), operation=problem.operation.code) for config in chosen]

    def _algorithms(self, problem: Problem) -> list[Side]:
        return [
            (str(each), attempt_of_algorithm(each, problem.operation))
            for library in self._libraries.values()
            for each in library.algorithms(problem)[:ALGORITHMS]
        ]

    def _loaded(self, attempt: Attempt) -> Kernel:
        template = self._template.for_operation(attempt.operation)
        code: Any = self._compiler.compile(template.render(attempt.config), COMPILE_S)
        if not isinstance(code, CodeObject):
            raise DeviceError(f"{attempt.config.id}: {code}")
        return self._device.load(code.data, code.symbol)


if __name__ == "__main__":
    main()
