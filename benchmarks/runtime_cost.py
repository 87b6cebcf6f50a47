"""What a call by a table costs the host, beside torch's own.

    python benchmarks/runtime_cost.py                          # no GPU: the launch itself is left out
    python benchmarks/runtime_cost.py --gpu results/<device>   # on a GPU, launches included, by that table

Without a GPU it times the lookup alone; every way in up to the device's launch, which is stubbed (the functions,
`matmul`, the layer, autocast, a compiled graph, the backward pass, a step of a layer); a call that an algorithm of the
vendor's library serves, whose function is one of libc's; torch's own on the same CPU tensors, which computes
16x16x16 as well; torch's own products while `hktune.enable()` is on; what no call can do without (the output's
allocation, and an autograd function that does nothing else); and the loading of a table of 1,000 entries. On a GPU it
times calls as they are enqueued, hktune's and torch's in turn, on the smallest kernel of the table, so that the device
keeps up; without and with a gradient, and a layer's forward and backward pass together. Of each call it prints the
least and the median of all rounds (other programs only ever add), and for torch's its median ratio to the call above,
round by round: above 1, torch takes longer.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import torch
from torch import Tensor
from torch.nn import functional

import hktune
from hktune.core.config import Config
from hktune.core.launch import Argument, Launch
from hktune.core.launch_rule import LaunchRule
from hktune.core.operation import BF16_NT, BF16_NT_BIAS, Operation
from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.trial import Trial
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.device import cublaslt, vendor_libraries
from hktune.device.device import CALL_OPERANDS, Kernel, PreparedLaunch
from hktune.device.emulated import EmulatedDevice
from hktune.dispatch import Entry, Table, read_table, write_table
from hktune.dispatch.choice import Choices
from hktune.dispatch.validate import validate
from hktune.tables import build_table

ROOT = Path(__file__).resolve().parent.parent
OBJECT = ROOT / "tests" / "recorded" / "naive_gemm" / "naive_gemm.hsaco"
LAYOUTS_OBJECT = OBJECT.with_name("naive_gemm_layouts.hsaco")
ENTRIES = 1000
M, N, K = 16, 16, 16
Call = Callable[[], object]
Rounds = dict[str, list[float]]


class Stub(EmulatedDevice):
    """Launches nothing."""

    def prepare(self, kernel: Kernel, launch: Launch, numbers: Mapping[str, int]) -> PreparedLaunch:
        super().prepare(kernel, launch, numbers)
        return nothing


def nothing(a: object, bt: object, c: object, bias: object, workspace: object, stream: int | None) -> None:
    del a, bt, c, bias, workspace, stream


def rounds_ns(calls: Mapping[str, Call], number: int, rounds: int = 100, settle: Call | None = None) -> Rounds:
    """The time of each call in each round, in which they take turns of `number` calls."""
    times: Rounds = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            if settle:
                settle()
            start = time.perf_counter_ns()
            for _ in range(number):
                call()
            times[name].append((time.perf_counter_ns() - start) / number)
    return times


def show(title: str, times: Rounds) -> None:
    """Prints a line for each call; torch's follows the one that it is compared with."""
    print(f"{title:<52}{'least':>10}{'median':>13}")
    above: list[float] = []
    for name, each in times.items():
        line = f"  {name:<48}{min(each):>10,.0f}{statistics.median(each):>10,.0f} ns"
        if name.startswith("torch"):
            ratio = statistics.median(torchs / ours for torchs, ours in zip(each, above, strict=True))
            line += f"   torch / hktune {ratio:.2f}"
        print(line)
        above = each


