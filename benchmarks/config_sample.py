"""Random legal configs of the gfx950 GEMM, each proved on an aligned, a ragged and a skinny problem.

    python benchmarks/config_sample.py [--configs 300] [--seed N] [--operation f16.nt] [--hipkittens DIR]

Every config is drawn uniformly from the space, compiled, and run on the emulator with the hazard checker on; every
element must be the one rounding of the exact sum. The ragged problem has a bias or none. Prints how many were drawn,
and each one that spills, is wrong or is a hazard; exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections import Counter

from rich.progress import track

from hktune.commands.arguments import add_hipkittens, add_space
from hktune.compile import hip_compiler
from hktune.core.config import Config
from hktune.core.operation import operation_of
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
    space, rng = load_space(options.space).for_operation(operation_of(options.operation)), random.Random(options.seed)
    compiler = hip_compiler(Settings.from_environment(os.environ), options.hipkittens)
    outcomes: Counter[str] = Counter()
    for _ in track(range(options.configs), "proving", transient=True):
        config = space.sample(rng)
        code = compiler.compile(space.template.render(config), COMPILE_DEADLINE_S)
        refused = code if isinstance(code, Failure) else over_budget(code, space.arch)
        if refused is not None:
            outcomes["refused"] += 1
            print(f"{refused}: {config}")
            continue
        for kind, problem, padding in problems(space, config, rng):
            device = EmulatedDevice(deadline_s=DEADLINE_S, find_hazards=True)
            kernel = device.load(code.data, code.symbol)
            proof = verify(device, kernel, space.template.launch(config, problem), problem, options.seed, padding, True)
            failed = isinstance(proof, Failure)
            outcomes[f"{kind} {'failed' if failed else 'right'}"] += 1
            if failed:
                print(f"{problem}, rows {padding} apart: {proof}: {config}", flush=True)
    print(f"{options.configs} configs, seed {options.seed}: {dict(sorted(outcomes.items()))}")
    sys.exit(any(not name.endswith("right") for name in outcomes))


def problems(space: SearchSpace, config: Config, rng: random.Random) -> list[tuple[str, Problem, int]]:
    """One of each kind that the config is legal for, with the padding of its rows; sizes lie around the tile's."""
    tile, split_k, operation = space.template.tile(config), int(config["split_k"]), space.template.operation
    depth = tile.k * (split_k + rng.randrange(6))
    aligned = Problem(tile.m * rng.randint(1, 2), tile.n * rng.randint(1, 2), depth, operation)
    ragged = Problem(
        tile.m + rng.randint(1, tile.m - 1),
        tile.n + rng.randint(1, tile.n - 1),
        depth + 8 * rng.randrange(1, tile.k // 8),
        rng.choice([operation, operation.with_steps("bias")]),
    )
    columns, ragged_depth = tile.n + 8 * rng.randint(1, 8), depth + 8 * rng.randrange(tile.k // 8)
    skinny = Problem(rng.randint(1, 15), columns, ragged_depth, operation)
    drawn = zip(KINDS, (aligned, ragged, skinny), (0, 8 * rng.randint(1, 4), 0), strict=True)
    return [(kind, problem, padding) for kind, problem, padding in drawn if space.is_legal(config, problem)]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--operation", default="bf16.nt")
    add_space(parser, "the search space (default: gfx950's)", default=DEFAULT_SPACE)
    add_hipkittens(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
