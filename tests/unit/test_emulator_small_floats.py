"""Conversions of 8, 6 and 4-bit floats: against values and rounding worked out from the OCP's texts in fractions.

OFP8 1.0 (E4M3: bias 7, no infinity, S.1111.111 is NaN; E5M2: bias 15, as IEEE) and MX 1.0, section 5.3 (E2M3 and E2M1:
bias 1; E3M2: bias 3; no infinity, no NaN; E8M0: 2**(code - 127), 255 is NaN). Nothing here comes from the emulator.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from gfx950_code import Words, assemble, launch, run_lanes, vector_program

FORMATS = {"fp8": (4, 3, 7), "bf8": (5, 2, 15), "fp6": (2, 3, 1), "bf6": (3, 2, 3), "fp4": (2, 1, 1)}
RNG = np.random.default_rng(31)


def value_of(name: str, code: int) -> float:
    exponent_bits, mantissa_bits, bias = FORMATS[name]
    mantissa = code & (1 << mantissa_bits) - 1
    exponent = code >> mantissa_bits & (1 << exponent_bits) - 1
    sign = -1.0 if code >> (exponent_bits + mantissa_bits) else 1.0
    if name == "fp8" and exponent == 15 and mantissa == 7:
        return math.nan
    if name == "bf8" and exponent == 31:
        return math.nan if mantissa else sign * math.inf
    if exponent == 0:
        return sign * math.ldexp(mantissa, 1 - bias - mantissa_bits)
    return sign * math.ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits)


def bits_of(name: str) -> int:
    return 1 + FORMATS[name][0] + FORMATS[name][1]


def finite(name: str) -> list[tuple[Fraction, int]]:
    """Positive values in order, with their codes."""
    codes = range(1 << (bits_of(name) - 1))
    return [(Fraction(value_of(name, c)), c) for c in codes if math.isfinite(value_of(name, c))]


def nearest(name: str, value: float) -> int:
    """The code of `value` rounded to nearest, ties to even. Beyond the largest by half a step or more: fp8's NaN, bf8's
    infinity, the others' largest."""
    sign = (1 << (bits_of(name) - 1)) if math.copysign(1, value) < 0 else 0
    if math.isnan(value):
        return -1
    table = finite(name)
    top, step = table[-1][0], table[-1][0] - table[-2][0]
    over = {"fp8": 0x7F, "bf8": 0x7C}.get(name, table[-1][1])
    if math.isinf(value):
        return sign | over
    magnitude = abs(Fraction(value))
    if magnitude > top + step / 2 or (magnitude == top + step / 2 and table[-1][1] & 1):
        return sign | over
    return sign | min(table, key=lambda entry: (abs(entry[0] - magnitude), entry[1] & 1))[1]


def interesting(name: str) -> npt.NDArray[np.float32]:
    """64 values: representable ones, ties, ties missed by a hair, over and under, infinities and zeros."""
    table = [float(v) for v, _ in finite(name)]
    ties = [(a + b) / 2 for a, b in pairwise(table)]
    picked = [*RNG.choice(table, 16), *RNG.choice(ties, 16)]
    hairs = [np.nextafter(np.float32(t), np.float32(s)) for t in RNG.choice(ties, 6) for s in (0.0, np.inf)]
    top = table[-1]
    edge = [top, top + (top - table[-2]) / 2, np.nextafter(np.float32(top + (top - table[-2]) / 2), np.float32(np.inf))]
    odd = [0.0, -0.0, np.inf, -np.inf, 2 * top, -2 * top, table[1] / 2, table[1] / 2.001, 1e-30, -1e30, *edge]
    return np.resize(np.array([*picked, *hairs, *odd], np.float32) * 1, 64)


def expected(name: str, values: npt.NDArray[np.float32]) -> list[int]:
    return [nearest(name, float(v)) for v in values]


NANS = {"fp8": (0x7F, 0xFF), "bf8": (0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF)}


