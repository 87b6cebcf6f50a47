"""Random legal configs of the gfx950 GEMM, each proved on an aligned, a ragged and a skinny problem.

    python benchmarks/config_sample.py [--configs 300] [--seed N] [--operations f16.nt bf16.tn ..] [--hipkittens DIR]

Every config is drawn uniformly from the space, compiled, and run on the emulator with the hazard checker on; every
element must be the one rounding of the exact sum. So many configs are drawn for each operation. The ragged problem is
of any operation with the same code, such as one with a bias; of one that is named with a bias, or that accumulates, all
problems are. Prints how many runs were right, and each one that spills,
is wrong or is a hazard; exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections import Counter
from dataclasses import replace

from rich.progress import track

from hktune.commands.arguments import add_hipkittens, add_space
from hktune.compile import Compiler, hip_compiler
from hktune.core.config import Config
from hktune.core.operation import COUNTED, SWITCHED, Operation, operation_of
from hktune.core.outcome import Failure
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import DEFAULT_SPACE
from hktune.device.emulated import EmulatedDevice
from hktune.space import SearchSpace, load_space
from hktune.verify import verify
from hktune.workers.prover import COMPILE_DEADLINE_S, DEADLINE_S, over_budget

KINDS = ("aligned", "ragged", "skinny")


def main() -> None:
    options = parsed()
    compiler = hip_compiler(Settings.from_environment(os.environ), options.hipkittens)
    failed = False
    for text in options.operations:
        space = load_space(options.space).for_operation(operation_of(text))
        outcomes = outcomes_of(space, operation_of(text), compiler, options.configs, options.seed)
        print(f"{text}: {options.configs} configs, seed {options.seed}: {dict(sorted(outcomes.items()))}", flush=True)
        failed |= any(not name.endswith("right") for name in outcomes)
    sys.exit(failed)


def outcomes_of(space: SearchSpace, operation: Operation, compiler: Compiler, configs: int, seed: int) -> Counter[str]:
    """How many runs of so many drawn configs went how."""
    rng, outcomes = random.Random(seed), Counter[str]()
    for _ in track(range(configs), "proving", transient=True):
        config = space.sample(rng)
        code = compiler.compile(space.template.render(config), COMPILE_DEADLINE_S)
        refused = code if isinstance(code, Failure) else over_budget(code, space.arch)
        if refused is not None:
            outcomes["refused"] += 1
            print(f"{refused}: {config}")
            continue
        for kind, problem, padding in problems(space, operation, config, rng):
            device = EmulatedDevice(deadline_s=DEADLINE_S, find_hazards=True)
            kernel = device.load(code.data, code.symbol)
            proof = verify(device, kernel, space.template.launch(config, problem), problem, seed, padding, True)
            failed = isinstance(proof, Failure)
            outcomes[f"{kind} {'failed' if failed else 'right'}"] += 1
            if failed:
                print(f"{problem}, rows {padding} apart: {proof}: {config}", flush=True)
    return outcomes


def problems(
    space: SearchSpace, operation: Operation, config: Config, rng: random.Random
) -> list[tuple[str, Problem, int]]:
    """One of each kind that the config is legal for, with the padding of its rows; sizes lie around the tile's."""
    tile, split_k = space.template.tile(config), int(config["split_k"])
    if operation.kind in COUNTED:
        operation = replace(operation, count=rng.choice((1, 2, 3, 5, 70 if operation.is_grouped else 8)))
    units = space.template.derived_values(config)
    unit_m, unit_n, unit_k = (int(units[name]) for name in ("unit_m", "unit_n", "unit_k"))
    depth = tile.k * (split_k + rng.randrange(6))
    aligned = Problem(tile.m * rng.randint(1, 2), tile.n * rng.randint(1, 2), depth, operation)
    ragged = Problem(
        tile.m + drawn(rng, tile.m, unit_m),
        tile.n + drawn(rng, tile.n, unit_n),
        depth + drawn(rng, tile.k, unit_k),
        operation if {*SWITCHED} & {*operation.epilogue} else rng.choice(same_code(space, operation)),
    )
    columns = tile.n + 8 * rng.randint(1, 8)
    skinny = Problem(drawn(rng, 17, unit_m), columns, depth + unit_k * rng.randrange(tile.k // unit_k), operation)
    paddings = (0, int(units["row_unit"]) * rng.randint(1, 4), 0)
    found = zip(KINDS, (aligned, ragged, skinny), paddings, strict=True)
    return [(kind, problem, padding) for kind, problem, padding in found if space.is_legal(config, problem)]


def same_code(space: SearchSpace, operation: Operation) -> list[Operation]:
    """All operations that the code of `operation` does, of as many products."""
    own = (each for each in space.template.operations if each.code == operation.code)
    return [replace(each, count=operation.count) for each in own]


def drawn(rng: random.Random, below: int, unit: int) -> int:
    """A multiple of `unit` that is at least one of it; below `below`, if one is."""
    return unit * rng.randint(1, max(1, (below - 1) // unit))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--operations", nargs="+", default=["bf16.nt"])
    add_space(parser, "the search space (default: gfx950's)", default=DEFAULT_SPACE)
    add_hipkittens(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
