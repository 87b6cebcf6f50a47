"""`hktune tune`: search the fastest proved kernel of every shape."""

from __future__ import annotations

import argparse
import sys

from hktune.commands.arguments import (
    add_aiter,
    add_board,
    add_cache,
    add_calibration,
    add_candidates,
    add_device,
    add_hipkittens,
    add_out,
    add_prebuilt,
    add_prior,
    add_seed,
    add_shapes,
    add_space,
    add_workers,
    budget_seconds,
    gibibytes,
    positive,
    seconds,
    words,
)
from hktune.commands.parser import DONE, FAILED, Command
from hktune.core.escaped import escaped
from hktune.core.interruption import INTERRUPTED


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune tune`."""
    add_shapes(parser, "the problems: shapes.yaml, or another tool's file (see hktune shapes)", required=True)
    add_space(parser, "the search space (default: the device's own)")
    purpose = "what to tune on (default: a GPU that is found here, else the emulated gfx950)"
    add_device(parser, ("hip", "cuda", "emulated"), purpose)
    add_board(parser, "on the emulated device: whose clock and power its times are modelled with")
    add_calibration(parser, "constants of the clock or, on an NVIDIA GPU, of the space's estimate")
    _add_search(parser)
    add_prior(parser)
    add_out(parser, "where to (default: out/<device>)", required=False)
    parser.add_argument(
        "--study",
        metavar="URL",
        help="write every trial to Optuna's studies too, for optuna-dashboard: sqlite:///FILE, another URL, or a file",
    )
    add_seed(parser, "the strategy and of random operands")
    add_workers(parser, default=None)
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="spread the work over a Ray cluster: HOST:PORT, or auto for the one that this machine belongs to",
    )
    add_hipkittens(parser)
    _add_gpu(parser)
    _add_rivals(parser)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--resume", action="store_true", help="go on from the trials in DIR (what happens anyway)")
    mode.add_argument("--fresh", action="store_true", help="set the trials in DIR aside and start again")


def _add_search(parser: argparse.ArgumentParser) -> None:
    """How to search, and what it may take."""
    parser.add_argument("--strategy", default="auto", metavar="NAME", help="how to search (default: %(default)s)")
    parser.add_argument(
        "--trials",
        type=positive,
        default=96,
        metavar="N",
        help="for each shape; on a GPU in the mean: shapes of less weight leave a quarter to others "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--patience",
        type=positive,
        metavar="N",
        help="end a shape that gained nothing over 1 %% in N trials (default: when its trials are spent)",
    )
    parser.add_argument(
        "--time-budget", type=seconds, metavar="S", help="stop asking for more after S seconds (default: no limit)"
    )
    parser.add_argument(
        "--deadline", type=seconds, metavar="S", help="of one config, from source to proof (default: 120; on a GPU 30)"
    )
    parser.add_argument(
        "--worker-memory",
        type=gibibytes,
        metavar="GIB",
        help="of each worker (default: 4, or its share of this machine's if that is less)",
    )


def _add_gpu(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gpus",
        type=positive,
        metavar="N",
        help="share the shapes between the first N GPUs (default: all that are visible); 1 keeps another's heat and "
        "power out of the times",
    )
    parser.add_argument(
        "--vendor-only",
        action="store_true",
        help="search no kernel: try the algorithms of the vendor's libraries alone, in seconds; of each shape at most "
        "as many as --trials says",
    )
    parser.add_argument(
        "--energy-budget",
        type=budget_seconds,
        metavar="S",
        help="seconds for measuring what energy the best take, 0 for none (default: a tenth of what the search took "
        "of the GPU, at least 5)",
    )
    parser.add_argument(
        "--steady",
        action="store_true",
        help="where power holds the clock, decide by turns in which each of the best has the GPU for itself, some 15 s "
        "a shape: for training, and other work that is large products throughout",
    )
    add_prebuilt(parser, "try only what hktune build left in DIR")
    add_cache(parser)


def _add_rivals(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rivals",
        type=_rivals,
        metavar="NAME,...",
        help="on the emulated device: whose kernels are raced, of aiter and triton; or none (default: what is here)",
    )
    add_candidates(parser)
    add_aiter(parser)


def _rivals(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(filter(None, words(text)))


def _run(options: argparse.Namespace) -> int:
    """Tune and print the summary; 1 when the machine stopped it or a shape has no kernel, 130 when interrupted."""
    from hktune.report.console import make_console
    from hktune.report.run_progress import RunProgress
    from hktune.report.summary import print_summary
    from hktune.session import tune
    from hktune.session.given_options import OPTION_NAMES
    from hktune.store.studies.study_place import without_password

    console = make_console()
    command = ["hktune", *map(without_password, options.words)]
    asked = {name: getattr(options, name) for name in OPTION_NAMES}
    result = tune(options.shapes, progress=RunProgress(console), command=command, **asked)
    print_summary(console, result.summary)
    for line in (*result.notes, *result.stopped):
        print(f"hktune: {escaped(line)}", file=sys.stderr)
    if result.interrupted:
        return INTERRUPTED
    return FAILED if result.stopped or result.summary.without_kernel else DONE


_ABOUT = """Leaves trials.csv, table.json, objects/ and environment.json in the directory of --out, and goes \
on from what an earlier run left there, an interrupted one too. On a GPU every time is measured together with \
the vendor library's, whose own algorithms are candidates of every shape too; without one the kernels \
run on an emulated gfx950 and their time is modelled.

strategies:
  auto        a model over the legal configs: the default
  hillclimb   step by step from the best so far: thousands of trials, or no time
  tpe         Optuna's tree-structured Parzen estimator
  gp          Optuna's Gaussian process: most thinking (a second each)
  cmaes       Optuna's CMA-ES: many trials of ordered parameters
  random      every legal config equally likely: the yardstick
  qmc         evenly spread points: to chart a space
  exhaustive  every legal config in order: small spaces, tune --prebuilt

Ctrl-C, SIGTERM and SIGHUP end the search; the table of what was found is written. A second one ends at once.

hktune explain (with no config) lists the parameters of a space."""

COMMAND = Command(
    "tune",
    "search the fastest proved kernel of every shape",
    _add_options,
    _run,
    examples=(
        "hktune tune --shapes shapes.yaml",
        "hktune tune --shapes shapes.yaml --trials 24 --time-budget 600",
        "hktune tune --device cuda --shapes shapes-llm.yaml --out out/h100",
        "hktune tune --device cuda --shapes shapes.yaml --vendor-only",
    ),
    failed="a shape has no kernel, or the machine stopped the run",
    about=_ABOUT,
)
