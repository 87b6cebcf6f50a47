"""AMD's rocBLAS on AMD's HIP runtime over the emulator: what is right, and what the hazard checker says of it.

    scripts/rocm-virtual --packages rocblas python benchmarks/rocblas_virtual.py [--solutions 50] [--hazards]

In each of four layouts: 28 sizes by rocBLAS' own choice, then `--solutions` of its solutions for one size, by number,
spread over all that it names. The operands' sums are exact in float32, so every element must be the one rounding. With
`--hazards` each kernel is run under the checker first; its notes and hazards are counted by rule. Exit code 1 if
anything is wrong. The GPU is called gfx942, as Debian's rocBLAS has kernels for that, and is the emulator's gfx950.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path

from rocm_virtual.dispatch import emulator
from rocm_virtual.rocblas_product import Product

from hktune.core.errors import DeviceError
from hktune.device.hip import HipDevice
from hktune.emulator.hazards.checker import Watch
from hktune.measure.rocblas import Rocblas, RocblasSolution

LAYOUTS = ("nn", "nt", "tn", "tt")
SIZE = (128, 128, 128)
SIZES = (
    *((128, 128, 128), (256, 256, 256), (64, 64, 64), (32, 32, 32), (16, 16, 16), (192, 320, 96), (384, 128, 512)),
    *((1, 1, 1), (1, 256, 64), (1, 1000, 128), (2, 128, 300), (8, 512, 128), (16, 384, 256), (100, 1, 50)),
    *((5, 7, 9), (33, 17, 65), (63, 65, 127), (129, 130, 131), (200, 136, 72), (77, 200, 33), (255, 3, 257)),
    *((48, 96, 24), (512, 64, 32), (64, 512, 40), (128, 256, 1000), (31, 31, 777), (256, 8, 16), (320, 320, 64)),
)


def main() -> None:
    options = _parsed()
    rocm = Path(os.environ["ROCM_PATH"])
    device = HipDevice(rocm_path=rocm)
    rocblas = Rocblas(rocm / "lib")
    if options.hazards:
        emulator.watch = Watch()
    print(f"{rocblas.name} on {device.target}", flush=True)
    wrong = 0
    for layout in LAYOUTS:
        started = time.monotonic()
        outcomes = Counter(_tried(device, rocblas, layout, sizes, None) for sizes in SIZES)
        chosen = _spread(rocblas, Product(device, layout, SIZE), options.solutions)
        by_number = Counter(_tried(device, rocblas, layout, SIZE, index) for index in chosen)
        wrong += outcomes["wrong"] + by_number["wrong"]
        taken_s = time.monotonic() - started
        print(f"{layout}: own choice {dict(outcomes)}; by number {dict(by_number)}; {taken_s:.0f} s", flush=True)
    if emulator.watch is not None:
        _report(emulator.watch)
    sys.exit(wrong > 0)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--solutions", type=int, default=50, help="how many of each layout (default: %(default)s)")
    parser.add_argument("--hazards", action="store_true", help="run every kernel under the hazard checker as well")
    return parser.parse_args()


def _spread(rocblas: Rocblas, work: Product, count: int) -> list[int]:
    found = rocblas.solutions(work.problem, work.tensors)  # type: ignore[arg-type]
    return [found[i * len(found) // count] for i in range(min(count, len(found)))]


def _tried(device: HipDevice, rocblas: Rocblas, layout: str, sizes: tuple[int, int, int], index: int | None) -> str:
    """right, wrong or refused; what is wrong is printed."""
    work = Product(device, layout, sizes)
    try:
        RocblasSolution(rocblas, index).prepare(work.problem, work.tensors, 0)  # type: ignore[arg-type]
    except DeviceError:
        return "refused"
    mismatch = work.outcome()
    if mismatch is not None:
        print(f"{work.problem}, solution {index}: {mismatch}", flush=True)
    return "right" if mismatch is None else "wrong"


def _report(watch: Watch) -> None:
    """Notes by rule, with how many instructions have one, and hazards without their places; an example of each."""
    notes = Counter(rule for _, rule in watch.notes)
    examples = {rule: line for (_, rule), line in watch.notes.items()}
    for rule, count in notes.most_common():
        print(f"note, {count} instructions, {rule}: {examples[rule]}")
    hazards = Counter(re.sub(r"0x[0-9a-f]+|\d+", "#", each) for each in emulator.hazards)
    for kind, count in hazards.most_common():
        first = next(each for each in emulator.hazards if re.sub(r"0x[0-9a-f]+|\d+", "#", each) == kind)
        print(f"hazard, {count} launches: {first}")


if __name__ == "__main__":
    main()
