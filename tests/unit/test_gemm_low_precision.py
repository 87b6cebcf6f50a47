"""The gfx950 GEMM of 8 and 4 bits: torch's own casts and products are the truth, and sums are exact, so that every bit
of C is known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from gemm_bf16_variants import compiled, space

import hktune
from hktune.cli import main
from hktune.core.config import Config
from hktune.core.dtype import DTYPES
from hktune.core.operand import operands_of
from hktune.core.operation import Operation, operation_of
from hktune.core.problem import Problem
from hktune.core.variant import CodeObject
from hktune.device.emulated import EmulatedDevice
from hktune.dispatch import read_table

SMALL = {"block_m": 64, "block_n": 64, "warps_n": 2, "split": 1}


def ocp_values(exponent_bits: int, mantissa_bits: int) -> torch.Tensor:
    """Of every code of a format without NaN and infinity, float64 (OCP Microscaling Formats 1.0, section 5.3)."""
    bias, values = 2 ** (exponent_bits - 1) - 1, []
    for sign in (1, -1):
        for exponent in range(2**exponent_bits):
            for mantissa in range(2**mantissa_bits):
                fraction = mantissa / 2**mantissa_bits
                values.append(
                    sign * (2.0 ** (exponent - bias) * (1 + fraction) if exponent else 2.0 ** (1 - bias) * fraction)
                )
    return torch.tensor(values, dtype=torch.float64)


VALUES = {"mxfp4": ocp_values(2, 1), "mxfp6": ocp_values(2, 3), "mxbf6": ocp_values(3, 2)}
# A schedule, an MFMA shape, a depth and a K that workgroups share, of each kind of factors.
CASES = {
    "e4m3.nt.rows->bf16": {**SMALL, "stages": 3, "vmcnt_tiles": 1},
    "e5m2*e4m3.nt.tensor->f32": {**SMALL, "mfma": 32, "split_k": 2},
    "e4m3.nt.blocks->f16": {**SMALL, "k_step": 128, "slices": 2},
    "mxfp8.nt->bf16": {**SMALL, "mfma": 32},
    "mxfp4.nt->f32": {"schedule": "interleave", "block_m": 64, "block_n": 64, "warps_n": 2, "split": 1, "slices": 2}
    | {"refill": "late", "lgkmcnt_clusters": 1, "read_across": True},
    "mxfp6.nt->bf16": {**SMALL, "slices": 1},
    "mxbf6.nt->f32": {**SMALL, "warps_m": 1, "k_step": 32, "mfma": 32, "split_k": 2},
    "i8.nt->i32": {**SMALL, "mfma": 32, "split_k": 2},
    "i8.nt.rows->bf16": {**SMALL, "block_m": 16, "k_step": 128, "warps_m": 1, "warps_n": 4},
}


@dataclass(frozen=True)
class Given:
    """What a product is of: stored tensors by name, and A [m,k] and B [n,k] in float64, factors of blocks included."""

    stored: dict[str, torch.Tensor]
    a: torch.Tensor
    b: torch.Tensor


@lru_cache
def built(config: Config, operation: Operation) -> CodeObject:
    return compiled(space().for_operation(operation).template.render(config))


def given(problem: Problem, seed: int) -> Given:
    """Integers, and factors that are powers of two: no sum rounds in float32, in whatever order."""
    operation, generator = problem.operation, torch.Generator().manual_seed(seed)
    stored: dict[str, torch.Tensor] = {}
    wide: dict[str, torch.Tensor] = {}
    for name, lines in (("a", problem.m), ("b", problem.n)):
        dtype = operands_of(operation)[name].dtype
        numbers = torch.randint(-8, 9, (lines, problem.k), generator=generator).double()
        if dtype.name in VALUES:
            codes = torch.randint(0, len(VALUES[dtype.name]), (lines, problem.k), generator=generator)
            stored[name], wide[name] = packed(codes, dtype.width_bits), VALUES[dtype.name][codes]
        else:
            stored[name] = numbers.to(getattr(torch, dtype.torch_name))
            wide[name] = stored[name].double()
            assert torch.equal(wide[name], numbers)
        scale = operands_of(operation).get(f"scale_{name}")
        if scale is not None:
            powers = torch.randint(0, 3, scale.shape(problem.sizes), generator=generator).float().exp2()
            stored[f"scale_{name}"] = powers.to(torch.float8_e8m0fnu) if dtype.block else powers
            if len(powers.shape) == 2:
                of_lines = torch.arange(lines) // (128 if operation.scales == "blocks" and name == "b" else 1)
                wide[name] = wide[name] * powers.double()[of_lines].repeat_interleave(dtype.block or 128, 1)
    return Given(stored, wide["a"], wide["b"])


def packed(codes: torch.Tensor, width_bits: int) -> torch.Tensor:
    """Codes as bytes, the first in the lowest bits."""
    ones = codes[..., None] >> torch.arange(width_bits) & 1
    octets = ones.reshape(len(codes), -1, 8) << torch.arange(8)
    return octets.sum(-1).to(torch.uint8)


def expected_of(operation: Operation, values: Given) -> torch.Tensor:
    total = values.a @ values.b.T
    if operation.scales in ("tensor", "rows"):
        total = total * values.stored["scale_a"].double().reshape(-1, 1) * values.stored["scale_b"].double()
    return total.to(getattr(torch, operation.c_dtype.torch_name))


def output_of(config: Config, problem: Problem, values: Given) -> torch.Tensor:
    """C as the kernel leaves it, judged for hazards too."""
    device, operation = EmulatedDevice(find_hazards=True), problem.operation
    launch = space().for_operation(operation).template.launch(config, problem)
    c = np.full((problem.m, problem.n), operation.c_dtype.poison_bits, operation.c_dtype.bits_type)
    arrays = {name: tensor.contiguous().view(torch.uint8).numpy() for name, tensor in values.stored.items()}
    arrays |= {"c": c, "workspace": np.zeros(max(1, launch.workspace_bytes), np.uint8)}
    buffers = {name: device.allocate(array.nbytes) for name, array in arrays.items()}
    for name, array in arrays.items():
        device.write(buffers[name], array)
    code = built(config, operation)
    device.launch(device.load(code.data, code.symbol), launch, launch.bound({**buffers, **problem.numbers()}))
    device.read(buffers["c"], c)
    return torch.from_numpy(c.view(f"i{c.itemsize}")).view(getattr(torch, operation.c_dtype.torch_name))


@pytest.mark.parametrize("text", CASES)
def test_every_bit_of_c_is_the_rounded_sum(text: str) -> None:
    operation = operation_of(text)
    config = space().for_operation(operation).config(CASES[text])
    template = space().for_operation(operation).template
    tile, unit_k = template.tile(config), int(template.derived_values(config)["unit_k"])
    problem = Problem(tile.m + 3, tile.n + 5, tile.k * (int(config["split_k"]) + 1) + unit_k, operation)
    values = given(problem, 1)
    assert torch.equal(output_of(config, problem, values), expected_of(operation, values))


@pytest.mark.parametrize("name", VALUES)
def test_codes_below_8_bits_are_the_standards_and_the_nearest_is_taken(name: str) -> None:
    dtype, values = DTYPES[name], VALUES[name]
    codes = torch.arange(len(values)).reshape(2, -1)
    bits = packed(codes, dtype.width_bits).numpy()
    assert torch.equal(torch.from_numpy(dtype.values(bits)).double(), values.reshape(2, -1))
    grid = np.linspace(-2 * values.max().item(), 2 * values.max().item(), 4096, dtype=np.float32)[None]
    nearest, exact = torch.from_numpy(dtype.values(dtype.bits(grid))).double(), torch.from_numpy(grid).double()
    assert torch.equal((nearest - exact).abs(), (values[:, None] - exact).abs().amin(0, keepdim=True))
    between = (values[:7] + values[1:8]) / 2  # ties go to the even code
    even = values[:8][::2].repeat_interleave(2)[1:]
    tied = np.append(between, 0.0).astype(np.float32)[None]
    assert torch.equal(torch.from_numpy(dtype.values(dtype.bits(tied))).double()[0, :7], even)


def test_a_sum_of_integers_has_all_its_bits() -> None:
    """Beyond 2**24, where float32 has no odd numbers, and shared by two workgroups."""
    operation = operation_of("i8.nt->i32")
    config = space().for_operation(operation).config(CASES[str(operation)])
    a, b = torch.full((2, 2064), -128, dtype=torch.int8), torch.full((16, 2064), -128, dtype=torch.int8)
    a[1], b[1, 0] = 127, 127
    c = output_of(config, Problem(2, 16, 2064, operation), Given({"a": a, "b": b}, a, b))
    assert torch.equal(c, (a.long() @ b.long().T).int())
    assert c[0, 1] == 128 * 128 * 2063 - 127 * 128
    assert c[0, 1] % 2**7 == 0
    assert c[0, 0] == 2064 * 2**14 > 2**24


@pytest.mark.parametrize("text", ["e4m3.nt.rows->bf16", "mxfp8.nt->bf16"])
def test_a_factor_that_is_no_number_makes_its_row_none(text: str) -> None:
    operation = operation_of(text)
    problem = Problem(5, 24, 384, operation)
    values = given(problem, 2)
    expected = expected_of(operation, values)
    values.stored["scale_a"][1] = torch.nan
    expected[1] = torch.nan
    values.stored["b"].view(torch.uint8)[7, 9] = 0x7F
    expected[:, 7] = torch.nan
    c = output_of(space().for_operation(operation).config(CASES[text]), problem, values)
    assert torch.equal(c.isnan(), expected.isnan())
    assert torch.equal(c.nan_to_num(), expected.nan_to_num())


def test_sums_beyond_float16_are_infinite_and_the_largest_products_are_kept() -> None:
    operation = operation_of("e4m3.nt.blocks->f16")
    problem = Problem(2, 16, 256, operation)
    values = given(problem, 3)
    for name in ("scale_a", "scale_b"):
        values.stored[name][:] = 1
    values.stored["a"][:], values.stored["b"][:] = 0, 448
    values.stored["a"][0, :2], values.stored["a"][1, 0] = torch.tensor([146, -0.25]), -448
    c = output_of(space().for_operation(operation).config(CASES[str(operation)]), problem, values)
    total = values.stored["a"].double() @ values.stored["b"].double().T
    assert total[:, 0].tolist() == [144 * 448 - 0.25 * 448, -448 * 448]  # e4m3 has 144, not 146
    assert torch.equal(c, total.half())
    assert c[1].isinf().all()


@pytest.mark.parametrize(("text", "k", "unit"), [("e4m3.nt.rows->bf16", 200, 16), ("mxfp4.nt->f32", 160, 128)])
def test_rows_that_begin_within_a_load_are_refused_with_the_reason(text: str, k: int, unit: int) -> None:
    operation = operation_of(text)
    problem = Problem(64, 64, k, operation)
    config = space().for_operation(operation).config(CASES[text])
    reasons = [str(each) for each in space().for_operation(operation).violations(config, problem)]
    assert len(reasons) == 1
    assert reasons[0].startswith(f"whole_vectors_of_k: k={k} is not a multiple of {unit}: ")


@pytest.mark.parametrize(
    ("text", "knobs"),
    [("mxfp8.nt->bf16", {"k_step": 32, "mfma": 32}), ("e4m3.nt.blocks->f16", {"k_step": 64, "slices": 2, "mfma": 32})],
)
def test_a_step_of_less_than_a_word_of_factors_is_refused(text: str, knobs: dict[str, int]) -> None:
    own = space().for_operation(operation_of(text))
    config = own.config({**SMALL, **knobs})
    assert [each.name for each in own.violations(config)] == ["whole_words"]


def test_a_layout_that_no_kernel_reads_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text("shapes:\n  - {m: 64, n: 64, k: 256, operation: e4m3.nn.rows->bf16}\n")
    assert main(["tune", "--device", "emulated", "--shapes", str(shapes), "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "cannot do e4m3.nn.rows->bf16: it does e4m3.nt.rows->bf16" in line


def test_a_table_of_low_precision_has_kernels_that_are_right_and_serves_them(tmp_path: Path) -> None:
    shapes, out = tmp_path / "shapes.yaml", tmp_path / "out"
    texts = ("e4m3.nt.blocks->bf16", "mxfp8.nt->bf16", "mxfp6.nt->bf16")
    shapes.write_text(f"shapes:\n  - {{m: 40, n: 72, k: 256, operation: [{', '.join(texts)}]}}\n")
    words = ["tune", "--device", "emulated", "--shapes", str(shapes), "--out", str(out), "--trials", "1"]
    assert main(words) == 0
    table = hktune.load(out, allow_modelled=True)
    for entry in read_table(out).entries:
        assert entry.kernel is not None
        problem, config = entry.problem, Config(entry.kernel.config)
        values = given(problem, 4)
        assert entry.kernel.object_sha256 == built(config, problem.operation).sha256
        expected = expected_of(problem.operation, values)
        assert torch.equal(output_of(config, problem, values), expected)
        stored = values.stored
        if problem.operation.a == "mxfp8":
            assert torch.equal(
                hktune.scaled_mm(stored["a"], stored["b"].t(), stored["scale_a"], stored["scale_b"]), expected
            )
        if problem.operation.scales == "blocks":  # as torch wants them
            scales = stored["scale_a"].t().contiguous().t(), stored["scale_b"].t()
            assert torch.equal(hktune.scaled_mm(stored["a"], stored["b"].t(), *scales), expected)
    assert table.stats().hits == 2


def test_formats_of_6_and_4_bits_have_seeds_of_their_own_and_others_keep_theirs() -> None:
    """256x256 of 6 bits needs K-tiles of half the depth: LDS has no room for two of 64."""
    usual = space().seeds
    for text in ("mxfp6.nt->bf16", "mxbf6.nt->f32", "mxfp4.nt->bf16"):
        own = space().for_operation(operation_of(text)).seeds
        assert (own[0]["block_m"], own[0]["block_n"], own[0]["k_step"]) == (256, 256, 32)
        assert own[0] not in usual
        assert min(int(seed["block_m"]) for seed in own) == 16, "few rows"
    of_6_bits = space().for_operation(operation_of("mxfp6.nt->bf16"))
    whole = {**of_6_bits.seeds[0], "k_step": 64, "mfma": 16, "vmcnt_tiles": 0, "stages": 2}
    assert "lds_fits" in [violation.name for violation in of_6_bits.violations(Config(whole))]
    for text in ("mxfp8.nt->bf16", "i8.nt->i32", "f16.nt"):
        assert set(space().for_operation(operation_of(text)).seeds) <= set(usual)