@pytest.mark.parametrize("name", ["fp8", "bf8"])
def test_two_values_are_narrowed_into_one_half_of_a_register(name: str) -> None:
    a, b = interesting(name), np.roll(interesting(name), 9)
    lines = f"""
    v_mov_b32 v20, 0x12345678
    v_mov_b32 v21, 0x12345678
    v_cvt_pk_{name}_f32 v20, v10, v11
    v_cvt_pk_{name}_f32 v21, v11, v10 op_sel:[0,0,1]
    v_cvt_pk_{name}_f32 v22, -v10, |v11|
    """
    found = run_lanes(lines, (a, b), 3)
    for lane, (x, y) in enumerate(zip(expected(name, a), expected(name, b), strict=True)):
        assert found[0, lane] == 0x12340000 | y << 8 | x, (a[lane], b[lane])
        assert found[1, lane] == 0x5678 | (x << 8 | y) << 16
    assert (found[2] & 0xFFFF).tolist() == [
        y << 8 | x for x, y in zip(expected(name, -a), expected(name, abs(b)), strict=True)
    ]


@pytest.mark.parametrize("name", ["fp8", "bf8"])
def test_a_nan_stays_one(name: str) -> None:
    found = run_lanes(f"v_cvt_pk_{name}_f32 v20, v10, v10", (np.full(64, np.nan, np.float32),))[0, 0]
    assert found & 0xFF in NANS[name]


def test_what_fp8_cannot_hold_is_nan_and_what_bf8_cannot_is_infinity() -> None:
    """464 is half way from 448 to the 480 that fp8 has no code for: even is 448."""
    values = np.resize(np.array([448, 464, 464.1, 61440, 61439, 1e9], np.float32), 64)
    found = run_lanes("v_cvt_pk_fp8_f32 v20, v10, v10\nv_cvt_pk_bf8_f32 v21, v10, v10", (values,), 2) & 0xFF
    assert [hex(v) for v in found[0, :6]] == ["0x7e", "0x7e", "0x7f", "0x7f", "0x7f", "0x7f"]
    assert [hex(v) for v in found[1, 3:6]] == ["0x7c", "0x7b", "0x7c"]


@pytest.mark.parametrize("name", ["fp8", "bf8"])
def test_every_code_is_widened(name: str) -> None:
    codes = np.arange(256, dtype=np.uint32).reshape(4, 64)
    words = codes[0] | codes[1] << 8 | codes[2] << 16 | codes[3] << 24
    lines = f"""
    v_cvt_f32_{name} v20, v10
    v_cvt_f32_{name}_sdwa v21, v10 src0_sel:BYTE_1
    v_cvt_f32_{name}_sdwa v22, v10 src0_sel:BYTE_2
    v_cvt_f32_{name}_sdwa v23, v10 src0_sel:BYTE_3
    v_cvt_pk_f32_{name} v[24:25], v10
    v_cvt_pk_f32_{name}_sdwa v[26:27], v10 src0_sel:WORD_1
    v_cvt_f32_{name}_e64 v28, v10
    v_cvt_pk_f32_{name}_e64 v[30:31], v10
    """
    found = run_lanes(lines, (words,), 12).view(np.float32)
    truth = np.array([value_of(name, code) for code in range(256)], np.float32).reshape(4, 64)
    assert np.array_equal(found[[8, 10, 11]], truth[[0, 0, 1]], equal_nan=True)
    found = found[:8]
    assert np.array_equal(found[:4], truth, equal_nan=True)
    assert np.array_equal(found[4:], truth, equal_nan=True)
    assert (np.signbit(found[:4]) == np.signbit(truth))[~np.isnan(truth)].all()


SCALES = np.resize(np.array([127, 120, 130, 127 + 9], np.uint32), 64)
SCALE_WORDS = (SCALES << 23) | RNG.integers(0, 1 << 23, 64, dtype=np.uint32)  # only the exponent counts
FACTOR = np.ldexp(1.0, SCALES.astype(int) - 127)


def scaled(name: str) -> npt.NDArray[np.float32]:
    return (interesting(name).astype(float) * FACTOR).astype(np.float32)


def narrowed(name: str, values: npt.NDArray[np.float64]) -> list[int]:
    return [nearest(name, float(v / f)) for v, f in zip(values, FACTOR, strict=True)]


