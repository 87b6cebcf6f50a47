"""Matrix instructions of 8 bits and less, of integers and of float32: against float64 and int64 sums over operands laid
out as the ISA guide's formulas say (section 7.1; 7.2.1 for the block-scaled ones)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from gfx950_code import Words, assemble, launch, vector_program
from test_emulator_matrix import addend_registers, result_matrix
from test_emulator_small_floats import bits_of, value_of

from hktune.core.errors import KernelFault

RNG = np.random.default_rng(17)
CODES = {"fp8": 0, "bf8": 1, "fp6": 2, "bf6": 3, "fp4": 4}
"""What cbsz and blgp call a format."""


def random_codes(name: str, shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Codes of finite values; of the wide formats, not the largest, so that sums stay near their terms."""
    good = [c for c in range(1 << bits_of(name)) if np.isfinite(value_of(name, c)) and abs(value_of(name, c)) < 64]
    return RNG.choice(good, shape)


def values_of(name: str, codes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.array([value_of(name, c) for c in range(1 << bits_of(name))])[codes]


def packed(lanes: npt.NDArray[np.int64], bits: int) -> Words:
    """(64, elements) of `bits` bits, the first lowest, as (registers, 64)."""
    words = []
    for row in lanes:
        number = sum((int(code) & (1 << bits) - 1) << bits * i for i, code in enumerate(row))
        words.append([number >> 32 * i & 0xFFFFFFFF for i in range(lanes.shape[1] * bits // 32)])
    return np.array(words, np.uint32).T


def consecutive(matrix: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Element e of lane l is [l % rows][e + each * (l / rows)]."""
    rows, depth = matrix.shape
    each = depth * rows // 64
    return np.array([matrix[lane % rows, each * (lane // rows) :][:each] for lane in range(64)])


def in_two_runs(matrix: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """8-bit operands of the f8f6f4 shapes: 16 k of the lower half of K, then 16 of the upper."""
    rows, depth = matrix.shape
    starts = [16 * (lane // rows) for lane in range(64)]
    return np.array(
        [
            [*matrix[lane % rows, s : s + 16], *matrix[lane % rows, depth // 2 + s : depth // 2 + s + 16]]
            for lane, s in enumerate(starts)
        ]
    )


def span(first: int, count: int) -> str:
    return f"v[{first}:{first + count - 1}]" if count > 1 else f"v{first}"


def run(call: str, operands: list[Words], count: int) -> Words:
    """`call` names v[100] on for its operands and v[20] on for C and D, which the last of them fills."""
    inputs = np.ascontiguousarray(np.concatenate(operands))
    step = "s_add_u32 s6, s6, 256\ns_addc_u32 s7, s7, 0"
    lines = [f"global_load_dword v{100 + i}, v1, s[6:7]\n{step}" for i in range(len(inputs))]
    lines += ["s_waitcnt vmcnt(0)"]
    lines += [f"v_mov_b32 v{20 + i}, v{100 + len(inputs) - count + i}" for i in range(count)]
    code = assemble(vector_program("\n".join([*lines, call, "s_nop 15"]), 0, count))
    found: Words = launch(code, inputs, np.zeros((count, 64), np.uint32))[1]
    return found


def close(found: Words, rows: int, exact: npt.NDArray[np.float64], scale: npt.NDArray[np.float64]) -> None:
    assert (np.abs(result_matrix(found.view(np.float32), rows) - exact) <= scale * 2.0**-20).all()


@pytest.mark.parametrize(("rows", "depth"), [(16, 32), (32, 16)])
@pytest.mark.parametrize("a_type", ["fp8", "bf8"])
@pytest.mark.parametrize("b_type", ["fp8", "bf8"])
def test_products_of_eight_bit_floats(rows: int, depth: int, a_type: str, b_type: str) -> None:
    a, b = random_codes(a_type, (rows, depth)), random_codes(b_type, (rows, depth))
    c, count = RNG.standard_normal((rows, rows)).astype(np.float32), rows * rows // 64
    name = f"v_mfma_f32_{rows}x{rows}x{depth}_{a_type}_{b_type}"
    call = f"{name} {span(20, count)}, {span(100, 2)}, {span(102, 2)}, {span(20, count)}"
    found = run(call, [packed(consecutive(a), 8), packed(consecutive(b), 8), addend_registers(c)], count)
    x, y = values_of(a_type, a), values_of(b_type, b)
    close(found, rows, x @ y.T + c, np.abs(x) @ np.abs(y).T + np.abs(c))


@pytest.mark.parametrize(("rows", "depth"), [(16, 32), (32, 16), (16, 64), (32, 32)])
def test_products_of_bytes_are_exact_and_wrap(rows: int, depth: int) -> None:
    a, b = RNG.integers(-128, 128, (rows, depth)), RNG.integers(-128, 128, (rows, depth))
    a[0] = b[0] = -128
    c = RNG.integers(-(1 << 31), 1 << 31, (rows, rows))
    count, width = rows * rows // 64, depth * rows // 256
    call = f"v_mfma_i32_{rows}x{rows}x{depth}_i8 {span(20, count)}, {span(100, width)}, {span(100 + width, width)}, "
    addend = addend_registers(c.astype(np.int32).view(np.float32)).view(np.uint32)
    found = run(call + span(20, count), [packed(consecutive(a), 8), packed(consecutive(b), 8), addend], count)
    exact = (a @ b.T + c + (1 << 31)) % (1 << 32) - (1 << 31)
    assert result_matrix(found.view(np.float32), rows).view(np.int32).tolist() == exact.tolist()


@pytest.mark.parametrize(("rows", "depth"), [(16, 4), (32, 2)])
def test_products_of_float32(rows: int, depth: int) -> None:
    a, b = RNG.standard_normal((2, rows, depth)).astype(np.float32)
    c, count = RNG.standard_normal((rows, rows)).astype(np.float32), rows * rows // 64
    call = f"v_mfma_f32_{rows}x{rows}x{depth}_f32 {span(20, count)}, v100, v101, {span(20, count)}"
    operands = [packed(consecutive(m.view(np.uint32).astype(np.int64)), 32) for m in (a, b)]
    found = run(call, [*operands, addend_registers(c)], count)
    x, y = a.astype(float), b.astype(float)
    close(found, rows, x @ y.T + c, np.abs(x) @ np.abs(y).T + np.abs(c))


def laid_out(name: str, codes: npt.NDArray[np.int64]) -> Words:
    return packed(in_two_runs(codes) if bits_of(name) == 8 else consecutive(codes), bits_of(name))


MIXES = [
    ("fp8", "fp8"), ("bf8", "fp8"), ("fp6", "fp6"), ("bf6", "fp6"), ("fp4", "fp4"), ("fp8", "fp4"), ("fp4", "bf6"),
    ("fp6", "bf8"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "depth"), [(16, 128), (32, 64)])
@pytest.mark.parametrize(("a_type", "b_type"), MIXES)
def test_formats_may_be_mixed(rows: int, depth: int, a_type: str, b_type: str) -> None:
    a, b = random_codes(a_type, (rows, depth)), random_codes(b_type, (rows, depth))
    c, count = RNG.standard_normal((rows, rows)).astype(np.float32), rows * rows // 64
    operands = [laid_out(a_type, a), laid_out(b_type, b)]
    wa, wb = (len(each) for each in operands)
    # Register tuples of 192 and 256 bits begin at even numbers.
    call = f"v_mfma_f32_{rows}x{rows}x{depth}_f8f6f4 {span(20, count)}, {span(100, wa)}, {span(100 + wa, wb)}, "
    call += f"{span(20, count)} cbsz:{CODES[a_type]} blgp:{CODES[b_type]}"
    found = run(call, [*operands, addend_registers(c)], count)
    x, y = values_of(a_type, a), values_of(b_type, b)
    close(found, rows, x @ y.T + c, np.abs(x) @ np.abs(y).T + np.abs(c))


@pytest.mark.parametrize(("rows", "depth"), [(16, 128), (32, 64)])
@pytest.mark.parametrize(("a_type", "b_type"), [("fp4", "fp4"), ("fp8", "fp8"), ("fp4", "fp8"), ("fp6", "fp4")])
@pytest.mark.parametrize(("byte_a", "byte_b"), [(0, 0), (1, 2), (3, 1)])
def test_every_block_of_32_has_its_scale(
    rows: int, depth: int, a_type: str, b_type: str, byte_a: int, byte_b: int
) -> None:
    """Lane l's byte scales the 32 k from 32 * (l / rows) on of row l % rows."""
    a, b = random_codes(a_type, (rows, depth)), random_codes(b_type, (rows, depth))
    exponents = RNG.integers(122, 133, (2, rows, depth // 32))
    c, count = RNG.standard_normal((rows, rows)).astype(np.float32), rows * rows // 64
    scales = []
    for each, byte in zip(exponents, (byte_a, byte_b), strict=True):
        junk = RNG.integers(0, 1 << 32, 64, dtype=np.uint32) & ~np.uint32(0xFF << 8 * byte)
        own = np.array([each[lane % rows, lane // rows] for lane in range(64)], np.uint32)
        scales.append((junk | own << np.uint32(8 * byte))[None])
    operands = [laid_out(a_type, a), laid_out(b_type, b)]
    wa, wb = (len(each) for each in operands)
    call = f"v_mfma_scale_f32_{rows}x{rows}x{depth}_f8f6f4 {span(20, count)}, {span(100, wa)}, {span(100 + wa, wb)}, "
    call += f"{span(20, count)}, v{100 + wa + wb}, v{101 + wa + wb} op_sel:[{byte_a & 1},{byte_b & 1},0] "
    call += f"op_sel_hi:[{byte_a >> 1},{byte_b >> 1},0] cbsz:{CODES[a_type]} blgp:{CODES[b_type]}"
    found = run(call, [*operands, *scales, addend_registers(c)], count)
    factors = np.repeat(np.ldexp(1.0, exponents - 127), 32, axis=2)
    x, y = values_of(a_type, a) * factors[0], values_of(b_type, b) * factors[1]
    close(found, rows, x @ y.T + c, np.abs(x) @ np.abs(y).T + np.abs(c))


def test_a_scale_of_255_makes_its_block_nan() -> None:
    """Row 3 of A, and so row 3 of D."""
    a, b = random_codes("fp4", (16, 128)), random_codes("fp4", (16, 128))
    codes = np.full(64, 127, np.uint32)
    codes[3 + 16] = 255
    call = "v_mfma_scale_f32_16x16x128_f8f6f4 v[20:23], v[100:103], v[104:107], 0, v108, v109 op_sel:[0,0,0] "
    call += "op_sel_hi:[0,0,0] cbsz:4 blgp:4"
    plain = np.full(64, 127, np.uint32)
    operands = [laid_out("fp4", a), laid_out("fp4", b), codes[None], plain[None], np.zeros((4, 64), np.uint32)]
    out = result_matrix(run(call, operands, 4).view(np.float32), 16)
    assert np.isnan(out[3]).all()
    assert np.isfinite(np.delete(out, 3, axis=0)).all()


def test_scales_for_no_matrix_instruction_are_refused() -> None:
    with pytest.raises(KernelFault, match="followed by no MFMA that takes scales"):
        run("v_mfma_ld_scale_b32 v100, v101\nv_mov_b32 v20, 0", [np.zeros((4, 64), np.uint32)], 1)
