"""AMD's rocBLAS or hipBLASLt on AMD's HIP runtime over the emulator: what is right, and what the hazard checker says.

    scripts/rocm-virtual --packages rocblas python benchmarks/rocm_libraries_virtual.py [--solutions 50] [--hazards]
    scripts/rocm-virtual --packages hipblaslt python benchmarks/rocm_libraries_virtual.py

For each operation: 28 sizes by the library's first solution, then `--solutions` of all that it names for one size,
evenly spread. The operands' sums are exact in float32, so every element must be the one rounding. With `--hazards` each
kernel is run under the checker first; its notes and hazards are counted by rule. Exit code 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections import Counter

from rocm_virtual.dispatch import emulator
from rocm_virtual.library_product import Product

from hktune.core.errors import DeviceError
from hktune.core.settings import Settings
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.device.hip import HipDevice
from hktune.device.vendor_libraries import vendor_libraries
from hktune.device.vendor_library import VendorLibrary
from hktune.emulator.hazards.checker import Watch

OPERATIONS = ("bf16.nn", "bf16.nt", "bf16.tn", "bf16.tt")
SIZE = (128, 128, 128)
SIZES = (
    *((128, 128, 128), (256, 256, 256), (64, 64, 64), (32, 32, 32), (16, 16, 16), (192, 320, 96), (384, 128, 512)),
    *((1, 1, 1), (1, 256, 64), (1, 1000, 128), (2, 128, 300), (8, 512, 128), (16, 384, 256), (100, 1, 50)),
    *((5, 7, 9), (33, 17, 65), (63, 65, 127), (129, 130, 131), (200, 136, 72), (77, 200, 33), (255, 3, 257)),
    *((48, 96, 24), (512, 64, 32), (64, 512, 40), (128, 256, 1000), (31, 31, 777), (256, 8, 16), (320, 320, 64)),
)


def main() -> None:
    options = _parsed()
    settings = Settings.from_environment(os.environ)
    device = HipDevice(rocm_path=settings.rocm_path)
    if options.hazards:
        emulator.watch = Watch()
    wrong = 0
    for library in vendor_libraries("hip"):
        print(f"{library.name} {library.version} on {device.target}", flush=True)
        wrong += sum(_operation(device, library, operation, options.solutions) for operation in options.operations)
    if emulator.watch is not None:
        _report(emulator.watch)
    sys.exit(wrong > 0)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--operations", nargs="+", default=OPERATIONS, help="default: bf16 in four layouts")
    parser.add_argument("--solutions", type=int, default=50, help="how many of each operation (default: %(default)s)")
    parser.add_argument("--hazards", action="store_true", help="run every kernel under the hazard checker as well")
    return parser.parse_args()


def _operation(device: HipDevice, library: VendorLibrary, operation: str, solutions: int) -> int:
    """How many products of `operation` were wrong; one line says what was tried."""
    started = time.monotonic()
    firsts = Counter(_tried(library, Product(device, operation, sizes), 0) for sizes in SIZES)
    work = Product(device, operation, SIZE)
    named = len(library.algorithms(work.problem))
    chosen = [i * named // solutions for i in range(min(solutions, named))]
    spread = Counter(_tried(library, work, place) for place in chosen)
    taken_s = time.monotonic() - started
    print(f"{operation}: first {dict(firsts)}; of {named} {dict(spread)}; {taken_s:.0f} s", flush=True)
    return firsts["wrong"] + spread["wrong"]


def _tried(library: VendorLibrary, work: Product, place: int) -> str:
    """right, wrong, refused, or none where the library names nothing; what is wrong or refused is printed."""
    named = library.algorithms(work.problem)
    if not named:
        return "none"
    algorithm: VendorAlgorithm = named[place]
    try:
        work.prepared(library, algorithm)(None)
    except DeviceError as refused:
        print(f"{work.problem}, {algorithm}: {refused}", flush=True)
        return "refused"
    mismatch = work.outcome()
    if mismatch is not None:
        print(f"{work.problem}, {algorithm}: {mismatch}", flush=True)
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
