"""The gfx950 GEMM of float16: numpy's own float16 is the truth, and sums are exact, so that every bit of C is known."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from gemm_bf16_variants import compiled, disassembled, space

from hktune.cli import main
from hktune.core.config import Config
from hktune.core.operation import Operation, operation_of
from hktune.core.problem import Problem
from hktune.core.variant import CodeObject
from hktune.device.emulated import EmulatedDevice
from hktune.dispatch import read_table

F16 = operation_of("f16.nt")
F16_BIAS = operation_of("f16.nt+bias")
UNTOUCHED = np.float16(-777.0)
Halves = npt.NDArray[np.float16]

# One of each schedule, both MFMA shapes, vectors of one and of two quads, and a K that workgroups share.
SMALL = {"block_m": 64, "block_n": 64, "warps_n": 2, "split": 1}
KNOBS: dict[str, dict[str, object]] = {
    "pingpong": {"schedule": "pingpong", "mfma": 32, "refill": "late", "lgkmcnt_clusters": 1, "spread": 4},
    "interleave": {"schedule": "interleave", "block_m": 64, "block_n": 128, "warps_n": 2, "split": 1, "slices": 2}
    | {"refill": "late", "lgkmcnt_clusters": 1, "read_across": True},
    "pipeline of 32": {**SMALL, "mfma": 32, "stages": 3, "vmcnt_tiles": 1},
    "pipeline of 16, one quad": {**SMALL, "block_m": 16, "k_step": 128, "warps_m": 1, "warps_n": 4},
    "split K": {**SMALL, "split_k": 4},
}


@lru_cache
def built(config: Config) -> CodeObject:
    return compiled(space().for_operation(F16).template.render(config))


def output_of(config: Config, problem: Problem, a: Halves, bt: Halves, bias: Halves | None) -> Halves:
    """C as the kernel leaves it, judged for hazards too. Rows of A and Bt are 8 NaN apart, and of C 8 UNTOUCHED."""
    m, n, k = problem.m, problem.n, problem.k
    device = EmulatedDevice(find_hazards=True)
    launch = space().for_operation(problem.operation).template.launch(config, problem)
    c = np.full((m, n + 8), UNTOUCHED)
    arrays = {"a": wide(a), "b": wide(bt), "c": c, "workspace": np.zeros(max(1, launch.workspace_bytes), np.uint8)}
    if bias is not None:
        arrays["bias"] = bias
    buffers = {name: device.allocate(array.nbytes) for name, array in arrays.items()}
    for name, array in arrays.items():
        device.write(buffers[name], array)
    sizes = {"m": m, "n": n, "k": k, "lda": k + 8, "ldb": k + 8, "ldc": n + 8}
    code = built(config)
    device.launch(device.load(code.data, code.symbol), launch, {"bias": None, **buffers, **sizes})
    device.read(buffers["c"], c)
    assert (c[:, n:] == UNTOUCHED).all()
    return c[:, :n]


def wide(rows: Halves) -> Halves:
    return np.pad(rows, ((0, 0), (0, 8)), constant_values=np.nan)


def rounded(exact: npt.NDArray[np.float64]) -> Halves:
    with np.errstate(over="ignore"):
        return exact.astype(np.float16)


@pytest.mark.parametrize("knobs", KNOBS.values(), ids=KNOBS)
@pytest.mark.parametrize("operation", [F16, F16_BIAS], ids=str)
def test_every_bit_of_c_is_the_rounded_sum(knobs: dict[str, object], operation: Operation) -> None:
    config = space().config(knobs)
    tile, random = space().template.tile(config), np.random.default_rng(3)
    biased = operation.has_bias
    depth = tile.k * int(config["split_k"]) * 2 + 8
    problem = Problem(tile.m + 3, tile.n // 2 + (5 if biased else 8), depth, operation)
    # Sums of such products are exact in float32, and some of them are beyond the largest float16.
    a, bt = (random.integers(-90, 91, (rows, depth)).astype(np.float16) for rows in (problem.m, problem.n))
    a[0] = 90
    bt[0] = 90
    bt[1] = -90
    bias = random.integers(-2000, 2001, problem.n).astype(np.float16) if biased else None
    exact = a.astype(np.float64) @ bt.astype(np.float64).T + (0.0 if bias is None else bias.astype(np.float64))
    assert np.abs(exact).max() < 2**24
    expected = rounded(exact)
    assert {np.inf, -np.inf} <= set(expected[0].tolist())
    np.testing.assert_array_equal(output_of(config, problem, a, bt, bias).view(np.uint16), expected.view(np.uint16))


def test_ties_go_to_even_and_the_largest_is_kept_up_to_half_a_step() -> None:
    config, step = space().config(KNOBS["pipeline of 16, one quad"]), 2.0**-24
    sums = [2049.0, 2051.0, -2049.0, 65519.0, 65520.0, -65519.0, -65520.0, step, 3 * step, 2.0**-14 - step, 1025 * step]
    problem = Problem(len(sums), 8, 8, F16)
    a = np.zeros((len(sums), 8), np.float16)
    for row, total in zip(a, sums, strict=True):  # an addend for each piece of a sum that no float16 holds
        row[0] = np.trunc(total / 32) * 32 if abs(total) < 65504 else np.copysign(65504.0, total)
        row[1] = total - float(row[0])
        assert float(row[0]) + float(row[1]) == total
    expected = rounded(np.array(sums))
    assert expected[:2].tolist() == [2048.0, 2052.0]
    assert expected[3:5].tolist() == [65504.0, np.inf]
    output = output_of(config, problem, a, np.ones((8, 8), np.float16), None)
    np.testing.assert_array_equal(output, np.broadcast_to(expected[:, None], output.shape))


@pytest.mark.parametrize("knobs", KNOBS.values(), ids=KNOBS)
def test_its_instructions_are_those_of_bf16_with_other_formats(knobs: dict[str, object]) -> None:
    """So that one model of registers, one clock and one set of constraints serve both."""
    config = space().config(knobs)
    half, brain = built(config), compiled(space().template.render(config))
    assert half.resources == brain.resources
    counts = [Counter(one.mnemonic for one in disassembled(code)) for code in (half, brain)]
    only_half, only_brain = counts[0] - counts[1], counts[1] - counts[0]
    shape = "32x32x16" if config["mfma"] == 32 else "16x16x32"
    for name, other in (
        (f"v_mfma_f32_{shape}_f16", f"v_mfma_f32_{shape}_bf16"),
        ("v_cvt_pk_f16_f32", "v_cvt_pk_bf16_f32"),
    ):
        assert only_half.pop(name) == only_brain.pop(other) > 0
    assert only_half.pop("v_cvt_f32_f16") == only_brain.pop("v_lshlrev_b32")  # of a bias
    assert not only_half
    assert not only_brain


def test_shapes_of_both_formats_are_tuned_in_one_run_each_with_kernels_of_its_own(tmp_path: Path) -> None:
    shapes, out = tmp_path / "shapes.yaml", tmp_path / "out"
    shapes.write_text("shapes:\n  - {m: 40, n: 72, k: 136, operation: [bf16.nt, f16.nt, f16.nt+bias]}\n")
    words = ["tune", "--device", "emulated", "--shapes", str(shapes), "--out", str(out), "--trials", "2"]
    assert main([*words, "--strategy", "random"]) == 0
    entries = {entry.operation: entry for entry in read_table(out).entries}
    assert sorted(entries) == ["bf16.nt", "f16.nt", "f16.nt+bias"]
    random = np.random.default_rng(5)
    for text in ("f16.nt", "f16.nt+bias"):
        kernel, problem = entries[text].kernel, entries[text].problem
        assert kernel is not None
        config = Config(kernel.config)
        assert kernel.object_sha256 == built(config).sha256
        a, bt = (random.integers(-9, 10, (rows, problem.k)).astype(np.float16) for rows in (problem.m, problem.n))
        bias = random.integers(-9, 10, problem.n).astype(np.float16) if problem.operation.has_bias else None
        exact = a.astype(np.float64) @ bt.astype(np.float64).T + (0.0 if bias is None else bias.astype(np.float64))
        np.testing.assert_array_equal(output_of(config, problem, a, bt, bias), rounded(exact))
    same = entries["bf16.nt"].kernel
    assert same is not None
    assert same.object_sha256 == compiled(space().template.render(Config(same.config))).sha256
    assert main(["table", "doctor", str(out), "--shapes", str(shapes), "--allow-modelled"]) == 0
