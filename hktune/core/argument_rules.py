"""What arguments of a kernel must be for a launch to pass them: the rules of templates and of tables."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hktune.core.launch import STEP_SWITCHES, Argument
from hktune.core.operand import NUMBERS, POINTERS

FILLED_NAMES = (*POINTERS, *NUMBERS, *STEP_SWITCHES)
"""The names of arguments that a launch fills."""
NEVER_CONSTANT = tuple(name for name in FILLED_NAMES if name not in ("alpha", "beta"))
"""Those of them that no constant may have. Kernels of others take the two numbers by value."""
SCALE_MAX = 64
SIZE_BYTES = {"pointer": 8, "u64": 8, "u32": 4, "i32": 4, "f32": 4}
_RANGES = {"pointer": (0, 0), "u32": (0, 2**32 - 1), "i32": (-(2**31), 2**31 - 1), "u64": (0, 2**64 - 1)}
_F32_OVERFLOWS = 2.0**128 - 2.0**103
"""The least magnitude that rounds to infinity (IEEE 754-2019, 4.3.1, of binary32)."""


def check_argument(argument: Argument) -> None:
    """Raises ValueError, one line that names it, for an argument whose name, scale or constant cannot be passed."""
    where = f"argument {argument.name}"
    if argument.constant is None:
        if argument.name not in FILLED_NAMES:
            raise ValueError(f"argument {argument.name!r} is not known: known are {', '.join(FILLED_NAMES)}")
        if (argument.name in POINTERS) != (argument.kind == "pointer") or argument.kind == "f32":
            wanted = "a pointer" if argument.name in POINTERS else "a u32, i32 or u64"
            raise ValueError(f"{where} is a {argument.kind}: it must be {wanted}")
    else:
        _check_constant(argument, argument.constant)
    if not 1 <= argument.scale <= SCALE_MAX:
        raise ValueError(f"{where} has scale {argument.scale}: it must be 1 to {SCALE_MAX}")
    if argument.scale != 1 and (argument.kind == "pointer" or argument.constant is not None):
        raise ValueError(f"{where} has scale {argument.scale}: only a number that each launch gives has one")


def _check_constant(argument: Argument, constant: int | float) -> None:
    where = f"argument {argument.name}"
    if argument.name in NEVER_CONSTANT:
        raise ValueError(f"{where} has a constant value: a launch fills what is called so, take another name")
    if argument.kind == "pointer" and constant != 0:
        raise ValueError(f"{where} is a pointer: the only value of one is 0")
    if isinstance(constant, float) != (argument.kind == "f32"):
        raise ValueError(f"{where} is a {argument.kind}: an f32 has a value with a point, and no other kind has")
    if argument.kind == "f32":
        if not abs(constant) < _F32_OVERFLOWS:  # so is a NaN
            raise ValueError(f"{where} is an f32: {constant} is no finite float32")
        return
    lowest, highest = _RANGES[argument.kind]
    if not lowest <= constant <= highest:
        raise ValueError(f"{where} is a {argument.kind}: its value must be {lowest} to {highest}")


def check_places(arguments: Sequence[Argument]) -> None:
    """Raises ValueError, one line, where two arguments have one name, where only some have `offset_bytes`, and where
    one is not aligned to its size or overlaps another."""
    names = [argument.name for argument in arguments]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"argument {twice} is there twice: keep one")
    placed = [(each.offset_bytes, each) for each in arguments if each.offset_bytes is not None]
    if placed and len(placed) < len(arguments):
        raise ValueError("some arguments have offset_bytes and others have not: give each its place, or none")
    for offset_bytes, each in placed:
        size_bytes = SIZE_BYTES[each.kind]
        if offset_bytes % size_bytes:
            rule = f"a {each.kind} is at a multiple of {size_bytes}"
            raise ValueError(f"argument {each.name} has offset_bytes {offset_bytes}: {rule}")
    placed.sort(key=lambda place: place[0])
    for (lower_bytes, lower), (upper_bytes, upper) in itertools.pairwise(placed):
        if lower_bytes + SIZE_BYTES[lower.kind] > upper_bytes:
            raise ValueError(f"argument {upper.name} at offset_bytes {upper_bytes} overlaps {lower.name}: part them")
