"""Atomic read-modify-write on a block of memory, one lane after another in lane order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hktune.emulator.machine.memory import Array, Block, NumberType, Words

Atomic = Callable[[Block, Array, Words], Words]
"""(block, byte index (k,), operand words (k, d)) -> words that were there before, (k, dwords of the memory)."""


def _atomic(dtype: NumberType, combine: Callable[..., object], operands: int = 1) -> Atomic:
    size = np.dtype(dtype).itemsize

    def run(block: Block, index: Array, words: Words) -> Words:
        values = np.ascontiguousarray(words).view(dtype).reshape(len(index), operands)
        old = np.empty((len(index), size // 4), np.uint32)
        for lane in range(len(index)):
            where = index[lane : lane + 1]
            before = block.gather(where, size)
            old[lane] = before[0]
            after = np.asarray(combine(before.view(dtype)[0, 0], *values[lane])).astype(dtype).reshape(1, 1)
            block.scatter(where, size, after.view(np.uint32))
        return old

    return run


def _packed_add(kind: str) -> Atomic:
    """Two 16-bit floats in a word, added half by half; bf16 is rounded to nearest even."""

    def add(before: np.uint32, value: np.uint32) -> np.uint32:
        total = _halves(before, kind) + _halves(value, kind)
        if kind == "bf16":
            bits = total.view(np.uint32)
            bits = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            return np.uint32(bits.astype(np.uint16).view(np.uint32)[0])
        return np.uint32(total.astype(np.float16).view(np.uint32)[0])

    return _atomic(np.uint32, add)


def _halves(word: np.uint32, kind: str) -> npt.NDArray[np.float32]:
    bits = np.array([word], np.uint32).view(np.uint16)
    if kind == "bf16":
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return bits.view(np.float16).astype(np.float32)


def _family(kind: str, unsigned: type[np.uint32 | np.uint64], signed: type[np.int32 | np.int64]) -> dict[str, Atomic]:
    """The integer atomics of one width under their DS names, `kind` being 32 or 64."""
    return {
        f"add_u{kind}": _atomic(unsigned, lambda a, b: a + b),
        f"sub_u{kind}": _atomic(unsigned, lambda a, b: a - b),
        f"rsub_u{kind}": _atomic(unsigned, lambda a, b: b - a),
        f"inc_u{kind}": _atomic(unsigned, lambda a, b: a + unsigned(1) if a < b else unsigned(0)),
        f"dec_u{kind}": _atomic(unsigned, lambda a, b: b if a == 0 or a > b else a - unsigned(1)),
        f"min_i{kind}": _atomic(signed, min),
        f"max_i{kind}": _atomic(signed, max),
        f"min_u{kind}": _atomic(unsigned, min),
        f"max_u{kind}": _atomic(unsigned, max),
        f"and_b{kind}": _atomic(unsigned, lambda a, b: a & b),
        f"or_b{kind}": _atomic(unsigned, lambda a, b: a | b),
        f"xor_b{kind}": _atomic(unsigned, lambda a, b: a ^ b),
        f"swap_b{kind}": _atomic(unsigned, lambda _a, b: b),
        f"cmpswap_b{kind}": _atomic(unsigned, lambda a, new, expected: new if a == expected else a, operands=2),
        f"add_f{kind}": _atomic(np.float32 if kind == "32" else np.float64, lambda a, b: a + b),
        f"min_f{kind}": _atomic(np.float32 if kind == "32" else np.float64, np.fmin),
        f"max_f{kind}": _atomic(np.float32 if kind == "32" else np.float64, np.fmax),
    }


ATOMICS: dict[str, Atomic] = {
    **_family("32", np.uint32, np.int32),
    **_family("64", np.uint64, np.int64),
    "pk_add_f16": _packed_add("f16"),
    "pk_add_bf16": _packed_add("bf16"),
}
for _kind, _type in (("b32", np.uint32), ("b64", np.uint64), ("f32", np.float32), ("f64", np.float64)):
    # of LDS the first operand is what is expected; and what is masked out before the second is put in
    ATOMICS[f"cmpst_{_kind}"] = _atomic(_type, lambda a, expected, new: new if a == expected else a, operands=2)
for _kind, _type in (("b32", np.uint32), ("b64", np.uint64)):
    ATOMICS[f"mskor_{_kind}"] = _atomic(_type, lambda a, mask, bits: (a & ~mask) | bits, operands=2)
ATOMICS["wrap_b32"] = _atomic(np.uint32, lambda a, down, up: a - down if a >= down else a + up, operands=2)
TWO_OPERANDS = ("cmpst", "mskor", "wrap")
"""Atomics of LDS that take two."""
ATOMICS["wrxchg_b32"], ATOMICS["wrxchg_b64"] = ATOMICS["swap_b32"], ATOMICS["swap_b64"]

_GLOBAL_WORDS = {"smin": "min_i", "umin": "min_u", "smax": "max_i", "umax": "max_u", "inc": "inc_u", "dec": "dec_u"}
_GLOBAL_PLAIN = {"swap": "swap_b", "cmpswap": "cmpswap_b", "add": "add_u", "sub": "sub_u"}
_GLOBAL_BITS = {"and": "and_b", "or": "or_b", "xor": "xor_b"}


def global_atomic(mnemonic: str) -> tuple[Atomic, int, int] | None:
    """(operation, dwords in memory, dwords of operand) of a global, flat or buffer atomic; None if there is none."""
    name = mnemonic.partition("_atomic_")[2]
    typed = name.endswith(("_f32", "_f64", "_f16", "_bf16"))
    kind, wide = (name, name.endswith("_f64")) if typed else (name.removesuffix("_x2"), name.endswith("_x2"))
    words = {**_GLOBAL_WORDS, **_GLOBAL_PLAIN, **_GLOBAL_BITS}
    key = kind if typed else f"{words.get(kind, '?')}{64 if wide else 32}"
    if key not in ATOMICS:
        return None
    size = 2 if wide else 1
    return ATOMICS[key], size, size * (2 if kind == "cmpswap" else 1)
