"""Which vector and accumulation registers an instruction reads and writes, for the trace."""

from __future__ import annotations

from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.operand_access import VGPR
from hktune.emulator.instructions.scalar_registers import halves_of_pair
from hktune.emulator.machine.waves import AGPR

_WRITES_SCALAR = ("v_cmp", "v_readfirstlane", "v_readlane")
_READS_DESTINATION = ("v_fmac", "v_swap", "v_permlane", "v_writelane", "v_dot2c", "v_dot4c", "v_dot8c")
_WRITES_SOURCE = ("v_swap", "v_permlane")
_RETURNS = ("load", "read", "permute", "swizzle", "ds_append", "ds_consume")
_NO_SCALAR_ADDRESS = 127

Registers = tuple[int, ...]


def registers_of(instruction: Instruction) -> tuple[Registers, Registers]:
    """(read, written) register numbers in encoding order: 0-255 architectural, 256-511 accumulation."""
    if instruction.format in ("DS", "MUBUF", "FLAT", "GLOBAL", "SCRATCH"):
        return _of_memory(instruction)
    if not instruction.format.startswith("VOP"):
        return (), ()
    if instruction.format == "VOP3P" and "acc" in instruction.fields:
        return _of_matrix(instruction)
    return _of_vector(instruction)


def _span(first: int, count: int) -> Registers:
    return tuple(range(first, first + count))


def _source(instruction: Instruction, name: str) -> Registers:
    code = instruction.fields[name]
    if name.startswith("vsrc"):
        scalar = name == "vsrc1" and instruction.variant == "sdwa" and instruction.fields["s1"]
        return () if scalar else _span(code, instruction.operand(name).registers)
    if name == "src0" and instruction.variant:
        scalar = instruction.variant == "sdwa" and instruction.fields["s0"]
        return () if scalar else (instruction.fields["vsrc0"],)
    span = _span(code - VGPR, instruction.operand(name).registers) if code >= VGPR else ()
    return span if len(span) != 2 else tuple(span[half] for half in halves_of_pair(instruction, name))


def _of_vector(instruction: Instruction) -> tuple[Registers, Registers]:
    name = instruction.mnemonic
    sources = [key for key in ("src0", "vsrc1", "src1", "src2") if key in instruction.operands]
    reads = tuple(register for key in sources for register in _source(instruction, key))
    if name.startswith(_WRITES_SCALAR) or "vdst" not in instruction.operands:
        return reads, ()
    writes = _span(instruction.fields["vdst"], instruction.operand("vdst").registers)
    if name == "v_accvgpr_mov_b32":
        return tuple(AGPR + register for register in reads), tuple(AGPR + register for register in writes)
    if name.startswith(_READS_DESTINATION) or instruction.variant:
        reads += writes
    if name.startswith(_WRITES_SOURCE):
        writes = reads
    return reads, writes


def _of_matrix(instruction: Instruction) -> tuple[Registers, Registers]:
    """MFMA operands carry a bit each for accumulation registers; v_accvgpr_read and _write imply theirs. A sparse MFMA
    adds to its destination, and its third source is an index."""
    fields, name = instruction.fields, instruction.mnemonic
    if name == "v_accvgpr_read":
        return (AGPR + fields["src0"] - VGPR,), (fields["vdst"],)
    if name == "v_accvgpr_write":
        return _source(instruction, "src0"), (AGPR + fields["vdst"],)
    reads: Registers = ()
    for key in ("scale0", "scale1"):
        reads += _source(instruction, key) if key in fields else ()
    sparse = name.startswith("v_smfmac")
    accumulation = {"src0": fields["acc"] & 1, "src1": fields["acc"] >> 1, "src2": fields["acc_cd"] and not sparse}
    for key, accumulates in accumulation.items():
        reads += tuple(register + (AGPR if accumulates else 0) for register in _source(instruction, key))
    writes = _span(fields["vdst"] + (AGPR if fields["acc_cd"] else 0), instruction.operand("vdst").registers)
    return reads + writes if sparse else reads, writes


def _of_memory(instruction: Instruction) -> tuple[Registers, Registers]:
    fields, operands = instruction.fields, instruction.operands
    shift = AGPR if fields["acc"] else 0
    reads = _address(instruction)
    for key in ("data", "data0", "data1"):
        if key in operands:
            reads += _span(fields[key] + shift, operands[key].registers)
    if "vdata" in operands and not fields["lds"] and "load" not in instruction.mnemonic:
        reads += _span(fields["vdata"] + shift, operands["vdata"].registers)
    target = "vdst" if "vdst" in operands else "vdata"
    returns = any(word in instruction.mnemonic for word in _RETURNS)
    returns = returns or "_rtn" in instruction.mnemonic or ("atomic" in instruction.mnemonic and bool(fields["sc0"]))
    if not returns or fields.get("lds") or "_lds_" in instruction.mnemonic or target not in operands:
        return reads, ()
    return reads, _span(fields[target] + shift, operands[target].registers)


def _address(instruction: Instruction) -> Registers:
    fields = instruction.fields
    if instruction.format == "MUBUF":
        return _span(fields["vaddr"], fields["offen"] + fields["idxen"])
    if instruction.format == "DS":
        return (fields["addr"],) if "addr" in instruction.operands else ()
    if instruction.format == "SCRATCH":
        return (fields["addr"],) if fields["sve"] else ()
    wide = instruction.format == "FLAT" or fields["saddr"] == _NO_SCALAR_ADDRESS
    return _span(fields["addr"], 2 if wide else 1)
