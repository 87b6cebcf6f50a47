"""Conversions, roundings and approximations of numbers, in both encodings, against exact fractions.

Values, their specials and the accuracy promised are the ISA guide's, section 12.8.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gfx950_code import run_lanes

RNG = np.random.default_rng(12)
Truth = Callable[[float], float]
FORMATS = {"f2": (11, -14, 15), "f4": (24, -126, 127), "f8": (53, -1022, 1023)}
"""Bits of the significand, least and greatest exponent of a normal number."""


def nearest(exact: Fraction, kind: str) -> float:
    """`exact` as the nearest number of a format, ties to even, subnormals included."""
    precision, least, greatest = FORMATS[kind]
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    quantum = Fraction(2) ** (max(exponent, least) - precision + 1)
    value = round(exact / quantum) * quantum
    if abs(value) >= Fraction(2) ** (greatest + 1):
        return math.copysign(math.inf, exact)
    return float(value)


def integer(low: int, high: int, rule: Callable[[Fraction], int] = math.trunc) -> Truth:
    """To an integer type: what lies outside becomes the nearest bound, NaN 0."""

    def truth(value: float) -> float:
        if math.isnan(value):
            return 0
        return min(max(rule(Fraction(value)), low), high) if math.isfinite(value) else (high if value > 0 else low)

    return truth


def floating(kind: str, rule: Callable[[Fraction], Any] = Fraction) -> Truth:
    """To a floating-point format, by way of `rule` of the exact value; infinities and NaNs stay."""
    return lambda value: nearest(Fraction(rule(Fraction(value))), kind) if math.isfinite(value) else value


def fraction_of(kind: str) -> Truth:
    """x - floor(x), kept below one; of an infinity NaN."""
    below_one = 1 - 2.0 ** -FORMATS[kind][0]

    def truth(value: float) -> float:
        exact = Fraction(value) - math.floor(value) if math.isfinite(value) else None
        return math.nan if exact is None else min(nearest(exact, kind), below_one)

    return truth


def byte(number: int) -> Truth:
    return lambda value: int(value) >> 8 * number & 0xFF


def bf16(word: float) -> float:
    value: float = struct.unpack("<f", struct.pack("<I", int(word) << 16))[0]
    return value


S16, U16, S32, U32 = (-(1 << 15), (1 << 15) - 1), (0, (1 << 16) - 1), (-(1 << 31), (1 << 31) - 1), (0, (1 << 32) - 1)
CONVERSIONS: dict[str, tuple[str, str, Truth]] = {
    "v_cvt_i32_f32": ("f4", "i4", integer(*S32)),
    "v_cvt_u32_f32": ("f4", "u4", integer(*U32)),
    "v_cvt_i32_f64": ("f8", "i4", integer(*S32)),
    "v_cvt_u32_f64": ("f8", "u4", integer(*U32)),
    "v_cvt_i16_f16": ("f2", "i2", integer(*S16)),
    "v_cvt_u16_f16": ("f2", "u2", integer(*U16)),
    "v_cvt_rpi_i32_f32": ("f4", "i4", integer(*S32, lambda x: math.floor(x + Fraction(1, 2)))),
    "v_cvt_flr_i32_f32": ("f4", "i4", integer(*S32, math.floor)),
    "v_cvt_f32_i32": ("i4", "f4", floating("f4")),
    "v_cvt_f32_u32": ("u4", "f4", floating("f4")),
    "v_cvt_f64_i32": ("i4", "f8", floating("f8")),
    "v_cvt_f64_u32": ("u4", "f8", floating("f8")),
    "v_cvt_f16_i16": ("i2", "f2", floating("f2")),
    "v_cvt_f16_u16": ("u2", "f2", floating("f2")),
    "v_cvt_f64_f32": ("f4", "f8", floating("f8")),
    "v_cvt_f32_f64": ("f8", "f4", floating("f4")),
    "v_cvt_f16_f32": ("f4", "f2", floating("f2")),
    "v_cvt_f32_f16": ("f2", "f4", floating("f4")),
    "v_cvt_f32_bf16": ("u2", "f4", bf16),
    "v_frexp_exp_i32_f32": ("f4", "i4", lambda x: math.frexp(x)[1] if math.isfinite(x) else 0),
    "v_frexp_exp_i32_f64": ("f8", "i4", lambda x: math.frexp(x)[1] if math.isfinite(x) else 0),
}
for _number in range(4):
    CONVERSIONS[f"v_cvt_f32_ubyte{_number}"] = ("u4", "f4", byte(_number))
for _kind in FORMATS:
    _type = f"f{8 * int(_kind[1])}"
    for _name, _rule in (("ceil", math.ceil), ("floor", math.floor), ("trunc", math.trunc), ("rndne", round)):
        CONVERSIONS[f"v_{_name}_{_type}"] = (_kind, _kind, floating(_kind, _rule))
    CONVERSIONS[f"v_fract_{_type}"] = (_kind, _kind, fraction_of(_kind))
    CONVERSIONS[f"v_frexp_mant_{_type}"] = (_kind, _kind, lambda x: math.frexp(x)[0] if math.isfinite(x) else x)

CORNERS = [
    0.0,
    -0.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    -3.5,
    0.99951,
    1.0,
    -1.0,
    2049.0,
    65504.0,
    -65504.0,
    32767.0,
    6e-8,
    4e-5,
]
WIDER = [65519.9, 65520.0, -70000.0, 2147483647.9, -2147483649.0, 3e9, 4294967295.5, 5e9, -5e9, 1e-40, -1e-40, 1e38]
WIDER += [0.49999997, -0.49999997, 8388609.0, 2.0**-25, 3 * 2.0**-25]


def source_values(kind: str) -> npt.NDArray[Any]:
    """(64,) values of a type: corners, then random ones of many sizes."""
    if kind[0] != "f":
        limits = np.iinfo(kind)
        values = RNG.integers(limits.min, limits.max, 64, dtype=kind, endpoint=True)
        values[:6] = (0, 1, limits.max, limits.min, limits.max // 2 + 1, (1 << 8 * int(kind[1]) - 8) + 1)
        return values
    corners = [math.inf, -math.inf, math.nan, *CORNERS, *(WIDER if kind != "f2" else [])]
    spread = RNG.standard_normal(64) * 2.0 ** RNG.integers(-12, 15 if kind == "f2" else 36, 64)
    if kind == "f2":
        spread = np.where(np.abs(spread) < 2.0**-11, 1.0, spread)  # whether v_fract_f16 may give 1 is not told
    spread[: len(corners)] = corners
    return spread.astype(kind)


def registers(values: npt.NDArray[Any]) -> list[npt.NDArray[np.uint32]]:
    """What holds (64,) values: one register, or two for 64 bits; 16 bits in the low half, something in the high."""
    size = values.dtype.itemsize
    if size == 8:
        return [np.ascontiguousarray(half) for half in values.view(np.uint32).reshape(64, 2).T]
    words = values.view(f"u{size}").astype(np.uint32)
    return [words | np.uint32(0x12340000)] if size == 2 else [words]


def executed(cases: list[tuple[str, str]], source: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Results (64,) of (mnemonic, result kind), each in both encodings, side by side in that order."""
    operand = "v[10:11]" if source.dtype.itemsize == 8 else "v10"
    forms = [(name + form, kind) for name, kind in cases for form in ("_e32", "_e64")]
    lines = []
    for i, (name, kind) in enumerate(forms):
        low = 20 + 2 * i
        target = f"v[{low}:{low + 1}]" if kind == "f8" else f"v{low}"
        lines.append(f"v_mov_b32 v{low}, -1\n{name} {target}, {operand}")
    found = run_lanes("\n".join(lines), registers(source), 2 * len(forms))
    results = []
    for i, (name, kind) in enumerate(forms):
        words = np.ascontiguousarray(found[2 * i : 2 * i + 2].T)
        if kind == "f2":
            assert (words[:, 0] < 1 << 16).all(), f"{name} clears the high half"
        results.append(words.view(kind)[:, 0])
    return results


