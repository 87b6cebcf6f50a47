"""Which scalar registers an instruction reads and writes, implicit ones included.

SCC is left out: the hardware interlocks it, and nothing but scalar instructions in order touches it. Implicit operands:
AMD CDNA4 ISA guide, chapters 5 to 10.
"""

from __future__ import annotations

from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.machine.waves import EXEC, M0, VCC

Registers = tuple[int, ...]

_NO_SCALAR_ADDRESS = 127
_IN_VCC = ("v_cndmask", "v_addc_co", "v_subb_co", "v_subbrev_co", "v_div_fmas")
_OUT_VCC = ("v_add_co", "v_sub_co", "v_subrev_co", "v_addc_co", "v_subb_co", "v_subbrev_co")
_TO_SCALAR = ("v_readlane", "v_readfirstlane", "v_cmp")
_READ_MODIFY_WRITE = ("s_cmov", "s_bitset", "s_addk", "s_mulk")
_THROUGH_M0 = ("s_set_gpr_idx_on", "s_set_gpr_idx_idx", "s_set_gpr_idx_mode")
_PAIRED = ("v_pk_fma_f32", "v_pk_mul_f32", "v_pk_add_f32")
_COUNTERS = ("ds_append", "ds_consume")
_NO_DESTINATION = ("s_setpc", "s_setreg", "s_cmpk", "s_cbranch")


def scalars_of(instruction: Instruction) -> tuple[Registers, Registers]:
    """(read, written) scalar register numbers: 0-101 SGPRs, 106 VCC, 124 M0, 126 EXEC (low halves)."""
    form = instruction.format
    if form.startswith("SOP"):
        return _of_scalar(instruction)
    if form == "SMEM":
        return _of_scalar_memory(instruction)
    if form.startswith("VOP"):
        return _of_vector(instruction)
    return _of_memory(instruction), ()


def _span(code: int, count: int) -> Registers:
    """Registers `code` on; none where the code is a constant or names nothing."""
    return tuple(range(code, code + count)) if code <= EXEC + 1 else ()


def _operand(instruction: Instruction, name: str) -> Registers:
    if name not in instruction.operands or name not in instruction.fields:
        return ()
    span = _span(instruction.fields[name], instruction.operand(name).registers)
    return span if len(span) != 2 else tuple(span[half] for half in halves_of_pair(instruction, name))


def halves_of_pair(instruction: Instruction, name: str) -> tuple[int, ...]:
    """Which registers of a source pair an instruction reads: two float32 multiply as op_sel and op_sel_hi choose (CDNA4
    ISA guide, section 12.11, V_PK_MUL_F32), and both may choose one; everything else reads both."""
    if not instruction.mnemonic.startswith(_PAIRED) or not name.startswith("src"):
        return 0, 1
    position, fields = int(name[-1]), instruction.fields
    chosen = {fields["opsel"] >> position & 1, (fields["opsel_hi"] | fields["opsel_hi2"] << 2) >> position & 1}
    return tuple(sorted(chosen))


def _of_scalar(instruction: Instruction) -> tuple[Registers, Registers]:
    name = instruction.mnemonic
    if name.startswith("s_cbranch_vcc"):
        return _span(VCC, 2), ()
    reads = _operand(instruction, "ssrc0") + _operand(instruction, "ssrc1")
    if name.startswith(_THROUGH_M0):
        return reads + _span(M0, 1), _span(M0, 1)
    target = _operand(instruction, "sdst")
    if name.startswith((*_READ_MODIFY_WRITE, "s_cmpk", "s_setreg")):
        reads += target
    if "saveexec" in name or "wrexec" in name:
        return reads + _span(EXEC, 2), target + _span(EXEC, 2)
    return reads, () if name.startswith(_NO_DESTINATION) else target


def _of_scalar_memory(instruction: Instruction) -> tuple[Registers, Registers]:
    fields = instruction.fields
    data = _span(fields["sdata"], instruction.operand("sdata").registers) if "sdata" in instruction.operands else ()
    if "sbase" not in instruction.operands:  # a clock, or nothing
        return (), data
    reads = _span(fields["sbase"] * 2, instruction.operand("sbase").registers)
    if not fields["imm"]:
        reads += _span(fields["offset"] & 0x7F, 1)
    elif fields["soffset_en"]:
        reads += _span(fields["soffset"], 1)
    if "_atomic_" in instruction.mnemonic:
        back = data[: len(data) // (2 if "cmpswap" in instruction.mnemonic else 1)]
        return reads + data, back if fields["glc"] else ()
    return (reads + data, ()) if "_store_" in instruction.mnemonic else (reads, data)


def _of_vector(instruction: Instruction) -> tuple[Registers, Registers]:
    name, fields = instruction.mnemonic, instruction.fields
    reads: Registers = ()
    for key in ("src0", "src1", "src2"):
        if key != "src0" or not instruction.variant:
            reads += _operand(instruction, key)
    if instruction.variant == "sdwa":
        reads += _span(fields["vsrc0"], 1) if fields["s0"] else ()
        reads += _span(fields["vsrc1"], 1) if fields["s1"] and "vsrc1" in fields else ()
    short = instruction.format in ("VOP1", "VOP2", "VOPC")
    if name.startswith(_IN_VCC) and (short or "div_fmas" in name):
        reads += _span(VCC, 2)
    return reads, _written_by_vector(instruction, short)


def _written_by_vector(instruction: Instruction, short: bool) -> Registers:
    name, fields = instruction.mnemonic, instruction.fields
    writes: Registers = ()
    if instruction.format == "VOP3SD" and "sdst" in instruction.operands:
        writes += _span(fields["sdst"], 2)
    if name.startswith("v_cmp") and short:
        explicit = instruction.variant == "sdwa" and fields.get("sd")
        writes += _span(fields["sdst"] if explicit else VCC, 2)
    elif name.startswith(_TO_SCALAR):
        writes += _span(fields["vdst"], instruction.operand("vdst").registers)
    elif short and name.startswith(_OUT_VCC):
        writes += _span(VCC, 2)
    return writes + (_span(EXEC, 2) if name.startswith("v_cmpx") else ())


def _of_memory(instruction: Instruction) -> Registers:
    fields = instruction.fields
    if instruction.format in ("MUBUF", "MTBUF"):
        if "srsrc" not in instruction.operands:
            return ()
        reads = _span(fields["srsrc"] * 4, 4) + _span(fields["soffset"], 1)
        return reads + (_span(M0, 1) if fields.get("lds") else ())
    if instruction.format in ("GLOBAL", "SCRATCH"):
        wide = 2 if instruction.format == "GLOBAL" else 1
        reads = _span(fields["saddr"], wide) if fields["saddr"] != _NO_SCALAR_ADDRESS else ()
        return reads + (_span(M0, 1) if "_lds_" in instruction.mnemonic else ())
    return _span(M0, 1) if instruction.mnemonic in _COUNTERS else ()
