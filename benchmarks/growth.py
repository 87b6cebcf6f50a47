"""What a million trials, thousands of shapes and a table of 20,000 entries cost: wall clock, CPU and peak memory, each
in a process of its own.

    .venv/bin/python benchmarks/growth.py [--shapes 5000] [--configs 200] [--entries 20000] [--keep DIR]

The trials are made up, their form is not: legal configs of the gfx950 space, every one tried on every shape, the
fastest of them compiled for real, so that a table can be made. `floor` is Python's csv module over the same file and
nothing else.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgspec

from hktune.core.config import Config
from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import DEFAULT_SPACE
from hktune.core.trial import Trial
from hktune.core.variant import CodeObject
from hktune.dispatch import read_table, write_table
from hktune.dispatch.table import VERSION, Table
from hktune.space import SearchSpace, load_space
from hktune.store import capture_environment, write_environment
from hktune.store.rows import HEADER, Encoder
from hktune.tuning.benches.emulated_bench import EmulatedBench
from hktune.tuning.trial_rows import now
from hktune.workers.prover import COMPILE_DEADLINE_S

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "results" / "gfx950-emulated"
COMPILED = 8  # of the configs, the fastest everywhere

# A run that ends where the first config would be handed to a worker.
UP_TO_THE_FIRST = """
import os, sys
from hktune.workers import executor as workers
workers.start_worker = lambda *_, **__: None
workers.LocalExecutor.pending = 0
workers.LocalExecutor.submit = lambda *_: (sys.stdout.flush(), os._exit(0))
from hktune.cli import main
main(sys.argv[1:])
"""
FLOOR = """
import csv, sys
print(sum(1 for _ in csv.reader(open(sys.argv[1], newline=""))), "rows")
"""
LOAD = """
import sys, time
from pathlib import Path
import hktune
def rss_mb(kind):
    return int(Path("/proc/self/status").read_text().split(kind)[1].split()[0]) / 1000
before, began = rss_mb("VmRSS:"), time.perf_counter()
from hktune.dispatch import Choices, read_table, validate
table = read_table(Path(sys.argv[1]))
choices = Choices(validate(table, Path(sys.argv[1]), table.identity, allow_modelled=True))
took = time.perf_counter() - began
keys = [entry.problem.key for entry in table.entries][::7]
def lookup_ns():
    began = time.perf_counter_ns()
    for key in keys:
        choices.find(*key)
    return (time.perf_counter_ns() - began) / len(keys)
print(f"{len(table.entries)} entries in {took:.2f} s, {rss_mb('VmHWM:') - before:.0f} MB more at the peak than `import "
      f"hktune`, exact lookup {min(lookup_ns() for _ in range(200)):.0f} ns")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=int, default=5000)
    parser.add_argument("--configs", type=int, default=200)
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--keep", type=Path, help="make the files in this folder, and leave them there")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="growth-"))
    try:
        measure(folder, options)
    finally:
        if not options.keep:
            shutil.rmtree(folder)


def measure(folder: Path, options: argparse.Namespace) -> None:
    space = load_space(DEFAULT_SPACE)
    problems = [problem for _, problem in zip(range(options.shapes), made_up_problems(), strict=False)]
    shapes = folder / "shapes.yaml"
    folder.mkdir(exist_ok=True)
    shapes.write_text("shapes:\n" + "".join(f"  - {{m: {p.m}, n: {p.n}, k: {p.k}}}\n" for p in problems))
    if not (folder / "whole" / "trials.csv").exists():
        make_trials(folder, space, problems, options.configs)
    tune = ("tune", "--device", "emulated", "--shapes", str(shapes))
    spent, more = (("--trials", str(count)) for count in (options.configs, options.configs + 5))
    whole, merged, table = (str(folder / name) for name in ("whole", "merged", "table"))
    run("begin, nothing tried yet", UP_TO_THE_FIRST, *tune, "--out", str(folder / "new"))
    run("floor: csv alone", FLOOR, f"{whole}/trials.csv")
    run("resume, up to the first new trial", UP_TO_THE_FIRST, *tune, "--out", whole, *more)
    run("resume, nothing left to try: table, summary", None, *tune, "--out", whole, *spent)
    run("merge of two halves", None, "merge", str(folder / "odd"), str(folder / "even"), "-o", merged)
    run("table build of the merged", None, "table", "build", merged, "-o", table)
    make_table(folder / "large", space, options.entries)
    run("load a table", LOAD, str(folder / "large"))


def run(what: str, code: str | None, *words: str) -> None:
    """Run code or an hktune command, and print what it took, its children left out."""
    command = [sys.executable, *(("-c", code) if code else ("-m", "hktune")), *words]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT)
    assert process.stdout is not None
    printed = process.stdout.read().decode().strip().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    took_s, cpu_s = time.monotonic() - began, usage.ru_utime + usage.ru_stime
    said = printed[-1] if printed else ""
    code_ = os.waitstatus_to_exitcode(status)
    print(
        f"{what}: {took_s:.1f} s, CPU {cpu_s:.1f} s, {usage.ru_maxrss / 1000:.0f} MB, exit {code_}: {said}", flush=True
    )


