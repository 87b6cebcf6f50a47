"""What the hazard checker must know of an instruction: registers it touches, counters it moves, its place in the pipe.

Registers are numbered through: 0-255 architectural, 256-511 accumulation, from SCALAR on the scalar ones.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from functools import cache
from weakref import WeakKeyDictionary

from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.matrix_states import MatrixStates, states_of
from hktune.emulator.instructions.program import Block
from hktune.emulator.instructions.scalar_registers import scalars_of
from hktune.emulator.instructions.vector_registers import registers_of
from hktune.emulator.machine.waves import AGPR, EXEC, M0, VCC

SCALAR = 512
Set = frozenset[int]

VALU, MFMA, SALU, DS, VMEM, FLAT, SMEM, WAIT, BARRIER, END, OTHER = range(11)
"""Kinds of instruction."""

WRITE_BACK, INVALIDATE = range(2)
"""What buffer_wbl2 and buffer_inv do to the caches; with sc1, for all that the device's other XCDs may see."""

_TRANSCENDENTAL = ("v_exp_", "v_log_", "v_rcp_", "v_rsq_", "v_sqrt_", "v_sin_", "v_cos_")
_KEEPS_DESTINATION = ("v_writelane", "v_swap", "v_permlane")
VMCNT_MAX, LGKMCNT_MAX = 63, 15
"""What the counters of a wave hold at most (CDNA4 ISA guide, section 4.4)."""
_COUNTS_NOTHING = ("buffer_wbl2", "buffer_inv", "s_dcache")
_WIDE_STORES = ("store_dwordx3", "store_dwordx4")
_LANE_PERMUTES = ("ds_permute", "ds_bpermute", "ds_swizzle", "ds_nop")


@dataclass(frozen=True, slots=True)
class Footprint:
    """`strict` reads must all have been written before; of `lenient` ones (halves of wide operands and of stored data,
    which may be padding) at least one. `states` are wait states the instruction takes. `vmcnt`, `lgkmcnt`: what an
    s_waitcnt leaves outstanding, None for no wait. `matrix`: of an MFMA."""

    instruction: Instruction
    kind: int
    reads: Set
    writes: Set
    strict: Set
    lenient: Set
    states: int = 1
    vmcnt: int | None = None
    lgkmcnt: int | None = None
    to_lds: bool = False
    atomic: bool = False
    matrix: MatrixStates | None = None
    addends: Set = frozenset()
    factors: Set = frozenset()
    stored: Set = frozenset()
    stored_states: int = 2
    transcendental: bool = False
    lane_select: Set = frozenset()
    device_cache: int | None = None

    @property
    def counted(self) -> bool:
        return self.kind in (DS, VMEM, FLAT, SMEM)


_known: MutableMapping[Block, tuple[Footprint, ...]] = WeakKeyDictionary()


def footprints_of(block: Block) -> tuple[Footprint, ...]:
    """One per instruction of `block`, derived once in the block's life."""
    found = _known.get(block)
    if found is None:
        found = _known[block] = tuple(footprint_of(each) for each in block.instructions)
    return found


def footprint_of(instruction: Instruction) -> Footprint:
    """Derived from the encoding alone, so computed once per instruction of a program."""
    vector_reads, vector_writes = registers_of(instruction)
    scalar_reads, scalar_writes = scalars_of(instruction)
    kind = _kind(instruction.mnemonic, instruction.format)
    scalars = frozenset(SCALAR + register for register in scalar_reads)
    writes = frozenset(vector_writes) | {SCALAR + register for register in scalar_writes}
    strict, lenient = _must_be_written(instruction, kind, frozenset(vector_reads), frozenset(vector_writes))
    wide_scalar = kind == SALU and any(operand.bits == 64 for operand in instruction.operands.values())
    strict, lenient = (strict, lenient | scalars) if wide_scalar else (strict | scalars, lenient)
    if "saveexec" in instruction.mnemonic:
        strict = strict | scalars
    vmcnt, lgkmcnt = _waits(instruction)
    addends, factors = _matrix_sources(instruction, kind)
    fields, name = instruction.fields, instruction.mnemonic
    return Footprint(
        instruction=instruction,
        kind=kind,
        reads=frozenset(vector_reads) | scalars,
        writes=writes,
        strict=strict - _ALWAYS_WRITTEN,
        lenient=lenient - _ALWAYS_WRITTEN,
        states=fields["simm16"] % 16 + 1 if name == "s_nop" else 1,
        vmcnt=vmcnt,
        lgkmcnt=lgkmcnt,
        to_lds=bool(fields.get("lds")) or "_load_lds_" in name,
        atomic=kind in (DS, VMEM, FLAT) and ("atomic" in name or _is_lds_atomic(instruction)),
        matrix=states_of(instruction) if kind == MFMA else None,
        addends=addends,
        factors=factors,
        stored=_wide_store_data(instruction) if kind in _STORES else frozenset(),
        stored_states=1 if _has_scalar_offset(instruction) else 2,
        transcendental=name.startswith(_TRANSCENDENTAL),
        lane_select=_lane_select(instruction) if kind == VALU else frozenset(),
        device_cache=_device_cache(instruction) if kind == OTHER else None,
    )