class Least(torch.autograd.Function):
    """What a call with a gradient cannot do without, as long as it is an autograd.Function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, None)
        return x.new_empty(x.shape[0], weight.shape[0])


least: Any = super(torch.autograd.Function, Least).apply  # as hktune calls its own, see operators.py


def table_of(entries: int) -> tuple[Table, dict[str, bytes]]:
    """So many shapes of a plain kernel, the first open to other M, and one of a kernel with bias."""
    data = OBJECT.read_bytes()
    identity, sha256 = EmulatedDevice().identity, hashlib.sha256(data).hexdigest()
    plain = Trial(
        trial=0, m=M, n=N, k=K, operation=BF16_NT, config_id=Config({}).id, config="{}", status=Status.OK,
        source=Source.MODELLED, time_us=1.0, object_sha256=sha256, template="naive_gemm", template_sha256="0" * 64,
    )  # fmt: skip
    trials = [replace(plain, k=K * number) for number in range(1, entries)]
    table = build_table(
        [*trials, replace(plain, n=2 * N, operation=BF16_NT_BIAS)], launch_of, identity, "clang", "0", "now"
    )
    first, *others = table.entries
    return msgspec.structs.replace(table, entries=(msgspec.structs.replace(first, m_to=64), *others)), {sha256: data}


def launch_of(row: Trial) -> tuple[str, LaunchRule]:
    bias = ["bias"] if row.operation.has_bias else []
    arguments = [Argument(name, "pointer") for name in ("a", "bt", "c", *bias)]
    sizes = [Argument(name, "u32") for name in ("n", "k")]
    rule = LaunchRule((-(-row.n // 64), "m", 1), (64, 1, 1), 0, (*arguments, *sizes))
    return "naive_gemm_bias" if bias else "naive_gemm", rule


def table_of_a_step() -> tuple[Table, dict[str, bytes]]:
    """The three products of a layer's step, each read as it is stored."""
    data = LAYOUTS_OBJECT.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    trials = [
        Trial(
            trial=0, m=M, n=N, k=K, operation=Operation("bf16", layout), config_id=Config({}).id, config="{}",
            status=Status.OK, source=Source.MODELLED, time_us=1.0, object_sha256=sha256, template="naive_gemm",
            template_sha256="0" * 64,
        )
        for layout in ("nt", "nn", "tn")
    ]  # fmt: skip
    return build_table(trials, launch_in_layout, EmulatedDevice().identity, "clang", "0", "now"), {sha256: data}


