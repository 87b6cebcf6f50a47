"""The vendor's algorithms on one GPU: what they are, what tuning makes of them, and what a served one costs.

    python benchmarks/vendor_algorithms.py [--kernels SECONDS] [--out DIR]

Run where the GPU is. It prints, in this order:
1. how many algorithms the libraries name, whether another process is told the same, and what needs more alignment;
2. `hktune tune --vendor-only` of six shapes: its seconds, what was proved, what the table chose;
3. `hktune tune` of four small shapes, for so many seconds of search (default 25; 0 leaves it out);
4. each table over torch's default and over the fastest algorithm of the library, by another stopwatch: graphs of calls
   over operands in turn, which are replayed in turn;
5. what a call costs the host that an algorithm serves, beside torch's own call of the same product.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

import hktune
from hktune.core.config import Config
from hktune.core.launch_rule import LaunchRule
from hktune.core.operation import operation_of
from hktune.core.outcome import Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.device import cublaslt
from hktune.device.opening import open_device
from hktune.device.vendor_libraries import vendor_libraries
from hktune.dispatch import write_table
from hktune.runtime import LoadedTable
from hktune.store import read_trials
from hktune.tables import build_table

VENDOR_ONLY = ("512x1024x16384", "1000x1000x1000", "128x4096x1024", "1024x3584x8192", "4096x4096x4096", "16x4096x4096")
SMALL = ("768x1152x768", "256x1024x8192", "1200x896x1280", "64x2048x2048")
BIASED = "256x4096x4096+bias"
SETS_BYTES = 300 << 20
"""Operands in turn are so large together that no cache has them."""
ROUNDS, CALLS = 15, 400
KIND = "hip" if torch.version.hip else "cuda"
Call = Callable[[], object]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kernels", type=float, default=25.0, metavar="SECONDS")
    options.add_argument("--out", type=Path)
    options.add_argument("--list", action="store_true", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.list:
        print(json.dumps(listed()))
        return
    warnings.simplefilter("always")
    started = time.monotonic()
    out = asked.out or Path(tempfile.mkdtemp(prefix="vendor-algorithms-"))
    show_named()
    vendor = tuned("vendor only", (*VENDOR_ONLY, BIASED), out / "vendor", vendor_only=True)
    kernels = asked.kernels and tuned("kernels too", SMALL, out / "small", time_budget=asked.kernels)
    print(f"({time.monotonic() - started:.0f} s so far)", flush=True)
    compare("vendor only", vendor, hktune.load(vendor))
    if kernels:
        compare("kernels too", kernels, hktune.load(kernels))
    host_cost(vendor, out / "forced")
    print(f"{time.monotonic() - started:.0f} s in all")


def problems(texts: Sequence[str]) -> list[Problem]:
    """Shapes as MxNxK, with +bias where there is one."""
    return [
        Problem(*map(int, text.removesuffix("+bias").split("x")), operation_of("bf16.nt" + "+bias" * ("+" in text)))
        for text in texts
    ]


def listed() -> list[list[str]]:
    """What the libraries name for every shape, by handle."""
    libraries = vendor_libraries(KIND)
    wanted = problems((*VENDOR_ONLY, *SMALL, BIASED))
    return [[each.handle for library in libraries for each in library.algorithms(problem)] for problem in wanted]


def show_named() -> None:
    libraries = vendor_libraries(KIND)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}:", end=" ")
    print(", ".join(f"{each.name} {each.version}" for each in libraries) or "no vendor library", flush=True)
    here = listed()
    child = subprocess.run([sys.executable, __file__, "--list"], capture_output=True, text=True, check=False)
    told = json.loads(child.stdout) if child.returncode == 0 else child.stderr[-300:]
    print(f"another process is told the same: {told == here}{'' if told == here else f' ({str(told)[:200]})'}")
    for problem, handles in zip(problems((*VENDOR_ONLY, *SMALL, BIASED)), here, strict=True):
        start = time.perf_counter()
        [found] = [library.algorithms(replace(problem, m=problem.m + 8)) for library in libraries][:1] or [[]]
        needs = sorted({each.workspace_bytes >> 10 for each in found})
        print(
            f"  {problem}: {len(handles)}, asked in {(time.perf_counter() - start) * 1e3:.1f} ms; KiB needed: {needs}"
        )
    if KIND == "cuda":
        aligned = sum(map(len, here))
        cublaslt.ALIGNMENT_BYTES = 256
        print(f"with operands on 256 bytes: {sum(map(len, listed()))}, on 16: {aligned}", flush=True)
        cublaslt.ALIGNMENT_BYTES = 16


def tuned(what: str, shapes: Sequence[str], out: Path, **options: object) -> Path:
    """Tune, and print what came of it."""
    start = time.monotonic()
    result = hktune.tune(list(shapes), out=out, device=KIND, gpus=1, progress=False, **options)  # type: ignore[arg-type]
    trials = read_trials(out / "trials.csv")
    statuses = Counter((bool(row.library), str(row.status), str(row.stage)) for row in trials)
    print(f"\n{what}: {time.monotonic() - start:.1f} s; (algorithm, status, stage): {dict(statuses)}")
    for line in (*result.notes, *result.stopped):
        print(f"  note: {line}")
    for row in [row for row in trials if row.library and row.status is not Status.OK][:4]:
        print(f"  {row.status} on {row.problem}: {VendorAlgorithm.of_config(config_of(row))}: {row.detail}")
    for entry in result.table.entries:
        chosen = entry.vendor_algorithm.known if entry.vendor_algorithm else entry.choice
        times = f"{entry.time_us:.2f} us, default {entry.baseline_us:.2f}, vendor's best {entry.vendor_best_us}"
        print(f"  {entry.problem}: {chosen}: {times}", flush=True)
    return out


def config_of(row: Trial) -> Config:
    return Config.from_json(row.config)


class Products:
    """Operands of one problem, as many sets as no cache has, and the ways to multiply them."""

    def __init__(self, problem: Problem) -> None:
        m, n, k = problem.m, problem.n, problem.k
        count = min(max(2, SETS_BYTES // problem.bytes), 64)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, device="cuda").bfloat16()

        self.problem = problem
        self.kept: list[object] = []
        self.sets = [
            (normal(m, k), normal(n, k), normal(n) if problem.operation.has_bias else None) for _ in range(count)
        ]

    def graph(self, product: Callable[[int], object]) -> torch.cuda.CUDAGraph:
        """All sets once."""
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            product(0)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for index in range(len(self.sets)):
                product(index)
        return graph

    def by_torch(self, index: int) -> Tensor:
        x, weight, bias = self.sets[index]
        return functional.linear(x, weight, bias)

    def by(self, table: LoadedTable) -> Callable[[int], Tensor]:
        return lambda index: table.linear(*self.sets[index])

    def by_algorithm(self, algorithm: VendorAlgorithm) -> torch.cuda.CUDAGraph:
        library = next(each for each in vendor_libraries(KIND) if each.name == algorithm.library)
        launch = library.prepare(algorithm, self.problem)
        out = torch.empty(self.problem.m, self.problem.n, dtype=torch.bfloat16, device="cuda")
        workspace = torch.empty(max(1, algorithm.workspace_bytes), dtype=torch.uint8, device="cuda")
        self.kept.append((launch, out, workspace))  # for as long as the graph may be replayed

        def product(index: int) -> None:
            x, weight, bias = self.sets[index]
            launch(x, weight, out, bias, workspace, torch.cuda.current_stream().cuda_stream)

        return self.graph(product)


def rounds_us(graphs: Sequence[torch.cuda.CUDAGraph], per_graph: int) -> list[list[float]]:
    """The time of each graph in each round, in us for one product."""
    times: list[list[float]] = [[] for _ in graphs]
    for number in range(ROUNDS + 3):
        for at in range(len(graphs)):
            index = (at + number) % len(graphs)
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graphs[index].replay()
            end.record()
            end.synchronize()
            if number >= 3:
                times[index].append(start.elapsed_time(end) * 1e3 / per_graph)
    return times


def compare(what: str, directory: Path, table: LoadedTable) -> None:
    """The table over torch's default and over the fastest algorithms, round by round."""
    rows = [row for row in read_trials(directory / "trials.csv") if row.library and row.has_time]
    table.warm()
    print(f"\n{what}, by another stopwatch: over torch's default, over the vendor's best of 3")
    ratios: tuple[list[float], list[float]] = ([], [])
    for problem in sorted({row.problem for row in rows}):
        products = Products(problem)
        own = sorted((row for row in rows if row.problem == problem), key=lambda row: row.time_us or 0.0)
        fastest = {row.config_id: VendorAlgorithm.of_config(config_of(row)) for row in own}
        graphs = [products.graph(products.by_torch), products.graph(products.by(table))]
        graphs += [products.by_algorithm(each) for each in list(fastest.values())[:3]]
        times = rounds_us(graphs, len(products.sets))
        default, ours, *others = [statistics.median(each) for each in times]
        over_default = statistics.median(a / b for a, b in zip(times[0], times[1], strict=True))
        over_best = min(others) / ours
        ratios[0].append(over_default)
        ratios[1].append(over_best)
        print(f"  {problem}: {ours:.2f} us, {over_default:.3f}, {over_best:.3f} (default {default:.2f} us)", flush=True)
    means = [statistics.geometric_mean(each) for each in ratios]
    print(f"  geometric means {means[0]:.3f} and {means[1]:.3f}, worst {min(ratios[0]):.3f} and {min(ratios[1]):.3f}")
    print(f"  {table.stats()}")