@pytest.mark.parametrize("kind", sorted({source for source, _, _ in CONVERSIONS.values()}))
def test_conversions_and_roundings(kind: str) -> None:
    cases = [(name, result, truth) for name, (source, result, truth) in CONVERSIONS.items() if source == kind]
    source = source_values(kind)
    found = executed([(name, result) for name, result, _ in cases], source)
    for i, (name, result, truth) in enumerate(cases):
        expected = np.array([truth(value) for value in source.tolist()], result)
        # What floor and nearest give for a NaN, the guide and what is seen on other generations tell differently.
        told = ~np.isnan(source) if name in ("v_cvt_rpi_i32_f32", "v_cvt_flr_i32_f32") else np.ones(64, bool)
        for got in found[2 * i : 2 * i + 2]:
            assert np.array_equal(got[told], expected[told], equal_nan=result[0] == "f"), name


def test_two_floats_become_two_halves() -> None:
    """v_cvt_pk_f16_f32 rounds each to nearest even; the other order of sources the other order of halves."""
    values = source_values("f4")
    found = run_lanes("v_cvt_pk_f16_f32 v20, v10, v11", (values, values[::-1].copy()))[0]
    halves = np.ascontiguousarray(found).view(np.float16).reshape(64, 2)
    expected = np.array([floating("f2")(value) for value in values.tolist()], np.float16)
    assert np.array_equal(halves[:, 0], expected, equal_nan=True)
    assert np.array_equal(halves[:, 1], expected[::-1], equal_nan=True)


