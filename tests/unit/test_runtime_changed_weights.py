"""Weights that change while they are used, in ways that torch counts and in ways that it does not."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from naive_gemm import published, trial
from torch import Tensor, nn
from torch.nn import functional
from torch_operands import bf16

import hktune
from hktune.core.operation import BF16_NT_BIAS
from hktune.core.problem import Problem
from hktune.runtime import LoadedTable

M, N, K = 4, 64, 32
Change = Callable[[Tensor], object]


@pytest.fixture(autouse=True)
def table(tmp_path: Path) -> LoadedTable:
    published(tmp_path, trial(Problem(M, N, K)), trial(Problem(M, N, K, BF16_NT_BIAS)))
    return hktune.load(tmp_path, allow_modelled=True)


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of this process alone."""
    store = tmp_path_factory.mktemp("gloo") / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def close(found: Tensor, exact: Tensor) -> None:
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=2**-8, atol=1e-5)


def fused_step(weight: Tensor) -> None:
    optimizer = torch.optim.AdamW([weight], lr=0.5, fused=True)
    weight.grad = torch.ones_like(weight)
    optimizer.step()


def gathered(weight: Tensor) -> None:
    dist.all_gather([weight], bf16(2, *weight.shape)[1].contiguous())


def unsharded(weight: Tensor) -> None:
    """As FSDP does it: the storage is freed, made again and filled."""
    storage, size_bytes = weight.untyped_storage(), weight.untyped_storage().nbytes()
    storage.resize_(0)
    storage.resize_(size_bytes)
    weight.data.copy_(bf16(2, *weight.shape)[1])


def by_numpy(weight: Tensor) -> None:
    np.asarray(weight.detach().view(torch.int16).numpy())[:] = bf16(2, *weight.shape)[1].view(torch.int16).numpy()


UNCOUNTED: dict[str, Change] = {
    "fused AdamW": fused_step,
    "a collective": gathered,
    "the storage made again": unsharded,
    "a copy into .data": lambda b: b.data.copy_(bf16(2, *b.shape)[1]),
    "dlpack": lambda b: torch.from_dlpack(b.detach()).fill_(2),
    "the storage filled": lambda b: b.untyped_storage().fill_(64),
    "numpy": by_numpy,
}
COUNTED: dict[str, Change] = {
    "add_": lambda b: b.add_(1),
    "a slice": lambda b: b[3].zero_(),
    "a view": lambda b: b.t().mul_(2),
    "data =": lambda b: setattr(b, "data", bf16(2, *b.shape)[1]),
}


@pytest.mark.usefixtures("group")
@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
@pytest.mark.parametrize("change", (UNCOUNTED | COUNTED).values(), ids=(UNCOUNTED | COUNTED).keys())
class TestAChangedWeight:
    def test_is_seen_by_matmul(self, table: LoadedTable, change: Change) -> None:
        a, b, weight = bf16(M, K), bf16(K, N), bf16(N, K)
        for _ in range(3):
            hktune.matmul(a, b)
            hktune.matmul(a, weight.T)
        before = b.clone()
        change(b)
        change(weight)
        assert not torch.equal(b, before)
        for _ in range(3):
            close(hktune.matmul(a, b), a.float() @ b.float())
            close(hktune.matmul(a, weight.T), a.float() @ weight.T.float())
        assert table.stats().hits == 6
        assert table.stats().fallbacks == {"no entry for the shape": 6}


OPTIMIZERS = {"AdamW": torch.optim.AdamW, "Adam": torch.optim.Adam, "Adagrad": torch.optim.Adagrad}


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
@pytest.mark.parametrize("by_view", [False, True], ids=["b", "w.T"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_six_fused_steps_have_torchs_losses(optimizer: type[torch.optim.Optimizer], by_view: bool) -> None:
    def losses(product: Callable[[Tensor, Tensor], Tensor]) -> list[float]:
        weight = nn.Parameter(bf16(N, K) / 8 if by_view else bf16(K, N) / 8)
        step = optimizer([weight], lr=0.02, fused=True)  # type: ignore[call-arg]
        found = []
        for _ in range(6):
            loss = functional.mse_loss(product(bf16(M, K), weight.T if by_view else weight).float(), bf16(M, N).float())
            step.zero_grad()
            loss.backward()
            step.step()
            found.append(loss.item())
        return found

    ours, torchs = losses(hktune.matmul), losses(torch.matmul)
    assert torchs[-1] < 0.9 * torchs[0]
    assert ours == pytest.approx(torchs, rel=0.01)


def test_the_data_of_a_weight_that_a_fused_optimizer_changes(table: LoadedTable) -> None:
    weight, a = nn.Parameter(bf16(N, K)), bf16(M, K)
    b = weight.data.T
    for _ in range(3):
        close(hktune.matmul(a, b), a.float() @ weight.detach().T.float())
        fused_step(weight)
    assert table.stats().hits == 3


class TestAServedCallLeavesNoMark:
    def test_on_the_operands(self, table: LoadedTable) -> None:
        x, weight, bias = bf16(M, K), nn.Parameter(bf16(N, K)), nn.Parameter(bf16(N))
        hktune.linear(x, weight, bias).sum().backward()
        hktune.matmul(x, weight.detach().T)
        out = hktune.linear(x, weight.detach())
        assert table.stats().hits == 3
        for tensor in (x, weight, bias, out):
            assert tensor.untyped_storage().resizable()
            assert not weakref.getweakrefs(tensor)
        torch.utils.swap_tensors(weight, nn.Parameter(bf16(N, K)))

    def test_on_a_layer_that_moves_by_swapping(self, table: LoadedTable) -> None:
        layer = hktune.Linear(K, N)
        layer(bf16(M, K)).sum().backward()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            layer.to(torch.float32)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(False)
        assert layer.weight.dtype is torch.float32
        assert table.stats().hits == 1

    def test_on_a_storage_that_is_freed_and_filled_again(self, table: LoadedTable) -> None:
        x, weight = bf16(M, K), bf16(N, K)
        hktune.linear(x, weight)
        unsharded(weight)
        close(hktune.linear(x, weight), x.float() @ weight.T.float())
        assert table.stats().hits == 2
