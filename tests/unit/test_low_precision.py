"""Formats of 8 and 4 bits and their scales: numbers, operands, references and proofs. PyTorch, and the values that the
OCP's tables print, are the truth."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch_device import TorchMemory

from hktune.core.dtype import BF16, DTYPES, E4M3, E5M2, E8M0, F16, F32, I8, I32, MXFP4, Dtype
from hktune.core.errors import InputError, ShapesError
from hktune.core.launch import Argument, Launch
from hktune.core.operand import operands_of
from hktune.core.operation import operation_of
from hktune.core.outcome import Failure, Status
from hktune.core.problem import Problem, ProofProblem
from hktune.core.shapes import matrices_fit
from hktune.core.storage import STORAGES
from hktune.verify import Operands, Proof, compare, random_operands, verify
from hktune.verify.arrays import HOST
from hktune.verify.on_device import TorchArrays, verify_on_device
from hktune.verify.reference import answer_of

FP4_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Of the codes of E2M1 without sign (OCP Microscaling Formats 1.0, table 5 and section 5.3.3)."""
OPERATIONS = [
    "e4m3.nt->bf16",
    "e5m2.nn.tensor->f16+bias",
    "e4m3*e5m2.tn.rows->bf16",
    "e4m3.nt.rows->f32+bias",
    "e4m3.nt.blocks->bf16",
    "e5m2.tt.blocks->f32+bias",
    "i8.nt.rows->bf16+bias",
    "i8.nn.tensor->f16",
    "i8.nt->i32",
    "mxfp4.nt->bf16",
    "mxfp4.nt->f32+bias",
]
M, N, K = 24, 200, 320
WIDTHS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def bits_as(bits: np.ndarray, dtype: Dtype) -> torch.Tensor:
    return torch.from_numpy(bits.view(f"i{bits.itemsize}").copy()).view(getattr(torch, dtype.torch_name))


def dequantised(operands: Operands) -> dict[str, torch.Tensor]:
    """Every input in float64, a and b [rows, k] whatever their layout, times the scales of their elements."""
    operation, values = operands.problem.operation, {}
    for name, operand in operands_of(operation).items():
        if name == "c":
            continue
        bits = operands.stored[name]
        if operand.dtype is MXFP4:
            table = torch.tensor([*FP4_VALUES, *(-value for value in FP4_VALUES)], dtype=torch.float64)
            codes = torch.from_numpy(np.stack([bits & 15, bits >> 4], axis=-1).reshape(len(bits), -1)).long()
            values[name] = table[codes]
        else:
            values[name] = bits_as(bits, operand.dtype).double()
    for name, axis in (("a", 0), ("b", 1)):
        if operation.layout[axis] != "nt"[axis]:
            values[name] = values[name].T
        if f"scale_{name}" not in values:
            continue
        factors = (
            values[f"scale_{name}"].reshape(-1, 1) if values[f"scale_{name}"].dim() == 1 else values[f"scale_{name}"]
        )
        rows, columns = values[name].shape
        each = [128 if operation.scales == "blocks" and (name == "b" or i) else 1 for i in range(2)]
        if operation.a_dtype is MXFP4:
            each = [1, 32]
        for i, (size, repeat) in enumerate(zip((rows, columns), each, strict=True)):
            factors = factors.repeat_interleave(repeat if factors.shape[i] > 1 or repeat > 1 else size, dim=i)
        values[name] = values[name] * factors[:rows, :columns]
    return values


def product(operands: Operands) -> torch.Tensor:
    values = dequantised(operands)
    total = values["a"] @ values["b"].T
    return total + values["bias"] if "bias" in values else total


