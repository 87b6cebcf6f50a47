"""Modes of a wave that change what its vector instructions do: skipping, registers indexed through M0, float modes.

While VSKIP is set no vector instruction is issued. While GPR_IDX_EN is set, M0[7:0] is added to the register numbers of
vector ALU operands that M0[15:12] names: src0, src1, src2, the destination (AMD CDNA4 ISA guide, sections 3.4, 4.3 and
6.7). s_setreg changes these two and the float modes (float_mode.py). All hold for whole blocks, since the instructions
that set them end one: a block under them is another block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.operand_access import VGPR, Step, scalar_destination, scalar_source, unimplemented
from hktune.emulator.machine.memory import Array
from hktune.emulator.machine.waves import FLOAT_MODE_SHIFT, GPR_INDEX, M0, VSKIP, Lanes, Waves

Terminator = Callable[[Waves, Lanes], "int | None"]

_VECTOR = ("VOP", "DS", "MUBUF", "MTBUF", "FLAT", "GLOBAL", "SCRATCH")
_RELATIVE_SOURCES = (("src0", 0), ("vsrc1", 1), ("src1", 1), ("src2", 2))
_DESTINATION = 3
_INDEX_BITS, _RELATIVE_SHIFT = 0xFF, 12
_TO_SCALAR = ("v_cmp", "v_readlane", "v_readfirstlane")
_REGISTERS = 256
_MODE, _TRAPSTS, _XCC_ID = 1, 3, 20
"""Numbers of hardware registers (LLVM's hwreg)."""
_VSKIP_BIT, _GPR_INDEX_BIT = np.uint32(28), np.uint32(27)
_FLOAT_BITS = np.uint32(0x8003FF)
"""MODE's bits of FloatMode.register."""
_XCDS = 8


def is_vector(instruction: Instruction) -> bool:
    """Whether VSKIP keeps the instruction from being issued."""
    return instruction.format.startswith(_VECTOR)


def indexed(instruction: Instruction, mode: int) -> Instruction:
    """`instruction` as `mode` (Waves.mode_of) makes it: registers of a vector ALU operation moved by the index."""
    if instruction.fields.get("sdst") == M0 and instruction.format.startswith("SOP"):
        raise unimplemented(instruction, "M0 written while it indexes registers")
    if not instruction.format.startswith("VOP"):
        return instruction
    if instruction.variant or instruction.mnemonic.startswith(("v_mfma", "v_smfmac")):
        raise unimplemented(instruction, "registers indexed through M0")
    index, relative = mode >> GPR_INDEX.bit_length() & _INDEX_BITS, mode >> GPR_INDEX.bit_length() + _RELATIVE_SHIFT
    fields = dict(instruction.fields)
    for name, number in _RELATIVE_SOURCES:
        if name in instruction.operands and relative >> number & 1:
            base = 0 if name == "vsrc1" else VGPR
            if fields[name] >= base:
                fields[name] = _moved(instruction, fields[name] - base, index) + base
    to_vector = "vdst" in instruction.operands and not instruction.mnemonic.startswith(_TO_SCALAR)
    if to_vector and relative >> _DESTINATION & 1:
        fields["vdst"] = _moved(instruction, fields["vdst"], index)
    return replace(instruction, fields=fields)


def _moved(instruction: Instruction, register: int, index: int) -> int:
    if register + index >= _REGISTERS:
        raise unimplemented(instruction, f"register {register} indexed by {index}")
    return register + index


def set_vskip(instruction: Instruction) -> Terminator:
    """s_setvskip: one bit of a source says whether vector instructions are skipped from here on."""
    value, position = scalar_source(instruction, "ssrc0"), scalar_source(instruction, "ssrc1")

    def change(m: Waves, w: Lanes) -> Array:
        bit = (np.asarray(value(m, w)) >> (np.asarray(position(m, w)) & np.uint32(31))) & np.uint32(1)
        changed: Array = m.modes[w] & ~VSKIP | bit.astype(np.int64) * VSKIP
        return changed

    return _changing(instruction, change)


def index_on(instruction: Instruction) -> Terminator:
    """s_set_gpr_idx_on: the index is the source's low byte; what it moves, the second source field itself."""
    value, relative = scalar_source(instruction, "ssrc0"), np.uint32(instruction.fields["ssrc1"] & 15)

    def change(m: Waves, w: Lanes) -> Array:
        index = np.asarray(value(m, w)).view(np.uint32) & np.uint32(_INDEX_BITS)
        kept = m.scalars[M0, w] & np.uint32(0xFFFF0F00)
        m.scalars[M0, w] = kept | index | relative << np.uint32(_RELATIVE_SHIFT)
        return m.modes[w] | GPR_INDEX

    return _changing(instruction, change)


def index_off(instruction: Instruction) -> Terminator:
    return _changing(instruction, lambda m, w: m.modes[w] & ~GPR_INDEX)


def set_index(instruction: Instruction) -> Terminator:
    """s_set_gpr_idx_idx: another index, the rest as it was."""
    value = scalar_source(instruction, "ssrc0")

    def change(m: Waves, w: Lanes) -> Array:
        index = np.asarray(value(m, w)).view(np.uint32) & np.uint32(_INDEX_BITS)
        m.scalars[M0, w] = m.scalars[M0, w] & np.uint32(0xFFFFFF00) | index
        return m.modes[w]

    return _changing(instruction, change)


def set_relative(instruction: Instruction) -> Terminator:
    """s_set_gpr_idx_mode: another choice of operands that the index moves."""
    relative = np.uint32((instruction.fields["simm16"] & 15) << _RELATIVE_SHIFT)

    def change(m: Waves, w: Lanes) -> Array:
        m.scalars[M0, w] = m.scalars[M0, w] & np.uint32(0xFFFF0FFF) | relative
        return m.modes[w]

    return _changing(instruction, change)


def set_register(instruction: Instruction) -> Terminator:
    """s_setreg_b32, s_setreg_imm32_b32: some bits of MODE. Raises KernelFault for other registers."""
    number, offset, mask = _register_bits(instruction)
    if number != _MODE:
        raise unimplemented(instruction, f"hardware register {number} is not written, only MODE ({_MODE})")
    literal = np.uint32(instruction.literal)
    source = instruction.fields["sdst"] if instruction.mnemonic == "s_setreg_b32" else None

    def change(m: Waves, w: Lanes) -> Array:
        value = literal if source is None else m.scalars[source, w]
        register = _mode_register(m, w) & ~mask | (value << offset) & mask
        floats = (register & _FLOAT_BITS).astype(np.int64)
        changed = np.where(floats == m.float_register, 0, floats + 1) << FLOAT_MODE_SHIFT
        skips, indexes = (register >> bit & np.uint32(1) for bit in (_VSKIP_BIT, _GPR_INDEX_BIT))
        modes: Array = changed | skips.astype(np.int64) * VSKIP | indexes.astype(np.int64) * GPR_INDEX
        return modes

    return _changing(instruction, change)


def get_register(instruction: Instruction) -> Step:
    """s_getreg_b32: some bits of MODE, TRAPSTS (0: no exception is emulated) or XCC_ID. Raises KernelFault for others,
    which tell where a wave happens to run."""
    number, offset, mask = _register_bits(instruction)
    if number not in _READABLE:
        raise unimplemented(instruction, f"hardware register {number} is not emulated")
    read, write = _READABLE[number], scalar_destination(instruction)
    return lambda m, w: write(m, w, (read(m, w) & mask) >> offset)


def _register_bits(instruction: Instruction) -> tuple[int, np.uint32, np.uint32]:
    """Number of the hardware register, and the first and the mask of its bits."""
    immediate = instruction.fields["simm16"]
    offset, size = immediate >> 6 & 31, (immediate >> 11 & 31) + 1
    return immediate & 63, np.uint32(offset), np.uint32(((1 << size) - 1) << offset & 0xFFFFFFFF)


def _mode_register(m: Waves, w: Lanes) -> Array:
    modes = m.modes[w]
    changed = modes >> FLOAT_MODE_SHIFT
    floats = np.where(changed == 0, m.float_register, changed - 1)
    flags = (modes & VSKIP) // VSKIP << int(_VSKIP_BIT) | (modes & GPR_INDEX) // GPR_INDEX << int(_GPR_INDEX_BIT)
    register: Array = (floats | flags).astype(np.uint32)
    return register


def _no_exceptions(m: Waves, w: Lanes) -> Array:
    return np.zeros(m.scc[w].shape, np.uint32)


def _chiplet(m: Waves, w: Lanes) -> Array:
    """Workgroups go to the XCDs in turn."""
    columns = np.arange(m.count)[w]
    chiplet: Array = ((m.first_workgroup + columns % m.workgroups) % _XCDS).astype(np.uint32)
    return chiplet


_READABLE: dict[int, Callable[[Waves, Lanes], Array]] = {
    _MODE: _mode_register,
    _TRAPSTS: _no_exceptions,
    _XCC_ID: _chiplet,
}


def _changing(instruction: Instruction, change: Callable[[Waves, Lanes], Array]) -> Terminator:
    """Ends a block: waves whose modes differ from here on part."""

    def terminate(m: Waves, w: Lanes) -> int | None:
        m.modes[w] = change(m, w)
        m.unusual = bool(m.modes.any())
        modes = m.mode_of(w)
        if (modes == modes[0]).all():
            return instruction.next_address
        m.pc[w] = instruction.next_address
        return None

    return terminate


MODE_TERMINATORS: dict[str, Callable[[Instruction], Terminator]] = {
    "s_setreg_b32": set_register,
    "s_setreg_imm32_b32": set_register,
    "s_setvskip": set_vskip,
    "s_set_gpr_idx_on": index_on,
    "s_set_gpr_idx_off": index_off,
    "s_set_gpr_idx_idx": set_index,
    "s_set_gpr_idx_mode": set_relative,
}
