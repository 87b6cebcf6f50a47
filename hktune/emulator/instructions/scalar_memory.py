"""Scalar memory: s_load_dword* and s_buffer_load_dword* (AMD CDNA4 ISA guide, chapter 8)."""

from __future__ import annotations

import numpy as np

from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.operand_access import Step, pair, unimplemented
from hktune.emulator.machine.waves import Access, Lanes, Waves

_NOTHING_TO_DO = frozenset({"s_dcache_inv", "s_dcache_wb", "s_dcache_inv_vol", "s_dcache_wb_vol"})
_COUNTS = {"dword": 1, "dwordx2": 2, "dwordx4": 4, "dwordx8": 8, "dwordx16": 16}


def build_scalar_memory(instruction: Instruction) -> Step:
    """The function that executes an SMEM instruction. Raises KernelFault if there is none."""
    name = instruction.mnemonic
    if name in _NOTHING_TO_DO:
        return lambda _m, _w: None
    buffered = name.startswith("s_buffer_load_")
    width = name.removeprefix("s_buffer_load_").removeprefix("s_load_")
    if width not in _COUNTS:
        raise unimplemented(instruction)
    return _load(instruction, _COUNTS[width], buffered)


def scalar_bytes(instruction: Instruction) -> int:
    """Bytes that a scalar load brings; 0 for other instructions."""
    name = instruction.mnemonic
    return 4 * _COUNTS.get(name.removeprefix("s_buffer_load_").removeprefix("s_load_"), 0)


def _load(instruction: Instruction, count: int, buffered: bool) -> Step:
    fields = instruction.fields
    base, target = fields["sbase"] * 2, fields["sdata"]
    fixed, register = _offset(instruction)
    steps = 4 * np.arange(count)

    def step(m: Waves, w: Lanes) -> None:
        start = pair(m.scalars[base, w], m.scalars[base + 1, w] & np.uint32(0xFFFF)).astype(np.int64)
        offset = np.full(start.shape, fixed, np.int64)
        if register is not None:
            offset += m.scalars[register, w]
        addresses = ((start + offset) & ~3)[:, None] + steps
        if buffered:
            inside = offset[:, None] + steps + 4 <= m.scalars[base + 2, w].astype(np.int64)[:, None]
            m.access = Access(instruction, inside, count)
            words = np.zeros(addresses.shape, np.uint32)
            words[inside] = m.space.gather(addresses[inside], 4)[:, 0]
        else:
            m.access = Access(instruction, None, 1)
            words = m.space.gather(addresses[:, 0], 4 * count)
        m.scalars[target : target + count, w] = words.T

    return step


def _offset(instruction: Instruction) -> tuple[int, int | None]:
    """The constant part of the offset in bytes, and the scalar register that adds to it."""
    fields = instruction.fields
    raw = fields["offset"]
    if not fields["imm"]:
        return 0, raw & 0x7F
    fixed = raw - (1 << 21) if raw >> 20 else raw
    return fixed, fields["soffset"] if fields["soffset_en"] else None
