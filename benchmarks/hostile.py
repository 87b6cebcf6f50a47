"""Files harmed at random, every format that hktune reads, in numbers that a test has no time for: what became of each.

    python benchmarks/hostile.py [COUNT] [SEED]

COUNT mutants of each format (default 2600; a fifth of the slow ones). One that raises anything but a printable line,
starts a process, writes elsewhere, or takes over 5 s or 300 MB ends it with a traceback; the file `mutant` is named.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS / "unit"), str(TESTS)]

from attack import Found, attack  # noqa: E402
from hostile_formats import formats  # noqa: E402


def main(count: int, seed: int) -> None:
    """Print for each format the outcomes, the longest time and the largest growth of memory."""
    total, began = Found(Counter()), time.monotonic()
    top = Path(tempfile.mkdtemp(prefix="hostile-"))
    folder = top / "folder"
    folder.mkdir()
    os.chdir(folder)
    print(f"the last mutant is in {top / 'mutant'}", flush=True)
    for kind in formats(folder):
        found = attack(kind, folder, seed, -(-count // kind.costs))
        total.outcomes += found.outcomes
        total.slowest_s = max(total.slowest_s, found.slowest_s)
        total.grown_bytes = max(total.grown_bytes, found.grown_bytes)
        print(f"{kind.name}: {found}", flush=True)
    print(f"{total.outcomes.total()} mutants: {total}; {time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main(*(int(word) for word in [*sys.argv[1:], *["2600", "0"][len(sys.argv) - 1 :]]))
