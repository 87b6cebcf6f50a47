"""How many configs should be on their way for each worker that compiles: outcomes are taken in the order asked for.

    python benchmarks/compile_window.py

Compile times are drawn from a lognormal distribution, and each kernel is measured when all that were asked for before
it have been. Printed is the part of what the workers, or the GPU, could do at most.
"""

from __future__ import annotations

import heapq
import math
import random

TRIALS = 2000
SPREAD = 0.5  # standard deviation of the logarithm of a compile time
LEAST = 8  # configs are on their way at least
WINDOWS = (1, 2, 3, 4)


def trials_per_s(workers: int, window: int, compile_s: float, measure_s: float) -> float:
    """With so many configs on their way at once."""
    rng = random.Random(0)
    free_at = [0.0] * workers
    closed_at: list[float] = []
    for number in range(TRIALS):
        asked_at = closed_at[number - window] if number >= window else 0.0
        begun_at = max(asked_at, heapq.heappop(free_at))
        compiled_at = begun_at + rng.lognormvariate(math.log(compile_s) - SPREAD**2 / 2, SPREAD)
        heapq.heappush(free_at, compiled_at)
        closed_at.append(max(compiled_at, closed_at[-1] if closed_at else 0.0) + measure_s)
    return TRIALS / closed_at[-1]


def main() -> None:
    print("workers, compile s, measure s: part of the most, with", *(f"{window}x" for window in WINDOWS), "the workers")
    for workers in (2, 4, 8, 16, 32):
        for compile_s, measure_s in ((4.0, 0.1), (2.0, 0.05), (1.0, 0.1)):
            most = min(workers / compile_s, 1 / measure_s)
            rates = [trials_per_s(workers, max(LEAST, times * workers), compile_s, measure_s) for times in WINDOWS]
            print(f"{workers}, {compile_s}, {measure_s}:", *(f"{rate / most:.2f}" for rate in rates))


if __name__ == "__main__":
    main()
