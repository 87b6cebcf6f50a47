"""Proves the code objects of others that shipped templates describe, as a run would.

    python benchmarks/described_kernels.py [SPACE ...] [--aiter DIR] [--seed 0]

SPACE is a part of a space's name, such as mxfp4 (default: all). Of each kernel the first config that names it is proved
on every proof problem, every element, with hazards looked for. Prints a line a kernel; exits with 1 where one fails.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from hktune.commands.arguments import add_aiter, settings_of
from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.settings import Settings
from hktune.core.shipped import SPACES
from hktune.space import SearchSpace, load_space
from hktune.tuning.benches.emulated_bench import EmulatedBench
from hktune.tuning.rivals import is_here


def kernels_of(space: SearchSpace, settings: Settings) -> Iterator[Config]:
    """The first config of each kernel whose file is here."""
    objects, seen = space.template.objects, set[str]()
    for config in space.enumerate() if objects else ():
        symbol = space.template.symbol(config)
        if symbol not in seen and is_here(space, config, settings):
            seen.add(symbol)
            yield config


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spaces", nargs="*", default=[""], metavar="SPACE")
    add_aiter(parser)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    settings, proved, failed = settings_of(options), 0, 0
    for path in sorted(SPACES.glob("*.yaml")):
        if not any(part in path.stem for part in options.spaces):
            continue
        space = load_space(path)
        prover = EmulatedBench(path, options.seed, settings)()
        for config in kernels_of(space, settings):
            attempt = prover(Candidate(config, space.template.operation))
            failed, proved = failed + bool(attempt.failure), proved + (not attempt.failure)
            outcome = f"{attempt.failure.status}: {attempt.failure.detail}" if attempt.failure else "proved"
            error = f"{attempt.relative_error:9.2e}" if attempt.relative_error is not None else f"{'':9}"
            print(f"{space.template.name:24} {config!s:40.40} {error} {outcome:.400}", flush=True)
    print(f"{proved} of {proved + failed} proved")
    return 1 if failed or not proved else 0


if __name__ == "__main__":
    sys.exit(main())
