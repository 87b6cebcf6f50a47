"""Local data share: DS instructions (AMD CDNA4 ISA guide, chapter 11 and section 12.12).

An address is the register plus a 16-bit offset inside the workgroup's LDS. Reads past its end give 0 and writes past
it are dropped. M0 does not limit the address: compilers for gfx9 and later never set it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from hktune.emulator.instructions.atomics import ATOMICS, TWO_OPERANDS
from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.operand_access import Step, unimplemented
from hktune.emulator.instructions.small_floats import pack_codes, unpack_codes
from hktune.emulator.machine.memory import Array, Words
from hktune.emulator.machine.waves import AGPR, LANES, M0, Lanes, Waves

_READS = {"b32": 4, "b64": 8, "b96": 12, "b128": 16, "u8": 1, "i8": 1, "u16": 2, "i16": 2}
_SIGNS = {"i8": np.int8, "i16": np.int16}
_WRITES = {"b8": 1, "b16": 2, "b32": 4, "b64": 8, "b96": 12, "b128": 16}
_PAIR = re.compile(r"ds_(read|write)2(st64)?_b(32|64)$")
_NO_MEMORY = ("ds_nop", "ds_bpermute_b32", "ds_permute_b32", "ds_swizzle_b32")
_ATOMIC = re.compile(r"ds_(\w+?)(_rtn)?_((?:[uifb]|bf)\d+)$")


def build_lds(instruction: Instruction) -> Step:
    """The function that executes a DS instruction. Raises KernelFault if there is none."""
    name = instruction.mnemonic
    if instruction.fields["gds"]:
        raise unimplemented(instruction, "global data share")
    if name == "ds_nop":
        return lambda _m, _w: None
    if name in _SPECIAL:
        return _SPECIAL[name](instruction)
    if _PAIR.match(name):
        return _pair(instruction)
    if name.startswith("ds_read_"):
        return _read(instruction)
    if name.startswith("ds_write_"):
        return _write(instruction)
    return _atomic(instruction)


def touches_lds(instruction: Instruction) -> bool:
    """Whether the instruction accesses LDS through the DS pipe: lane permutes pass through it but touch no bank."""
    return instruction.format == "DS" and instruction.mnemonic not in _NO_MEMORY


def lds_bytes_per_lane(instruction: Instruction) -> int:
    """Bytes a lane moves in a DS instruction."""
    name = instruction.mnemonic
    found = _PAIR.match(name)
    if found is not None:
        return int(found[3]) // 4
    kind = name.removeprefix("ds_read_").removeprefix("ds_write_").partition("_")[0]
    return (_READS | _WRITES).get(kind, 8 if name.endswith("64") else 4)


def read_lds(m: Waves, w: Lanes, address: Array, size: int) -> Words:
    """`size` bytes at LDS `address` (n, 64) as uint32 (n, 64, dwords); 0 outside the workgroup's LDS."""
    index = address + m.lds_base[w]
    if int(address.max()) + size <= m.lds_bytes:
        return m.lds.gather(index, size)
    inside = address + size <= m.lds_bytes
    words = np.zeros((*address.shape, max(1, size // 4)), np.uint32)
    words[inside] = m.lds.gather(index[inside], size)
    return words


def write_lds(m: Waves, w: Lanes, address: Array, size: int, words: Words, active: Array | None) -> None:
    """Store (n, 64, dwords); lanes not in `active` (None: all are) and addresses outside the LDS are dropped."""
    index = address + m.lds_base[w]
    if active is None and int(address.max()) + size <= m.lds_bytes:
        m.lds.scatter(index, size, words)
        return
    kept = address + size <= m.lds_bytes
    kept = kept if active is None else kept & active
    m.lds.scatter(index[kept], size, words[kept])


def _offset(instruction: Instruction) -> int:
    return instruction.fields["offset0"] | instruction.fields["offset1"] << 8


def _register(instruction: Instruction, name: str) -> int:
    return instruction.fields[name] + (AGPR if instruction.fields["acc"] else 0)


def _wrapped(base: Array, offset: int) -> Array:
    """The sum in 32 bits: LLVM folds the 255 of `block[255 - i]` into the offset, which leaves a negative base."""
    return (base.astype(np.int64) + offset) & 0xFFFF_FFFF


def _addresses(
    m: Waves,
    w: Lanes,
    instruction: Instruction,
    offset: int,
    size: int,
    writes: bool = False,
    words: Words | None = None,
) -> Array:
    address: Array = _wrapped(m.registers[instruction.fields["addr"], w], offset)
    if m.recorder is not None:
        m.recorder.lds(address, m.active[w], size, writes)
    if m.hazards is not None:
        m.hazards.lds(w, address, size, words)
    return address


def _read(instruction: Instruction) -> Step:
    kind, _, half = instruction.mnemonic.removeprefix("ds_read_").partition("_")
    if kind not in _READS or half not in ("", "d16", "d16_hi"):
        raise unimplemented(instruction)
    size, sign, offset = _READS[kind], _SIGNS.get(kind), _offset(instruction)
    target = _register(instruction, "vdst")

    def step(m: Waves, w: Lanes) -> None:
        words = read_lds(m, w, _addresses(m, w, instruction, offset, size), size)
        if sign is not None:
            words = words.astype(sign).astype(np.int32).view(np.uint32)
        if half:
            words = in_half(words, half)
        m.deliver(target, w, words)

    return step


def in_half(words: Words, half: str) -> Words:
    """What a d16 load leaves: 16 bits in one half of the register, zeros in the other.

    gfx950 has SRAM-ECC, with which a register is written whole. LLVM counts on nothing in the other half
    (d16PreservesUnusedBits is false); Tensile ORs two such loads together and says that the unused half is overwritten
    with zero (StoreState and the packing under HasEccHalf).
    """
    low = words & np.uint32(0xFFFF)
    return low << np.uint32(16) if half == "d16_hi" else low


def _write(instruction: Instruction) -> Step:
    kind, _, half = instruction.mnemonic.removeprefix("ds_write_").partition("_")
    if kind not in _WRITES or half not in ("", "d16_hi"):
        raise unimplemented(instruction)
    size, offset = _WRITES[kind], _offset(instruction)
    source, shift = _register(instruction, "data0"), np.uint32(16 if half else 0)
    count = max(1, size // 4)

    def step(m: Waves, w: Lanes) -> None:
        words = m.registers[source : source + count, w].transpose(1, 2, 0)
        words = words >> shift if half else words
        address = _addresses(m, w, instruction, offset, size, writes=True, words=words)
        write_lds(m, w, address, size, words, None if m.full else m.active[w])

    return step


def _pair(instruction: Instruction) -> Step:
    """ds_read2 and ds_write2: two accesses at offsets in units of the element (64 of them in the st64 forms)."""
    found = _PAIR.match(instruction.mnemonic)
    assert found is not None
    size = int(found[3]) // 8
    unit, count = size * (64 if found[2] else 1), size // 4
    offsets = (instruction.fields["offset0"] * unit, instruction.fields["offset1"] * unit)
    target = _register(instruction, "vdst")
    sources = (_register(instruction, "data0"), _register(instruction, "data1"))

    def addresses(m: Waves, w: Lanes, words: tuple[Words, Words] | None = None) -> tuple[Array, Array]:
        base = m.registers[instruction.fields["addr"], w]
        both = (_wrapped(base, offsets[0]), _wrapped(base, offsets[1]))
        if m.recorder is not None:
            m.recorder.lds_pair(both, m.active[w], size, words is not None)
        if m.hazards is not None:
            for address, data in zip(both, words or (None, None), strict=True):
                m.hazards.lds(w, address, size, data)
        return both

    def read(m: Waves, w: Lanes) -> None:
        parts = [read_lds(m, w, address, size) for address in addresses(m, w)]
        m.deliver(target, w, np.concatenate(parts, axis=-1))

    def write(m: Waves, w: Lanes) -> None:
        first, second = (m.registers[source : source + count, w].transpose(1, 2, 0) for source in sources)
        for words, address in zip((first, second), addresses(m, w, (first, second)), strict=True):
            write_lds(m, w, address, size, words, None if m.full else m.active[w])

    return read if found[1] == "read" else write


def _transposed_read(instruction: Instruction) -> Step:
    """ds_read_b64_tr_b16, _b8, _b4 and ds_read_b96_tr_b6: a group of 16 lanes receives its elements transposed.

    The group reads rows of 16 elements, one after another, each lane 64 (or 96) bits of them; lane i receives the
    elements of column i, the first row's lowest (ISA guide, section 11.4).
    """
    offset, target = _offset(instruction), _register(instruction, "vdst")
    bits = int(instruction.mnemonic.rpartition("_b")[2])
    size = 12 if bits == 6 else 8
    rows = 8 * size // bits

    def step(m: Waves, w: Lanes) -> None:
        words = read_lds(m, w, _addresses(m, w, instruction, offset, size), size)
        codes = unpack_codes(words, bits) if bits < 16 else np.ascontiguousarray(words).view(np.uint16)
        matrix = codes.reshape(-1, LANES // 16, rows, 16)
        columns = np.ascontiguousarray(matrix.transpose(0, 1, 3, 2)).reshape(-1, LANES, rows)
        m.deliver(target, w, columns.view(np.uint32) if bits >= 8 else pack_codes(columns, bits))

    return step


def _permute(instruction: Instruction) -> Step:
    """ds_bpermute_b32 pulls from the addressed lane, ds_permute_b32 pushes to it; no memory is touched."""
    pulls, offset = instruction.mnemonic == "ds_bpermute_b32", _offset(instruction)
    target, source = instruction.fields["vdst"], instruction.fields["data0"]

    def step(m: Waves, w: Lanes) -> None:
        lane = ((m.registers[instruction.fields["addr"], w].astype(np.int64) + offset) >> 2) & 63
        data, active = m.registers[source, w], m.active[w]
        rows = np.broadcast_to(np.arange(len(lane))[:, None], lane.shape)
        if pulls:
            moved = np.where(active[rows, lane], data[rows, lane], np.uint32(0))
        else:
            moved = np.zeros(lane.shape, np.uint32)
            moved[rows[active], lane[active]] = data[active]
        m.write(target, w, moved)

    return step


def _swizzle(instruction: Instruction) -> Step:
    """ds_swizzle_b32: each lane reads another one, by a pattern in the offset; no memory is touched (ISA guide, 11.3.1
    of DS_SWIZZLE_B32: quads, rotations of 32 lanes, or and, or and xor of a lane's number in 32)."""
    pattern, lanes = _offset(instruction), np.arange(LANES)
    if pattern >= 0xE000:
        raise unimplemented(instruction, f"pattern {pattern:#x}")
    if pattern >= 0xC000:
        turn = (pattern >> 5 & 31) * (-1 if pattern >> 10 & 1 else 1)
        kept = pattern & 31
        origin = (lanes & ~31) | (lanes & kept) | ((lanes + turn) & 31 & ~kept)
    elif pattern & 0x8000:
        origin = (lanes & ~3) | np.array([pattern >> 2 * at & 3 for at in range(4)])[lanes & 3]
    else:
        origin = (lanes & 32) | (((lanes & 31 & pattern) | pattern >> 5 & 31) ^ (pattern >> 10 & 31))
    target, source = instruction.fields["vdst"], instruction.fields["addr"]

    def step(m: Waves, w: Lanes) -> None:
        data, active = m.registers[source, w], m.active[w]
        m.write(target, w, np.where(active[:, origin], data[:, origin], np.uint32(0)))

    return step


def _atomic(instruction: Instruction) -> Step:
    found = _ATOMIC.match(instruction.mnemonic)
    kind = f"{found[1]}_{found[3]}" if found else ""
    if found is None or kind not in ATOMICS:
        raise unimplemented(instruction)
    operation, offset, returns = ATOMICS[kind], _offset(instruction), bool(found[2])
    size = max(4, int(found[3].lstrip("uifb")) // 8)
    target, operands = _register(instruction, "vdst"), ["data0"]
    if found[1] in TWO_OPERANDS:
        operands.append("data1")
    registers = [_register(instruction, name) + at for name in operands for at in range(size // 4)]

    def step(m: Waves, w: Lanes) -> None:
        address = _addresses(m, w, instruction, offset, size, writes=True)
        active = m.active[w] & (address + size <= m.lds_bytes)
        index = (address + m.lds_base[w])[active]
        words = np.stack([m.registers[register, w] for register in registers], axis=-1)[active]
        old = operation(m.lds, index, words)
        if returns:
            result = np.zeros((*address.shape, size // 4), np.uint32)
            result[active] = old
            m.deliver(target, w, result)

    return step


def _counted(instruction: Instruction) -> Step:
    """ds_append and ds_consume: adds the number of active lanes to a counter, or takes it away, once for the wave. The
    counter is at the upper half of M0 and the offset; every lane gets what it was."""
    offset, target = _offset(instruction), _register(instruction, "vdst")
    adds = instruction.mnemonic == "ds_append"

    def step(m: Waves, w: Lanes) -> None:
        active = m.active[w]
        base = (m.scalars[M0, w] >> np.uint32(16)).astype(np.int64) + offset
        address = np.broadcast_to(base[:, None], active.shape)
        if m.recorder is not None:
            m.recorder.lds(address, active, 4, True)
        if m.hazards is not None:
            m.hazards.lds(w, address, 4)
        result = np.zeros((*address.shape, 1), np.uint32)
        count = active.sum(axis=1).astype(np.uint32)
        inside = (base + 4 <= m.lds_bytes) & (count != 0)
        change = (count if adds else np.uint32(0) - count)[inside]
        result[inside] = ATOMICS["add_u32"](m.lds, (base + m.lds_base[w][:, 0])[inside], change[:, None])[:, None]
        m.deliver(target, w, result)

    return step


_SPECIAL: dict[str, Callable[[Instruction], Step]] = {
    "ds_append": _counted,
    "ds_consume": _counted,
    "ds_read_b64_tr_b16": _transposed_read,
    "ds_read_b64_tr_b8": _transposed_read,
    "ds_read_b64_tr_b4": _transposed_read,
    "ds_read_b96_tr_b6": _transposed_read,
    "ds_bpermute_b32": _permute,
    "ds_permute_b32": _permute,
    "ds_swizzle_b32": _swizzle,
}
