"""Sparse matrix instructions: D += A @ B, where A holds two of each four k of a row, and which two are in an index.

With R rows and K columns of A, a lane holds K * R / 128 values of one row of A: two of each four consecutive k, of the
K * R / 64 k from K * R / 64 * (lane / R) on. A value's two bits in the index say which of its four k it is, the first
value's lowest. Of B a lane holds as many k of one column as A has places: in a row for the shapes of CDNA3, and for
those that CDNA4 doubled two runs, one of each half of K. So it is where the instructions were probed on a gfx950 with
one value in each operand (v_smfmac_f32_16x16x64_f16, 16x16x128_fp8_fp8), and by AMD's matrix calculator (CDNA3's).

The index takes the low bits of a register. Where it needs fewer than 32, ABID chooses among as many sets as fit, unless
CBSZ is set. EXEC is ignored, and sums are as in matrix.py.
"""

from __future__ import annotations

import re

import numpy as np

from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.matrix import SUMS, WIDEN, Shape, sources, storing, tiles
from hktune.emulator.instructions.operand_access import VGPR, Read, Step, unimplemented
from hktune.emulator.machine.memory import Array
from hktune.emulator.machine.waves import AGPR, LANES, Lanes, Waves

_NAME = re.compile(r"v_smfmac_[fi]32_(16x16|32x32)x(\d+)_(bf16|f16|i8|(?:fp8|bf8)_(?:fp8|bf8))$")
_DOUBLED_REGISTERS = 8  # of B, in the shapes that CDNA4 added
_INDEX_BITS = 32


def build_sparse_matrix(instruction: Instruction) -> Step:
    """The function that executes a v_smfmac. Raises KernelFault for modifiers that mean nothing."""
    found = _NAME.match(instruction.mnemonic)
    if found is None or instruction.fields["blgp"]:
        raise unimplemented(instruction)
    kinds = found[3].split("_")
    dtype = SUMS.get(kinds[0], np.float32)
    shape, depth = Shape(int(found[1][:2])), int(found[2])
    widen_a, widen_b = WIDEN[kinds[0]], WIDEN[kinds[-1]]
    first, second = sources(instruction)
    width_a, width_b = instruction.operand("src0").registers, instruction.operand("src1").registers
    chosen, store = _index(instruction, shape.rows, depth), storing(instruction, shape)
    target = instruction.fields["vdst"] + (AGPR if instruction.fields["acc_cd"] else 0)

    def step(m: Waves, w: Lanes) -> None:
        a = widen_a(m.registers[first : first + width_a, w], shape.rows)
        b = widen_b(m.registers[second : second + width_b, w], shape.rows)
        if width_b == _DOUBLED_REGISTERS:
            b = _from_two_runs(b, shape.rows)
        waves = np.arange(len(a))[:, None, None]
        product = np.einsum("nkr,nkrc->nrc", a, b[waves, np.asarray(chosen(m, w))])
        addend = m.registers[target : target + shape.places, w].view(dtype)
        store(m, w, tiles(product, shape).astype(dtype, copy=False) + addend)

    return step


def _index(instruction: Instruction, rows: int, depth: int) -> Read:
    """Reader of the k of each value of A (n, k / 2, row)."""
    held, fields = depth * rows // LANES // 2, instruction.fields
    sets = _INDEX_BITS // (2 * held)
    number = 0 if fields["cbsz"] else fields["abid"] % sets
    register, bits = fields["src2"] - VGPR, 2 * np.arange(held) + number * 2 * held
    if register < 0:
        raise unimplemented(instruction, f"src2 {fields['src2']}")
    quads = 4 * (np.arange(depth // 2) // 2)[:, None]

    def chosen(m: Waves, w: Lanes) -> Array:
        words = m.registers[register, w].reshape(-1, LANES // rows, 1, rows)
        pairs = words >> bits.astype(np.uint32)[:, None] & np.uint32(3)
        return pairs.reshape(len(words), -1, rows).astype(np.int64) + quads

    return chosen


def _from_two_runs(values: Array, rows: int) -> Array:
    """(n, k, column) in the order of lanes to the order of k: the first half of a lane's is of the lower half of K."""
    waves, depth = values.shape[:2]
    groups = LANES // rows
    runs = values.reshape(waves, groups, 2, depth // groups // 2, rows)
    return runs.transpose(0, 2, 1, 3, 4).reshape(waves, depth, rows)
