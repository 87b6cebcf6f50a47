"""Vector memory: buffer, global, flat and scratch instructions (AMD CDNA4 ISA guide, chapters 9 and 10).

Data arrives at once, in issue order; `Waves.deliver` and `write_lds` are where it enters registers and LDS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from hktune.emulator.instructions.atomics import global_atomic
from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.lds import in_half, write_lds
from hktune.emulator.instructions.operand_access import (
    LDS_APERTURE,
    PRIVATE_APERTURE,
    Step,
    pair,
    scalar_source,
    unimplemented,
)
from hktune.emulator.machine.memory import Array, NumberType, Words
from hktune.emulator.machine.waves import AGPR, LANES, M0, Access, Lanes, Waves

Address = Callable[[Waves, Lanes], tuple[Array, Array | None]]
"""(n, 64) byte addresses, and which lanes may access memory (None: all)."""

_ACCESS = re.compile(r"(?:buffer|global|flat|scratch)_(load|store)(_lds)?_(\w+?)(_d16)?(_hi)?$")
_BYTES = {"ubyte": 1, "sbyte": 1, "byte": 1, "ushort": 2, "sshort": 2, "short": 2}
_BYTES |= {"dword": 4, "dwordx2": 8, "dwordx3": 12, "dwordx4": 16}
_SIGNS: dict[str, NumberType] = {"sbyte": np.int8, "sshort": np.int16}
_NOTHING_TO_DO = frozenset({"buffer_wbl2", "buffer_inv"})
_NO_SCALAR_ADDRESS = 127
_APERTURES = (LDS_APERTURE >> 48, PRIVATE_APERTURE >> 48)
_LDS_ADDRESS_MASK = np.uint32(0x3FFFF)


def build_vector_memory(instruction: Instruction) -> Step:
    """The function that executes a MUBUF, FLAT, GLOBAL or SCRATCH instruction. Raises KernelFault if there is none."""
    name = instruction.mnemonic
    if name in _NOTHING_TO_DO:
        return lambda _m, _w: None
    if instruction.format == "SCRATCH":
        return _scratch(instruction)
    found = _ACCESS.match(name)
    if found is None or found[3] not in _BYTES:
        return _atomic(instruction)
    size = _BYTES[found[3]]
    if found[2] or instruction.fields.get("lds"):
        return _load_to_lds(instruction, size, _SIGNS.get(found[3]))
    if found[1] == "store":
        return _store(instruction, size, bool(found[5]))
    half = (found[4] or "").removeprefix("_") + (found[5] or "")
    return _load(instruction, size, _SIGNS.get(found[3]), half)


def touches_lines(instruction: Instruction) -> bool:
    """Whether the instruction accesses memory through the vector caches."""
    vector = instruction.format in ("MUBUF", "FLAT", "GLOBAL", "SCRATCH")
    return vector and instruction.mnemonic not in _NOTHING_TO_DO


def access_bytes(instruction: Instruction) -> int:
    """Bytes a lane moves in a vector memory instruction; 0 for others."""
    found = _ACCESS.match(instruction.mnemonic)
    if found is not None:
        return _BYTES.get(found[3], 0)
    atomic = global_atomic(instruction.mnemonic)
    return 4 * atomic[1] if atomic else 0


def _data_register(instruction: Instruction, name: str) -> int:
    return instruction.fields[name] + (AGPR if instruction.fields["acc"] else 0)


@dataclass(frozen=True)
class _Access:
    """Where an instruction's lanes access memory: as a whole, and dword by dword for those a buffer's end cuts."""

    whole: Address
    dwords: tuple[Address, ...] = ()


def _addressing(instruction: Instruction, size: int) -> _Access:
    if instruction.format != "MUBUF":
        return _Access(_global_address(instruction))
    pieces = size // 4 if size > 4 and not instruction.fields["idxen"] else 0
    parts = tuple(_buffer_address(instruction, 4, 4 * i) for i in range(pieces))
    return _Access(_buffer_address(instruction, size), parts)


def _global_address(instruction: Instruction) -> Address:
    """A 64-bit register pair, or a scalar pair plus a 32-bit register, plus a signed 13-bit offset."""
    fields = instruction.fields
    register, scalar = fields["addr"], fields["saddr"]
    offset = fields["offset"] - (1 << 13 if instruction.format == "GLOBAL" and fields["offset"] >> 12 else 0)
    flat = instruction.format == "FLAT"
    if flat or scalar == _NO_SCALAR_ADDRESS:

        def from_vector(m: Waves, w: Lanes) -> tuple[Array, Array | None]:
            address = pair(m.registers[register, w], m.registers[register + 1, w]).view(np.int64) + offset
            if flat and (m.active[w] & np.isin(address >> 48, _APERTURES)).any():
                raise unimplemented(instruction, "a generic address of LDS or private memory")
            return address, None if m.full else m.active[w]

        return from_vector

    def from_scalar(m: Waves, w: Lanes) -> tuple[Array, Array | None]:
        base = pair(m.scalars[scalar, w], m.scalars[scalar + 1, w]).view(np.int64) + offset
        return base[:, None] + m.registers[register, w], None if m.full else m.active[w]

    return from_scalar


def _buffer_address(instruction: Instruction, size: int, skip: int = 0) -> Address:
    """Base + soffset + inst_offset + voffset (+ stride * index), range-checked as gfx950 does.

    `skip` bytes into the access, `size` bytes of it.

    A raw access is outside when soffset + inst_offset + voffset + size passes num_records. (AMD's simulator rocjitsu
    was changed to that, ROCm/rocm-systems#10928, as its check without soffset differed from gfx950. rocBLAS relies on
    it: its kernels read ahead by soffset.) A structured one (index enabled) is outside when its index is not below
    num_records. Swizzling without an index moves nothing: address bits stay linear.
    """
    fields = instruction.fields
    resource, register = fields["srsrc"] * 4, fields["vaddr"]
    offset_register = register + (1 if fields["idxen"] else 0)
    read_base = scalar_source(instruction, "soffset")
    fixed = fields["offset"] + skip

    def address(m: Waves, w: Lanes) -> tuple[Array, Array | None]:
        words = m.scalars[resource : resource + 4, w]
        scalar_offset = np.asarray(read_base(m, w)).astype(np.int64)
        base = pair(words[0], words[1] & np.uint32(0xFFFF)).astype(np.int64) + scalar_offset
        limit = words[2].astype(np.int64)[:, None]
        inner: Array = np.full((len(words[0]), LANES), fixed, np.int64)
        if fields["offen"]:
            inner += m.registers[offset_register, w]
        if fields["idxen"]:
            index = m.registers[register, w].astype(np.int64)
            inside = index < limit
            inner += index * (words[1] >> np.uint32(16) & np.uint32(0x3FFF)).astype(np.int64)[:, None]
        else:
            inside = inner + size <= limit - np.atleast_1d(scalar_offset)[:, None]
        allowed = inside if m.full else inside & m.active[w]
        return base[:, None] + inner, None if allowed.all() else allowed

    return address


def _fetch(m: Waves, w: Lanes, instruction: Instruction, access: _Access, size: int) -> Words:
    """The words every lane loads, (n, 64, dwords); 0 for lanes, and dwords, that access nothing."""
    where, allowed = _start(m, w, instruction, access, size)
    if allowed is None:
        return m.space.gather(where, size)
    words = np.zeros((*where.shape, max(1, size // 4)), np.uint32)
    for i, (piece, reach, unit) in enumerate(_pieces(m, w, access, (where, allowed, size))):
        if unit == size:
            words[reach] = m.space.gather(piece[reach], size)
        else:
            words[..., i][reach] = m.space.gather(piece[reach], unit)[:, 0]
    return words


def _start(
    m: Waves, w: Lanes, instruction: Instruction, access: _Access, size: int, words: Words | None = None
) -> tuple[Array, Array | None]:
    where, allowed = access.whole(m, w)
    m.access = Access(instruction, allowed)
    if m.recorder is not None:
        m.recorder.lines(where, m.active[w] if allowed is None else allowed, size)
    if m.hazards is not None:
        m.hazards.memory(where, allowed, size, words)
    return where, allowed


def _pieces(m: Waves, w: Lanes, access: _Access, whole: tuple[Array, Array, int]) -> Iterator[tuple[Array, Array, int]]:
    """(addresses, lanes, bytes) of the parts of a masked access: itself, or its dwords."""
    if not access.dwords:
        yield whole
    for part in access.dwords:
        where, reach = part(m, w)
        reach = np.ones(where.shape, bool) if reach is None else reach
        m.access.chosen = reach
        yield where, reach, 4


def _load(instruction: Instruction, size: int, sign: NumberType | None, half: str) -> Step:
    access = _addressing(instruction, size)
    target = _data_register(instruction, "vdata" if instruction.format == "MUBUF" else "vdst")

    def step(m: Waves, w: Lanes) -> None:
        words = _fetch(m, w, instruction, access, size)
        if sign is not None:
            words = words.astype(sign).astype(np.int32).view(np.uint32)
        if half:
            words = in_half(words, half)
        m.deliver(target, w, words)

    return step


def _store(instruction: Instruction, size: int, high: bool) -> Step:
    access = _addressing(instruction, size)
    source = _data_register(instruction, "vdata" if instruction.format == "MUBUF" else "data")
    count = max(1, size // 4)

    def step(m: Waves, w: Lanes) -> None:
        words = m.registers[source : source + count, w].transpose(1, 2, 0)
        words = words >> np.uint32(16) if high else words
        where, allowed = _start(m, w, instruction, access, size, words)
        if allowed is None:
            m.space.scatter(where, size, words)
            return
        for i, (piece, reach, unit) in enumerate(_pieces(m, w, access, (where, allowed, size))):
            chosen = words if unit == size else words[..., i : i + 1]
            m.space.scatter(piece[reach], unit, chosen[reach])

    return step


def _load_to_lds(instruction: Instruction, size: int, sign: NumberType | None) -> Step:
    """Lane i's data go to LDS at M0 + inst_offset + i * 4, or i * 16 for three and four dwords (ISA guide, 9.1.9).

    Bytes and shorts are extended to a dword. Global loads take a multiple of four from M0 (10.3). A lane outside the
    buffer stores 0; an inactive lane stores nothing.
    """
    access = _addressing(instruction, size)
    offset = instruction.fields["offset"]
    if instruction.format == "GLOBAL" and offset >> 12:
        offset -= 1 << 13
    spacing = np.arange(LANES, dtype=np.int64) * (16 if size > 4 else 4)
    mask = _LDS_ADDRESS_MASK & ~np.uint32(3 if instruction.format == "GLOBAL" else 0)

    def step(m: Waves, w: Lanes) -> None:
        words = _fetch(m, w, instruction, access, size)
        if sign is not None:
            words = words.astype(sign).astype(np.int32).view(np.uint32)
        start = (m.scalars[M0, w] & mask).astype(np.int64) + offset
        target = start[:, None] + spacing
        if m.hazards is not None:
            m.hazards.lds(w, target, max(size, 4), words)
        write_lds(m, w, target, max(size, 4), words, None if m.full else m.active[w])

    return step


def _atomic(instruction: Instruction) -> Step:
    found = global_atomic(instruction.mnemonic)
    if found is None:
        raise unimplemented(instruction)
    operation, count, operands = found
    access = _addressing(instruction, 4 * count)
    buffered = instruction.format == "MUBUF"
    source = _data_register(instruction, "vdata" if buffered else "data")
    target = source if buffered else _data_register(instruction, "vdst")
    returns = bool(instruction.fields["sc0"])

    def step(m: Waves, w: Lanes) -> None:
        where, allowed = _start(m, w, instruction, access, 4 * count)
        chosen = np.ones(where.shape, bool) if allowed is None else allowed
        old = np.zeros((*where.shape, count), np.uint32)
        values = np.moveaxis(m.registers[source : source + operands, w], 0, -1)[chosen]
        old[chosen] = m.space.apply(operation, where[chosen], 4 * count, values)
        if returns:
            m.deliver(target, w, old)

    return step


def _scratch(instruction: Instruction) -> Step:
    """Private memory: an offset from a register, a scalar or neither, inside the lane's own bytes."""
    found = _ACCESS.match(instruction.mnemonic)
    if found is None or found[3] not in _BYTES or found[2]:
        raise unimplemented(instruction)
    fields, size = instruction.fields, _BYTES[found[3]]
    offset = fields["offset"] - (1 << 13 if fields["offset"] >> 12 else 0)
    half = (found[4] or "").removeprefix("_") + (found[5] or "")
    loads, sign = found[1] == "load", _SIGNS.get(found[3])
    register = _data_register(instruction, "vdst" if loads else "data")

    def step(m: Waves, w: Lanes) -> None:
        m.access = Access(instruction, None)
        where = m.scratch_base[w] + offset
        if fields["sve"]:
            where = where + m.registers[fields["addr"], w]
        if fields["saddr"] != _NO_SCALAR_ADDRESS:
            where = where + m.scalars[fields["saddr"], w].astype(np.int64)[:, None]
        chosen = m.active[w]
        m.check_scratch(where, size, w)
        if m.recorder is not None:
            m.recorder.lines(*_interleaved(where - m.scratch_base[w], chosen, size), 4)
        if loads:
            words = np.zeros((*where.shape, max(1, size // 4)), np.uint32)
            words[chosen] = m.scratch.gather(where[chosen], size)
            words = words if sign is None else words.astype(sign).astype(np.int32).view(np.uint32)
            words = in_half(words, half) if half else words
            m.deliver(register, w, words)
        else:
            words = np.moveaxis(m.registers[register : register + max(1, size // 4), w], 0, -1)[chosen]
            m.scratch.scatter(where[chosen], size, words >> np.uint32(16) if half else words)

    return step


def _interleaved(own: Array, active: Array, size: int) -> tuple[Array, Array]:
    """Private offsets (n, 64) as the hardware lays them out, dword by dword: a dword of the 64 lanes is 256 bytes
    side by side (ISA guide, section 10.3). Addresses and lanes as (n, 64 * dwords)."""
    count = max(1, size // 4)
    dwords = (own >> 2)[..., None] + np.arange(count)
    address = dwords * (4 * LANES) + 4 * np.arange(LANES)[:, None]
    return address.reshape(len(own), -1), np.repeat(active, count, axis=1)