def host_cost(directory: Path, out: Path) -> None:
    """A table that has an algorithm for every shape, chosen or not: its products are right, and what calls cost."""
    trials = read_trials(directory / "trials.csv")
    fastest = {
        row.problem: row
        for row in sorted(trials, key=lambda row: -(row.time_us or 1e9))
        if row.library and row.has_time
    }
    forced = [replace(row, time_us=1e-3, time_us_low=1e-3, time_us_high=1e-3) for row in fastest.values()]
    out.mkdir(parents=True)
    write_table(build_table(forced, no_kernel, open_device(KIND).identity, "none", "0", "now"), {}, out)
    table = hktune.load(out)
    print("\nwhat a call costs the host, us, least and median of rounds: torch's own, and served by an algorithm")
    for problem in sorted(fastest):
        x, weight, bias = Products(replace(problem, m=problem.m)).sets[0]
        got = table.linear(x, weight, bias)
        right = x.double() @ weight.double().t() + (0.0 if bias is None else bias.double())
        error = float((got.double() - right).norm() / right.norm())
        calls: dict[str, Call] = {
            "torch": lambda x=x, weight=weight, bias=bias: functional.linear(x, weight, bias),
            "hktune": lambda x=x, weight=weight, bias=bias: table.linear(x, weight, bias),
        }
        costs = {name: [] for name in calls}  # type: dict[str, list[float]]
        for _ in range(ROUNDS):
            for name, call in calls.items():
                costs[name].append(enqueued_us(call))
        said = ", ".join(f"{name} {min(each):.2f} {statistics.median(each):.2f}" for name, each in costs.items())
        print(f"  {problem}: {said}; relative error {error:.1e}", flush=True)
    print(f"  {table.stats()}")


def enqueued_us(call: Call) -> float:
    """Of each of some calls that the device need not have done when they return."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    spent = time.perf_counter() - start
    torch.cuda.synchronize()
    return spent / CALLS * 1e6


def no_kernel(row: Trial) -> tuple[str, LaunchRule]:
    raise AssertionError(f"{row.problem} is of an algorithm")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
