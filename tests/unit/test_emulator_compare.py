"""Every comparison, in both encodings, that sets a mask or EXEC: against Python's comparisons of the same numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gfx950_code import run_lanes

from hktune.emulator.instructions import decode

TABLE = json.loads(Path(decode.__file__).with_name("cdna4.json").read_text())
NAMES = [name for name, _ in TABLE["VOPC"]["opcodes"].values() if "class" not in name]
KINDS = sorted({name.rpartition("_")[2] for name in NAMES})
ORDERED: dict[str, Callable[[Any, Any], bool]] = {
    "f": lambda a, b: False,
    "lt": lambda a, b: a < b,
    "eq": lambda a, b: a == b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "ne": lambda a, b: a != b,
    "lg": lambda a, b: a < b or a > b,
    "o": lambda a, b: not (math.isnan(a) or math.isnan(b)),
    "u": lambda a, b: math.isnan(a) or math.isnan(b),
    "t": lambda a, b: True,
    "tru": lambda a, b: True,
}
NEGATED = {"nge": "ge", "nlg": "lg", "ngt": "gt", "nle": "le", "neq": "eq", "nlt": "lt"}


def holds(test: str, a: Any, b: Any) -> bool:
    return not ORDERED[NEGATED[test]](a, b) if test in NEGATED else ORDERED[test](a, b)


def values(kind: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """64 pairs: corners crossed with each other, then random numbers, some of them equal."""
    bits = int(kind[1:])
    rng = np.random.default_rng(bits)
    if kind[0] == "f":
        corners = np.array([0.0, -0.0, 1.5, -2.25, np.inf, -np.inf, np.nan], f"f{bits // 8}")
    else:
        limits = np.iinfo(f"{kind[0]}{bits // 8}")
        corners = np.array([0, 1, limits.max, limits.min, limits.max - 1, limits.max // 2, 5], limits.dtype)
    crossed = [(a, b) for a in corners for b in corners]
    more = rng.integers(0, 7, (15, 2))
    pairs = [*crossed, *((corners[i], corners[j]) for i, j in more)]
    return tuple(np.array([pair[side] for pair in pairs], corners.dtype) for side in (0, 1))  # type: ignore[return-value]


def rows(numbers: npt.NDArray[Any]) -> list[npt.NDArray[np.uint32]]:
    """Registers that hold the numbers: one, or two for 64 bits; 16 bits in the low half."""
    size = numbers.dtype.itemsize
    if size == 8:
        pairs = numbers.view(np.uint32).reshape(64, 2)
        return [np.ascontiguousarray(pairs[:, half]) for half in (0, 1)]
    return [numbers.view(f"u{size}").astype(np.uint32) | np.uint32(0xABCD0000 if size == 2 else 0)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_comparison(kind: str) -> None:
    a, b = values(kind)
    wide = kind.endswith("64")
    first, second = ("v[10:11]", "v[12:13]") if wide else ("v10", "v11")
    cases = [(name, form) for name in NAMES if name.endswith(f"_{kind}") for form in ("e32", "e64")]
    lines = ["s_nop 0"]
    for i, (name, form) in enumerate(cases):
        mask = "vcc" if form == "e32" else "s[10:11]"
        result = "exec" if name.startswith("v_cmpx") else mask
        lines += [
            f"{name}_{form} {mask}, {first}, {second}",
            f"s_mov_b64 s[12:13], {result}",
            "s_mov_b64 exec, -1",
            f"v_mov_b32 v{20 + 2 * i}, s12",
            f"v_mov_b32 v{21 + 2 * i}, s13",
        ]
    found = run_lanes("\n".join(lines), [*rows(a), *rows(b)], 2 * len(cases))
    for i, (name, form) in enumerate(cases):
        test = name.split("_")[2]
        expected = sum(int(holds(test, x, y)) << lane for lane, (x, y) in enumerate(zip(a, b, strict=True)))
        got = int(found[2 * i][0]) | int(found[2 * i + 1][0]) << 32
        assert got == expected, (name, form)


# A number of each class, in the order of v_cmp_class's mask bits: exponent and mantissa fields, sign. -1 is all ones.
CLASSES = [(-1, 1, 0), (-1, -1, 1), (-1, 0, 1), (5, 3, 1), (0, 9, 1), (0, 0, 1), (0, 0, 0), (0, -1, 0), (1, 0, 0)]
CLASSES.append((-1, 0, 0))
MANTISSA_BITS = {16: 10, 32: 23, 64: 52}


def of_every_class(bits: int) -> npt.NDArray[Any]:
    """(64,) floats as integers: lane i holds one of class i % 10."""
    mantissa_bits = MANTISSA_BITS[bits]
    exponent_mask, mantissa_mask = (1 << (bits - 1 - mantissa_bits)) - 1, (1 << mantissa_bits) - 1
    made = [
        sign << (bits - 1) | (exponent & exponent_mask) << mantissa_bits | mantissa & mantissa_mask
        for exponent, mantissa, sign in CLASSES
    ]
    return np.array([made[lane % 10] for lane in range(64)], f"u{bits // 8}")


@pytest.mark.parametrize("bits", MANTISSA_BITS)
@pytest.mark.parametrize("name", ["v_cmp_class", "v_cmpx_class"])
def test_every_class_of_numbers(bits: int, name: str) -> None:
    """Every mask of one class, then some of several, in both encodings."""
    masks = [1 << bit for bit in range(10)] + [0x3FF, 0, 0x155, 0x2C3]
    source, spare = ("v[10:11]", "v12") if bits == 64 else ("v10", "v12")
    cases = [(mask, form) for mask in masks for form in ("e32", "e64")]
    lines = []
    for i, (mask, form) in enumerate(cases):
        target = "vcc" if form == "e32" else "s[10:11]"
        lines += [
            f"v_mov_b32 {spare}, {mask:#x}",
            f"{name}_f{bits}_{form} {target}, {source}, {spare}",
            f"s_mov_b64 s[12:13], {'exec' if 'cmpx' in name else target}",
            "s_mov_b64 exec, -1",
            f"v_mov_b32 v{20 + 2 * i}, s12",
            f"v_mov_b32 v{21 + 2 * i}, s13",
        ]
    found = run_lanes("\n".join(lines), rows(of_every_class(bits)), 2 * len(cases))
    for i, (mask, form) in enumerate(cases):
        expected = sum((mask >> lane % 10 & 1) << lane for lane in range(64))
        assert int(found[2 * i][0]) | int(found[2 * i + 1][0]) << 32 == expected, (hex(mask), form)
