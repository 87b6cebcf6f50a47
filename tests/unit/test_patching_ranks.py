"""A patched model in two processes (gloo, on this machine): DDP and FSDP2, put around it before `patch` and after.

The truth is the same model, wrapped in the same way and never patched, through the same steps of a fused AdamW.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from gloo_ranks import work_as_rank
from naive_gemm import published, trial
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch_operands import bf16

import hktune
from hktune.core.operation import BF16_NT_BIAS
from hktune.core.problem import Problem

M, N, K, STEPS = 4, 64, 32, 3

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch has no gloo")


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(K, N), nn.Linear(N, K, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(nn.functional.relu(self.up(x)))
        return out


def data_parallel(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model)


def sharded(model: nn.Module) -> nn.Module:
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    return model


def sharded_by_layer(model: nn.Module) -> nn.Module:
    for layer in list(model.children()):
        fully_shard(layer, mesh=init_device_mesh("cpu", (2,)))
    return sharded(model)


WRAPPERS: list[Callable[[nn.Module], nn.Module]] = [data_parallel, sharded, sharded_by_layer]


def losses(model: nn.Module, rank: int) -> list[float]:
    """Of STEPS steps, on data that each rank has its own of."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, fused=True)
    x, goal = bf16(M, K) + rank, bf16(M, K)
    found = []
    for _ in range(STEPS):
        loss = nn.functional.mse_loss(model(x).float(), goal.float())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def check(
    wrap: Callable[[nn.Module], nn.Module], patch_first: bool, rank: int, table: hktune.runtime.LoadedTable
) -> None:
    torch.manual_seed(0)
    model = Mlp().bfloat16()
    expected = losses(wrap(copy.deepcopy(model)), rank)
    assert expected[-1] < expected[0]
    if patch_first:
        hktune.patch(model)
    wrapped = wrap(model)
    if not patch_first:
        assert len(hktune.patch(wrapped)) == 2
    before = table.stats().hits
    found = losses(wrapped, rank)
    assert table.stats().hits - before == 2 * STEPS
    # Two bf16 roundings a forward pass, 2^-9 each, and as many where the steps before went another way.
    assert found == pytest.approx(expected, rel=2**-6)
    assert len(hktune.unpatch(wrapped)) == 2
    losses(wrapped, rank)
    assert table.stats().hits - before == 2 * STEPS
    assert hktune.patch(wrapped).left == {}


def check_all(rank: int, folder: str) -> None:
    table = hktune.load(folder, allow_modelled=True)
    for wrap in WRAPPERS:
        for patch_first in (True, False):
            check(wrap, patch_first, rank, table)


def work(rank: int, folder: str) -> None:
    work_as_rank(rank, folder, partial(check_all, folder=folder))


def test_wrapped_models_train_as_unpatched_ones_do(tmp_path: Path) -> None:
    published(tmp_path, trial(Problem(M, N, K, BF16_NT_BIAS)), trial(Problem(M, K, N)))
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
