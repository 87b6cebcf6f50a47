"""Records what the waves of workgroup (0, 0, 0) execute, for the clock.

Waves of one group execute a block together, so a block is noted once for each of them and spelled out at the end.
What an access costs depends only on how its lanes' addresses are to each other, so costs are remembered by pattern.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hktune.emulator.clock.lds_banks import bank_clocks, lines_touched
from hktune.emulator.clock.trace import Step, Trace, WaveTrace
from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.lds import lds_bytes_per_lane, touches_lds
from hktune.emulator.instructions.matrix_states import states_of
from hktune.emulator.instructions.program import Block
from hktune.emulator.instructions.scalar_memory import scalar_bytes
from hktune.emulator.instructions.vector_memory import access_bytes, touches_lines
from hktune.emulator.instructions.vector_registers import registers_of
from hktune.emulator.machine.memory import Array

_LDS_PERIOD_BYTES = 16
_LINE_BYTES = 128
_VMCNT_MAX, _LGKMCNT_MAX = 63, 15


class Recorder:
    """Notes of one launch. `enter` says which waves execute next; the other methods are about those."""

    def __init__(self, waves: int) -> None:
        self._blocks: list[list[Block]] = [[] for _ in range(waves)]
        self._lds: list[list[int]] = [[] for _ in range(waves)]
        self._lines: list[list[int]] = [[] for _ in range(waves)]
        self._here: npt.NDArray[np.intp] = np.zeros(0, np.intp)
        self._waves: list[int] = []
        self._known: dict[tuple[object, ...], list[int]] = {}

    def enter(self, columns: Array, workgroups: int) -> None:
        """The group that executes from now on, as columns of a batch of `workgroups`."""
        self._here = np.flatnonzero(columns % workgroups == 0)
        self._waves = [int(column) // workgroups for column in columns[self._here]]

    def block(self, block: Block) -> None:
        for wave in self._waves:
            self._blocks[wave].append(block)

    def lds(self, address: Array, active: Array, size: int, writes: bool) -> None:
        """An LDS access at byte addresses (n, 64) of the group's waves."""
        if self._waves:
            self._note(self._lds, self._lds_clocks(address, active, size, writes))

    def lds_pair(self, addresses: tuple[Array, Array], active: Array, size: int, writes: bool) -> None:
        """Two LDS accesses of one instruction."""
        if self._waves:
            first, second = (self._lds_clocks(address, active, size, writes) for address in addresses)
            self._note(self._lds, [one + other for one, other in zip(first, second, strict=True)])

    def lines(self, address: Array, active: Array, size: int) -> None:
        """A global memory access at byte addresses (n, lanes) of the group's waves."""
        if self._waves:
            where, lanes = address[self._here], active[self._here]
            key = ("lines", size, *_pattern(where, lanes, _LINE_BYTES))
            self._note(self._lines, self._cost(key, lambda: lines_touched(where, lanes, size)))

    def _lds_clocks(self, address: Array, active: Array, size: int, writes: bool) -> list[int]:
        where, lanes = address[self._here], active[self._here]
        key = ("lds", size, writes, *_pattern(where, lanes, _LDS_PERIOD_BYTES))
        return self._cost(key, lambda: bank_clocks(where, lanes, size, writes))

    def _cost(self, key: tuple[object, ...], compute: Callable[[], Array]) -> list[int]:
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = [int(cost) for cost in compute()]
        return known

    def _note(self, notes: list[list[int]], costs: list[int]) -> None:
        for wave, cost in zip(self._waves, costs, strict=True):
            notes[wave].append(cost)

    def trace(self) -> Trace:
        """Everything noted, spelled out step by step."""
        blocks = {id(block): block for wave in self._blocks for block in wave}
        found = {each.address: each for block in blocks.values() for each in block.instructions}
        program = [found[address] for address in sorted(found)]
        index = {instruction.address: i for i, instruction in enumerate(program)}
        spelled = {
            key: np.array([index[each.address] for each in block.instructions], np.int32)
            for key, block in blocks.items()
        }
        on_lds = np.array([touches_lds(each) for each in program], bool)
        on_lines = np.array([touches_lines(each) for each in program], bool)
        waves = []
        for wave, executed in enumerate(self._blocks):
            steps = np.concatenate([spelled[id(block)] for block in executed])
            clocks = _spread(on_lds[steps], self._lds[wave])
            waves.append(WaveTrace(steps, clocks, _spread(on_lines[steps], self._lines[wave])))
        return Trace(tuple(step_of(i, each) for i, each in enumerate(program)), tuple(waves))


def _pattern(address: Array, active: Array, period: int) -> tuple[object, ...]:
    """How the addresses are to each other and to multiples of `period`."""
    base = address[:, :1] & -period
    return (address - base).tobytes(), active.tobytes()


def _spread(places: npt.NDArray[np.bool_], costs: list[int]) -> npt.NDArray[np.int32]:
    spread = np.zeros(len(places), np.int32)
    spread[places] = costs
    return spread


def step_of(index: int, instruction: Instruction) -> Step:
    """The clock's view of one instruction."""
    fields, name = instruction.fields, instruction.mnemonic
    reads, writes = registers_of(instruction)
    immediate = fields["simm16"] if instruction.format == "SOPP" else None
    vmcnt, lgkmcnt = _counters(fields["simm16"]) if name == "s_waitcnt" else (None, None)
    return Step(
        index=index,
        address=instruction.address,
        mnemonic=name,
        vmcnt=vmcnt,
        lgkmcnt=lgkmcnt,
        immediate=None if name == "s_waitcnt" else immediate,
        to_lds=bool(fields.get("lds")) or "_load_lds_" in name,
        coherent=bool(fields.get("glc") or fields.get("sc1")) or "atomic" in name,
        bytes_per_lane=_bytes_per_lane(instruction),
        matrix=states_of(instruction) if name.startswith(("v_mfma", "v_smfmac")) else None,
        reads=reads,
        writes=writes,
    )


def _counters(immediate: int) -> tuple[int | None, int | None]:
    """vmcnt and lgkmcnt of an s_waitcnt (CDNA4 ISA guide, section 4.4); a full field waits for nothing."""
    vmcnt = immediate & 15 | immediate >> 14 << 4
    lgkmcnt = immediate >> 8 & 15
    return vmcnt if vmcnt < _VMCNT_MAX else None, lgkmcnt if lgkmcnt < _LGKMCNT_MAX else None


def _bytes_per_lane(instruction: Instruction) -> int:
    if instruction.format == "DS":
        return lds_bytes_per_lane(instruction)
    if instruction.format == "SMEM":
        return scalar_bytes(instruction)
    return access_bytes(instruction)
