"""The gfx950 kernel through the runtime where it needs a workspace, row strides and a bias."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from gemm_bf16_variants import built, space
from torch import Tensor
from torch_operands import bf16

import hktune
from hktune.core.config import Config
from hktune.core.launch_rule import LaunchRule
from hktune.core.operation import BF16_NT, BF16_NT_BIAS
from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.device.emulated import EmulatedDevice
from hktune.dispatch import write_table
from hktune.runtime import FallbackWarning, LoadedTable
from hktune.tables import BuildOptions, build_table

M, N, K = 20, 64, 256
VALUES = {"block_m": 32, "block_n": 32, "warps_m": 1, "warps_n": 1, "split": 1, "split_k": 2}


@pytest.fixture
def table(tmp_path: Path) -> LoadedTable:
    """One kernel, two workgroups for each block, with and without bias."""
    config, template = space().config(VALUES), space().template
    code, identity = built(config), EmulatedDevice().identity
    trials = [
        Trial(
            trial=0, m=M, n=N, k=K, operation=operation, config_id=config.id, config=config.json,
            status=Status.OK, source=Source.MODELLED, time_us=1.0, object_sha256=code.sha256, template=template.name,
            template_sha256=template.sha256, target=identity.arch,
        )
        for operation in (BF16_NT, BF16_NT_BIAS)
    ]  # fmt: skip

    def launch_of(row: Trial) -> tuple[str, LaunchRule]:
        return code.symbol, space().launch_rule(Config.from_json(row.config), Problem(row.m, row.n, row.k))

    options = BuildOptions(fixed_order=frozenset({template.name}))
    write_table(
        build_table(trials, launch_of, identity, "clang", "0", "now", options), {code.sha256: code.data}, tmp_path
    )
    return hktune.load(tmp_path, allow_modelled=True, reproducible=True)


def close(found: Tensor, exact: Tensor) -> None:
    torch.testing.assert_close(found.float(), exact, rtol=2**-8, atol=1e-4)


def test_launches_share_a_workspace_that_each_leaves_clean_and_repeat_to_the_bit(table: LoadedTable) -> None:
    x, weight, bias = bf16(M, K), bf16(N, K), bf16(N)
    found = [table.linear(x, weight, bias) for _ in range(3)]
    close(found[0], x.float() @ weight.float().T + bias.float())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    close(table.linear(x, weight), x.float() @ weight.float().T)
    assert table.stats().hits == 4


def test_threads_that_share_the_device_get_their_own_sums(table: LoadedTable) -> None:
    weight, inputs = bf16(N, K), [bf16(M, K) * scale for scale in (1, 2, 4)]
    found: dict[int, Tensor] = {}

    def work(number: int) -> None:
        found[number] = table.linear(inputs[number], weight)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(found[1], found[0] * 2)
    assert torch.equal(found[2], found[0] * 4)


def test_sliced_operands_are_read_as_they_lie(table: LoadedTable) -> None:
    wide, weights = bf16(M, K + 24), bf16(2 * N, K + 8)
    x, weight = wide[:, 16 : 16 + K], weights[::2, :K]
    close(table.linear(x, weight), x.float() @ weight.float().T)
    close(table.matmul(x, weight.T), x.float() @ weight.float().T)
    assert table.stats().hits == 2
    assert not table.stats().fallbacks


def test_every_reproducible_matmul_comes_from_one_place(table: LoadedTable) -> None:
    a, b = bf16(M, K), bf16(K, N)
    with pytest.warns(FallbackWarning, match="no entry for the shape"):
        first = table.matmul(a, b)
    assert all(torch.equal(table.matmul(a, b), first) for _ in range(2))
    assert table.stats().hits == 0
    served = [table.matmul(a, b.T.contiguous().T) for _ in range(3)]
    assert all(torch.equal(each, served[0]) for each in served)
    assert table.stats().hits == 3