def test_scaled_fp4_goes_into_one_byte() -> None:
    a, b = scaled("fp4"), np.roll(scaled("fp4"), 4)
    lines = ""
    for i in range(4):
        lines += f"v_mov_b32 v{20 + i}, 0x11223344\n"
        lines += f"v_cvt_scalef32_pk_fp4_f32 v{20 + i}, v10, v11, v12 op_sel:[0,0,{i & 1},{i >> 1}]\n"
    found = run_lanes(lines, (a, b, SCALE_WORDS), 4)
    octets = [y << 4 | x for x, y in zip(narrowed("fp4", a), narrowed("fp4", b), strict=True)]
    for i in range(4):
        kept = 0x11223344 & ~(0xFF << 8 * i)
        assert found[i].tolist() == [kept | octet << 8 * i for octet in octets], i


@pytest.mark.parametrize("name", ["fp8", "bf8"])
def test_scaled_eight_bits_go_into_one_half(name: str) -> None:
    a, b = scaled(name), np.roll(scaled(name), 4)
    lines = f"""
    v_mov_b32 v20, -1
    v_cvt_scalef32_pk_{name}_f32 v20, v10, v11, v12
    v_mov_b32 v21, -1
    v_cvt_scalef32_pk_{name}_f32 v21, v10, v11, v12 op_sel:[0,0,0,1]
    """
    found = run_lanes(lines, (a, b, SCALE_WORDS), 2)
    words = [y << 8 | x for x, y in zip(narrowed(name, a), narrowed(name, b), strict=True)]
    assert found[0].tolist() == [0xFFFF0000 | word for word in words]
    assert found[1].tolist() == [0xFFFF | word << 16 for word in words]


def wide16(kind: str, values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float64]]:
    """16-bit patterns of values, and what they are exactly."""
    if kind == "f16":
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        return half.view(np.uint16).astype(np.uint32), half.astype(np.float64)
    bits = values.view(np.uint32) >> 16
    return bits, (bits << 16).view(np.float32).astype(np.float64)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("name", ["fp8", "bf8", "fp4"])
def test_pairs_of_halves_are_narrowed(name: str, kind: str) -> None:
    low_bits, low = wide16(kind, scaled(name))
    high_bits, high = wide16(kind, np.roll(scaled(name), 8))
    line = f"v_mov_b32 v20, 0\nv_cvt_scalef32_pk_{name}_{kind} v20, v10, v11"
    found = run_lanes(line, (low_bits | high_bits << 16, SCALE_WORDS))
    width = bits_of(name)
    assert found[0].tolist() == [y << width | x for x, y in zip(narrowed(name, low), narrowed(name, high), strict=True)]


def as_kind(kind: str, value: float) -> int:
    """Bits of a float64 rounded to nearest even in `kind`."""
    single = np.float32(value)
    if kind == "f32":
        return int(single.view(np.uint32))
    if kind == "f16":
        with np.errstate(over="ignore"):
            return int(np.float16(value).view(np.uint16))
    word = int(single.view(np.uint32))
    if np.isnan(single):
        return word >> 16 | 0x40
    return (word + 0x7FFF + (word >> 16 & 1)) >> 16


def same(found: int, wanted: int, kind: str) -> bool:
    infinite = {"f32": 0x7F800000, "f16": 0x7C00, "bf16": 0x7F80}[kind]
    sign = {"f32": 31, "f16": 15, "bf16": 15}[kind]
    nan = [(each & (1 << sign) - 1) > infinite for each in (found, wanted)]
    return all(nan) or found == wanted


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("name", ["fp8", "bf8", "fp4"])
def test_pairs_are_widened_times_their_scale(name: str, kind: str) -> None:
    """fp8 pairs come from the half that op_sel names, fp4 pairs from the byte."""
    words = RNG.integers(0, 1 << 32, 64, dtype=np.uint32)
    width, outputs = bits_of(name), 2 if kind == "f32" else 1
    target = "v[20:21]" if kind == "f32" else "v20"
    for place in (0, 1) if width == 8 else (0, 1, 2, 3):
        select = f"[{place & 1},{place >> 1},0]"
        line = f"v_cvt_scalef32_pk_{kind}_{name} {target}, v10, v11 op_sel:{select}"
        found = run_lanes(line, (words, SCALE_WORDS), outputs)
        for lane in range(64):
            part = int(words[lane]) >> place * 2 * width
            codes = [part >> width * i & (1 << width) - 1 for i in range(2)]
            wanted = [as_kind(kind, value_of(name, code) * FACTOR[lane]) for code in codes]
            whole, first = [int(row[lane]) for row in found], int(found[0, lane])
            got = whole if kind == "f32" else [first & 0xFFFF, first >> 16]
            assert all(same(g, w, kind) for g, w in zip(got, wanted, strict=True)), (lane, got, wanted)


