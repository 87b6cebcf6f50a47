"""The vendor's algorithms on a real GPU: found, proved and timed by a run, and served in another process."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import hktune
from hktune.core.config import Config
from hktune.core.outcome import Status
from hktune.core.trial import Trial
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.device.cublaslt import CublasLt
from hktune.device.cuda import CudaDevice
from hktune.dispatch import write_table
from hktune.store import read_trials
from hktune.tables import build_table

SHAPES = ["128x4096x1024", "1000x1000x1000", "512x1024x8192", "256x512x1024+bias"]
SERVE = """
import sys, torch, hktune
table = hktune.load(sys.argv[1])
torch.manual_seed(0)
for entry in table._validated.usable:
    m, n, k = entry.m, entry.n, entry.k
    x, weight = (torch.randn(*shape, device="cuda").bfloat16() for shape in ((m, k), (n, k)))
    bias = torch.randn(n, device="cuda").bfloat16() if entry.operation.endswith("+bias") else None
    exact = x.double() @ weight.double().t() + (0 if bias is None else bias.double())
    side = torch.cuda.Stream()
    outs = [table.linear(x, weight, bias)]
    with torch.cuda.stream(side):
        side.wait_stream(torch.cuda.default_stream())
        outs.append(table.linear(x, weight, bias))
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outs.append(table.linear(x, weight, bias))
    graph.replay()
    torch.cuda.synchronize()
    for out in outs:
        torch.testing.assert_close(out.double(), exact, rtol=2.0**-7, atol=2.0**-9 * k**0.5)
print(table.stats().hits, table.stats().fallbacks)
"""


@pytest.fixture(scope="module")
def run(hopper: CudaDevice, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("vendor")
    result = hktune.tune(SHAPES, out=out, device="cuda", gpus=1, vendor_only=True, progress=False)
    assert not result.stopped
    return out


def algorithms_of(run: Path) -> list[Trial]:
    return [row for row in read_trials(run / "trials.csv") if row.library]


def test_every_shape_has_algorithms_that_are_right_and_have_times(run: Path) -> None:
    ok = [row for row in algorithms_of(run) if row.status is Status.OK]
    assert len({row.problem for row in ok}) == len(SHAPES)
    assert all(row.relative_error is not None and row.relative_error < 2.0**-7 for row in ok)
    assert {row.library for row in ok} == {"cublasLt"}


def test_the_same_are_named_in_another_process(run: Path) -> None:
    library = CublasLt()
    for row in algorithms_of(run):
        algorithm = VendorAlgorithm.of_config(Config.from_json(row.config))
        assert library.refusal(algorithm, row.problem) is None


def test_the_fastest_of_each_shape_is_served_on_streams_and_in_graphs(run: Path, tmp_path: Path) -> None:
    """By a table that has an algorithm for every shape, in a process of its own."""
    fastest: dict[object, Trial] = {}
    for row in algorithms_of(run):
        if row.has_time and row.time_us < getattr(fastest.get(row.problem), "time_us", float("inf")):  # type: ignore[operator]
            fastest[row.problem] = row

    def no_kernel(row: Trial) -> tuple[str, object]:
        raise AssertionError(row)

    rows = [replace(row, time_us=1e-3, time_us_low=1e-3, time_us_high=1e-3) for row in fastest.values()]
    identity = CudaDevice().identity
    write_table(build_table(rows, no_kernel, identity, "none", "0", "now"), {}, tmp_path)  # type: ignore[arg-type]
    served = subprocess.run([sys.executable, "-c", SERVE, tmp_path], capture_output=True, text=True, check=False)
    assert served.returncode == 0, served.stderr[-2000:]
    assert served.stdout.strip() == f"{3 * len(SHAPES)} {{}}"


SHAPES_OF_8_BITS = [
    *(
        "64x4096x1024:e4m3.nt.rows->bf16",
        "128x512x4096:e4m3.nt.rows.fast->bf16",
        "96x1024x2048:e4m3.nt.tensor->bf16+bias",
    ),
    *("128x768x1024:e5m2*e4m3.nt.tensor->f32", "64x512x1024:i8.nt->i32"),
]
SERVE_8_BITS = """
import sys, torch, hktune
table = hktune.load(sys.argv[1])
torch.manual_seed(0)
for entry in table._validated.usable:
    m, n, k, operation = entry.m, entry.n, entry.k, entry.problem.operation
    if operation.a == "i8":
        a, b = (torch.randint(-128, 128, (rows, k), device="cuda", dtype=torch.int8) for rows in (m, n))
        exact = a.double() @ b.double().t()
        with hktune.enable():
            out = torch._int_mm(a, b.t())
        assert torch.equal(out.double(), exact)
        continue
    dtypes = (getattr(torch, each.torch_name) for each in (operation.a_dtype, operation.b_dtype))
    a, b = (torch.randn(rows, k, device="cuda").to(dtype) for rows, dtype in zip((m, n), dtypes))
    shapes = ((m, 1), (1, n)) if operation.scales == "rows" else ((1,), (1,))
    x, y = (torch.rand(shape, device="cuda") + 0.5 for shape in shapes)
    dtype = getattr(torch, operation.c_dtype.torch_name)
    bias = torch.randn(n, device="cuda").to(dtype) if operation.has_bias else None
    out = hktune.scaled_mm(a, b.t(), x, y, bias, dtype, bool(operation.accumulation))
    exact = (a.double() * x) @ (b.double().t() * y) + (0 if bias is None else bias.double())
    torch.testing.assert_close(out.double(), exact, rtol=2.0**-7, atol=2.0**-6 * k**0.5)
print(table.stats().hits, table.stats().fallbacks)
"""


def test_algorithms_of_8_bits_are_right_and_served(hopper: CudaDevice, tmp_path: Path) -> None:
    hktune.tune(SHAPES_OF_8_BITS, out=tmp_path, device="cuda", gpus=1, vendor_only=True, progress=False)
    rows = algorithms_of(tmp_path)
    assert {str(row.operation) for row in rows} == {shape.partition(":")[2] for shape in SHAPES_OF_8_BITS}
    failed = [f"{row.problem} {row.status}: {row.detail}" for row in rows if row.status is not Status.OK]
    assert not [each for each in failed if "crashed" not in each], (
        "the library may refuse to launch one, and none is wrong"
    )
    one_each = {row.problem: row for row in rows if row.status is Status.OK}.values()
    assert len(one_each) == len(SHAPES_OF_8_BITS), failed
    chosen = [replace(row, time_us=1e-3, time_us_low=1e-3, time_us_high=1e-3) for row in one_each]
    table = build_table(chosen, lambda row: pytest.fail(f"{row}"), hopper.identity, "none", "0", "now")
    write_table(table, {}, tmp_path / "table")
    served = subprocess.run(
        [sys.executable, "-c", SERVE_8_BITS, tmp_path / "table"], capture_output=True, text=True, check=False
    )
    assert served.returncode == 0, served.stderr[-2000:]
    assert served.stdout.strip() == f"{len(SHAPES_OF_8_BITS)} {{}}"