@pytest.mark.parametrize("dtype", [E4M3, E5M2], ids=str)
def test_every_code_has_the_value_that_torch_has(dtype: Dtype) -> None:
    codes = np.arange(256, dtype=np.uint8)
    expected = bits_as(codes, dtype).float().numpy()
    np.testing.assert_array_equal(dtype.values(codes), expected)
    finite = np.isfinite(expected)
    assert (dtype.bits(expected[finite]) == codes[finite]).all()
    info = torch.finfo(getattr(torch, dtype.torch_name))
    assert (2.0**dtype.exponent_min, dtype.unit_roundoff * 2) == (info.smallest_normal, info.eps)
    assert 2.0**dtype.exponent_max <= info.max < 2.0 ** (dtype.exponent_max + 1)
    assert np.isnan(dtype.values(np.array([dtype.poison_bits], np.uint8))).all()


def test_scales_are_the_powers_that_torch_has() -> None:
    codes = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(E8M0.values(codes), bits_as(codes, E8M0).float().numpy())
    values = np.concatenate([np.geomspace(2.0**-126, 2.0**126, 5000), [0.0, 1.5, 2.9, 3.0]]).astype(np.float32)
    expected = torch.from_numpy(values).to(torch.float8_e8m0fnu).view(torch.uint8).numpy()
    np.testing.assert_array_equal(E8M0.bits(values), expected)


BEYOND = np.array([np.inf, -np.inf, np.nan, -np.nan, 1.4 * 2.0**127, 1.6 * 2.0**127, -1.6 * 2.0**127, -3.0], np.float32)


@pytest.mark.parametrize("dtype", [E4M3, E5M2, E8M0, F16, F32], ids=str)
def test_what_is_not_finite_is_torchs(dtype: Dtype) -> None:
    expected = torch.from_numpy(BEYOND).to(getattr(torch, dtype.torch_name)).view(WIDTHS[dtype.bytes]).numpy()
    np.testing.assert_array_equal(dtype.bits(BEYOND), expected.view(dtype.bits_type))


def test_every_nan_of_float32_stays_one_in_bf16() -> None:
    """Those of one low bit and of all bits are the ends, of either sign."""
    wide = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0x7FBFFFFF], np.uint32)
    assert bits_as(BF16.bits(wide.view(np.float32)), BF16).isnan().all()
    expected = torch.from_numpy(BEYOND).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(BF16.values(BF16.bits(BEYOND)), expected)


def test_formats_without_nan_and_inf_have_their_ends() -> None:
    values = np.array([[np.inf, -np.inf, np.nan, 1e30]], np.float32)
    assert MXFP4.values(MXFP4.bits(values)).tolist() == [[6, -6, 6, 6]]
    assert I8.values(I8.bits(values)).tolist() == [[127, -128, 0, 127]]
    assert I32.values(I32.bits(values)).tolist() == [[2**31 - 1, -(2**31), 0, 2**31 - 1]]


def test_four_bits_are_those_of_the_standards_table() -> None:
    packed = np.array([[0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]], np.uint8)
    values = [*FP4_VALUES, *(-value for value in FP4_VALUES)]
    np.testing.assert_array_equal(MXFP4.values(packed), [values])
    np.testing.assert_array_equal(MXFP4.bits(np.array([values], np.float32)), packed)
    grid = np.linspace(
        -8, 8, 1024, dtype=np.float32
    )  # ties are among them: to the even code, as 0.25 to 0 and 2.5 to 2
    nearest = MXFP4.values(MXFP4.bits(grid[None]))[0]
    distances = abs(grid[:, None] - np.array(values)[None])
    assert (abs(nearest - grid) == distances.min(axis=1)).all()
    for value, even in (
        (0.25, 0.0),
        (0.75, 1.0),
        (1.25, 1.0),
        (1.75, 2.0),
        (2.5, 2.0),
        (3.5, 4.0),
        (5.0, 4.0),
        (9.0, 6.0),
    ):
        assert MXFP4.values(MXFP4.bits(np.array([[value, -value]], np.float32))).tolist() == [[even, -even]]


