"""How long a matrix instruction takes, and how long after it its registers must be left alone, in wait states.

A pass is 4 clocks, and so is a state. Passes: AMD CDNA4 ISA guide, table 28; states: table 38, as LLVM 22 puts them
between gfx950 instructions. They depend on which of three pipes multiplies: that of the narrow formats, of float32, or
of float64.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hktune.emulator.instructions.decode import Instruction

_NAME = re.compile(r"v_s?m?fmac?_\w+?_(\d+)x\d+x\d+(_\d+b)?_(\w+)$")
_SIX_BITS = 2  # the first format of an f8f6f4 MFMA with fewer than 8


@dataclass(frozen=True, slots=True)
class MatrixStates:
    """`passes` hold the pipe: so many states the next matrix instruction waits for by itself.

    States before the result is read or overwritten by the VALU, or multiplied (`result`), is read by a memory
    operation (`memory`), is added to by a matrix instruction that adds to just these registers (`same`) or to some of
    them (`part`); and before the VALU overwrites what is added to (`addend`)."""

    passes: int
    result: int
    memory: int
    same: int
    part: int
    addend: int

    @property
    def longest(self) -> int:
        return max(self.result, self.memory, self.part)


def states_of(instruction: Instruction) -> MatrixStates:
    """The states of a v_mfma or v_smfmac."""
    fields = instruction.fields
    narrow = instruction.mnemonic.endswith("_f8f6f4") and min(fields["cbsz"], fields["blgp"]) >= _SIX_BITS
    return states_named(instruction.mnemonic, narrow)


def states_named(mnemonic: str, narrow: bool = False) -> MatrixStates:
    """Those of the instruction of that name. `narrow`: one of f8f6f4 whose formats both have fewer than 8 bits."""
    found = _NAME.match(mnemonic)
    rows, blocks, kind = (int(found[1]), bool(found[2]), found[3]) if found else (16, False, "")
    if kind == "f64":
        return MatrixStates(4, 6, 9, 4, 4, 3) if rows == 4 else MatrixStates(16, 19, 18, 0, 17, 15)
    passes = {4: 2, 16: 4, 32: 8}[rows]
    if kind == "f32":
        passes *= 1 if rows == 4 else 2
        return MatrixStates(passes, passes + 2, passes + 2, 2 if rows == 4 else 0, passes, passes - 1)
    if rows == 4:
        return MatrixStates(passes, 5, 5, 2, 3, 1)
    if blocks or (kind == "f8f6f4" and not narrow):
        passes *= 2
    return MatrixStates(passes, passes + 4, passes + 4, 0, passes + 2, passes - 1)
