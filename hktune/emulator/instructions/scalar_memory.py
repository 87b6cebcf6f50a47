"""Scalar memory: loads, stores and atomics, plain and through a buffer resource (AMD CDNA4 ISA guide, chapter 8)."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from hktune.emulator.instructions.atomics import Atomic, global_atomic
from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.operand_access import Step, pair, unimplemented
from hktune.emulator.machine.memory import Array
from hktune.emulator.machine.waves import Access, Lanes, Waves

_NOTHING_TO_DO = frozenset({"s_dcache_inv", "s_dcache_wb", "s_dcache_inv_vol", "s_dcache_wb_vol"})
_CLOCKS = ("s_memtime", "s_memrealtime")
_ACCESS = re.compile(r"s_(buffer_)?(load|store)_(dword(?:x\d+)?)$")
_COUNTS = {"dword": 1, "dwordx2": 2, "dwordx4": 4, "dwordx8": 8, "dwordx16": 16}


def build_scalar_memory(instruction: Instruction) -> Step:
    """The function that executes an SMEM instruction. Raises KernelFault if there is none."""
    name = instruction.mnemonic
    if name in _NOTHING_TO_DO:
        return lambda _m, _w: None
    if name in _CLOCKS:
        return _clock(instruction)
    atomic = global_atomic(name)
    if atomic is not None:
        return _atomic(instruction, *atomic, buffered=name.startswith("s_buffer_"))
    found = _ACCESS.match(name)
    if found is None:
        raise unimplemented(instruction)
    build = _load if found[2] == "load" else _store
    return build(instruction, _COUNTS[found[3]], bool(found[1]))


def _clock(instruction: Instruction) -> Step:
    """s_memtime and s_memrealtime: a count that rises from one reading to the next. It is no time: an instruction takes
    none here."""
    target = instruction.fields["sdata"]

    def step(m: Waves, w: Lanes) -> None:
        m.readings += 1
        m.scalars[target, w], m.scalars[target + 1, w] = m.readings & 0xFFFFFFFF, m.readings >> 32

    return step


def scalar_bytes(instruction: Instruction) -> int:
    """Bytes that a scalar load, store or atomic moves; 0 for other instructions."""
    found, atomic = _ACCESS.match(instruction.mnemonic), global_atomic(instruction.mnemonic)
    return 4 * _COUNTS[found[3]] if found else 4 * atomic[1] if atomic else 0


Address = Callable[[Waves, Lanes], tuple[Array, "Array | None"]]
"""Byte addresses (n, dwords), and which of them a buffer holds (None: no buffer)."""


def _addressing(instruction: Instruction, count: int, buffered: bool) -> Address:
    base = instruction.fields["sbase"] * 2
    fixed, register = _offset(instruction)
    steps = 4 * np.arange(count)

    def address(m: Waves, w: Lanes) -> tuple[Array, Array | None]:
        start = pair(m.scalars[base, w], m.scalars[base + 1, w] & np.uint32(0xFFFF)).astype(np.int64)
        offset = np.full(start.shape, fixed, np.int64)
        if register is not None:
            offset += m.scalars[register, w]
        addresses = ((start + offset) & ~3)[:, None] + steps
        if not buffered:
            m.access = Access(instruction, None, 1)
            return addresses, None
        inside = offset[:, None] + steps + 4 <= m.scalars[base + 2, w].astype(np.int64)[:, None]
        m.access = Access(instruction, inside, count)
        return addresses, inside

    return address


def _load(instruction: Instruction, count: int, buffered: bool) -> Step:
    address, target = _addressing(instruction, count, buffered), instruction.fields["sdata"]

    def step(m: Waves, w: Lanes) -> None:
        addresses, inside = address(m, w)
        if inside is None:
            words = m.space.gather(addresses[:, 0], 4 * count)
        else:
            words = np.zeros(addresses.shape, np.uint32)
            words[inside] = m.space.gather(addresses[inside], 4)[:, 0]
        m.scalars[target : target + count, w] = words.T

    return step


def _store(instruction: Instruction, count: int, buffered: bool) -> Step:
    """Dwords outside the buffer are dropped. The scalar cache is written back only by s_dcache_wb; here, at once."""
    address, source = _addressing(instruction, count, buffered), instruction.fields["sdata"]

    def step(m: Waves, w: Lanes) -> None:
        addresses, inside = address(m, w)
        words = np.ascontiguousarray(m.scalars[source : source + count, w].T)
        if inside is None:
            m.space.scatter(addresses[:, 0], 4 * count, words)
        else:
            m.space.scatter(addresses[inside], 4, words[inside][:, None])

    return step


def _atomic(instruction: Instruction, operation: Atomic, count: int, operands: int, buffered: bool) -> Step:
    """What was there before comes back with glc. A place that the buffer does not hold whole is left alone: 0."""
    address, data = _addressing(instruction, count, buffered), instruction.fields["sdata"]
    returns = bool(instruction.fields["glc"])

    def step(m: Waves, w: Lanes) -> None:
        addresses, inside = address(m, w)
        held = np.full(len(addresses), True) if inside is None else np.logical_and.reduce(inside, axis=1)
        m.access = Access(instruction, held[:, None], 1)
        words = np.ascontiguousarray(m.scalars[data : data + operands, w].T)
        old = np.zeros((len(addresses), count), np.uint32)
        old[held] = m.space.apply(operation, addresses[held, 0], 4 * count, words[held])
        if returns:
            m.scalars[data : data + count, w] = old.T

    return step


def _offset(instruction: Instruction) -> tuple[int, int | None]:
    """The constant part of the offset in bytes, and the scalar register that adds to it."""
    fields = instruction.fields
    raw = fields["offset"]
    if not fields["imm"]:
        return 0, raw & 0x7F
    fixed = raw - (1 << 21) if raw >> 20 else raw
    return fixed, fields["soffset"] if fields["soffset_en"] else None
