"""A loaded kernel's code as blocks: straight runs of executable steps that end where control may move."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace

import numpy as np
import numpy.typing as npt

from hktune.core.errors import KernelFault
from hktune.emulator.instructions.control import (
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
from hktune.emulator.instructions.matrix_sparse import build_sparse_matrix
from hktune.emulator.instructions.operand_access import Step
from hktune.emulator.instructions.scalar import build_scalar
from hktune.emulator.instructions.scalar_memory import build_scalar_memory
from hktune.emulator.instructions.vector import build_vector
from hktune.emulator.instructions.vector_memory import build_vector_memory
from hktune.emulator.instructions.wave_modes import Terminator, get_register, indexed, is_vector
from hktune.emulator.machine.float_mode import FloatMode
from hktune.emulator.machine.memory import AddressSpace
from hktune.emulator.machine.waves import FLOAT_MODE_SHIFT, GPR_INDEX, VSKIP, Lanes, Waves

_BUILDERS: dict[str, Callable[[Instruction], Step]] = {
    **dict.fromkeys(("SOP1", "SOP2", "SOPC", "SOPK"), build_scalar),
    **dict.fromkeys(("MUBUF", "MTBUF", "FLAT", "GLOBAL", "SCRATCH"), build_vector_memory),
    "SMEM": build_scalar_memory,
    "SOPP": build_control,
    "DS": build_lds,
}
_LONGEST_INSTRUCTION_BYTES = 16
KEEP_ALL = FloatMode()
"""What HIP starts kernels in: nearest even, subnormals kept, IEEE mode."""


def build(instruction: Instruction, mode: FloatMode = KEEP_ALL) -> Step:
    """The step that executes `instruction` in `mode`; when there is none, a step that raises KernelFault if reached."""
    try:
        if instruction.mnemonic == "s_getpc_b64":
            return get_program_counter(instruction)
        if instruction.mnemonic == "s_getreg_b32":
            return get_register(instruction)
        if instruction.mnemonic.startswith("v_mfma"):
            return build_matrix(instruction)
        if instruction.mnemonic.startswith("v_smfmac"):
            return build_sparse_matrix(instruction)
        if instruction.format.startswith("VOP"):
            return build_vector(instruction, mode)
        return _BUILDERS[instruction.format](instruction)
    except KernelFault as fault:
        return _faulting(fault)


def is_faulting(step: Step) -> bool:
    """Whether `step` is one of those that `build` makes of what it cannot build."""
    return step.__qualname__.startswith(_faulting.__qualname__)


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


@dataclass(frozen=True)
class Inserted(Instruction):
    """An instruction that is not in the code: it is executed on the way to the one at `address`, and `follower` is
    where the program counter goes from it."""

    follower: int = field(kw_only=True)

    @property
    def next_address(self) -> int:
        return self.follower


_INSERTED_FROM = 1 << 56
"""Where program counters are on the way between inserted instructions: in nobody's memory."""


class Code:
    """Instructions that cannot change, decoded and built once for every program over them: bytes at `base`, for kernels
    that begin in `mode`. Programs of several threads may share one."""

    def __init__(self, base: int, data: npt.NDArray[np.uint8], mode: FloatMode = KEEP_ALL) -> None:
        self.mode = mode
        self._base, self._data = base, data
        self._instructions: dict[int, Instruction] = {}
        self._blocks: dict[tuple[int, int], Block] = {}

    def instruction(self, address: int) -> Instruction | None:
        """The one at `address`; None outside. Raises KernelFault for bytes that are none."""
        found = self._instructions.get(address)
        start = address - self._base
        if found is None and 0 <= start < len(self._data):
            words = self._data[start : start + _LONGEST_INSTRUCTION_BYTES].tobytes()
            found = self._instructions.setdefault(address, decode(words, address))
        return found

    def block(self, start: int, instructions: tuple[Instruction, ...]) -> Block | None:
        """The block of `instructions`, where they are all of this code and follow each other there."""
        known, expected = self._instructions, start
        for each in instructions:
            if each.address != expected or known.get(expected) is not each:
                return None
            expected = each.next_address
        key = start, expected
        found = self._blocks.get(key)
        return found or self._blocks.setdefault(key, block_of(start, instructions, expected, self.mode))


def block_of(start: int, instructions: tuple[Instruction, ...], next_address: int, mode: FloatMode) -> Block:
    """The block that executes `instructions`, the last of which may be its terminator."""
    last = instructions[-1]
    body = instructions[:-1] if ends_block(last) else instructions
    terminate = build_terminator(last) if ends_block(last) else None
    return Block(start, instructions, tuple(build(each, mode) for each in body), terminate, next_address)


