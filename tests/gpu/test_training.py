"""Training on a real GPU with every product by hktune's kernels, forward and backward.

The kernels are the sm90a template's default config, compiled here (`default_kernels.py`). The truth is float64 for
single products, and torch's own training for losses.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from default_kernels import published
from torch import Tensor, nn
from torch.nn import functional

import hktune
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.device.cuda import CudaDevice
from hktune.runtime import LoadedTable

TOKENS, WIDTH, HIDDEN, STEPS = 256, 512, 1024, 50
F32 = torch.float32

# Of `up` [HIDDEN, WIDTH] with a bias and `down` [WIDTH, HIDDEN], and the forms that only enable() reaches. Inductor may
# take the bias of `up` out of the product, and add it where it computes what follows.
PRODUCTS = [
    (TOKENS, HIDDEN, WIDTH, "bf16.nt+bias"),
    (TOKENS, HIDDEN, WIDTH, "bf16.nt"),
    (TOKENS, WIDTH, HIDDEN, "bf16.nt"),
    (TOKENS, HIDDEN, WIDTH, "bf16.nn"),
    (HIDDEN, WIDTH, TOKENS, "bf16.tn"),
    (WIDTH, HIDDEN, TOKENS, "bf16.tn"),
    (TOKENS, HIDDEN, WIDTH, "bf16.nn->f32"),
    (HIDDEN, WIDTH, TOKENS, "bf16.tn->f32"),
    (TOKENS, HIDDEN, WIDTH, "bf16.nn->f32+bias"),
    (HIDDEN, WIDTH, TOKENS, "bf16.tn->f32+accumulate"),
]
PROBLEMS = [Problem(m, n, k, operation_of(text)) for m, n, k, text in PRODUCTS]
OF_A_STEP = 5


@pytest.fixture(scope="module")
def directory(hopper: CudaDevice, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of all products."""
    folder = tmp_path_factory.mktemp("table")
    published(folder, hopper.identity, PROBLEMS)
    return folder


@pytest.fixture
def table(directory: Path) -> Iterator[LoadedTable]:
    loaded = hktune.load(directory, allow_modelled=True)
    loaded.warm()
    yield loaded
    torch._dynamo.reset()


def random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to("cuda", dtype)


def close(found: Tensor, exact: Tensor, terms: int) -> None:
    """Within what a float32 sum of so many terms may be, each of about 1."""
    assert found.dtype is F32
    torch.testing.assert_close(found.double(), exact, rtol=2**-18, atol=2**-22 * terms)


def test_float32_outputs_are_float32_sums(table: LoadedTable) -> None:
    x, b, slope, bias = random(TOKENS, WIDTH), random(WIDTH, HIDDEN), random(TOKENS, HIDDEN), random(HIDDEN, dtype=F32)
    with hktune.enable():
        close(torch.mm(x, b, out_dtype=F32), x.double() @ b.double(), WIDTH)
        close(torch.mm(slope.t(), x, out_dtype=F32), slope.double().t() @ x.double(), TOKENS)
        close(torch.addmm(bias, x, b, out_dtype=F32), x.double() @ b.double() + bias.double(), WIDTH)
    assert table.stats().hits == 3
    assert not table.stats().fallbacks


def test_gradients_of_weights_are_summed_in_place(table: LoadedTable) -> None:
    summed = torch.zeros(HIDDEN, WIDTH, device="cuda")
    exact = summed.double()
    with hktune.enable():
        for part in range(4):
            slope, x = random(TOKENS, HIDDEN + part)[:, :HIDDEN].contiguous(), random(TOKENS, WIDTH)
            assert torch.ops.aten.addmm.dtype_out(summed, slope.t(), x, F32, out=summed) is summed
            exact += slope.double().t() @ x.double()
        separate = torch.addmm(summed, slope.t(), x, out_dtype=F32)
    close(summed, exact, 4 * TOKENS)
    close(separate, exact + slope.double().t() @ x.double(), 5 * TOKENS)
    assert table.stats().hits == 5


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(functional.gelu(self.up(x)))
        return out


def trainer(model: nn.Module, way: str) -> Callable[[], Tensor]:
    """A step under autocast with a fused AdamW, whose loss stays on the GPU."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True, capturable=True)
    x, goal = random(TOKENS, WIDTH, dtype=F32), random(WIDTH, TOKENS, dtype=F32).t().contiguous()
    forward = torch.compile(model) if way == "compiled" else model

    def step() -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            out = forward(x)
        loss = functional.mse_loss(out.float(), goal)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        return loss.detach()

    return step


def captured(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """`step` as a graph; each of its three steps before the capture trains too."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


@pytest.mark.filterwarnings("ignore")  # Inductor's and a capture's own
@pytest.mark.parametrize("way", ["eager", "graph", "compiled"])
@pytest.mark.parametrize("served_by", ["enable", "patch"])
def test_a_model_trains_as_by_torch(table: LoadedTable, way: str, served_by: str) -> None:
    torch.manual_seed(0)
    model = Mlp().cuda()
    theirs, ours = trainer(copy.deepcopy(model), way), None
    if served_by == "patch":
        hktune.patch(model, quiet=True)
    ours = trainer(model, way)
    if way == "graph":
        theirs = captured(theirs)
    expected = [float(theirs()) for _ in range(STEPS)]
    assert table.stats().hits == 0
    if served_by == "enable":
        hktune.enable(table)
    if way == "graph":
        ours = captured(ours)
        hktune.disable()  # a graph holds its kernels
    found = [float(ours()) for _ in range(STEPS)]
    assert table.stats().hits == OF_A_STEP * (4 if way == "graph" else STEPS)
    assert not table.stats().fallbacks
    assert expected[-1] < expected[0] / 2
    assert found == pytest.approx(expected, abs=0.01 * expected[0])
