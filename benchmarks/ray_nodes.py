"""What nodes of a Ray cluster add on the emulated device: the same run on one node, on two, and on two of which one is
killed. Each node is a raylet on this machine with one CPU.

    python benchmarks/ray_nodes.py [--shapes shapes.yaml] [--trials 24] [--lose-after 0.5]

Each run begins with an empty cache. Says how long the searches took, what the driver took of a processor, and whether
rows and tables are the same. The speed-up is that of a machine with two cores and no other work.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from hktune.core.settings import Settings
from hktune.dispatch import read_table
from hktune.report.run_progress import RunProgress
from hktune.store import TrialStore
from hktune.tuning.run import tune
from hktune.tuning.run_options import RunOptions
from hktune.tuning.run_summary import RunSummary

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from local_ray import add_nodes, local_cluster  # type: ignore[import-not-found]


@dataclass(frozen=True)
class Done:
    """A run, the seconds that it took, and those of a processor that this process took."""

    summary: RunSummary
    elapsed_s: float
    driver_s: float


def run(nodes: int, options: argparse.Namespace, out: Path, lose: bool = False) -> Done:
    """One run on a cluster of its own, with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["HKTUNE_CACHE"] = cache
        with local_cluster() as cluster:
            add_nodes(cluster, nodes, num_cpus=1)
            shown, used = RunProgress(Console(file=io.StringIO())), time.process_time()
            asked = RunOptions(
                options.shapes,
                device="emulated",
                strategy="random",
                trials=options.trials,
                out=out,
                ray=cluster.address,
                rivals=(),
            )
            wanted = options.lose_after * options.trials if lose else None

            def kill() -> None:
                while not out.exists() or len(TrialStore(out).read()) < wanted * len(problems(options.shapes)):
                    time.sleep(0.2)
                cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)

            killer = threading.Thread(target=kill, daemon=True)
            if lose:
                killer.start()
            with shown:
                summary = tune(asked, Settings(Path(cache)), ["hktune", "tune"], shown)
            return Done(summary, summary.elapsed_s, time.process_time() - used)


def problems(shapes: Path) -> list[object]:
    """The problems of a shapes file."""
    from hktune.core.shapes import load_shapes

    return list(load_shapes(shapes))


def same(one: RunSummary, other: RunSummary) -> str:
    """Whether two runs found the same."""
    rows = [{(row.problem, row.config_id, row.status, row.time_us) for row in each.trials} for each in (one, other)]
    tables = [read_table(each.directory).entries for each in (one, other)]
    said = {True: "equal", False: "DIFFER"}
    return f"rows {said[rows[0] == rows[1]]}, tables {said[tables[0] == tables[1]]}"


def main() -> None:
    """Run all three and say what came of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shapes", type=Path, default=Path("shapes.yaml"))
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--lose-after", type=float, default=0.5, help="the part of all rows")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [(1, False), (2, False), (2, True)]
        found = []
        for number, (nodes, lose) in enumerate(runs):
            done = run(nodes, options, Path(folder) / str(number), lose)
            found.append(done)
            what = f"{nodes} node{'s' * (nodes > 1)}{', one of them killed' * lose}"
            print(
                f"{what}: {len(done.summary.trials)} rows, {done.summary.variants} variants in {done.elapsed_s:.0f} s",
                f"{done.driver_s:.1f} s of a processor in the driver",
                *done.summary.notes,
                same(found[0].summary, done.summary),
                sep="; ",
                flush=True,
            )
        print(f"speed-up from 1 node to 2: {found[0].elapsed_s / found[1].elapsed_s:.2f}")


if __name__ == "__main__":
    main()
