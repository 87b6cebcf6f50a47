"""Mutation testing of the hazard checker: right kernels, made wrong in one place at a time.

    python benchmarks/mutation.py [--variants 24] [--loads 6] [--workers 2] [--seed 0]

Takes as many of the space's seeds as random legal configs, compiles each to assembly, and judges it and its mutants:
every counter of every s_waitcnt raised by 1 and by 2, every s_waitcnt, s_barrier, buffer_wbl2 and buffer_inv removed,
`--loads` LDS reads and as many loads to LDS shifted by 16 bytes (all are alike; the sample is drawn with the seed), and
the tile that a step fetches one too early and one too late. Each is run on the problems of a proof and on problems of
1 to 3 K-tiles, which reach the code for short pipelines. A mutant is flagged (hazard or wrong); or shown equivalent,
with a reason that equivalence.py finds from the trace without the checker; or missed. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from mutants import Mutant, assembled, assembly_of, mutants, source_mutants

from hktune.compile.hipkittens import find_hipkittens
from hktune.compile.toolchain import find_hip_toolchain
from hktune.core.config import Config
from hktune.core.outcome import Failure
from hktune.core.problem import Problem, ProofProblem
from hktune.core.settings import Settings
from hktune.core.shipped import DEFAULT_SPACE
from hktune.device.emulated import EmulatedDevice
from hktune.emulator.clock.trace import Trace
from hktune.emulator.instructions.decode import decode
from hktune.emulator.instructions.scalar_registers import scalars_of
from hktune.objects.code_object import read_code_object
from hktune.space.search_space import SearchSpace, load_space
from hktune.verify import verify

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "unit"))
from equivalence import Scalars, reason
from gemm_bf16_variants import pipeline_of

SHORT_TILES = (1, 2, 3)
SYMBOL = "hktune_gemm_bf16"


@dataclass
class Tally:
    """Outcomes of one variant's mutants: (kind, outcome) -> how many; equivalent ones also by reason."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    flagged_right: list[str] = field(default_factory=list)


def problems_of(space: SearchSpace, config: Config) -> list[ProofProblem]:
    """The proof's, then short ones of one block: K of 1, 2 and 3 tiles for each workgroup that shares it."""
    tile, split_k = space.template.tile(config), int(config["split_k"])
    short = [ProofProblem(Problem(tile.m, tile.n, tile.k * split_k * n)) for n in SHORT_TILES]
    return [*space.template.proof_problems(config), *short]


def judge(space: SearchSpace, config: Config, data: bytes, what: ProofProblem) -> tuple[str, Trace | None]:
    """The checker's word on a code object: "right", or a failure's status and detail; and the trace."""
    device = EmulatedDevice(deadline_s=60.0, record_trace=True, find_hazards=True, strict_hazards=True)
    launch = space.template.launch(config, what.problem)
    kernel = device.load(data, SYMBOL)
    outcome = verify(device, kernel, launch, what.problem, 1, what.padding, what.exact_sums)
    return ("right" if not isinstance(outcome, Failure) else f"{outcome.status}: {outcome.detail}"), device.trace


def judged(space: SearchSpace, config: Config, data: bytes) -> str:
    """The first complaint over all problems, or "right"."""
    for problem in problems_of(space, config):
        word, _ = judge(space, config, data, problem)
        if word != "right":
            return word
    return "right"


def tally_variant(config: Config, loads: int, seed: int) -> Tally:
    space, tally = load_space(DEFAULT_SPACE), Tally()
    settings = Settings.from_environment(os.environ)
    toolchain, headers = find_hip_toolchain(settings), find_hipkittens(settings)
    variant = space.template.render(config)
    text = assembly_of(toolchain, headers, variant)
    right = assembled(toolchain, text)
    traces: list[Trace] = []
    for problem in problems_of(space, config):
        word, trace = judge(space, config, right, problem)
        if word != "right" or trace is None:
            tally.flagged_right.append(f"{config}: {word}")
            return tally
        traces.append(trace)
    for mutant in mutants(text, SYMBOL, loads, random.Random(seed)):
        word = judged(space, config, assembled(toolchain, mutant.text))
        if word == "right":
            note_survivor(tally, config, mutant, right, [place_of(mutant, trace, right) for trace in traces])
        else:
            tally.outcomes[mutant.kind, word.split(":")[0]] += 1
    for kind, changed in source_mutants(variant):
        word = judged(space, config, assembled(toolchain, assembly_of(toolchain, headers, changed)))
        tally.outcomes[kind, "missed" if word == "right" else word.split(":")[0]] += 1
        if word == "right":
            tally.missed.append(f"{config}: {kind}")
    return tally


