"""Vector operations that move data between lanes, and the DPP and SDWA forms of the others.

AMD CDNA4 ISA guide, sections 6.5 (SDWA), 6.6 (DPP) and 12.8 (V_READLANE, V_PERMLANE32_SWAP, ...).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.operand_access import (
    VGPR,
    Read,
    Step,
    scalar_destination,
    scalar_source,
    unimplemented,
    vector_source,
)
from hktune.emulator.machine.memory import Array, Words
from hktune.emulator.machine.waves import AGPR, LANES, TEMPORARY, Lanes, Waves

Builder = Callable[[Instruction], Step]

_LANE = np.arange(LANES)
_SDWA_ALL = 6


def _source_register(instruction: Instruction) -> int:
    code = instruction.fields["src0"]
    if code < VGPR:
        raise unimplemented(instruction, "source is not a vector register")
    return code - VGPR


def _read_first_lane(instruction: Instruction) -> Step:
    """The lowest active lane's value; lane 0 when none is."""
    if instruction.fields["src0"] < VGPR:
        source = vector_source(instruction, "src0")
        write = scalar_destination(instruction, "vdst")
        return lambda m, w: write(m, w, source(m, w)[:, 0])
    register, write = _source_register(instruction), scalar_destination(instruction, "vdst")

    def step(m: Waves, w: Lanes) -> None:
        values = m.registers[register, w]
        if m.full:
            write(m, w, values[:, 0])
            return
        first = m.active[w].argmax(axis=1)
        write(m, w, values[np.arange(len(first)), first])

    return step


def _read_lane(instruction: Instruction) -> Step:
    register, write = _source_register(instruction), scalar_destination(instruction, "vdst")
    lane = scalar_source(instruction, "src1")

    def step(m: Waves, w: Lanes) -> None:
        values = m.registers[register, w]
        write(m, w, values[np.arange(len(values)), lane(m, w) & np.uint32(63)])

    return step


def _write_lane(instruction: Instruction) -> Step:
    """Writes one lane whatever EXEC says."""
    register = instruction.fields["vdst"]
    value, lane = scalar_source(instruction, "src0"), scalar_source(instruction, "src1")

    def step(m: Waves, w: Lanes) -> None:
        values = m.registers[register, w].copy()
        values[np.arange(len(values)), lane(m, w) & np.uint32(63)] = value(m, w)
        m.registers[register, w] = values

    return step


def _swap(instruction: Instruction) -> Step:
    source, target = _source_register(instruction), instruction.fields["vdst"]

    def step(m: Waves, w: Lanes) -> None:
        first, second = m.registers[source, w].copy(), m.registers[target, w].copy()
        m.write(source, w, second)
        m.write(target, w, first)

    return step


