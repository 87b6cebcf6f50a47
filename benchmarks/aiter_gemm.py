"""Runs AITER's bf16 GEMM kernels for gfx950 on the emulator and compares every element with float64.

    python benchmarks/aiter_gemm.py FOLDER [--only TEXT]

FOLDER holds the kernels: hsa/gfx950/bf16gemm of the wheel amd-aiter (PyPI, MIT), unpacked, or of the AITER repository.
Each computes C[M, N] = A[M, K] x Bt[N, K]^T, bf16 in, float32 or bf16 out, as its name says (`Kernel`). Problems fill
the tiles or do not, share k among up to 16 workgroups, and add a bias. Hazards are looked for; notes are counted by
rule (docs/explanation/hazards.md): M0 before a load to LDS, a mask the VALU wrote, a VALU result into an MFMA.

The kernels load three K-tiles of 64 before they look at K (the 256x256 ones two). So K is at least that here. With
less they read past the last row, and with few rows past the operand.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hktune.core.dtype import BF16
from hktune.core.errors import KernelFault
from hktune.core.launch import Argument, Launch
from hktune.device.emulated import EmulatedDevice
from hktune.objects.code_object import KernelImage, read_code_object

WORK_ITEMS = 256
DEADLINE_S = 600.0
SUMMED = 2.0**-20  # of the sum of magnitudes: float32 sums in another order
ROUNDED = 2.0**-8  # of the result: one rounding to bf16
_NAME = re.compile(r"bf16gemm_(outf32|bf16|fp32bf16)_tn_(\d+)x(\d+)_?(.*)$")
_SHUFFLED_ROWS, _SHUFFLED_K = 16, 8  # a block of so many columns of the weight, so many consecutive k of each
_RULES = {"loads to LDS through M0": "M0", "reads a scalar that": "mask", "an MFMA reads": "MFMA", "": "other"}
"""What a note of each rule says, and what it is called here."""

Bits = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Kernel:
    """What a file's name says: tile, formats of C, whether Bt is shuffled, and how k may be shared.

    `counts`: workgroups that share k take turns by a counter, and C need not be zero. Others add to C.
    """

    rows: int
    columns: int
    outputs: tuple[int, ...]
    shuffled: bool
    splits: bool
    counts: bool
    bias: bool

    @classmethod
    def of(cls, name: str) -> Kernel:
        """Raises ValueError for another kernel's name."""
        found = _NAME.match(name)
        if found is None:
            raise ValueError(f"{name}: not one of the bf16 GEMMs")
        family, rows, columns, rest = found[1], int(found[2]), int(found[3]), found[4]
        outputs = {"outf32": (4,), "bf16": (2,), "fp32bf16": (4, 2)}[family]
        splits = family == "outf32" or "splitk" in rest
        return cls(rows, columns, outputs, "shuffle" in rest, splits, "clean" in rest, family == "fp32bf16")


@dataclass(frozen=True)
class Case:
    """One launch. `out_bytes`: of an element of C."""

    m: int
    n: int
    k: int
    shares: int
    out_bytes: int
    bias: bool

    def __str__(self) -> str:
        text = f"{self.m}x{self.n}x{self.k} / {self.shares} {'f32' if self.out_bytes == 4 else 'bf16'}"
        return text + " + bias" * self.bias


