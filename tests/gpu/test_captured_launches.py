"""Launches of the sm90a GEMM in torch's graphs: each starts before the last has ended, and reads what that wrote."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hktune.compile.nvrtc import NvrtcCompiler
from hktune.core.config import Value
from hktune.core.operation import BF16_NT
from hktune.core.problem import Problem
from hktune.core.variant import CodeObject
from hktune.device.cuda import CudaDevice
from hktune.device.device import PreparedLaunch
from hktune.runtime.serving.workspaces import Workspaces
from hktune.space.search_space import load_space

SPACE = Path(__file__).resolve().parents[2] / "search_spaces" / "sm90a_gemm_bf16.yaml"
SIZE, PRODUCTS, REPLAYS = 1024, 24, 10
ONE_TILE: dict[str, Value] = {"cluster_rows": 1, "persistent": False}
CONFIGS: list[dict[str, Value]] = [
    {**ONE_TILE, "block_n": 128, "stages": 6},
    {**ONE_TILE, "block_m": 64, "block_n": 64, "schedule": "single", "blocks_per_sm": 2},
    {"schedule": "ping_pong", "block_m": 64, "block_n": 128, "stages": 6, "store_buffers": 2, "cluster_rows": 1},
    {**ONE_TILE, "block_n": 128, "cluster_columns": 4, "stages": 6},
    {**ONE_TILE, "block_n": 128, "split_k": 2, "stages": 6},
    {**ONE_TILE, "block_n": 128, "split_k": 3, "launch": "workspace", "stages": 6},
]


def prepared(device: CudaDevice, values: dict[str, Value]) -> tuple[PreparedLaunch, int]:
    """A launch of a product of three square matrices, and the bytes of its workspace."""
    space = load_space(SPACE).for_operation(BF16_NT)
    config = space.config(values)
    code = NvrtcCompiler().compile(space.template.render(config), 200.0)
    assert isinstance(code, CodeObject), code
    launch = space.template.launch(config, Problem(SIZE, SIZE, SIZE))
    numbers = dict.fromkeys(("m", "n", "k", "lda", "ldb", "ldc"), SIZE)
    return device.prepare(device.load(code.data, code.symbol), launch, numbers), launch.workspace_bytes


def captured(run: Callable[[], None]) -> torch.cuda.CUDAGraph:
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(side):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


@pytest.mark.parametrize("values", CONFIGS)
@pytest.mark.parametrize("link", ["a", "b"])
def test_each_product_of_a_chain_reads_what_the_one_before_wrote(
    hopper: CudaDevice, values: dict[str, Value], link: str
) -> None:
    """As its A or as its B. Right is what torch makes of the bits that were read."""
    launch, workspace_bytes = prepared(hopper, values)
    made = Workspaces(torch.device("cuda", 0), captured_by=hopper.captured_by)
    weights = [torch.randn(SIZE, SIZE, device="cuda", dtype=torch.bfloat16) / SIZE**0.5 for _ in range(PRODUCTS)]
    first = torch.randn(SIZE, SIZE, device="cuda", dtype=torch.bfloat16)
    outputs = [torch.empty_like(first) for _ in range(PRODUCTS)]

    def operands(index: int) -> tuple[Tensor, Tensor]:
        before = outputs[index - 1] if index else first
        return (before, weights[index]) if link == "a" else (weights[index], before)

    def run() -> None:
        stream = torch.cuda.current_stream().cuda_stream
        for index, output in enumerate(outputs):
            workspace = made.of(stream, workspace_bytes) if workspace_bytes else None
            launch(*operands(index), output, None, workspace, stream)

    graph = captured(run)
    for _ in range(REPLAYS):
        for output in outputs:
            output.fill_(float("nan"))
        graph.replay()
        torch.cuda.synchronize()
        for index, output in enumerate(outputs):
            left, right = operands(index)
            torch.testing.assert_close(output.float(), left.float() @ right.float().T, rtol=2**-7, atol=2**-7)


def test_a_graph_keeps_its_workspace_until_it_is_gone(hopper: CudaDevice) -> None:
    made = Workspaces(torch.device("cuda", 0), captured_by=hopper.captured_by)
    found: list[Tensor] = []

    def run() -> None:
        found.append(made.of(torch.cuda.current_stream().cuda_stream, 1 << 17))

    before = torch.cuda.memory_allocated()
    graphs = [captured(run) for _ in range(2)]
    assert len({each.data_ptr() for each in found}) == 4, "two streams, two graphs"
    found.clear()
    held = torch.cuda.memory_allocated()
    graphs.clear()
    gc.collect()
    torch.cuda.synchronize()
    time.sleep(0.5)  # the driver says so from a thread of its own
    captured(run)
    found.clear()
    assert before < torch.cuda.memory_allocated() <= held, "the graphs' were given back when the third began"