def _swap_rows(instruction: Instruction) -> Step:
    """v_permlane{16,32}_swap: the upper rows of the destination change places with the lower rows of the source."""
    source, target = _source_register(instruction), instruction.fields["vdst"]
    rows = 16 if instruction.mnemonic == "v_permlane16_swap_b32" else 32

    def step(m: Waves, w: Lanes) -> None:
        first, second = m.registers[source, w].copy(), m.registers[target, w].copy()
        below = first.reshape(-1, LANES // (2 * rows), 2, rows)
        above = second.reshape(-1, LANES // (2 * rows), 2, rows)
        below[:, :, 0], above[:, :, 1] = above[:, :, 1].copy(), below[:, :, 0].copy()
        m.write(source, w, first)
        m.write(target, w, second)

    return step


def _accumulator_read(instruction: Instruction) -> Step:
    source, target = AGPR + instruction.fields["src0"] - VGPR, instruction.fields["vdst"]
    return lambda m, w: m.write(target, w, m.registers[source, w])


def _accumulator_write(instruction: Instruction) -> Step:
    target, source = AGPR + instruction.fields["vdst"], vector_source(instruction, "src0")
    return lambda m, w: m.write(target, w, source(m, w))


def _accumulator_move(instruction: Instruction) -> Step:
    source, target = AGPR + instruction.fields["src0"] - VGPR, AGPR + instruction.fields["vdst"]
    return lambda m, w: m.write(target, w, m.registers[source, w])


def _nothing(instruction: Instruction) -> Step:
    del instruction
    return lambda _m, _w: None


LANE_STEPS: dict[str, Builder] = {
    "v_nop": _nothing,
    "v_readfirstlane_b32": _read_first_lane,
    "v_readlane_b32": _read_lane,
    "v_writelane_b32": _write_lane,
    "v_swap_b32": _swap,
    "v_permlane16_swap_b32": _swap_rows,
    "v_permlane32_swap_b32": _swap_rows,
    "v_accvgpr_read": _accumulator_read,
    "v_accvgpr_write": _accumulator_write,
    "v_accvgpr_mov_b32": _accumulator_move,
}


def with_dpp(instruction: Instruction, build: Builder) -> Step:
    """A DPP form: src0 arrives from another lane; lanes without a source keep their destination, or read 0."""
    fields = instruction.fields
    origin, valid = _dpp_lanes(instruction)
    bank = np.array([fields["bank_mask"] >> (lane % 16 // 4) & 1 for lane in range(LANES)], bool)
    row = np.array([fields["row_mask"] >> (lane // 16) & 1 for lane in range(LANES)], bool)
    zero_fill = bool(fields["bc"])
    step_inside = build(replace(instruction, fields={**fields, "src0": VGPR + TEMPORARY}))
    register = fields["vsrc0"]

    def step(m: Waves, w: Lanes) -> None:
        active, full = m.active[w].copy(), m.full
        readable = valid & active[:, origin]
        m.registers[TEMPORARY, w] = np.where(readable, m.registers[register, w][:, origin], 0)
        m.active[w] = active & bank & row & (readable | zero_fill)
        m.full = False
        step_inside(m, w)
        m.active[w], m.full = active, full

    return step


def _dpp_lanes(instruction: Instruction) -> tuple[Array, Array]:
    """For every lane: the lane it reads, and whether there is one (ISA guide, table of DPP_CTRL)."""
    control = instruction.fields["dpp"]
    row, column = _LANE & ~15, _LANE & 15
    everywhere = np.ones(LANES, bool)
    amount = control & 15
    if control < 0x100:
        pick = np.array([control >> (2 * i) & 3 for i in range(4)])
        return (_LANE & ~3) + pick[_LANE & 3], everywhere
    if 0x101 <= control <= 0x10F:
        return row + (column + amount & 15), column + amount < 16
    if 0x111 <= control <= 0x11F:
        return row + (column - amount & 15), column >= amount
    if 0x121 <= control <= 0x12F:
        return row + (column - amount & 15), everywhere
    if 0x150 <= control <= 0x15F:
        return row + amount, everywhere
    whole: dict[int, tuple[Array, Array]] = {
        0x130: ((_LANE + 1) & 63, _LANE < 63),
        0x134: ((_LANE + 1) & 63, everywhere),
        0x138: ((_LANE - 1) & 63, _LANE > 0),
        0x13C: ((_LANE - 1) & 63, everywhere),
        0x140: (row + 15 - column, everywhere),
        0x141: ((_LANE & ~7) + 7 - (_LANE & 7), everywhere),
        0x142: ((row - 1) & 63, row > 0),
        0x143: (np.where(_LANE >= 32, 31, 0), _LANE >= 32),
    }
    if control not in whole:
        raise unimplemented(instruction, f"DPP control {control:#x}")
    return whole[control]


def with_sdwa(instruction: Instruction, build: Builder) -> Step:
    """An SDWA form: sources are a byte, a word or all of a register, and so is the part of the destination written."""
    fields = instruction.fields
    first = _selected(instruction, "vsrc0", 0)
    second = _selected(instruction, "vsrc1", 1) if "vsrc1" in fields else None
    part = fields.get("dst_sel", _SDWA_ALL)
    target, result = fields.get("vdst", 0), TEMPORARY + 2
    inner = {**fields, "src0": VGPR + TEMPORARY, "vsrc1": TEMPORARY + 1}
    if part != _SDWA_ALL:
        inner["vdst"] = result
    step_inside = build(replace(instruction, fields=inner))
    shift, mask = _part(part)

    def step(m: Waves, w: Lanes) -> None:
        m.registers[TEMPORARY, w] = first(m, w)
        if second is not None:
            m.registers[TEMPORARY + 1, w] = second(m, w)
        step_inside(m, w)
        if part != _SDWA_ALL:
            value = (m.registers[result, w] & mask) << shift
            m.write(target, w, value | _unused(fields["dst_unused"], m.registers[target, w], value, shift, mask))

    return step


def _part(select: int) -> tuple[np.uint32, np.uint32]:
    """Shift and mask of a byte (0-3), a word (4, 5) or the whole register (6)."""
    if select < 4:
        return np.uint32(8 * select), np.uint32(0xFF)
    if select < _SDWA_ALL:
        return np.uint32(16 * (select - 4)), np.uint32(0xFFFF)
    return np.uint32(0), np.uint32(0xFFFFFFFF)


def _selected(instruction: Instruction, name: str, position: int) -> Read:
    """Reader of the chosen part of a source, sign- or zero-extended to 32 bits."""
    fields = instruction.fields
    shift, mask = _part(fields[f"src{position}_sel"])
    sign = (mask >> np.uint32(1)) + np.uint32(1) if fields[f"src{position}_sext"] else np.uint32(0)
    register, scalar = fields[name], fields[f"s{position}"]

    def read(m: Waves, w: Lanes) -> Array:
        raw = m.scalars[register, w][:, None] if scalar else m.registers[register, w]
        part = (raw >> shift) & mask
        return (part ^ sign) - sign

    return read


def _unused(rule: int, old: Words, value: Words, shift: np.uint32, mask: np.uint32) -> Words | np.uint32:
    """The bits around the part written: 0 zeros, 1 the part's sign above it, 2 what was there."""
    if rule == 2:
        return old & ~(mask << shift)
    if rule == 1:
        sign = ((mask >> np.uint32(1)) + np.uint32(1)) << shift
        above = ~(mask << shift | (np.uint32(1) << shift) - np.uint32(1))
        return np.where(value & sign != 0, above, np.uint32(0))
    return np.uint32(0)
