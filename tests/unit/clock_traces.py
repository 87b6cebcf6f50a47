"""Traces written by hand: a prologue, a loop body repeated and an epilogue per wave, each step with its costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hktune.emulator.clock.trace import Step, Trace, WaveTrace
from hktune.emulator.instructions.matrix_states import MatrixStates, states_named


@dataclass(frozen=True)
class Instruction:
    mnemonic: str
    bank_clk: int = 0
    lines: int = 0
    bytes_per_lane: int = 0
    to_lds: bool = False
    coherent: bool = False
    vmcnt: int | None = None
    lgkmcnt: int | None = None
    immediate: int | None = None
    matrix: MatrixStates | None = None
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()


def mfma(accumulator: int = 100, a: int = 0, b: int = 4, shape: str = "16x16x32") -> Instruction:
    registers = tuple(range(accumulator, accumulator + (4 if shape == "16x16x32" else 16)))
    operands = (*range(a, a + 4), *range(b, b + 4), *registers)
    return Instruction(f"v_mfma_f32_{shape}_bf16", reads=operands, writes=registers)


def ds_read_b128(bank_clk: int = 4) -> Instruction:
    return Instruction("ds_read_b128", bank_clk=bank_clk, bytes_per_lane=16, reads=(0,), writes=(4, 5, 6, 7))


def load_to_lds(lines: int = 8) -> Instruction:
    return Instruction("buffer_load_dwordx4", lines=lines, bytes_per_lane=16, to_lds=True, reads=(0,))


def store(mnemonic: str, bytes_per_lane: int, lines: int, data: int = 100) -> Instruction:
    return Instruction(mnemonic, lines=lines, bytes_per_lane=bytes_per_lane, reads=(0, data))


def wait(vmcnt: int | None = None, lgkmcnt: int | None = None) -> Instruction:
    return Instruction("s_waitcnt", vmcnt=vmcnt, lgkmcnt=lgkmcnt)


def priority(level: int) -> Instruction:
    return Instruction("s_setprio", immediate=level)


BARRIER = Instruction("s_barrier")
END = Instruction("s_endpgm")
_BRANCH = Instruction("s_cbranch_scc1")


@dataclass(frozen=True)
class Code:
    """What a wave executes: `prologue`, `body` so many times, `epilogue`; s_endpgm and the loop's branch are added."""

    prologue: Sequence[Instruction] = ()
    body: Sequence[Instruction] = ()
    iterations: int = 0
    epilogue: Sequence[Instruction] = ()


def trace_of(*waves: Code) -> Trace:
    """One workgroup. Waves with equal code share its program; unlike ones stand behind one another in it."""
    program: list[Instruction] = []
    starts: dict[int, int] = {}
    traced = []
    for code in waves:
        start = starts.setdefault(id(code), len(program))
        looped = [*code.body, _BRANCH] if code.body else []
        if start == len(program):
            program += [*code.prologue, *looped, *code.epilogue, END]
        head = start + len(code.prologue)
        indices = list(range(start, head))
        indices += list(range(head, head + len(looped))) * code.iterations
        indices += range(head + len(looped), head + len(looped) + len(code.epilogue) + 1)
        traced.append(indices)
    return Trace(tuple(_step(at, one) for at, one in enumerate(program)), tuple(_wave(t, program) for t in traced))


def _wave(indices: list[int], program: list[Instruction]) -> WaveTrace:
    def column(values: list[int]) -> np.ndarray:
        return np.array(values, dtype=np.int32)

    executed = [program[index] for index in indices]
    return WaveTrace(
        column(indices), column([one.bank_clk for one in executed]), column([one.lines for one in executed])
    )


def _step(index: int, one: Instruction) -> Step:
    return Step(
        index=index,
        address=8 * index,
        mnemonic=one.mnemonic,
        vmcnt=one.vmcnt,
        lgkmcnt=one.lgkmcnt,
        immediate=one.immediate,
        to_lds=one.to_lds,
        coherent=one.coherent,
        bytes_per_lane=one.bytes_per_lane,
        matrix=one.matrix or (states_named(one.mnemonic) if one.mnemonic.startswith("v_mfma") else None),
        reads=one.reads,
        writes=one.writes,
    )
