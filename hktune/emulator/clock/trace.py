"""What an execution leaves for the clock: every step of every wave of one workgroup."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hktune.emulator.instructions.matrix_states import MatrixStates


@dataclass(frozen=True)
class Step:
    """One instruction of the program as the clock sees it.

    `mnemonic` is the assembler's name in lower case (v_mfma_f32_16x16x32_bf16, buffer_load_dwordx4, s_waitcnt).
    `vmcnt` and `lgkmcnt` are what an s_waitcnt waits for (None where it leaves that counter alone); `immediate` is the
    16-bit field of other SOPP instructions (s_nop, s_setprio). `to_lds` marks a direct-to-LDS load, `coherent` a scalar
    load, a store or an atomic that is answered where other dies see it, not by L2. `bytes_per_lane` is the width of a
    memory instruction. `matrix` says how long a matrix instruction takes. `reads` and `writes` are register numbers:
    0-255 VGPRs, 256-511 AGPRs.
    """

    index: int
    address: int
    mnemonic: str
    vmcnt: int | None = None
    lgkmcnt: int | None = None
    immediate: int | None = None
    to_lds: bool = False
    coherent: bool = False
    bytes_per_lane: int = 0
    matrix: MatrixStates | None = None
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()


@dataclass(frozen=True)
class WaveTrace:
    """The steps one wave executed, in order, and what each cost the memories. All arrays have one entry per step.

    `steps`: index into Trace.program. `lds_bank_clocks`: bank clocks of an LDS instruction, conflicts included (0 for
    others). `lines`: distinct 128-byte lines a global memory instruction touched (0 for others).
    """

    steps: npt.NDArray[np.int32]
    lds_bank_clocks: npt.NDArray[np.int32]
    lines: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Trace:
    """One workgroup's execution: the program once, and one WaveTrace per wave in wave order."""

    program: tuple[Step, ...]
    waves: tuple[WaveTrace, ...]
