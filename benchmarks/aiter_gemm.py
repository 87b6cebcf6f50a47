"""Runs AITER's bf16 GEMM kernels for gfx950 on the emulator and compares every element with float64.

    python benchmarks/aiter_gemm.py FOLDER

FOLDER holds `bf16gemm_outf32_tn_<rows>x64_pf3.co`: hsa/gfx950/bf16gemm of the wheel amd-aiter (PyPI, MIT), unpacked.
Each kernel computes C[M, N] = A[M, K] x Bt[N, K]^T, bf16 in, float32 out, on a problem that fills its tiles, one that
does not, and one whose k is shared by two workgroups, which add to C. Hazards are looked for; notes are counted.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from hktune.core.dtype import BF16
from hktune.core.errors import KernelFault
from hktune.core.launch import Argument, Launch
from hktune.device.emulated import EmulatedDevice
from hktune.objects.code_object import KernelImage, read_code_object

PROBLEMS = ((64, 128, 256, 1), (100, 192, 512, 1), (96, 128, 1024, 2))
"""m, n, k, shares of k."""
TILE_COLUMNS, WORK_ITEMS = 64, 256
DEADLINE_S = 600.0
ALLOWED = 2.0**-20  # of the sum of magnitudes: float32 sums in another order


def slots(image: KernelImage) -> tuple[Argument, ...]:
    """The kernel's arguments in order, padding included, under names of their own."""
    kinds = {("global_buffer", 8): "pointer", ("by_value", 8): "u64", ("by_value", 4): "u32"}
    floats = ("alpha", "beta")
    return tuple(
        Argument(f"{slot.name}{i}", "f32" if slot.name in floats else kinds[slot.value_kind, slot.size_bytes])
        for i, slot in enumerate(image.arguments)
    )


def run(data: bytes, tile_rows: int, m: int, n: int, k: int, shares: int) -> tuple[float, int]:
    """The largest error as a part of the sum of magnitudes, and the number of hazard notes. Raises KernelFault."""
    code = read_code_object(data)
    (symbol,) = code.kernels
    rng = np.random.default_rng(1)
    a, b = (BF16.bits(rng.standard_normal((rows, k)).astype(np.float32)) for rows in (m, n))
    start = np.zeros((m, n), np.float32) if shares > 1 else np.full((m, n), np.nan, np.float32)
    device = EmulatedDevice(deadline_s=DEADLINE_S, find_hazards=True)
    buffers = [device.allocate(array.nbytes) for array in (start, a, b)]
    for buffer, array in zip(buffers, (start, a, b), strict=True):
        device.write(buffer, array)
    strides = {"strideC0": 4 * n, "strideA0": 2 * k, "strideB0": 2 * k}
    sizes = {"Mdim": m, "Ndim": n, "Kdim": k, "splitk": shares, "alpha": 1.0, "beta": 0.0}
    given = dict(zip("DAB", buffers, strict=True)) | strides | sizes
    arguments = slots(code.kernels[symbol])
    binding = {
        argument.name: given.get(slot.name, None if argument.kind == "pointer" else 0)
        for argument, slot in zip(arguments, code.kernels[symbol].arguments, strict=True)
    }
    grid = (n // TILE_COLUMNS, -(-m // tile_rows), shares)
    device.launch(device.load(data, symbol), Launch(grid, (WORK_ITEMS, 1, 1), 0, arguments), binding)
    found = np.empty((m, n), np.float32)
    device.read(buffers[0], found)
    x, y = BF16.values(a).astype(np.float64), BF16.values(b).astype(np.float64)
    error = np.abs(found - x @ y.T) / (np.abs(x) @ np.abs(y).T)
    return float(np.nan_to_num(error, nan=np.inf).max()), len(device.hazard_notes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    files = sorted(parser.parse_args().folder.glob("bf16gemm_outf32_tn_*x64_pf3.co"))
    wrong = 0
    print(f"{'kernel':34} {'m x n x k / shares':>20} {'error':>9} {'notes':>6}")
    for path in files:
        tile_rows = int(path.stem.split("_")[3].partition("x")[0])
        for problem in PROBLEMS:
            name = "{}x{}x{} / {}".format(*problem)
            try:
                error, notes = run(path.read_bytes(), tile_rows, *problem)
            except KernelFault as fault:
                print(f"{path.stem:34} {name:>20} {fault.status}: {fault.detail}")
                wrong += 1
                continue
            print(f"{path.stem:34} {name:>20} {error:9.1e} {notes:6}")
            wrong += error > ALLOWED
    return 1 if wrong or not files else 0


if __name__ == "__main__":
    sys.exit(main())
