"""kill -9 at random moments of short tuning runs on the emulated device: what is lost, and what goes on running.

    python benchmarks/kills.py [--kills 500] [--at-once 2] [--seed 0]

In a directory, runs are killed a few times, at moments drawn over the length of a whole run, and the last one is left
alone. What is killed is the run's process group, its main process, or one of its workers. Looked at from outside: every
row that could be read before a kill can be read after it, at the same place; a run that ends with 0 has left a table
that can be read, with a kernel for every shape; what the run had started is gone 5 s after a kill of its group or its
main process; a run of which only a worker was killed ends with 0; the run after the kills ends with 0, and leaves no
temporary file. Prints what was done and each rule that was broken; exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from hktune.compile.hipkittens import find_hipkittens
from hktune.core.settings import Settings
from hktune.dispatch import read_table

ROOT = Path(__file__).resolve().parents[1]
SHAPES = "shapes:\n  - {m: 256, n: 256, k: 512}\n  - {m: 128, n: 512, k: 256}\n"
TRIALS = 12
KINDS = ("group", "main process", "worker")
KILLS_A_DIRECTORY = 5
PATIENCE_S = 300.0
GONE_S = 5.0


@dataclass
class Tally:
    """What was done and what was found, of all directories."""

    kills: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    rows: int = 0
    gone_s: list[float] = field(default_factory=list)

    def expect(self, held: bool, rule: str) -> None:
        if not held:
            self.broken.append(rule)


@dataclass(frozen=True)
class Place:
    """A results directory that runs are killed in, with a cache that holds all that they will compile."""

    directory: Path
    cache: Path
    tally: Tally

    def start(self) -> subprocess.Popen[str]:
        """A run in a session of its own. All that it starts inherits the name of the directory as a mark."""
        shapes = self.cache / "shapes.yaml"
        words = ["--shapes", str(shapes), "--out", str(self.directory), "--trials", str(TRIALS)]
        return subprocess.Popen(
            [sys.executable, "-m", "hktune", "tune", *words, "--strategy", "random", "--workers", "2"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ
            | {"HKTUNE_CACHE": str(self.cache), "KILLED_IN": str(self.directory), "PYTHONPATH": str(ROOT)},
        )

    def lines(self) -> list[bytes]:
        """The whole lines of trials.csv."""
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / "trials.csv").read_bytes().split(b"\n")[:-1]
        return []

    def started(self) -> list[int]:
        """What runs of this directory have started and is running, themselves too."""
        mark = f"KILLED_IN={self.directory}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0") and state_of(entry) not in "ZX":
                    found.append(int(entry.name))
        return found

    def ends_well(self, run: subprocess.Popen[str], what: str) -> None:
        """Wait for the end of a run; it must be a good one."""
        try:
            _, said = run.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.tally.broken.append(f"{what} has not ended after {PATIENCE_S:.0f} s")
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
            return
        self.tally.ends[f"{what} ended with {run.returncode}"] += 1
        self.tally.expect(run.returncode == 0, f"{what} ended with {run.returncode}: {said}")
        if run.returncode == 0:
            self.tally.expect(self.table_is_whole(), f"{what} ended with 0 without a whole table")

    def table_is_whole(self) -> bool:
        try:
            return len(read_table(self.directory).entries) == SHAPES.count("{m:")
        except Exception as error:  # whatever it is, the table cannot be read
            print(error, file=sys.stderr)
            return False

    def kill(self, run: subprocess.Popen[str], kind: str, rng: random.Random) -> bool:
        """Kill, and look at what is left; False where the run had ended by itself."""
        before = self.lines()
        victims = workers_of(run.pid)
        if kind == "worker" and not victims:
            kind = "main process"
        if run.poll() is not None:
            self.ends_well(run, "a run that was not killed")
            return False
        self.tally.kills[kind] += 1
        with contextlib.suppress(ProcessLookupError):
            if kind == "group":
                os.killpg(run.pid, signal.SIGKILL)
            else:
                os.kill(run.pid if kind == "main process" else rng.choice(victims), signal.SIGKILL)
        if kind == "worker":
            self.ends_well(run, "a run whose worker was killed")
        else:
            run.communicate()
            self.tally.expect(run.returncode != 0 or self.table_is_whole(), f"a killed run ended with {run.returncode}")
            self.all_gone(kind)
        after = self.lines()
        self.tally.rows += max(len(before) - 1, 0)
        self.tally.expect(after[: len(before)] == before, f"rows were lost by a kill of the {kind} in {self.directory}")
        return True

    def all_gone(self, kind: str) -> None:
        killed_s = time.monotonic()
        while (left := self.started()) and time.monotonic() - killed_s < GONE_S:
            time.sleep(0.02)
        self.tally.gone_s.append(time.monotonic() - killed_s)
        self.tally.expect(not left, f"{GONE_S:.0f} s after a kill of the {kind}, {len(left)} processes are running")


def state_of(entry: Path) -> str:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0]


def workers_of(parent: int) -> list[int]:
    """The worker processes that `parent` has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            own = int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent
            if own and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def kill_in_one(place: Place, kills: int, run_s: float, rng: random.Random) -> None:
    """Kill `kills` runs of one directory, then let one end."""
    while kills:
        run = place.start()
        time.sleep(rng.uniform(0.0, run_s))
        kills -= place.kill(run, rng.choice(KINDS), rng)
    place.ends_well(place.start(), "the run after the kills")
    left = list(place.directory.rglob("*.part"))
    place.tally.expect(not left, f"temporary files are left: {left}")


def report(tally: Tally, elapsed_s: float) -> None:
    counts = ", ".join(f"{count} of a {kind}" for kind, count in sorted(tally.kills.items()))
    print(f"{sum(tally.kills.values())} kills in {elapsed_s:.0f} s: {counts}")
    print(f"{tally.rows} rows could be read before them")
    for what, count in sorted(tally.ends.items()):
        print(f"{count} times {what}")
    if tally.gone_s:
        print(f"what a killed run had started was gone after {max(tally.gone_s):.1f} s at most")
    for rule in tally.broken:
        print(f"BROKEN: {rule}")
    print(f"{len(tally.broken)} rules broken")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--at-once", type=int, default=2, help="directories at a time")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    tally, began_s = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        cache = Path(name) / "cache"
        headers = find_hipkittens(Settings.from_environment(os.environ)).include
        (cache / "hipkittens").mkdir(parents=True)
        (cache / "hipkittens" / headers.name).symlink_to(headers)
        (cache / "shapes.yaml").write_text(SHAPES)
        for number in range(2):  # the first fills the cache, the second is timed
            started_s = time.monotonic()
            whole = Place(Path(name) / f"whole-{number}", cache, tally)
            whole.ends_well(whole.start(), "a whole run")
        run_s = time.monotonic() - started_s
        print(f"a whole run takes {run_s:.1f} s", flush=True)
        directories = -(-options.kills // KILLS_A_DIRECTORY)
        with ThreadPoolExecutor(options.at_once) as pool:
            for number in range(directories):
                place = Place(Path(name) / str(number), cache, tally)
                kills = min(KILLS_A_DIRECTORY, options.kills - number * KILLS_A_DIRECTORY)
                pool.submit(
                    kill_in_one, place, kills, run_s, random.Random(f"{options.seed} {number}")
                ).add_done_callback(
                    lambda done: tally.expect(done.exception() is None, f"the benchmark itself: {done.exception()!r}")
                )
    report(tally, time.monotonic() - began_s)
    return int(bool(tally.broken))


if __name__ == "__main__":
    sys.exit(main())
