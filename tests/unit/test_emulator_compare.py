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

from hktune.emulator import decode

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