def root(value: float) -> float:
    return math.sqrt(value) if value >= 0 else math.nan


APPROXIMATIONS: dict[str, tuple[str, float, Truth]] = {
    "v_rcp_f16": ("f2", 1, lambda x: 1 / x),
    "v_rcp_f32": ("f4", 1, lambda x: 1 / x),
    "v_rcp_iflag_f32": ("f4", 1, lambda x: 1 / x),
    "v_rcp_f64": ("f8", 2.0**29, lambda x: 1 / x),
    "v_rsq_f32": ("f4", 1, lambda x: 1 / root(x)),
    "v_sqrt_f32": ("f4", 1, root),
    "v_sqrt_f64": ("f8", 2.0**29, root),
    "v_exp_f32": ("f4", 1, lambda x: 2.0**x),
    "v_log_f32": ("f4", 1, lambda x: math.log2(x) if x > 0 else math.nan),
}
"""Type, units in the last place promised, and the function."""

# The guide's functional examples (sources and results as bits), and subnormals, which the float32 forms flush.
INF, NAN = math.inf, math.nan
EXAMPLES: dict[str, list[tuple[float, float]]] = {
    "v_rcp_f16": [(-INF, -0.0), (-2.0, -0.5), (-0.0, -INF), (0.0, INF), (INF, 0.0), (2.0**-15, 2.0**15)],
    "v_rcp_f32": [
        (-INF, -0.0),
        (-2.0, -0.5),
        (-0.0, -INF),
        (0.0, INF),
        (INF, 0.0),
        (2.0**-127, INF),
        (-(2.0**127), -0.0),
    ],
    "v_rcp_f64": [(-INF, -0.0), (-2.0, -0.5), (-0.0, -INF), (0.0, INF), (INF, 0.0)],
    "v_rsq_f32": [(-INF, NAN), (-0.0, -INF), (0.0, INF), (4.0, 0.5), (INF, 0.0), (1e-40, INF), (-1e-40, -INF)],
    "v_sqrt_f32": [(-INF, NAN), (-0.0, -0.0), (0.0, 0.0), (4.0, 2.0), (INF, INF), (1e-40, 0.0)],
    "v_exp_f32": [(-INF, 0.0), (-0.0, 1.0), (INF, INF), (-127.0, 0.0), (1e-40, 1.0)],
    "v_log_f32": [(-INF, NAN), (-1.0, NAN), (-0.0, -INF), (0.0, -INF), (1.0, 0.0), (INF, INF), (1e-40, -INF)],
}


@pytest.mark.parametrize("kind", FORMATS)
def test_approximations_keep_the_accuracy_promised(kind: str) -> None:
    cases = {name: (ulps, truth) for name, (of, ulps, truth) in APPROXIMATIONS.items() if of == kind}
    source = (RNG.uniform(1, 2, 64) * 2.0 ** RNG.integers(-6, 6, 64)).astype(kind)
    source[:3] = (1, 2, 0.75)
    found = executed([(name, kind) for name in cases], source)
    for i, (name, (ulps, truth)) in enumerate(cases.items()):
        exact = np.array([truth(value) for value in source.tolist()])
        unit = np.spacing(np.abs(exact).astype(kind)).astype(np.float64)
        for got in found[2 * i : 2 * i + 2]:
            assert (np.abs(got.astype(np.float64) - exact) <= ulps * unit).all(), name


@pytest.mark.parametrize("name", EXAMPLES)
def test_approximations_of_special_values(name: str) -> None:
    kind = APPROXIMATIONS[name][0]
    source = np.ones(64, kind)
    examples = EXAMPLES[name]
    source[: len(examples)] = [value for value, _ in examples]
    expected = np.array([result for _, result in examples], kind)
    for got in executed([(name, kind)], source):
        assert np.array_equal(got[: len(examples)], expected, equal_nan=True)
        numbers = ~np.isnan(expected)
        assert (np.signbit(got[: len(examples)]) == np.signbit(expected))[numbers].all()