@pytest.mark.parametrize("dtype", [E4M3, E5M2, I8, I32], ids=str)
def test_rounding_is_torchs(dtype: Dtype) -> None:
    random = np.random.default_rng(0)
    values = np.ldexp(random.standard_normal(20_000), random.integers(-20, 18, 20_000)).astype(np.float32)
    info = torch.iinfo if dtype.is_integer else torch.finfo
    ends = info(getattr(torch, dtype.torch_name))
    values = values[(values >= ends.min) & (values <= ends.max)]
    tensor = torch.from_numpy(values)
    expected = (tensor.round() if dtype.is_integer else tensor).to(getattr(torch, dtype.torch_name))
    np.testing.assert_array_equal(dtype.bits(values), expected.view(WIDTHS[dtype.bytes]).numpy().view(dtype.bits_type))
    assert DTYPES[dtype.name] is dtype


@pytest.mark.parametrize("exact_sums", [False, True])
@pytest.mark.parametrize("text", OPERATIONS)
def test_the_answer_is_the_product_of_what_the_operands_stand_for(text: str, exact_sums: bool) -> None:
    operands = random_operands(Problem(M, N, K, operation_of(text)), 3, exact_sums)
    expected = product(operands).numpy()
    if exact_sums:
        np.testing.assert_array_equal(operands.answer.exact, expected)
        assert not operands.answer.error.any()
        if operation_of(text).c == "bf16":
            assert (np.frexp(expected)[0] * 2**8 % 1 != 0).mean() > 0.1, "outputs need a rounding"
    else:
        np.testing.assert_allclose(operands.answer.exact, expected, rtol=1e-13, atol=1e-9)
    for name, operand in operands_of(operation_of(text)).items():
        if name != "c":
            assert operands.stored[name].shape == operand.shape(operands.problem.sizes)
            if name.startswith("scale_"):
                assert len(np.unique(operands.stored[name])) >= min(2, operands.stored[name].size), "scales differ"


@pytest.mark.parametrize("text", OPERATIONS)
def test_exact_sums_do_not_round_in_float32_in_any_order(text: str) -> None:
    """Nor do the factors of rows and columns on them."""
    operands = random_operands(Problem(8, 40, 512, operation_of(text)), 4, exact_sums=True)
    values, random = dequantised(operands), np.random.default_rng(1)
    a, b = (values[name].numpy() for name in "ab")
    exact = a @ b.T
    for _ in range(3):
        order = random.permutation(512)
        terms = a.astype(np.float32).T[order][:, :, None] * b.astype(np.float32).T[order][:, None, :]
        assert (np.cumsum(terms, axis=0, dtype=np.float32)[-1] == exact).all()


class TorchKernel(TorchMemory):
    """A device for either judge, whose one kernel is torch on the host and float64, rounded once. `wrong` spoils it."""

    def __init__(self, problem: Problem, seed: int, wrong: str = "", exact_sums: bool = False) -> None:
        self._problem, self._wrong = problem, wrong

    def launch(self, kernel: Any, launch: Launch, binding: Any, stream: int | None = None) -> None:
        stored, problem = {}, self._problem
        for name, operand in operands_of(problem.operation).items():
            shape = operand.shape(problem.sizes)
            octets = binding[name].memory.view(WIDTHS[operand.dtype.bytes])
            stride = binding.get(operand.row_stride, shape[-1] * operand.dtype.packed) // operand.dtype.packed
            strides = (stride, 1) if len(shape) == 2 else (1,)
            if name == "c":
                c = octets.view(getattr(torch, operand.dtype.torch_name)).as_strided(shape, strides)
            else:
                stored[name] = octets.as_strided(shape, strides).contiguous().numpy().view(operand.dtype.bits_type)
        if self._wrong in stored:
            stored[self._wrong] = stored[self._wrong][::-1].copy()
        total = product(Operands(problem, stored, answer_of(problem, stored)))
        c.copy_(total if problem.operation.c_dtype.is_integer else total.float())


