"""Tables and code objects harmed at random, in numbers that a test has no time for: what became of each.

    python benchmarks/hostile.py [COUNT] [SEED]

COUNT mutants of each kind (default 10000). A crash, a wrong load or a hang ends it with a traceback.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "unit"))

import hostile

BATCH = 100


def main(count: int, seed: int) -> None:
    """Print, for each kind of harm, the outcomes and the slowest mean over a batch."""
    kinds: list[tuple[str, Callable[[hostile.Victim, int, int], Counter[str]]]] = [
        ("table.json harmed", hostile.damage_table),
        ("object harmed", hostile.damage_object),
        ("object harmed, table names its new sha256", hostile.rehash_object),
    ]
    for maker, make in (("gfx950", hostile.amd_victim), ("sm90a", hostile.nvidia_victim)):
        for name, harm in kinds:
            with tempfile.TemporaryDirectory() as folder:
                victim = make(Path(folder))
                outcomes: Counter[str] = Counter()
                slowest_ms = 0.0
                for batch in range(count // BATCH):
                    started = time.perf_counter()
                    outcomes += harm(victim, seed + batch, BATCH)
                    slowest_ms = max(slowest_ms, (time.perf_counter() - started) / BATCH * 1e3)
            said = ", ".join(f"{word} {number}" for word, number in outcomes.most_common())
            print(f"{maker}, {name}: {said}; at most {slowest_ms:.1f} ms each", flush=True)


if __name__ == "__main__":
    main(*(int(word) for word in [*sys.argv[1:], "10000", "0"][:2]))
