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
