"""Vector operations on 16- and 64-bit types and packed halves, lane by lane against Python and IEEE arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gfx950_code import run_lanes

RNG = np.random.default_rng(77)
Operation = Callable[..., Any]


def median(a: Any, b: Any, c: Any) -> Any:
    return sorted((a, b, c))[1]


ROUNDING: dict[str, Operation] = {
    "ceil": np.ceil,
    "floor": np.floor,
    "trunc": np.trunc,
    "rndne": np.rint,
    "fract": lambda x: x - np.floor(x),
}
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


@pytest.mark.parametrize("name", ROUNDING)
def test_rounding_of_halves_and_doubles(name: str) -> None:
    (half,), (double,), (single,) = numbers(np.float16), numbers(np.float64), numbers(np.float32)
    words = double.view(np.uint32).reshape(64, 2)
    rows = [half.view(np.uint16).astype(np.uint32), words[:, 0].copy(), words[:, 1].copy(), single]
    lines = f"""
    v_mov_b32 v14, v11
    v_mov_b32 v15, v12
    v_{name}_f16 v20, v10
    v_{name}_f32 v21, v13
    v_{name}_f64 v[22:23], v[14:15]
    """
    found = run_lanes(lines, rows, 4)
    assert (low(found[0], np.float16) == ROUNDING[name](half).astype(np.float16)).all()
    assert (found[1].view(np.float32) == ROUNDING[name](single)).all()
    assert (np.ascontiguousarray(found[2:4].T).view(np.float64)[:, 0] == ROUNDING[name](double)).all()


def test_mantissas_and_exponents() -> None:
    (single,), (double,) = numbers(np.float32), numbers(np.float64)
    words = double.view(np.uint32).reshape(64, 2)
    lines = """
    v_mov_b32 v14, v11
    v_mov_b32 v15, v12
    v_frexp_mant_f32 v20, v10
    v_frexp_exp_i32_f32 v21, v10
    v_frexp_mant_f64 v[22:23], v[14:15]
    v_frexp_exp_i32_f64 v24, v[14:15]
    """
    found = run_lanes(lines, [single, words[:, 0].copy(), words[:, 1].copy()], 5)
    assert found[0].view(np.float32).tolist() == [math.frexp(x)[0] for x in single.tolist()]
    assert found[1].view(np.int32).tolist() == [math.frexp(x)[1] for x in single.tolist()]
    mantissas = np.ascontiguousarray(found[2:4].T).view(np.float64)[:, 0]
    assert mantissas.tolist() == [math.frexp(x)[0] for x in double.tolist()]
    assert found[4].view(np.int32).tolist() == [math.frexp(x)[1] for x in double.tolist()]


def test_half_precision_arithmetic() -> None:
    a, b, c = numbers(np.float16, 3)
    rows = [values.view(np.uint16).astype(np.uint32) for values in (a, b, c)]
    lines = [f"{name} v{20 + i}, v10, v11" for i, name in enumerate(HALF)]
    lines += [f"v_{name}_f16 v{20 + len(HALF) + i}, v10, v11, v12" for i, name in enumerate(THREE)]
    found = run_lanes("\n".join(lines), rows, len(HALF) + len(THREE))
    for i, (name, operation) in enumerate(HALF.items()):
        expected = np.array([operation(x, y) for x, y in zip(a, b, strict=True)], np.float16)
        assert (low(found[i], np.float16) == expected).all(), name
    for i, (name, operation) in enumerate(THREE.items()):
        expected = np.array([operation(x, y, z) for x, y, z in zip(a, b, c, strict=True)], np.float16)
        assert (low(found[len(HALF) + i], np.float16) == expected).all(), name


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
    names = [name.format(sign) for name in SHORT]
    found = run_lanes("\n".join(f"{name} v{20 + i}, v10, v11" for i, name in enumerate(names)), [a, b], len(names))
    for name, operation, got in zip(names, SHORT.values(), found, strict=True):
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