def judgements(text: str, wrong: str = "", padding: int = 32, exact_sums: bool = False) -> list[Proof | Failure]:
    problem = Problem(M, N, K, operation_of(text))
    arguments = [Argument(name, "pointer") for name in operands_of(problem.operation)]
    arguments += [Argument(name, "i32") for name in problem.numbers()]
    launch, kernel = Launch((1, 1, 1), (64, 1, 1), 0, tuple(arguments), operation=problem.operation), SimpleNamespace()
    device: Any = TorchKernel(problem, 3, wrong)
    return [
        verify(device, kernel, launch, problem, 3, padding, exact_sums),
        verify_on_device(device, kernel, launch, ProofProblem(problem, padding, exact_sums), 3, "cpu"),
    ]


@pytest.mark.parametrize("exact_sums", [False, True])
@pytest.mark.parametrize("text", OPERATIONS)
def test_a_right_kernel_is_right_for_both_judges(text: str, exact_sums: bool) -> None:
    for judged in judgements(text, exact_sums=exact_sums):
        assert isinstance(judged, Proof), judged


@pytest.mark.parametrize("text", [text for text in OPERATIONS if ".rows" in text or ".blocks" in text or "mx" in text])
@pytest.mark.parametrize("scale", ["scale_a", "scale_b"])
def test_a_kernel_that_takes_other_scales_is_wrong(text: str, scale: str) -> None:
    for judged in judgements(text, scale):
        assert isinstance(judged, Failure)
        assert judged.status is Status.WRONG


def test_one_rounding_of_an_integer_sum_is_asked_for_however_long_the_sum_is() -> None:
    """The bound of float32 additions does not apply to sums of integers: a bf16 step beside the sum is wrong."""
    operands = random_operands(Problem(16, 32, 8192, operation_of("i8.nt.rows->bf16")), 1)
    right = HOST.encoded(operands.answer.exact, operands.problem.operation.c_dtype)
    assert compare(right, operands) is None
    mismatch = compare(right + 1, operands)
    assert mismatch is not None
    assert mismatch.wrong == mismatch.elements


@pytest.mark.parametrize(
    ("text", "bytes_", "shapes"),
    [
        (
            "mxfp4.nt->bf16",
            {"a": (2, 32), "b": (3, 32), "scale_a": (2, 2), "scale_b": (3, 2), "c": (2, 3)},
            160 + 10 + 12,
        ),
        (
            "e4m3.nt.blocks->bf16+bias",
            {"a": (2, 64), "b": (3, 64), "scale_a": (2, 1), "scale_b": (1, 1), "bias": (3,), "c": (2, 3)},
            5 * 64 + 4 * 3 + 6 + 12,
        ),
        ("i8.tn.rows->f32", {"a": (64, 2), "b": (64, 3), "scale_a": (2,), "scale_b": (3,), "c": (2, 3)}, 320 + 20 + 24),
        (
            "e5m2.nt.tensor->f16",
            {"a": (2, 64), "b": (3, 64), "scale_a": (1,), "scale_b": (1,), "c": (2, 3)},
            320 + 8 + 12,
        ),
    ],
)
def test_shapes_and_bytes_are_those_of_storage(text: str, bytes_: dict[str, tuple[int, ...]], shapes: int) -> None:
    problem = Problem(2, 3, 64, operation_of(text))
    assert {name: each.shape(problem.sizes) for name, each in operands_of(problem.operation).items()} == bytes_
    assert problem.bytes == shapes
    strides = {name: value for name, value in problem.numbers(64).items() if name in ("lda", "ldb", "ldc")}
    layout = problem.operation.layout
    assert strides == {
        "lda": 64 + (64 if layout[0] == "n" else 2),
        "ldb": 64 + (64 if layout[1] == "t" else 3),
        "ldc": 67,
    }