def cases(kernel: Kernel) -> Iterator[Case]:
    """Whole tiles, ragged rows, few rows, little k, a bias, shares of k; each format of C.

    Kernels that take turns by a counter are for shared k only.
    """
    rows, columns = kernel.rows, kernel.columns
    least = 2 if kernel.counts else 1
    for out_bytes in kernel.outputs:
        yield Case(2 * rows, 2 * columns, 256 * least, least, out_bytes, False)
        yield Case(rows + rows // 2 + 3, 3 * columns, 512 * least, least, out_bytes, False)
        yield Case(1, columns, 192 * least, least, out_bytes, False)
        if kernel.bias:
            yield Case(rows - 1, 2 * columns, 192 * least, least, out_bytes, True)
        for shares in (2, 3, 7, 16) if kernel.splits else ():
            yield Case(rows + 5, columns, 64 * shares + 128, shares, out_bytes, kernel.bias and shares == 3)


def shuffled(weight: Bits) -> Bits:
    """Bt[N, K] as kernels for preshuffled weights read it: blocks of 16 columns, in each 8 k of one after the other."""
    n, k = weight.shape
    blocks = weight.reshape(n // _SHUFFLED_ROWS, _SHUFFLED_ROWS, k // _SHUFFLED_K, _SHUFFLED_K)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3)).reshape(n, k)


def operands(case: Case, rng: np.random.Generator) -> tuple[Bits, Bits, Bits]:
    """A, Bt and the bias: normal numbers, or, where partial sums are rounded to bf16, few of -1 and 1, whose sums are
    exact."""
    shapes = ((case.m, case.k), (case.n, case.k), (1, case.n))
    if case.shares > 1 and case.out_bytes == 2:
        values = [rng.choice([-1.0, 0.0, 0.0, 0.0, 1.0], shape) for shape in shapes]
    else:
        values = [rng.standard_normal(shape) for shape in shapes]
    a, b, bias = (BF16.bits(value.astype(np.float32)) for value in values)
    return a, b, bias


def slots(image: KernelImage) -> tuple[Argument, ...]:
    """The kernel's arguments in order, padding included, under names of their own."""
    kinds = {("global_buffer", 8): "pointer", ("by_value", 8): "u64", ("by_value", 4): "u32"}
    floats = ("alpha", "beta")
    return tuple(
        Argument(f"{slot.name}{i}", "f32" if slot.name in floats else kinds[slot.value_kind, slot.size_bytes])
        for i, slot in enumerate(image.arguments)
    )


def run(data: bytes, kernel: Kernel, case: Case) -> tuple[float, Counter[str]]:
    """The largest error as a part of what is allowed, and the number of notes by rule. Raises KernelFault."""
    code = read_code_object(data)
    (symbol,) = code.kernels
    a, b, bias = operands(case, np.random.default_rng(1))
    adds = case.shares > 1 and not kernel.counts
    out = np.full((case.m, case.n), 0 if adds else 0xFF, np.uint16 if case.out_bytes == 2 else np.uint32)
    out *= 0x0101 if case.out_bytes == 2 else 0x01010101  # NaN, unless workgroups add to it
    tiles = (case.n // kernel.columns, -(-case.m // kernel.rows))
    counters = np.zeros(tiles[0] * tiles[1], np.uint32)
    device = EmulatedDevice(deadline_s=DEADLINE_S, find_hazards=True)
    arrays = {"D": out, "A": a, "B": shuffled(b) if kernel.shuffled else b, "Bias": bias, "ptr_semaphore": counters}
    buffers = {name: device.allocate(array.nbytes) for name, array in arrays.items()}
    for name, array in arrays.items():
        device.write(buffers[name], array)
    pitch = case.out_bytes * case.n
    strides = {"strideD0": pitch, "strideC0": pitch, "strideA0": 2 * case.k, "strideB0": 2 * case.k}
    sizes = {"Mdim": case.m, "Ndim": case.n, "Kdim": case.k, "splitk": case.shares, "alpha": 1.0, "beta": 0.0}
    flags = {"is_out_b16": int(case.out_bytes == 2), "add_bias": int(case.bias)}
    given = {**buffers, **strides, **sizes, **flags}
    arguments = slots(code.kernels[symbol])
    binding = {
        argument.name: given.get(slot.name, None if argument.kind == "pointer" else 0)
        for argument, slot in zip(arguments, code.kernels[symbol].arguments, strict=True)
    }
    grid = (*tiles, case.shares)
    device.launch(device.load(data, symbol), Launch(grid, (WORK_ITEMS, 1, 1), 0, arguments), binding)
    device.read(buffers["D"], out)
    device.read(buffers["ptr_semaphore"], counters)
    found = BF16.values(out) if case.out_bytes == 2 else out.view(np.float32)
    error = _error(found, case, (a, b, bias))
    notes = Counter(next(name for text, name in _RULES.items() if text in note) for note in device.hazard_notes)
    return (np.inf if counters.any() else error), notes


def counted(notes: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in notes.items())


def _error(found: npt.NDArray[np.float32], case: Case, given: tuple[Bits, Bits, Bits]) -> float:
    """The largest deviation from float64 sums as a part of what is allowed; every counter must be back at 0."""
    x, y, bias = (BF16.values(bits).astype(np.float64) for bits in given)
    exact, magnitude = x @ y.T, np.abs(x) @ np.abs(y).T
    if case.bias:
        exact, magnitude = exact + bias, magnitude + np.abs(bias)
    exactly = case.out_bytes == 2 and case.shares > 1
    allowed = np.full_like(exact, 1e-300) if exactly else SUMMED * magnitude
    if case.out_bytes == 2 and not exactly:
        allowed = allowed + ROUNDED * np.abs(exact)
    with np.errstate(over="ignore"):
        return float(np.nan_to_num(np.abs(found - exact) / allowed, nan=np.inf).max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="kernels whose name has this text")
    options = parser.parse_args()
    files = sorted(path for path in options.folder.glob("bf16gemm_*.co") if options.only in path.stem)
    wrong, count = 0, 0
    print(f"{'kernel':46} {'m x n x k / shares, C':>32} {'of allowed':>10} {'s':>6}  notes")
    for path in files:
        kernel = Kernel.of(path.stem)
        for case in cases(kernel):
            count += 1
            started = time.perf_counter()
            try:
                error, notes = run(path.read_bytes(), kernel, case)
            except KernelFault as fault:
                print(f"{path.stem:46} {case!s:>32} {fault.status}: {fault.detail}")
                wrong += 1
                continue
            spent_s = time.perf_counter() - started
            print(f"{path.stem:46} {case!s:>32} {error:10.1e} {spent_s:6.2f}  {counted(notes)}", flush=True)
            wrong += error > 1
    print(f"{len(files)} kernels, {count} launches, {wrong} wrong")
    return 1 if wrong or not files else 0


if __name__ == "__main__":
    sys.exit(main())