@pytest.mark.parametrize("name", ["fp8", "bf8"])
def test_one_value_is_widened_from_any_byte(name: str) -> None:
    words = RNG.integers(0, 1 << 32, 64, dtype=np.uint32)
    lines = "\n".join(f"v_cvt_scalef32_f32_{name} v{20 + i}, v10, v11 op_sel:[{i & 1},{i >> 1},0]" for i in range(4))
    lines += f"\nv_mov_b32 v24, -1\nv_cvt_scalef32_f16_{name} v24, v10, v11 op_sel:[0,1,1]"
    found = run_lanes(lines, (words, SCALE_WORDS), 5)
    for lane in range(64):
        values = [value_of(name, int(words[lane]) >> 8 * i & 0xFF) * FACTOR[lane] for i in range(4)]
        assert all(same(int(found[i, lane]), as_kind("f32", values[i]), "f32") for i in range(4))
        assert same(int(found[4, lane]) >> 16, as_kind("f16", values[2]), "f16")
        assert found[4, lane] & 0xFFFF == 0xFFFF


def test_a_scale_of_255_is_nan() -> None:
    words = np.full(64, 0x7F800000, np.uint32)
    found = run_lanes("v_cvt_scalef32_pk_f32_fp4 v[20:21], v10, v11", (np.full(64, 0x33, np.uint32), words), 2)
    assert np.isnan(found.view(np.float32)).all()


