"""Every atomic on LDS and memory, however addressed: what it leaves and what it returns, by Python's arithmetic."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gfx950_code import own_bytes, run_lanes

from hktune.core.dtype import BF16
from hktune.emulator.instructions import decode
from hktune.emulator.instructions.atomics import ATOMICS, global_atomic

TABLE = json.loads(Path(decode.__file__).with_name("cdna4.json").read_text())
PLACES = {"LDS": "DS", "global": "GLOBAL", "flat": "FLAT", "buffer": "MUBUF"}
SIGNED = {"smin": "min", "smax": "max"}
UNSIGNED = {"umin": "min", "umax": "max"}


def _mnemonics(place: str) -> list[str]:
    names = [name for name, _ in TABLE[PLACES[place]]["opcodes"].values()]
    if place != "LDS":
        return [name for name in names if "_atomic_" in name and global_atomic(name)]
    plain = {name: name.removeprefix("ds_").replace("_rtn", "") for name in names}
    return [name for name, kind in plain.items() if kind in ATOMICS]


def _parsed(name: str) -> tuple[str, str]:
    """(operation, number format such as u32, i64, f32, pk_f16) of a mnemonic, by the ISA guide's naming."""
    if name.startswith("ds_"):
        operation, _, kind = name.removeprefix("ds_").replace("_rtn", "").rpartition("_")
        kind = kind.replace("b", "u") if kind[0] == "b" and kind != "bf16" else kind
    else:
        text = name.partition("_atomic_")[2]
        operation, _, kind = text.rpartition("_")
        if kind in ("x2", "") or operation == "":
            operation, kind = text.removesuffix("_x2"), "u64" if text.endswith("_x2") else "u32"
        if operation in SIGNED:
            operation, kind = SIGNED[operation], "i" + kind[1:]
        operation = UNSIGNED.get(operation, operation)
    if operation == "pk_add":
        return "add", f"pk_{kind}"
    return {"wrxchg": "swap"}.get(operation, operation), kind


INTEGERS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "rsub": lambda a, b: b - a,
    "inc": lambda a, b: 0 if a >= b else a + 1,
    "dec": lambda a, b: b if a == 0 or a > b else a - 1,
    "min": min,
    "max": max,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "swap": lambda a, b: b,
}


def _expected(operation: str, kind: str, old: bytes, operand: bytes, compared: bytes) -> bytes:
    if operation == "cmpswap":
        return operand if old == compared else old
    if operation == "cmpst":  # of LDS the first operand is compared
        return compared if old == operand else old
    if operation in ("mskor", "wrap"):
        a, b, c = (int.from_bytes(part, "little") for part in (old, operand, compared))
        new = a & ~b | c if operation == "mskor" else a - b if a >= b else a + c
        return (new & (1 << 8 * len(old)) - 1).to_bytes(len(old), "little")
    if kind.startswith("pk_"):
        return _packed(kind, old, operand)
    if kind[0] == "f":
        form = {"f32": "<f", "f64": "<d"}[kind]
        (a,), (b,) = struct.unpack(form, old), struct.unpack(form, operand)
        real = {"add": a + b, "min": min(a, b), "max": max(a, b)}[operation]
        return struct.pack(form, np.float32(real) if kind == "f32" else real)
    size = int(kind[1:]) // 8
    a, b = (int.from_bytes(part, "little", signed=kind[0] == "i") for part in (old, operand))
    return (INTEGERS[operation](a, b) & (1 << 8 * size) - 1).to_bytes(size, "little")


def _packed(kind: str, old: bytes, operand: bytes) -> bytes:
    if kind == "pk_f16":
        total = np.frombuffer(old, np.float16).astype(np.float32) + np.frombuffer(operand, np.float16).astype(
            np.float32
        )
        return total.astype(np.float16).tobytes()
    a, b = (BF16.values(np.frombuffer(part, np.uint16)) for part in (old, operand))
    return BF16.bits((a + b).astype(np.float32)).tobytes()