def made_up_problems() -> Iterator[Problem]:
    """25 m of each n and k, as a model with a few batch sizes has them."""
    for family in range(20_000):
        yield from (Problem(16 * m, 1024 + 256 * (family % 50), 1024 + 512 * (family // 50)) for m in range(1, 26))


def make_trials(folder: Path, space: SearchSpace, problems: list[Problem], configs: int) -> None:
    """A whole results directory, and its odd and even rows as two shards."""
    bench = EmulatedBench(DEFAULT_SPACE, 0, Settings.from_environment(os.environ))
    compiler = bench.compiler
    rng = random.Random(0)
    drawn = {config.id: config for config in [space.config({}), *(space.sample(rng) for _ in range(configs * 2))]}
    chosen = list(drawn.values())[:configs]
    environment = capture_environment(bench.identity, compiler.identity, bench.judge, ["growth.py"], 0, now())
    for name in ("whole", "odd", "even"):
        (folder / name / "objects").mkdir(parents=True)
        write_environment(environment, folder / name)
    encoder = Encoder()
    with (
        (folder / "whole" / "trials.csv").open("wb") as whole,
        (folder / "odd" / "trials.csv").open("wb") as odd,
        (folder / "even" / "trials.csv").open("wb") as even,
    ):
        for file in (whole, odd, even):
            file.write(HEADER)
        for number, config in enumerate(chosen):
            code = compiler.compile(space.template.render(config), COMPILE_DEADLINE_S) if number < COMPILED else None
            code = code if isinstance(code, CodeObject) else None
            if code:
                for name in ("odd", "even"):
                    (folder / name / "objects" / f"{code.sha256}.hsaco").write_bytes(code.data)
            for trial in made_up_rows(space, config, code, problems, number, compiler.identity, rng):
                line = encoder.line(trial)
                whole.write(line)
                (odd if trial.trial % 2 else even).write(line)


def made_up_rows(
    space: SearchSpace,
    config: Config,
    code: CodeObject | None,
    problems: list[Problem],
    number: int,
    compiler: str,
    rng: random.Random,
) -> Iterator[Trial]:
    """A trial of `config` on every problem, ten a second."""
    pace = rng.uniform(1, 2) if code else rng.uniform(3, 9)
    for place, problem in enumerate(problems):
        trial = number * len(problems) + place
        time_us = problem.flops / 1e8 * pace * rng.uniform(1, 1.3)
        yield Trial(
            trial=trial, m=problem.m, n=problem.n, k=problem.k, operation=problem.operation,
            config_id=config.id, config=config.json, status=Status.OK, detail="bound by mfma", source=Source.MODELLED,
            time_us=time_us, cache="cold", tflops=problem.flops / time_us / 1e6, relative_error=0.00166 * pace,
            vgprs=206, agprs=0, sgprs=61, spills=0, lds_bytes=131072, scratch_bytes=0, waves_per_simd=2,
            compile_s=pace, object_sha256=code.sha256 if code else f"{number:064x}", template=space.template.name,
            template_sha256=space.template.sha256, compiler=compiler, target="gfx950", device="emulated gfx950",
            strategy="tpe", seed=0,
            started_at=(datetime(2026, 11, 22, tzinfo=timezone.utc) + timedelta(seconds=trial // 10)).isoformat(),
        )  # fmt: skip


def make_table(directory: Path, space: SearchSpace, entries: int) -> None:
    """The kernels of the published table, each with its true launch, on made-up shapes."""
    published = read_table(PUBLISHED)
    kernels = [entry.kernel for entry in published.entries if entry.kernel]
    rows = []
    for place, problem in enumerate(made_up_problems()):
        if len(rows) == entries:
            break
        kernel = kernels[place % 7 % len(kernels)]
        rule = space.launch_rule(kernel.config, problem)
        if rule.at(problem.m):
            own = {**msgspec.to_builtins(kernel), "launch": asdict(rule)}
            shape = dict(zip(("m", "n", "k", "operation"), problem.key, strict=True))
            served = {"m_from": problem.m, "m_to": problem.m + 15}
            fields = {"choice": "kernel", "source": "modelled", "time_us": problem.flops / 1e8 + place / 7}
            rows.append({**shape, **served, **fields, "kernel": own})
    table = msgspec.convert({**msgspec.to_builtins(published), "version": VERSION, "entries": rows}, Table)
    objects = {path.stem: path.read_bytes() for path in (PUBLISHED / "objects").iterdir()}
    write_table(table, objects, directory)


if __name__ == "__main__":
    main()