def pack_bits(codes: list[int], width: int) -> list[int]:
    number = sum(code << width * i for i, code in enumerate(codes))
    return [number >> 32 * i & 0xFFFFFFFF for i in range(len(codes) * width // 32)]


def run_wide(lines: str, inputs: Words, outputs: int) -> Words:
    """Row i of `inputs` in v[100 + i]; the results from v[20] on."""
    step = "s_add_u32 s6, s6, 256\ns_addc_u32 s7, s7, 0"
    loads = "\n".join(f"global_load_dword v{100 + i}, v1, s[6:7]\n{step}" for i in range(len(inputs)))
    code = assemble(vector_program(f"{loads}\ns_waitcnt vmcnt(0)\n{lines}", 0, outputs))
    found: Words = launch(code, np.ascontiguousarray(inputs), np.zeros((outputs, 64), np.uint32))[1]
    return found


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("name", ["fp6", "bf6"])
def test_thirty_two_codes_of_six_bits_are_widened(name: str, kind: str) -> None:
    codes = RNG.integers(0, 64, (64, 32))
    words = np.array([pack_bits([int(c) for c in row], 6) for row in codes], np.uint32).T
    outputs = 32 if kind == "f32" else 16
    lines = f"v_cvt_scalef32_pk32_{kind}_{name} v[20:{19 + outputs}], v[100:105], v106"
    found = run_wide(lines, np.concatenate([words, SCALE_WORDS[None]]), outputs)
    for lane in range(64):
        values = [as_kind(kind, value_of(name, int(code)) * FACTOR[lane]) for code in codes[lane]]
        wanted = values if kind == "f32" else [a | b << 16 for a, b in zip(values[::2], values[1::2], strict=True)]
        assert found[:, lane].tolist() == wanted


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("name", ["fp6", "bf6"])
def test_thirty_two_halves_are_narrowed_to_six_bits(name: str, kind: str) -> None:
    columns = [wide16(kind, np.roll(scaled(name), 4 * i)) for i in range(32)]
    words = np.array([low[0] | high[0] << 16 for low, high in zip(columns[::2], columns[1::2], strict=True)], np.uint32)
    line = f"v_cvt_scalef32_pk32_{name}_{kind} v[20:25], v[100:115], v116"
    found = run_wide(line, np.concatenate([words, SCALE_WORDS[None]]), 6)
    rows = np.array([narrowed(name, values) for _, values in columns])
    for lane in range(64):
        assert found[:, lane].tolist() == pack_bits([int(c) for c in rows[:, lane]], 6)


@pytest.mark.parametrize("name", ["fp6", "bf6"])
def test_two_times_sixteen_floats_are_interleaved(name: str) -> None:
    """The ISA guide: "S0 and S1 inputs are interleaved in the packed result"."""
    columns = [np.roll(scaled(name), 4 * i) for i in range(32)]
    words = np.array([column.view(np.uint32) for column in columns[::2] + columns[1::2]])
    lines = f"v_cvt_scalef32_2xpk16_{name}_f32 v[20:25], v[100:115], v[116:131], v132"
    found = run_wide(lines, np.concatenate([words, SCALE_WORDS[None]]), 6)
    rows = np.array([narrowed(name, column.astype(float)) for column in columns])
    for lane in range(64):
        assert found[:, lane].tolist() == pack_bits([int(c) for c in rows[:, lane]], 6)


def neighbours(name: str, value: float) -> tuple[int, int, Fraction]:
    """Codes of the magnitudes around |value|, and where it lies between them."""
    table, magnitude = finite(name), abs(Fraction(value))
    below = max(i for i, (v, _) in enumerate(table) if v <= magnitude)
    if table[below][0] == magnitude:
        return table[below][1], table[below][1], Fraction(0)
    (low, low_code), (high, high_code) = table[below], table[below + 1]
    return low_code, high_code, (magnitude - low) / (high - low)


STOCHASTIC = {
    # result type: (instruction with {} for its sources, sources of one value, is it scaled)
    "fp8": ("v_cvt_sr_fp8_f32 v20, v10, v11", False),
    "bf8": ("v_cvt_sr_bf8_f32 v20, v10, v11", False),
    "scaled fp8": ("v_cvt_scalef32_sr_fp8_f32 v20, v10, v11, v12", True),
    "scaled bf8": ("v_cvt_scalef32_sr_bf8_f32 v20, v10, v11, v12", True),
}


@pytest.mark.parametrize("case", STOCHASTIC)
def test_stochastic_rounding_goes_up_as_often_as_the_distance_says(case: str) -> None:
    """Of normal results, with random bits r / 2**32: up exactly when the fraction plus r reaches one."""
    line, scales = STOCHASTIC[case]
    name = case.split()[-1]
    table = [float(v) for v, _ in finite(name)]
    values = RNG.uniform(table[20], table[60], 64).astype(np.float32) * np.where(RNG.random(64) < 0.5, -1, 1)
    values = values.astype(np.float32)
    random = RNG.integers(0, 1 << 32, 64, dtype=np.uint32)
    random[:4] = [0, 0xFFFFFFFF, 0, 0xFFFFFFFF]
    given = (values * FACTOR).astype(np.float32) if scales else values
    found = run_lanes(f"v_mov_b32 v20, 0x55555555\n{line}", (given, random, SCALE_WORDS))[0]
    assert ((found >> 8) == 0x555555).all()
    kept_bits = 23 - FORMATS[name][1]
    for lane, value in enumerate(values):
        low, high, fraction = neighbours(name, float(value))
        noise = Fraction(int(random[lane]) >> (32 - kept_bits), 1 << kept_bits)
        code = high if fraction + noise >= 1 else low
        assert found[lane] & 0xFF == code | (0x80 if value < 0 else 0), (value, hex(random[lane]))


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("name", ["fp8", "bf8"])
def test_stochastic_rounding_of_halves_takes_a_neighbour(name: str, kind: str) -> None:
    table = [float(v) for v, _ in finite(name)]
    bits, exact = wide16(kind, (RNG.uniform(table[20], table[60], 64) * FACTOR).astype(np.float32))
    random = np.where(np.arange(64) % 2, 0xFFFFFFFF, 0).astype(np.uint32)
    found = run_lanes(
        f"v_mov_b32 v20, 0\nv_cvt_scalef32_sr_{name}_{kind} v20, v10, v11, v12 op_sel:[0,0,1,1]",
        (bits, random, SCALE_WORDS),
    )[0]
    for lane in range(64):
        low, high, _ = neighbours(name, float(exact[lane] / FACTOR[lane]))
        assert found[lane] == (high if lane % 2 else low) << 24


def prng(value: int) -> int:
    return (value << 1 ^ (197 if value >> 31 else 0)) & 0xFFFFFFFF


def test_the_generator_of_random_bits() -> None:
    words = RNG.integers(0, 1 << 32, 64, dtype=np.uint32)
    found = run_lanes("v_prng_b32 v20, v10\nv_prng_b32_e64 v21, v10", (words,), 2)
    assert found[0].tolist() == found[1].tolist() == [prng(int(w)) for w in words]


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
def test_stochastic_fp4_pairs_take_the_next_random_bits_for_the_second(kind: str) -> None:
    """All ones rounds up what is between, and the generator's next word is not all ones: its top bits decide."""
    values = RNG.uniform(0.5, 6, (2, 64)).astype(np.float32)
    random = RNG.integers(0, 1 << 32, 64, dtype=np.uint32)
    if kind == "f32":
        given = [(v * FACTOR).astype(np.float32) for v in values]
        exact = [v.astype(float) for v in values]
        inputs, source, rest = (*given, random, SCALE_WORDS), "v[10:11]", "v12, v13"
    else:
        (low, first), (high, second) = (wide16(kind, (v * FACTOR).astype(np.float32)) for v in values)
        exact = [first / FACTOR, second / FACTOR]
        inputs, source, rest = (low | high << 16, random, SCALE_WORDS), "v10", "v11, v12"
    found = run_lanes(f"v_mov_b32 v20, 0\nv_cvt_scalef32_sr_pk_fp4_{kind} v20, {source}, {rest}", inputs)[0]
    for lane in range(64):
        word, codes = int(random[lane]), []
        for value in (exact[0][lane], exact[1][lane]):
            low_code, high_code, fraction = neighbours("fp4", float(value))
            noise = Fraction(word >> 10, 1 << 22)
            codes.append(high_code if fraction + noise >= 1 else low_code)
            word = prng(word)
        assert found[lane] == codes[0] | codes[1] << 4


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("name", ["fp6", "bf6"])
def test_stochastic_rounding_of_thirty_two_values(name: str, kind: str) -> None:
    table = [float(v) for v, _ in finite(name)]
    columns = [(RNG.uniform(table[8], table[-1], 64) * FACTOR).astype(np.float32) for _ in range(32)]
    if kind == "f32":
        words, exact, count = np.array([c.view(np.uint32) for c in columns]), [c / FACTOR for c in columns], 32
    else:
        pairs = [wide16(kind, c) for c in columns]
        words = np.array([a[0] | b[0] << 16 for a, b in zip(pairs[::2], pairs[1::2], strict=True)], np.uint32)
        exact, count = [p[1] / FACTOR for p in pairs], 16
    random = RNG.integers(0, 1 << 32, 64, dtype=np.uint32)
    lines = f"v_cvt_scalef32_sr_pk32_{name}_{kind} v[20:25], v[100:{99 + count}], v{100 + count}, v{101 + count}"
    found = run_wide(lines, np.concatenate([words, random[None], SCALE_WORDS[None]]), 6)
    dropped = 23 - FORMATS[name][1]
    for lane in range(64):
        word, codes = int(random[lane]), []
        for value in exact:
            low, high, fraction = neighbours(name, float(value[lane]))
            codes.append(high if fraction + Fraction(word >> (32 - dropped), 1 << dropped) >= 1 else low)
            word = prng(word)
        assert found[:, lane].tolist() == pack_bits(codes, 6)
