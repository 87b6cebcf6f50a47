"""The gfx950 GEMM on what an nn.Linear can be called with: any M and N, K in eights, row strides, a bias, a split K."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gemm_bf16_variants import built, compiler, output_of, proof, space
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hktune.core.config import Config
from hktune.core.dtype import BF16
from hktune.core.operation import BF16_NT_BIAS, legacy_operation
from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.device.emulated import EmulatedDevice
from hktune.dispatch import validate, write_table
from hktune.dispatch.files import read_table
from hktune.emulator import execution
from hktune.runtime import FallbackWarning, LoadedTable
from hktune.tables import build_table
from hktune.verify import Proof, compare, random_operands

SMALL: dict[str, object] = {"block_m": 64, "block_n": 64, "warps_n": 2, "split": 1}
CONFIGS = [
    space().config(values)
    for values in [
        SMALL,
        {**SMALL, "mfma": 32, "refill": "late", "vmcnt_tiles": 1},
        {**SMALL, "block_n": 128, "stages": 3, "split_k": 2},
        {**SMALL, "k_step": 128, "warps_m": 4, "warps_n": 1, "mfma": 16, "split_k": 4},
        {"block_m": 128, "block_n": 128, "k_step": 32, "warps_n": 2, "refill": "late", "lgkmcnt_clusters": 1},
        {**SMALL, "slices": 2, "refill": "late", "lgkmcnt_clusters": 1, "read_across": True, "split_k": 8},
    ]
]
EIGHTS = st.integers(1, 40).map(lambda eighths: 8 * eighths)


def judged(config: Config, problem: Problem, padding: int = 0) -> None:
    assert not space().violations(config, problem)
    launch = space().template.launch(config, problem)
    outcome = proof(built(config), launch, problem, padding)
    assert isinstance(outcome, Proof), (problem, padding, outcome)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.id)
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(1, 300), st.integers(1, 300), EIGHTS, st.sampled_from(["none", "bias"]), st.sampled_from([0, 8, 40]))
def test_any_m_and_n_and_k_in_eights_with_and_without_strides_and_bias(
    config: Config, m: int, n: int, k: int, epilogue: str, padding: int
) -> None:
    least = (int(config["split_k"]) - 1) * int(config["k_step"])  # a workgroup without a K-tile is refused
    judged(config, Problem(m, n, least + k, legacy_operation("bf16", epilogue)), padding)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.id)
@pytest.mark.parametrize("problem", [Problem(1, 1, 1024), Problem(33, 8, 1032, BF16_NT_BIAS), Problem(65, 63, 1016)])
def test_a_row_a_column_and_a_tile_cut_off(config: Config, problem: Problem) -> None:
    judged(config, problem, padding=8)


def test_a_shared_block_has_the_same_bits_in_every_order_of_workgroups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Side by side the workgroups of a block arrive in turn; alone, each ends before the next begins; and backwards."""
    config, problem = space().config({**SMALL, "split_k": 4}), Problem(70, 90, 1000)
    operands = random_operands(problem, seed=3)
    together = output_of(config, problem, operands)
    assert compare(together, operands) is None
    monkeypatch.setattr(execution, "batch_workgroups", lambda _dispatch: 1)
    assert np.array_equal(output_of(config, problem, operands), together)
    start = execution.start
    monkeypatch.setattr(
        execution,
        "start",
        lambda waves, descriptor, dispatch, pointers, first: start(
            waves, descriptor, dispatch, pointers, dispatch.workgroups - 1 - first
        ),
    )
    assert np.array_equal(output_of(config, problem, operands), together)


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (Problem(64, 64, 100), "k=100 is not a multiple of 8: an operand along k has rows that must begin on 16 bytes"),
        (Problem(64, 2**24, 64), "64 rows of n=16777216 elements reach past the 32-bit offsets of a store"),
        (Problem(64, 64, 2**24), "a part of A reaches over 1073741824 elements and one of B over 1073741824"),
    ],
)
def test_a_size_that_cannot_be_run_is_refused_with_its_reason(problem: Problem, reason: str) -> None:
    assert any(reason in str(violation) for violation in space().violations(CONFIGS[0], problem))


