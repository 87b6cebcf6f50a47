"""CPU seconds per variant: compile, and prove as tuning does; and the same kernel built as a torch extension.

    python benchmarks/variant_cost.py [--variants 12] [--torch-extension]

Every variant is built and proved from nothing, on one core: an empty cache in a temporary folder. A proof is all of its
launches with hazards looked for, and the profile that modelled times are made of. Compilers' processes count. The
torch extension is what the usual way of building such a kernel costs: `torch.utils.cpp_extension.load_inline` with
the kernel's host wrapper (needs g++ and ninja). No ROCm is assumed, so its device half is counted at what hktune's
own device-only compile takes and its second, host-side pass over the kernel source is not counted: a lower bound.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from hktune.compile import hip_compiler
from hktune.core.attended import attended_s
from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.outcome import Failure
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import DEFAULT_SPACE
from hktune.space import SearchSpace, load_space
from hktune.verify.emulated_proof import prove_all
from hktune.verify.record import RecordStore
from hktune.workers.prover import Prover, compiled

PROBLEM = Problem(4096, 4096, 4096)

EXTENSION_SOURCE = """
#include <torch/extension.h>
torch::Tensor gemm_forward(torch::Tensor a, torch::Tensor bt) {
  auto c = torch::empty({a.size(0), bt.size(0)}, a.options());
  TORCH_CHECK(a.size(1) == bt.size(1), "k differs");
  return c;
}
"""


def seconds_per_variant(space: SearchSpace, config: Config, cache: Path) -> dict[str, float]:
    """CPU seconds of each stage for one variant, nothing cached."""
    compiler = hip_compiler(replace(Settings.from_environment(os.environ), cache_dir=cache))
    prover = Prover(space.template, compiler, RecordStore(cache), seed=0)
    candidate = Candidate(config, space.template.code_operation(PROBLEM.operation))
    started = cpu_s()
    code = compiled(space.template, compiler, candidate, 120.0)
    stages = {"compile": cpu_s() - started}
    if isinstance(code, Failure):
        raise SystemExit(f"{config}: {code.detail}")
    started = cpu_s()
    outcome = prove_all(code.data, prover.task(code, candidate), attended_s() + 600.0)
    stages["prove"] = cpu_s() - started
    if isinstance(outcome, Failure):
        raise SystemExit(f"{config}: {outcome}")
    return stages


def cpu_s() -> float:
    """CPU seconds of this process and of those that it has started and that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def torch_extension_seconds() -> float:
    """Building the host half of the kernel as a torch extension, from nothing."""
    from torch.utils.cpp_extension import load_inline

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        load_inline("hktune_bench", cpp_sources=EXTENSION_SOURCE, functions=["gemm_forward"], build_directory=folder)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=int, default=12)
    parser.add_argument("--torch-extension", action="store_true")
    options = parser.parse_args()
    space, rng = load_space(DEFAULT_SPACE), random.Random(0)
    configs = [*space.seeds, *(space.sample(rng, PROBLEM) for _ in range(options.variants))][: options.variants]
    with tempfile.TemporaryDirectory() as folder:
        seconds_per_variant(space, configs[0], Path(folder))  # fetches headers and precompiles them, once per machine
        rows = [seconds_per_variant(space, config, Path(folder)) for config in configs[1:]]
    for stage in rows[0]:
        values = [row[stage] for row in rows]
        print(f"{stage:8} median {statistics.median(values):6.2f} s   max {max(values):6.2f} s")
    total = statistics.mean(sum(row.values()) for row in rows)
    print(f"variant  mean   {total:6.2f} s of CPU: {60 / total:.0f} variants a minute on one core")
    if options.torch_extension:
        compile_s = statistics.median(row["compile"] for row in rows)
        extension_s = torch_extension_seconds() + compile_s
        print(f"torch extension: at least {extension_s:.1f} s, {extension_s / compile_s:.0f} times the compile")


if __name__ == "__main__":
    main()
