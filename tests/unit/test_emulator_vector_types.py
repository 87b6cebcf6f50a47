"""Vector operations on 16- and 64-bit types and packed halves, lane by lane against Python and IEEE arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gfx950_code import encodings, run_lanes

RNG = np.random.default_rng(77)
Operation = Callable[..., Any]


def median(a: Any, b: Any, c: Any) -> Any:
    return sorted((a, b, c))[1]


HALF: dict[str, Operation] = {
    "v_add_f16": lambda a, b: a + b,
    "v_sub_f16": lambda a, b: a - b,
    "v_subrev_f16": lambda a, b: b - a,
    "v_mul_f16": lambda a, b: a * b,
    "v_max_f16": max,
    "v_min_f16": min,
}
THREE: dict[str, Operation] = {"min3": min, "max3": max, "med3": median}
SHORT: dict[str, Operation] = {
    "v_max_{}16": max,
    "v_min_{}16": min,
    "v_pk_max_{}16": max,
    "v_pk_min_{}16": min,
}
PACKED: dict[str, Operation] = {
    "v_pk_add_i16": lambda a, b: a + b,
    "v_pk_sub_u16": lambda a, b: a - b,
    "v_pk_mul_lo_u16": lambda a, b: a * b,
    "v_pk_lshlrev_b16": lambda a, b: b << (a & 15),
    "v_pk_lshrrev_b16": lambda a, b: (b & 0xFFFF) >> (a & 15),
    "v_pk_ashrrev_i16": lambda a, b: ((b ^ 0x8000) - 0x8000) >> (a & 15),
    "v_pk_mad_u16": lambda a, b, c: a * b + c,
    "v_pk_mad_i16": lambda a, b, c: a * b + c,
}


def numbers(dtype: Any, count: int = 1) -> list[npt.NDArray[Any]]:
    """Numbers of moderate size, some of them whole, halves and negative zero."""
    made = []
    for _ in range(count):
        values = (RNG.standard_normal(64) * 40).astype(dtype)
        values[:6] = [0.0, -0.0, 2.5, -2.5, 3.0, -7.0]
        made.append(values)
    return made


def low(values: npt.NDArray[np.uint32], dtype: Any) -> npt.NDArray[Any]:
    return values.astype(np.uint16).view(dtype)


def test_half_precision_arithmetic() -> None:
    a, b, c = numbers(np.float16, 3)
    rows = [values.view(np.uint16).astype(np.uint32) for values in (a, b, c)]
    forms = [name + form for form in ("_e32", "_e64") for name in HALF]
    lines = [f"{name} v{20 + i}, v10, v11" for i, name in enumerate(forms)]
    lines += [f"v_{name}_f16 v{20 + len(forms) + i}, v10, v11, v12" for i, name in enumerate(THREE)]
    found = run_lanes("\n".join(lines), rows, len(forms) + len(THREE))
    for got, name in zip(found, forms, strict=False):
        expected = np.array([HALF[name[:-4]](x, y) for x, y in zip(a, b, strict=True)], np.float16)
        assert (got.view(np.uint16)[1::2] == 0).all(), name
        assert (low(got, np.float16) == expected).all(), name
    for i, (name, operation) in enumerate(THREE.items()):
        expected = np.array([operation(x, y, z) for x, y, z in zip(a, b, c, strict=True)], np.float16)
        assert (low(found[len(forms) + i], np.float16) == expected).all(), name


@pytest.mark.parametrize("kind", ["f32", "i32", "u32", "i16", "u16"])
def test_least_greatest_and_middle_of_three(kind: str) -> None:
    dtype = {"f": "f4", "i": f"i{int(kind[1:]) // 8}", "u": f"u{int(kind[1:]) // 8}"}[kind[0]]
    whole = [RNG.integers(0, 1 << 16, 64).astype(dtype) for _ in range(3)]
    values = numbers(np.float32, 3) if kind == "f32" else whole
    rows = [v.view(np.uint32) if v.itemsize == 4 else v.view(np.uint16).astype(np.uint32) for v in values]
    lines = [f"v_{name}_{kind} v{20 + i}, v10, v11, v12" for i, name in enumerate(THREE)]
    found = run_lanes("\n".join(lines), rows, 3)
    for i, (name, operation) in enumerate(THREE.items()):
        got = found[i].view(dtype) if kind.endswith("32") else low(found[i], dtype)
        expected = [operation(*triple) for triple in zip(*(v.tolist() for v in values), strict=True)]
        assert got.tolist() == expected, name


@pytest.mark.parametrize("sign", ["i", "u"])
def test_short_least_and_greatest(sign: str) -> None:
    a, b = (RNG.integers(0, 1 << 32, 64, dtype=np.uint32) for _ in range(2))
    cases = [(line, rule) for name, rule in SHORT.items() for line in encodings(f"{name.format(sign)} v{{}}, v10, v11")]
    lines = "\n".join(line.format(20 + i) for i, (line, _) in enumerate(cases))
    for (name, operation), got in zip(cases, run_lanes(lines, [a, b], len(cases)), strict=True):
        halves = [np.ascontiguousarray(values).view(f"{sign}2").reshape(64, 2) for values in (a, b, got)]
        for x, y, z in zip(*halves, strict=True):
            assert z[0] == operation(x[0], y[0]), name
            assert "_pk_" not in name or z[1] == operation(x[1], y[1]), name


@pytest.mark.parametrize("name", PACKED)
def test_packed_integers(name: str) -> None:
    rows = [RNG.integers(0, 1 << 32, 64, dtype=np.uint32) for _ in range(3)]
    operands = PACKED[name].__code__.co_argcount
    found = run_lanes(f"{name} v20, " + ", ".join(f"v{10 + i}" for i in range(operands)), rows)[0]
    halves = [values.view(np.uint16).reshape(64, 2).astype(np.int64) for values in rows[:operands]]
    expected = PACKED[name](*halves) & 0xFFFF
    assert (np.ascontiguousarray(found).view(np.uint16).reshape(64, 2) == expected).all()


def exact_fused(a: float, b: float, c: float) -> np.float16:
    """a * b + c of float16 with one rounding, ties to even; results of normal size."""
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    exponent = math.frexp(exact)[1] - 11  # frexp's double is exact enough to find the binade
    return np.float16(float(round(exact / Fraction(2) ** exponent) * Fraction(2) ** exponent))


def test_fused_half_precision_sums_of_products() -> None:
    """Addends near the negated product, so that rounding the product first would show. The scalar-width operation
    leaves the half of its destination that it does not write alone."""
    a, b = (RNG.uniform(1, 2, (64, 2)).astype(np.float16) for _ in range(2))
    c = (-(a.astype(np.float32) * b) * RNG.choice([0.999, 1.001, 3.0], (64, 2))).astype(np.float16)
    rows = [np.ascontiguousarray(values).view(np.uint32)[:, 0] for values in (a, b, c)]
    lines = """
    v_pk_fma_f16 v20, v10, v11, v12
    v_mov_b32 v21, v12
    v_fma_f16 v21, v10, v11, v12
    v_mov_b32 v22, v12
    v_fma_f16 v22, -v10, v11, v12 op_sel:[1,0,1,1]
    v_pk_fma_f16 v23, v10, v11, v12 op_sel:[1,0,0] op_sel_hi:[0,1,1] neg_lo:[0,1,0]
    """
    found = run_lanes(lines, rows, 4)
    halves = [np.ascontiguousarray(row).view(np.float16).reshape(64, 2) for row in found]
    for lane in range(64):
        (a0, a1), (b0, b1), (c0, c1) = (values[lane].tolist() for values in (a, b, c))
        assert halves[0][lane].tolist() == [exact_fused(a0, b0, c0), exact_fused(a1, b1, c1)]
        assert halves[1][lane].tolist() == [exact_fused(a0, b0, c0), c1]
        assert halves[2][lane].tolist() == [c0, exact_fused(-a1, b0, c1)]
        assert halves[3][lane].tolist() == [exact_fused(a1, -b0, c0), exact_fused(a0, b1, c1)]