def loaded(directory: Path, *served: tuple[Config, Problem]) -> LoadedTable:
    trials = [
        Trial(
            number, problem.m, problem.n, problem.k, problem.operation, config.id, config.json,
            Status.OK, source=Source.MODELLED, time_us=1.0,
            object_sha256=built(config).sha256, template=space().template.name,
            template_sha256=space().template.sha256, target="gfx950",
        )
        for number, (config, problem) in enumerate(served)
    ]  # fmt: skip
    device = EmulatedDevice()
    table = build_table(
        trials,
        lambda trial: (
            space().template.symbol(Config.from_json(trial.config)),
            space().launch_rule(Config.from_json(trial.config), trial.problem),
        ),
        device.identity,
        compiler().identity,
        "0.1",
        "2026-01-01T00:00:00+00:00",
    )
    write_table(table, {built(config).sha256: built(config).data for config, _ in served}, directory)
    return LoadedTable(validate(read_table(directory), directory, device.identity, True), device)


def test_the_runtime_serves_slices_biases_and_shared_blocks_without_a_copy(tmp_path: Path) -> None:
    shared = space().config({**SMALL, "split_k": 4})
    plain, biased = Problem(6, 100, 1000), Problem(6, 100, 1000, BF16_NT_BIAS)
    table = loaded(tmp_path, (shared, plain), (CONFIGS[0], biased))
    generator = torch.Generator().manual_seed(5)
    wide, weights = (torch.randn(rows, 1008, generator=generator).bfloat16() for rows in (6, 100))
    bias = torch.randn(100, generator=generator).bfloat16()
    x, weight = wide[:, :1000].unflatten(0, (2, 3)), weights[:, 8:]
    for _ in range(2):
        for each in (None, bias):
            expected = torch.nn.functional.linear(x.float(), weight.float(), None if each is None else each.float())
            out = table.linear(x, weight, each)
            assert out.shape == (2, 3, 100)
            torch.testing.assert_close(out.float(), expected, rtol=2**-8, atol=1e-4)
    assert (table.stats().hits, table.stats().fallbacks) == (4, {})
    odd_rows = torch.zeros(6, 1001).bfloat16()[:, :1000]
    every_other = torch.zeros(6, 2000).bfloat16()[:, ::2]
    with pytest.warns(FallbackWarning, match="because of: strides"):
        table.linear(odd_rows, weight)
    table.linear(every_other, weight)
    assert table.stats().fallbacks == {"strides": 2}


def test_rows_reach_past_2_to_the_31_elements() -> None:
    """600 rows, some 2^22 elements from each other: the last block begins 4.3 GB after the first."""
    problem, stride = Problem(600, 72, 136), 2**22 - 8
    operands = random_operands(problem, seed=7)
    device, code, config = EmulatedDevice(), built(CONFIGS[0]), CONFIGS[0]
    wide = {name: torch.empty(600 * stride, dtype=torch.int16) for name in ("a", "c")}
    rows = {
        name: tensor.as_strided((600, width), (stride, 1))
        for (name, tensor), width in zip(wide.items(), (136, 72), strict=True)
    }
    rows["a"].copy_(torch.from_numpy(operands.stored["a"].view(np.int16)))
    rows["c"].fill_(BF16.poison_bits)
    bt = device.allocate(operands.stored["b"].nbytes)
    device.write(bt, operands.stored["b"])
    buffers = {
        **{name: device.borrow(tensor) for name, tensor in wide.items()},
        "b": bt,
        "bias": None,
        "workspace": None,
    }
    sizes = {"m": 600, "n": 72, "k": 136, "lda": stride, "ldb": 136, "ldc": stride}
    device.launch(device.load(code.data, code.symbol), space().template.launch(config, problem), {**buffers, **sizes})
    assert compare(rows["c"].contiguous().numpy().view(np.uint16), operands) is None
