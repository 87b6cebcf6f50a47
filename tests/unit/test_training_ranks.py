"""A step whose products are all a table's, forward and backward, in two processes (gloo, here): DDP and FSDP2.

The truth is the same model, wrapped in the same way and trained by torch.
"""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from gloo_ranks import work_as_rank
from naive_gemm import LAYOUTS_SHA256, published, trial
from test_patching_ranks import STEPS, WRAPPERS, K, M, Mlp, N, losses
from torch import Tensor, nn
from torch_device import TorchDevice

import hktune
from hktune.core.operation import operation_of
from hktune.core.problem import Problem

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch has no gloo")

# Of `up` [N, K] with a bias and `down` [K, N]: forward, dX of `down` (nobody asks for that of `up`), dW of both.
PRODUCTS = [(M, N, K, "nt+bias"), (M, K, N, "nt"), (M, N, K, "nn"), (N, K, M, "tn"), (K, N, M, "tn")]


def whole(parameter: nn.Parameter) -> Tensor:
    """A parameter, of which FSDP2 has given this rank a part."""
    full: Tensor = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter.data
    return full.float()


def check(rank: int, table: hktune.runtime.LoadedTable, is_patched: bool) -> None:
    for wrap in WRAPPERS:
        torch.manual_seed(0)
        model = Mlp().bfloat16()
        theirs, ours = wrap(copy.deepcopy(model)), wrap(model)
        expected = losses(theirs, rank)
        if is_patched:
            hktune.patch(ours, quiet=True)
        else:
            hktune.enable(table)
        before = table.stats()
        found = losses(ours, rank)
        hktune.disable()
        assert table.stats().hits - before.hits == len(PRODUCTS) * STEPS
        assert not table.stats().fallbacks
        # Roundings to bf16, 2^-9 each, in each pass and where the steps before went another way.
        assert found == pytest.approx(expected, rel=2**-6)
        for mine, torchs in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert (whole(mine) - whole(torchs)).norm() <= 2**-5 * whole(torchs).norm()


def check_all(rank: int, folder: str) -> None:
    table = hktune.load(folder, allow_modelled=True, device=TorchDevice())
    check(rank, table, is_patched=True)
    check(rank, table, is_patched=False)


def work(rank: int, folder: str) -> None:
    work_as_rank(rank, folder, partial(check_all, folder=folder))


@pytest.mark.slow  # three imports of torch
def test_backward_passes_by_the_table_train_as_torchs_do(tmp_path: Path) -> None:
    problems = [Problem(m, n, k, operation_of(f"bf16.{words}")) for m, n, k, words in PRODUCTS]
    published(tmp_path, *(trial(each, object_sha256=LAYOUTS_SHA256) for each in problems))
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