_ALWAYS_WRITTEN = frozenset({SCALAR + EXEC, SCALAR + EXEC + 1})


_STORES = (VMEM, FLAT, SMEM)


@cache
def _kind(name: str, form: str) -> int:
    if name.startswith(("v_mfma", "v_smfmac")):
        return MFMA
    if form.startswith("VOP"):
        return VALU
    if name.startswith(_COUNTS_NOTHING):
        return OTHER
    known = {"DS": DS, "FLAT": FLAT, "SMEM": SMEM}
    known |= dict.fromkeys(("MUBUF", "MTBUF", "GLOBAL", "SCRATCH"), VMEM)
    special = {"s_waitcnt": WAIT, "s_barrier": BARRIER, "s_endpgm": END}
    return special.get(name, known.get(form, OTHER if form == "SOPP" else SALU))


def _must_be_written(instruction: Instruction, kind: int, reads: Set, writes: Set) -> tuple[Set, Set]:
    """Vector reads that must have been written: one by one, or at least one of them."""
    name = instruction.mnemonic
    if name.startswith(_KEEPS_DESTINATION) or instruction.variant:
        reads = reads - writes
    if kind in (DS, VMEM, FLAT):
        data: set[int] = set()
        for key in ("data", "data0", "data1", "vdata"):
            if key in instruction.operands:
                first = instruction.fields[key] + (AGPR if instruction.fields["acc"] else 0)
                data.update(range(first, first + instruction.operand(key).registers))
        return reads - data, reads & data
    if kind == VALU and any(operand.bits > 32 for operand in instruction.operands.values()):
        return frozenset(), reads
    return reads, frozenset()


def _waits(instruction: Instruction) -> tuple[int | None, int | None]:
    """vmcnt and lgkmcnt of an s_waitcnt (CDNA4 ISA guide, section 4.4); a full field waits for nothing."""
    if instruction.mnemonic != "s_waitcnt":
        return None, None
    immediate = instruction.fields["simm16"]
    vmcnt, lgkmcnt = immediate & 15 | immediate >> 14 << 4, immediate >> 8 & 15
    return vmcnt if vmcnt < VMCNT_MAX else None, lgkmcnt if lgkmcnt < LGKMCNT_MAX else None


def _matrix_sources(instruction: Instruction, kind: int) -> tuple[Set, Set]:
    """An MFMA's registers of C, and of A and B."""
    if kind != MFMA:
        return frozenset(), frozenset()
    reads, _ = registers_of(instruction)
    addend = "vdst" if instruction.mnemonic.startswith("v_smfmac") else "src2"
    size = instruction.operand(addend).registers if addend == "vdst" or instruction.fields["src2"] >= 256 else 0
    return frozenset(reads[len(reads) - size :]), frozenset(reads[: len(reads) - size])


def _wide_store_data(instruction: Instruction) -> Set:
    """Data registers of a store of 12 or 16 bytes (CDNA4 ISA guide, table 38), without the first where a scalar is its
    offset."""
    if not instruction.mnemonic.endswith(_WIDE_STORES):
        return frozenset()
    fields = instruction.fields
    key = "vdata" if instruction.format == "MUBUF" else "data"
    first = fields[key] + (AGPR if fields["acc"] else 0)
    return frozenset(range(first + _has_scalar_offset(instruction), first + instruction.operand(key).registers))


def _has_scalar_offset(instruction: Instruction) -> bool:
    """Whether a register is its soffset. The guide says that a wide store's data are safe then. On an MI350X the first
    register was, overwritten in the next state, and the second was not (llvm/llvm-project#197267)."""
    return instruction.format == "MUBUF" and instruction.fields["soffset"] < 128


def _lane_select(instruction: Instruction) -> Set:
    if not instruction.mnemonic.startswith(("v_readlane", "v_writelane")) or instruction.fields["src1"] > EXEC + 1:
        return frozenset()
    return frozenset({SCALAR + instruction.fields["src1"]})


def _device_cache(instruction: Instruction) -> int | None:
    known = {"buffer_wbl2": WRITE_BACK, "buffer_inv": INVALIDATE}
    return known.get(instruction.mnemonic) if instruction.fields.get("sc1") else None


def _is_lds_atomic(instruction: Instruction) -> bool:
    name = instruction.mnemonic
    return instruction.format == "DS" and not name.startswith(("ds_read", "ds_write", *_LANE_PERMUTES))


def register_name(register: int) -> str:
    """The assembler's name."""
    if register < AGPR:
        return f"v{register}"
    if register < SCALAR:
        return f"a{register - AGPR}"
    code = register - SCALAR
    named = {VCC: "vcc_lo", VCC + 1: "vcc_hi", M0: "m0", EXEC: "exec_lo", EXEC + 1: "exec_hi"}
    return named.get(code, f"s{code}")
