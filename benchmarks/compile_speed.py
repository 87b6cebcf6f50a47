"""Seconds to turn one variant into a code object: headers parsed each time, precompiled, and from the object cache.

    python benchmarks/compile_speed.py [--variants 8] [--workers N]

The variants are the space's seeds and a random sample of it, compiled in this process into empty caches; the headers
come from where HIPKITTENS_ROOT and HKTUNE_CACHE say. Seconds are CPU seconds, the compiler's included, and medians, so
that a busy machine moves them little; variants a minute are by the clock, with all workers busy. The objects of all
three ways are compared.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import tempfile
import time
from pathlib import Path

from hktune.compile import CachedCompiler, Compiler, HipCompiler, compile_many
from hktune.compile.hipkittens import find_hipkittens
from hktune.compile.toolchain import find_hip_toolchain
from hktune.core.outcome import Failure
from hktune.core.settings import Settings
from hktune.core.shipped import DEFAULT_SPACE
from hktune.core.variant import Variant
from hktune.space import load_space

DEADLINE_S = 300.0


def sample(count: int) -> list[Variant]:
    space, rng = load_space(DEFAULT_SPACE), random.Random(0)
    configs = [*space.seeds, *(space.sample(rng) for _ in range(count))][:count]
    return [space.template.render(config) for config in configs]


def one_by_one(compiler: Compiler, variants: list[Variant]) -> tuple[float, list[str]]:
    """Median CPU seconds a variant, and what came out: each object's sha256."""
    seconds, objects = [], []
    for variant in variants:
        started = cpu_s()
        built = compiler.compile(variant, DEADLINE_S)
        seconds.append(cpu_s() - started)
        if isinstance(built, Failure):
            raise SystemExit(f"{variant.config}: {built.detail}")
        objects.append(built.sha256)
    return statistics.median(seconds), objects


def cpu_s() -> float:
    """CPU seconds that this process and its finished children have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def variants_per_minute(compiler: Compiler, variants: list[Variant], workers: int) -> float:
    started = time.perf_counter()
    built = len(list(compile_many(compiler, variants, DEADLINE_S, workers)))
    return 60 * built / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=int, default=8)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    settings = Settings.from_environment(os.environ)
    toolchain, headers, variants = find_hip_toolchain(settings), find_hipkittens(settings), sample(options.variants)
    with tempfile.TemporaryDirectory() as folder:
        plain = HipCompiler(toolchain, headers)
        fast = HipCompiler(toolchain, headers, Path(folder))
        cached = CachedCompiler(fast, Path(folder))
        first_s, _ = one_by_one(fast, variants[:1])
        ways: dict[str, Compiler] = {"parsed each time": plain, "precompiled": fast, "kept in the cache": cached}
        list(compile_many(cached, variants, DEADLINE_S, options.workers))
        rows = {name: one_by_one(compiler, variants) for name, compiler in ways.items()}
        rate = variants_per_minute(fast, variants, options.workers)
    if len({tuple(objects) for _, objects in rows.values()}) != 1:
        raise SystemExit("the three ways disagree on an object")
    print(f"{plain.identity}; {len(variants)} variants; load {os.getloadavg()[0]:.1f}")
    print(f"first variant, precompiling the headers: {first_s:.2f} CPU s")
    for name, (median_s, _) in rows.items():
        print(f"{name}: {median_s:.4f} CPU s a variant")
    print(f"{options.workers} workers: {rate:.0f} variants a minute")


if __name__ == "__main__":
    main()