def place_of(mutant: Mutant, trace: Trace, right: bytes) -> tuple[Mutant, Trace] | None:
    """The mutant with its instruction's index in the trace's program, which lists executed code only."""
    entry, address = span_of(right, mutant.index)
    base = trace.program[0].address - entry
    index = next((i for i, step in enumerate(trace.program) if step.address == base + address), None)
    if index is None:
        return None
    return Mutant(mutant.kind, index, "", mutant.original, mutant.counts), trace


def span_of(data: bytes, index: int) -> tuple[int, int]:
    """Addresses of the kernel's first instruction and of number `index`, in its code object."""
    image = read_code_object(data)
    entry = address = image.kernels[SYMBOL].entry_address
    start, code = next(part for part in image.segments if part[0] <= address < part[0] + len(part[1]))
    for _ in range(index):
        address = decode(code[address - start : address - start + 16], address).next_address
    return entry, address


def scalars_in(right: bytes, trace: Trace) -> Scalars:
    """Of the instructions of `right`, by where they lay when it was traced."""
    entry, _ = span_of(right, 0)
    start, code = next(part for part in read_code_object(right).segments if part[0] <= entry < part[0] + len(part[1]))
    moved = trace.program[0].address - entry + start

    def scalars(address: int) -> tuple[frozenset[int], frozenset[int]]:
        reads, writes = scalars_of(decode(code[address - moved : address - moved + 16], address))
        return frozenset(reads), frozenset(writes)

    return scalars


def note_survivor(
    tally: Tally, config: Config, mutant: Mutant, right: bytes, places: list[tuple[Mutant, Trace] | None]
) -> None:
    """Equivalent, when every problem that reaches the place gives a reason; missed otherwise."""
    reached = [place for place in places if place is not None]
    why = [reason(*place, pipeline_of(config), scalars_in(right, place[1])) for place in reached]
    if reached and all(why):
        tally.outcomes[mutant.kind, "equivalent"] += 1
        tally.reasons[max(map(str, why))] += 1
        return
    tally.outcomes[mutant.kind, "missed"] += 1
    tally.missed.append(f"{config}: {mutant.kind} at instruction {mutant.index} ({mutant.original})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=int, default=24)
    parser.add_argument("--loads", type=int, default=6)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    space = load_space(DEFAULT_SPACE)
    half = options.variants // 2
    more = [space.sample(random.Random(options.seed + i)) for i in range(options.variants - half)]
    configs = [*random.Random(options.seed).sample(space.seeds, min(half, len(space.seeds))), *more]
    started = time.perf_counter()
    total = Tally()
    with ProcessPoolExecutor(options.workers) as pool:
        count = len(configs)
        for tally in pool.map(tally_variant, configs, [options.loads] * count, [options.seed] * count):
            total.outcomes += tally.outcomes
            total.reasons += tally.reasons
            total.missed += tally.missed
            total.flagged_right += tally.flagged_right
    report(total, len(configs), time.perf_counter() - started)


def report(total: Tally, variants: int, seconds: float) -> None:
    columns = ("hazard", "wrong", "crashed", "timeout", "equivalent", "missed")
    print(f"{variants} right variants, {len(total.flagged_right)} of them flagged; {seconds:.0f} s\n")
    print("| mutation | mutants | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * (len(columns) + 1))
    kinds = sorted({kind for kind, _ in total.outcomes})
    for kind in (*kinds, "all"):
        counts = [sum(n for (k, o), n in total.outcomes.items() if kind in (k, "all") and o == c) for c in columns]
        print(f"| {kind} | {sum(counts)} | " + " | ".join(map(str, counts)) + " |")
    print()
    for why, count in total.reasons.most_common():
        print(f"* {count}: {why}")
    for line in (*total.missed, *total.flagged_right):
        print(f"! {line}")


if __name__ == "__main__":
    main()