def test_a_block_that_is_not_full_is_one_line() -> None:
    problem = Problem(2, 3, 48, operation_of("mxfp4.nt->bf16"))
    with pytest.raises(InputError, match="k=48: must be a multiple of 32, as mxfp4 is stored"):
        random_operands(problem, 0)
    with pytest.raises(ShapesError, match=r"shapes\[0\]: k=48: must be a multiple of 32") as refused:
        matrices_fit(problem, "shapes[0]")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("of", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_storages_are_where_their_kernels_look(of: Any) -> None:
    """Each element at the place that the layout's formula gives."""
    random = np.random.default_rng(0)
    for dtype, kind in ((E4M3, np.uint8), (DTYPES["bf16"], np.int16)):
        matrix = random.integers(0, 100, (48, 64)).astype(kind)
        wide = 16 // dtype.bytes
        flat = np.asarray(STORAGES["preshuffled_16x16"].arranged(of(matrix), dtype)).reshape(-1)
        for row, column in ((0, 0), (1, 0), (15, wide), (16, 0), (47, 63), (33, 17)):
            tile = row // 16 * (64 // wide) + column // wide
            assert flat[tile * 16 * wide + row % 16 * wide + column % wide] == matrix[row, column]
    scales = random.integers(0, 256, (64, 24)).astype(np.uint8)
    flat = np.asarray(STORAGES["scales_32x8"].arranged(of(scales), E8M0)).reshape(-1)
    for row, column in ((0, 0), (1, 0), (16, 0), (0, 4), (0, 1), (31, 7), (32, 8), (63, 23), (45, 14)):
        block = row // 32 * 3 + column // 8
        place = column % 4 * 64 + row % 16 * 4 + column % 8 // 4 * 2 + row % 32 // 16
        assert flat[block * 256 + place] == scales[row, column]
    turned = np.asarray(STORAGES["transposed"].arranged(of(scales), E8M0))
    assert turned.shape == (24, 64)
    assert (turned.reshape(-1)[64:128] == scales[:, 1]).all()


@pytest.mark.parametrize("text", ["e4m3.nt.rows->bf16", "i8.nt.rows->bf16+bias", "bf16.nt->f16"])
def test_a_kernel_that_rounds_toward_zero_is_right_where_it_says_so(text: str) -> None:
    """Of exact sums: the bits of float32 cut off, which is what the kernels do that say so, for bf16."""
    operands = random_operands(Problem(M, N, K, operation_of(text)), 3, exact_sums=True)
    exact, dtype = operands.answer.exact.astype(np.float32), operands.problem.operation.c_dtype
    if dtype.name == "bf16":
        cut = (exact.view(np.uint32) >> 16).astype(np.uint16)
    else:
        kept = exact.clip(-65504, 65504)
        nearest = kept.astype(np.float16)
        cut = nearest.view(np.uint16) - (abs(nearest.astype(np.float64)) > abs(kept))
    assert (dtype.bits(exact) != cut).mean() > 0.05
    assert compare(dtype.bits(exact), operands) is None
    assert compare(cut, operands) is not None
    assert compare(cut, replace(operands, rounding="toward_zero")) is None
    assert compare(dtype.bits(exact), replace(operands, rounding="toward_zero")) is not None


def test_what_cannot_be_stored_so_is_said() -> None:
    assert STORAGES["scales_32x8"].padded_shape(33, 9, E8M0) == (64, 16)
    assert STORAGES["preshuffled_16x16"].padded_shape(32, 64, DTYPES["bf16"]) == (32, 64)
    for rows, columns in ((33, 64), (32, 60)):
        with pytest.raises(ValueError, match="must be whole tiles of 16 rows and 8 columns"):
            STORAGES["preshuffled_16x16"].padded_shape(rows, columns, DTYPES["bf16"])


def test_torch_arrays_hold_packed_numbers_as_the_host_does() -> None:
    values = np.random.default_rng(2).standard_normal((6, 64)) * 3
    arrays = TorchArrays("cpu")
    there = arrays.encoded(torch.from_numpy(values), MXFP4)
    np.testing.assert_array_equal(HOST.encoded(values, MXFP4), there.numpy().view(np.uint8))
    np.testing.assert_array_equal(
        HOST.decoded(HOST.encoded(values, MXFP4), MXFP4), arrays.decoded(there, MXFP4).numpy()
    )