def launch_in_layout(row: Trial) -> tuple[str, LaunchRule]:
    pointers = [Argument(name, "pointer") for name in ("a", "b", "c")]
    numbers = [Argument(name, "u32") for name in ("n", "k", "lda", "ldb")]
    rule = LaunchRule((-(-row.n // 64), "m", 1), (64, 1, 1), 0, (*pointers, *numbers))
    return f"naive_gemm_{row.operation.layout}", rule


def load_stubbed(table: Table, objects: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_table(table, objects, Path(folder))
        hktune.load(folder, allow_modelled=True, device=Stub())


def step_costs(title: str) -> None:
    """Of a layer's forward and backward pass, for the gradient of its weight, and of its input too."""
    x, wanted = torch.randn(M, K).bfloat16(), torch.randn(M, K).bfloat16().requires_grad_()
    ours, theirs = hktune.Linear(K, N, bias=False), torch.nn.Linear(K, N, bias=False, dtype=torch.bfloat16)
    slope = torch.ones(M, N).bfloat16()
    calls: dict[str, Call] = {
        "hktune.Linear, dW": lambda: torch.autograd.grad(ours(x), ours.weight, slope),
        "torch.nn.Linear, dW": lambda: torch.autograd.grad(theirs(x), theirs.weight, slope),
        "hktune.Linear, dX and dW": lambda: torch.autograd.grad(ours(wanted), (wanted, ours.weight), slope),
        "torch.nn.Linear, dX and dW": lambda: torch.autograd.grad(theirs(wanted), (wanted, theirs.weight), slope),
    }
    show(f"host time of a step, {title}", rounds_ns(calls, 100))


def on_this_machine() -> None:
    torch.set_num_threads(1)
    table, objects = table_of(ENTRIES)
    with tempfile.TemporaryDirectory() as folder:
        write_table(table, objects, Path(folder))
        start = time.perf_counter()
        hktune.load(folder, allow_modelled=True, device=Stub())
        print(f"load a table of {len(table.entries)} entries: {(time.perf_counter() - start) * 1e3:.1f} ms")
        choices = Choices(validate(table, Path(folder), EmulatedDevice().identity, True))
    show(
        "lookup",
        rounds_ns(
            {
                "exact": lambda: choices.find(M, N, K, "bf16.nt"),
                "near": lambda: choices.find(M + 3, N, K, "bf16.nt"),
                "no entry": lambda: choices.find(M + 3, N, 7 * K + 1, "bf16.nt"),
            },
            500,
        ),
    )
    with torch.no_grad():
        host_costs("no gradients")
        other_ways_in(grad=False)
        enabled_costs()
    host_costs("a weight that requires a gradient", grad=True)
    other_ways_in(grad=True)
    step_costs("a table of nt")
    load_stubbed(*table_of_a_step())
    step_costs("a table of nt, nn and tn")
    with torch.no_grad():
        algorithm_costs()


def host_costs(title: str, grad: bool = False) -> None:
    x, weight = torch.randn(M, K).bfloat16(), torch.randn(N, K).bfloat16().requires_grad_(grad)
    wide, bias = torch.randn(2 * N, K).bfloat16().requires_grad_(grad), torch.randn(2 * N).bfloat16()
    ours, theirs = hktune.Linear(K, N, bias=False), torch.nn.Linear(K, N, bias=False, dtype=torch.bfloat16)
    calls: dict[str, Call] = {
        "allocating the output": lambda: x.new_empty(M, N),
        "an autograd function that allocates and saves": lambda: least(x, weight),
        "hktune.linear, launch left out": lambda: hktune.linear(x, weight),
        "torch linear, 16x16x16 on the CPU": lambda: functional.linear(x, weight),
        "hktune.linear with bias, launch left out": lambda: hktune.linear(x, wide, bias),
        "torch linear with bias, 16x32x16 on the CPU": lambda: functional.linear(x, wide, bias),
        "hktune.Linear, launch left out": lambda: ours(x),
        "torch.nn.Linear, 16x16x16 on the CPU": lambda: theirs(x),
    }
    x_left = torch.randn(M, K + 8).bfloat16()
    left, torchs = hktune.Linear(K + 8, N, bias=False), torch.nn.Linear(K + 8, N, bias=False, dtype=torch.bfloat16)
    calls |= {
        "hktune.linear, a shape left to torch": lambda: hktune.linear(x_left, left.weight),
        "torch linear, the same": lambda: functional.linear(x_left, left.weight),
        "hktune.Linear, a shape left to torch": lambda: left(x_left),
        "torch.nn.Linear, the same": lambda: torchs(x_left),
    }
    show(f"host time of a call, {title}", rounds_ns(calls, 100))


def other_ways_in(grad: bool) -> None:
    """Of a call: matmul, autocast, a compiled graph, and with `grad` the backward pass."""
    title = "a weight that requires a gradient" if grad else "no gradients"
    x, weight = torch.randn(M, K).bfloat16(), torch.randn(N, K).bfloat16().requires_grad_(grad)
    b = torch.randn(N, K).bfloat16().t().requires_grad_(grad)
    x_float, weight_float = torch.randn(M, K), torch.randn(N, K).requires_grad_(grad)
    graphs = [
        torch.compile(lambda x, w, product=product: product(x, w) + 1, fullgraph=True, backend="aot_eager")
        for product in (hktune.linear, functional.linear)
    ]
    calls: dict[str, Call] = {
        "hktune.matmul": lambda: hktune.matmul(x, b),
        "torch matmul": lambda: torch.matmul(x, b),
        "hktune.linear, an autocast for each call": lambda: autocast_once(hktune.linear, x_float, weight_float),
        "torch linear, the same": lambda: autocast_once(functional.linear, x_float, weight_float),
        "hktune.linear, compiled": lambda: graphs[0](x, weight),
        "torch linear, compiled": lambda: graphs[1](x, weight),
    }
    if grad:
        slope = torch.ones(M, N).bfloat16()
        outs = hktune.linear(x, weight), functional.linear(x, weight)
        calls |= {
            "hktune.linear, backward": lambda: torch.autograd.grad(outs[0], weight, slope, retain_graph=True),
            "torch linear, backward ": lambda: torch.autograd.grad(outs[1], weight, slope, retain_graph=True),
            "hktune.linear, both": lambda: torch.autograd.grad(hktune.linear(x, weight), weight, slope),
            "torch linear, both": lambda: torch.autograd.grad(functional.linear(x, weight), weight, slope),
        }
    for call in calls.values():
        call()
    show(f"host time of other ways in, {title}", rounds_ns(calls, 100))
    inside: dict[str, Call] = {
        "hktune.linear, in one autocast": lambda: hktune.linear(x_float, weight_float),
        "torch linear, in one autocast": lambda: functional.linear(x_float, weight_float),
    }
    with torch.autocast("cpu", torch.bfloat16):
        show("", rounds_ns(inside, 100))


ALGORITHM = VendorAlgorithm("cublasLt", "0", "0")


class StubLibrary(cublaslt.CublasLt):
    """Names one algorithm, whose launch is all of cuBLASLt's but its function: in its place libc's `abs` gets the same
    arguments, and answers that the handle is 0."""

    def __init__(self, settings: Settings) -> None:
        del settings
        self.version = ALGORITHM.version
        self.handle = ctypes.c_void_p(0)
        self._library = SimpleNamespace(cublasLtMatmul=ctypes.CDLL(None).abs, cublasLtMatmulDescSetAttribute=None)

    def prepare(
        self, algorithm: VendorAlgorithm, problem: Problem, operands: Sequence[str] = CALL_OPERANDS
    ) -> PreparedLaunch:
        del algorithm
        plan = cublaslt._Plan(ctypes.c_void_p(), (ctypes.c_void_p(),) * 3, {})
        return cublaslt._CublasLtLaunch(self, plan, cublaslt._Algorithm(), 0, problem, operands)


def algorithm_costs() -> None:
    """Of a call that an algorithm of the vendor's library serves."""
    config = ALGORITHM.config
    row = Trial(
        trial=0, m=M, n=N, k=K, operation=BF16_NT, config_id=config.id, config=config.json, status=Status.OK,
        source=Source.MODELLED, time_us=1.0, library=ALGORITHM.library,
    )  # fmt: skip
    vendor_libraries._OPENERS = {"emulated": {ALGORITHM.library: StubLibrary}}
    with tempfile.TemporaryDirectory() as folder:
        write_table(build_table([row], launch_of, EmulatedDevice().identity, "none", "0", "now"), {}, Path(folder))
        table = hktune.load(folder, allow_modelled=True, device=Stub())
    x, weight = torch.randn(M, K).bfloat16(), torch.randn(N, K).bfloat16()
    calls: dict[str, Call] = {
        "hktune.linear, by an algorithm that does nothing": lambda: hktune.linear(x, weight),
        "torch linear, 16x16x16 on the CPU": lambda: functional.linear(x, weight),
    }
    show("host time of a call, by an algorithm", rounds_ns(calls, 100))
    assert table.stats().hits == 100 * 100


def enabled_costs() -> None:
    """Of torch's own products, without and with `hktune.enable()`."""
    x, weight, odd = torch.randn(M, K).bfloat16(), torch.randn(N, K).bfloat16(), torch.randn(K, N + 1).bfloat16()
    floats = torch.randn(4, 4)
    calls: dict[str, Call] = {
        "mm that the table serves": lambda: torch.mm(x, weight.t()),
        "bfloat16 mm without a row": lambda: torch.mm(x, odd),
        "float32 mm": lambda: torch.mm(floats, floats),
    }
    show("host time of torch's own products", rounds_ns(calls, 100))
    with hktune.enable():
        show("the same, enabled", rounds_ns(calls, 100))


def autocast_once(product: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return product(x, weight)


def on_a_gpu(directory: Path) -> None:
    table = hktune.load(directory, allow_modelled=True)
    kernels = [entry for entry in read_table(directory).entries if entry.kernel and entry.operation == str(BF16_NT)]
    entry = min(kernels, key=lambda entry: entry.problem.flops)
    start = time.perf_counter()
    table.warm()
    torch.cuda.synchronize()
    print(f"{torch.cuda.get_device_name()}, {entry.problem}; warm() took {(time.perf_counter() - start) * 1e3:.1f} ms")
    with torch.no_grad():
        gpu_costs("no gradients", entry)
    gpu_costs("a weight that requires a gradient", entry, grad=True)
    print(table.stats())


def gpu_costs(title: str, entry: Entry, grad: bool = False) -> None:
    x = torch.randn(entry.m, entry.k, device="cuda").bfloat16()
    ours = hktune.Linear(entry.k, entry.n, bias=False, device="cuda").requires_grad_(grad)
    theirs = torch.nn.Linear(entry.k, entry.n, bias=False, device="cuda", dtype=torch.bfloat16).requires_grad_(grad)
    slope = torch.ones(entry.m, entry.n, device="cuda").bfloat16()
    calls: dict[str, Call] = {
        "allocating the output": lambda: x.new_empty(entry.m, entry.n),
        "hktune.linear": lambda: hktune.linear(x, ours.weight),
        "torch linear": lambda: functional.linear(x, theirs.weight),
        "hktune.Linear": lambda: ours(x),
        "torch.nn.Linear": lambda: theirs(x),
    }
    if grad:
        calls["hktune.Linear, forward and backward"] = lambda: ours(x).backward(slope)
        calls["torch.nn.Linear, forward and backward"] = lambda: theirs(x).backward(slope)
    # 200 calls do not fill the launch queue, so that no call waits for the device.
    show(f"host time of a call, {title}", rounds_ns(calls, 200, rounds=100, settle=torch.cuda.synchronize))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", type=Path, metavar="DIR", help="a results directory tuned on this GPU")
    options = parser.parse_args()
    if options.gpu:
        on_a_gpu(options.gpu)
    else:
        on_this_machine()


if __name__ == "__main__":
    main()
