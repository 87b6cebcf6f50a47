"""A loaded kernel's code as blocks: straight runs of executable steps that end where control may move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hktune.emulator.instructions.control import (
    Terminator,
    branch_target,
    build_control,
    build_terminator,
    ends_block,
    falls_through,
    get_program_counter,
)
from hktune.emulator.instructions.decode import Instruction, decode
from hktune.emulator.instructions.lds import build_lds
from hktune.emulator.instructions.matrix import build_matrix
from hktune.emulator.instructions.operand_access import Step
from hktune.emulator.instructions.scalar import build_scalar
from hktune.emulator.instructions.scalar_memory import build_scalar_memory
from hktune.emulator.instructions.vector import build_vector
from hktune.emulator.instructions.vector_memory import build_vector_memory
from hktune.emulator.machine.memory import AddressSpace
from hktune.emulator.machine.waves import Lanes, Waves
from hktune.errors import KernelFault

_BUILDERS: dict[str, Callable[[Instruction], Step]] = {
    **dict.fromkeys(("SOP1", "SOP2", "SOPC", "SOPK"), build_scalar),
    **dict.fromkeys(("VOP1", "VOP2", "VOPC", "VOP3", "VOP3SD", "VOP3P"), build_vector),
    **dict.fromkeys(("MUBUF", "MTBUF", "FLAT", "GLOBAL", "SCRATCH"), build_vector_memory),
    "SMEM": build_scalar_memory,
    "SOPP": build_control,
    "DS": build_lds,
}
_LONGEST_INSTRUCTION_BYTES = 16


def build(instruction: Instruction) -> Step:
    """The step that executes `instruction`; when there is none, a step that raises KernelFault if it is reached."""
    try:
        if instruction.mnemonic == "s_getpc_b64":
            return get_program_counter(instruction)
        if instruction.mnemonic.startswith(("v_mfma", "v_smfmac")):
            return build_matrix(instruction)
        return _BUILDERS[instruction.format](instruction)
    except KernelFault as fault:
        return _faulting(fault)


def _faulting(fault: KernelFault) -> Step:
    def step(_m: Waves, _w: Lanes) -> None:
        raise fault

    return step


@dataclass(frozen=True, eq=False)
class Block:
    """Instructions from `address` on, their steps in order; `terminate` is None where the next block just follows.
    `instructions` includes the terminator's."""

    address: int
    instructions: tuple[Instruction, ...]
    steps: tuple[Step, ...]
    terminate: Terminator | None
    next_address: int


class Program:
    """The code reachable from an entry address, decoded once. Blocks are cut at every branch target, so waves that
    meet again are seen to."""

    def __init__(self, space: AddressSpace, entry: int) -> None:
        self.entry = entry
        self._space = space
        self._instructions: dict[int, Instruction] = {}
        self._leaders: set[int] = set()
        self._blocks: dict[int, Block] = {}
        self._explore(entry)

    def block_at(self, address: int) -> Block:
        """The block that starts at `address`. Raises KernelFault when no code is there."""
        block = self._blocks.get(address)
        if block is None:
            if address not in self._instructions:
                self._explore(address)
            block = self._blocks[address] = self._cut(address)
        return block

    def _explore(self, entry: int) -> None:
        """Decode everything that direct control flow reaches, and note the places that are jumped to."""
        pending = [entry]
        while pending:
            address = pending.pop()
            self._leaders.add(address)
            while address not in self._instructions:
                instruction = self._fetch(address)
                self._instructions[address] = instruction
                target = branch_target(instruction)
                if target is not None:
                    pending.append(target)
                if not falls_through(instruction):
                    break
                address = instruction.next_address
        self._blocks.clear()

    def _fetch(self, address: int) -> Instruction:
        region = self._space.region_of(address)
        if region is None:
            raise KernelFault("crashed", f"the program counter {address:#x} is in no code; the kernel jumped astray")
        start = address - region.base
        return decode(region.block.data[start : start + _LONGEST_INSTRUCTION_BYTES].tobytes(), address)

    def _cut(self, start: int) -> Block:
        instructions, address = [], start
        while True:
            instruction = self._instructions[address]
            instructions.append(instruction)
            address = instruction.next_address
            if ends_block(instruction):
                steps = tuple(build(each) for each in instructions[:-1])
                return Block(start, tuple(instructions), steps, build_terminator(instruction), address)
            if address in self._leaders:
                return Block(start, tuple(instructions), tuple(build(each) for each in instructions), None, address)