def _data(kind: str) -> npt.NDArray[np.uint32]:
    """Old value, operand and compared value, two words of each for 64 lanes; in lane order some are equal."""
    rng = np.random.default_rng(5)
    words: npt.NDArray[np.uint32] = rng.integers(0, 1 << 32, (6, 64), dtype=np.uint32)
    if "f" in kind:
        size = 8 if kind == "f64" else 4 if kind == "f32" else 2
        numbers = rng.standard_normal((3, 64, 8 // size)).astype(np.float64)
        raw = BF16.bits(numbers.astype(np.float32)) if kind == "pk_bf16" else numbers.astype(f"f{size}")
        return np.ascontiguousarray(raw.view(np.uint32).reshape(3, 64, 2).transpose(0, 2, 1)).reshape(6, 64)
    words[0:2, :8] = 0
    words[2:4, 8:16] = words[0:2, 8:16]
    words[2:4, 1::4] = words[0:2, 1::4]
    words[4:6, ::2] = words[0:2, ::2]
    return words


def _lines(place: str, name: str, wide: bool, compare: bool, target: int) -> list[str]:
    """Put the old value there, apply the atomic, fetch what is there and what it returned."""
    suffix, old, data = ("b64", "v[10:11]", "v[12:13]") if wide else ("b32", "v10", "v12")
    dwords = "dwordx2" if wide else "dword"
    back, left = (f"v[{at}:{at + 1}]" if wide else f"v{at}" for at in (target, target + 2))
    if place == "LDS":
        result = f"{back}, " if "_rtn" in name else ""
        two = any(word in name for word in ("cmpst", "mskor", "wrap"))
        second = ", v[14:15]" if two and wide else ", v14" if two else ""
        return [
            f"ds_write_{suffix} v3, {old}",
            f"{name} {result}v3, {data}{second}",
            f"ds_read_{suffix} {left}, v3",
            "s_waitcnt lgkmcnt(0)",
        ]
    if compare:
        data = "v[12:15]" if wide else "v[12:13]"
    if place == "buffer":
        where = "v3, s[12:15], 0 offen offset:2048"
        moved = [f"v_mov_b32 v{60 + i}, v{12 + i}" for i in range(4)]
        register = data.replace("12", "60").replace("13", "61").replace("15", "63")
        first = [f"v_mov_b32 v{target + i}, v{60 + i}" for i in range(2 if wide else 1)]
        call = [*moved, f"{name} {register}, {where} sc0", "s_waitcnt vmcnt(0)", *first]
        return [
            f"buffer_store_{dwords} {old}, {where}",
            *call,
            f"buffer_load_{dwords} {left}, {where}",
            "s_waitcnt vmcnt(0)",
        ]
    form, where, data_first = ("flat", "v[4:5]", "") if place == "flat" else ("global", "v3", ", s[6:7] offset:2048")
    return [
        f"{form}_store_{dwords} {where}, {old}{data_first}",
        f"{name} {back}, {where}, {data}{data_first} sc0",
        f"{form}_load_{dwords} {left}, {where}{data_first}",
        "s_waitcnt vmcnt(0) lgkmcnt(0)",
    ]


SETUP = own_bytes(3)
CASES = [(place, kind) for place in PLACES for kind in sorted({_parsed(name)[1] for name in _mnemonics(place)})]


@pytest.mark.parametrize(("place", "kind"), CASES)
def test_atomics(place: str, kind: str) -> None:
    names = [name for name in _mnemonics(place) if _parsed(name)[1] == kind]
    wide = kind.endswith("64")
    size = 8 if wide else 4
    given = _data(kind)
    registers = [*given[:4], *given[4:]]
    # A compare-and-swap of 32 bits takes its two operands from neighbouring registers.
    compares = [name for name in names if "cmpswap" in name]
    if compares and not wide:
        registers[3] = given[4]
    lines = [SETUP]
    for i, name in enumerate(names):
        lines += _lines(place, name, wide, name in compares, 70 + 4 * i)
    shown = [f"v_mov_b32 v{20 + j}, v{70 + j}" for j in range(4 * len(names))]
    filler = [np.zeros(64, np.uint32)] * 8  # the rows behind the operands are the memory that is worked on
    found = run_lanes("\n".join([*lines, *shown]), [*registers, *filler], 4 * len(names), lds_bytes=1024)
    for i, name in enumerate(names):
        for lane in range(64):
            old, operand, compared = (_bytes(given[at : at + 2, lane], size) for at in (0, 2, 4))
            left = _bytes(found[4 * i + 2 : 4 * i + 4, lane], size)
            assert left == _expected(_parsed(name)[0], kind, old, operand, compared), (name, lane)
            if place != "LDS" or "_rtn" in name:
                assert _bytes(found[4 * i : 4 * i + 2, lane], size) == old, (name, lane)


def _bytes(words: npt.NDArray[Any], size: int) -> bytes:
    return np.ascontiguousarray(words).tobytes()[:size]