class Program:
    """The code reachable from an entry address, decoded once. Blocks are cut at every branch target, so waves that
    meet again are seen to. `inserted`: the words of instructions that are executed before the one at an address.
    `code`: what is known of the instructions at some addresses, the entry's among them."""

    def __init__(
        self,
        space: AddressSpace,
        entry: int,
        mode: FloatMode = KEEP_ALL,
        inserted: Mapping[int, tuple[int, ...]] | None = None,
        code: Code | None = None,
    ) -> None:
        self.entry = entry
        self._mode = mode
        self._space = space
        self._code = code
        self._inserted = dict(inserted or {})
        self._moved: dict[int, Instruction] = {}
        self._instructions: dict[int, Instruction] = {}
        self._leaders: set[int] = set()
        self._blocks: dict[int, Block] = {}
        self._unusual: dict[tuple[int, int], Block] = {}
        self._explore(entry)

    def instruction(self, address: int) -> Instruction:
        """The one at `address`, which has been reached."""
        return self._instructions[address]

    def has_atomics(self) -> bool:
        """Whether an atomic on global memory is among the code that is known to be reachable."""
        return any("atomic" in each.mnemonic for each in self._instructions.values())

    def around(self, address: int, before: int, after: int) -> list[Instruction]:
        """The instruction at `address` with its neighbours, as far as they are reachable: so many on either side."""
        places = sorted(each for each in self._instructions if each < _INSERTED_FROM)
        at = places.index(address) if address in places else 0
        return [self._instructions[place] for place in places[max(at - before, 0) : at + after + 1]]

    def block_at(self, address: int) -> Block:
        """The block that starts at `address`. Raises KernelFault when no code is there."""
        block = self._blocks.get(address)
        if block is None:
            if address not in self._instructions:
                self._explore(address)
            block = self._blocks[address] = self._cut(address)
        return block

    def under(self, block: Block, mode: int) -> Block:
        """`block` as waves in `mode` (Waves.mode_of, not 0) execute it."""
        key = block.address, mode
        if key not in self._unusual:
            body = block.instructions[:-1] if block.terminate else block.instructions
            last = block.instructions[len(body) :]
            if mode & VSKIP:
                body = tuple(each for each in body if not is_vector(each))
            steps = tuple(self._step_under(each, mode) for each in body)
            self._unusual[key] = replace(block, instructions=body + last, steps=steps)
        return self._unusual[key]

    def _step_under(self, instruction: Instruction, mode: int) -> Step:
        changed = mode >> FLOAT_MODE_SHIFT
        floats = FloatMode.of_register(changed - 1) if changed else self._mode
        try:
            return build(indexed(instruction, mode) if mode & GPR_INDEX else instruction, floats)
        except KernelFault as fault:
            return _faulting(fault)

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
        self._unusual.clear()

    def _fetch(self, address: int) -> Instruction:
        if address in self._inserted:
            self._insert(address, self._inserted.pop(address))
        return self._moved.get(address) or self._decoded(address)

    def _insert(self, address: int, words: tuple[int, ...]) -> None:
        """Puts short instructions before the one at `address`, which keeps its address and is reached from them."""
        place = address
        for word in words:
            follower = _INSERTED_FROM + 4 * len(self._moved)
            new = decode(word.to_bytes(4, "little"), address)
            parts = {each.name: getattr(new, each.name) for each in fields(new)}
            self._moved[place] = Inserted(**parts, follower=follower)
            place = follower
        self._moved[place] = self._decoded(address)

    def _decoded(self, address: int) -> Instruction:
        known = self._code.instruction(address) if self._code is not None else None
        if known is not None:
            return known
        region = self._space.region_of(address)
        if region is None:
            raise KernelFault("crashed", f"the program counter {address:#x} is in no code; the kernel jumped astray")
        start = address - region.base
        return decode(region.block.data[start : start + _LONGEST_INSTRUCTION_BYTES].tobytes(), address)

    def _cut(self, start: int) -> Block:
        found: list[Instruction] = []
        address = start
        while not found or not (ends_block(found[-1]) or address in self._leaders):
            found.append(self._instructions[address])
            address = found[-1].next_address
        instructions = tuple(found)
        known = self._code.block(start, instructions) if self._code is not None else None
        return known or block_of(start, instructions, address, self._mode)
