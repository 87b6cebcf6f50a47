"""The lesser, greater and middle of floating-point numbers: the rules of the ISA guide's v_min and v_max, bit for bit.

The wave is in IEEE mode: a signalling NaN comes out quiet. Zeros are ordered by their sign.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from gfx950_code import encodings, run_lanes

RNG = np.random.default_rng(21)
MANTISSA_BITS = {16: 10, 32: 23, 64: 52}
CODES = {16: ("<e", "<H"), 32: ("<f", "<I"), 64: ("<d", "<Q")}


@dataclass(frozen=True)
class Number:
    """A floating-point number of `bits` bits, as its encoding."""

    code: int
    bits: int

    @property
    def value(self) -> float:
        number, word = CODES[self.bits]
        unpacked: float = struct.unpack(number, struct.pack(word, self.code))[0]
        return unpacked

    @property
    def negative(self) -> bool:
        return bool(self.code >> (self.bits - 1))

    @property
    def nan(self) -> bool:
        infinity = (1 << (self.bits - 1)) - (1 << MANTISSA_BITS[self.bits])
        return self.code & ((1 << (self.bits - 1)) - 1) > infinity

    @property
    def quiet(self) -> Number:
        return Number(self.code | 1 << (MANTISSA_BITS[self.bits] - 1), self.bits)

    @property
    def signals(self) -> bool:
        return self.nan and self.quiet != self


Choice = Callable[..., Number]


def v_min(a: Number, b: Number) -> Number:
    return _chosen(a, b, least=True)


def v_max(a: Number, b: Number) -> Number:
    return _chosen(a, b, least=False)


def _chosen(a: Number, b: Number, least: bool) -> Number:
    if a.signals or b.signals:
        return a.quiet if a.signals else b.quiet
    if a.nan or b.nan:
        return b if a.nan else a
    if a.value == b.value == 0:
        return a if a.negative == least else b
    return a if (a.value < b.value) == least else b


def v_med3(a: Number, b: Number, c: Number) -> Number:
    if a.nan or b.nan or c.nan:
        return v_min(v_min(a, b), c)
    top = v_max(v_max(a, b), c).value
    if top == a.value:
        return v_max(b, c)
    return v_max(a, c) if top == b.value else v_max(a, b)


def v_minimum(a: Number, b: Number) -> Number:
    """IEEE 754-2019 minimum: NaN if either is one."""
    return v_min(a, b) if not (a.nan or b.nan) else (a.quiet if a.nan else b.quiet)


def v_maximum(a: Number, b: Number) -> Number:
    return v_max(a, b) if not (a.nan or b.nan) else (a.quiet if a.nan else b.quiet)


def folded(choice: Choice) -> Choice:
    return lambda a, b, c: choice(choice(a, b), c)


TWO: dict[str, Choice] = {"v_min_f{}": v_min, "v_max_f{}": v_max}
THREE: dict[str, Choice] = {"v_min3_f{}": folded(v_min), "v_max3_f{}": folded(v_max), "v_med3_f{}": v_med3}
IEEE: dict[str, Choice] = {"v_minimum3_f{}": folded(v_minimum), "v_maximum3_f{}": folded(v_maximum)}


def corners(bits: int) -> list[Number]:
    mantissa = MANTISSA_BITS[bits]
    infinity, sign = (1 << (bits - 1)) - (1 << mantissa), 1 << (bits - 1)
    one = ((1 << (bits - 2 - mantissa)) - 1) << mantissa
    quiet = infinity | 1 << (mantissa - 1) | 5
    return [
        Number(code, bits) for code in (0, sign, one + 9, sign | one, infinity, sign | infinity, quiet, infinity | 3)
    ]


def operands(bits: int) -> list[list[Number]]:
    """64 triples: every pair of corners, and a third at random."""
    pairs = list(product(corners(bits), repeat=2))
    third = [corners(bits)[i] for i in RNG.integers(0, 8, 64)]
    return [[a for a, _ in pairs], [b for _, b in pairs], third]


def registers(numbers: list[Number]) -> list[npt.NDArray[np.uint32]]:
    codes = np.array([number.code for number in numbers], np.uint64)
    halves = [(codes >> np.uint64(32 * i)).astype(np.uint32) for i in range(2)]
    return halves if numbers[0].bits == 64 else halves[:1]


@pytest.mark.parametrize("bits", MANTISSA_BITS)
def test_numbers_of_two_or_three(bits: int) -> None:
    given = operands(bits)
    rules = TWO | ({} if bits == 64 else THREE) | (IEEE if bits == 32 else {})
    wide = bits == 64
    places = ["v[10:11]", "v[12:13]"] if wide else ["v10", "v11", "v12"]
    cases = []
    for name, rule in rules.items():
        count = 2 if name in TWO else 3
        line = f"{name.format(bits)} {{}}, {', '.join(places[:count])}"
        cases += [(variant, rule, count) for variant in encodings(line)]
    targets = [f"v[{20 + 2 * i}:{21 + 2 * i}]" if wide else f"v{20 + 2 * i}" for i in range(len(cases))]
    lines = "\n".join(line.format(target) for (line, _, _), target in zip(cases, targets, strict=True))
    rows = [row for numbers in given for row in registers(numbers)]
    found = run_lanes(lines, rows, 2 * len(cases)).astype(np.uint64)
    for i, (line, rule, count) in enumerate(cases):
        got = (found[2 * i] | found[2 * i + 1] << np.uint64(32)) & np.uint64((1 << bits) - 1)
        expected = [rule(*lane[:count]).code for lane in zip(*given, strict=True)]
        assert got.tolist() == expected, line


@pytest.mark.parametrize(("name", "rule"), [("v_pk_min_f16", v_min), ("v_pk_max_f16", v_max)])
def test_packed_halves(name: str, rule: Choice) -> None:
    a, b, c = operands(16)
    rows = [
        np.array([x.code | y.code << 16 for x, y in zip(*pair, strict=True)], np.uint32) for pair in ((a, c), (b, a))
    ]
    lines = f"{name} v20, v10, v11\n{name} v21, v10, v11 op_sel:[1,0] op_sel_hi:[0,1]"
    found = run_lanes(lines, rows, 2)
    assert found[0].tolist() == [rule(x, y).code | rule(z, x).code << 16 for x, y, z in zip(a, b, c, strict=True)]
    assert found[1].tolist() == [rule(z, y).code | rule(x, x).code << 16 for x, y, z in zip(a, b, c, strict=True)]
