"""The command line. Exit codes: 0 done; 1 finished, but something asked for failed; 2 bad input, said in one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hktune import __version__
from hktune.commands.bench import add_bench
from hktune.commands.build import add_build
from hktune.commands.export import add_export_options
from hktune.commands.table import add_table_commands
from hktune.commands.verify import add_kernel_options, verify_kernel
from hktune.errors import HktuneError, InputError
from hktune.settings import Settings
from hktune.shipped import DEFAULT_SPACE, space_file

if TYPE_CHECKING:
    from rich.console import Console

DONE, FAILED, BAD_INPUT = 0, 1, 2
LOG_COLUMNS = 140  # of a file or a pipe; rich assumes 80, which cuts the summary's columns


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line, like every other."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = _parser().parse_args(words)
        options.words = words
        return int(options.run(options))
    except HktuneError as error:
        print(f"hktune: {error}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _parser() -> _Parser:
    parser = _Parser(prog="hktune", description="Tune, prove and dispatch GEMM kernels.")
    parser.add_argument("--version", action="version", version=f"hktune {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_tune(commands.add_parser("tune", help="search the fastest proved kernel of every shape"))
    _add_verify(commands.add_parser("verify", help="compile one config, or a kernel of your own, and prove it"))
    add_build(commands.add_parser("build", help="compile here what another machine will measure, with no GPU"))
    add_bench(commands.add_parser("bench", help="prove one config on a GPU and time it beside the vendor's"), _problem)
    _add_explain(commands.add_parser("explain", help="say why a config is illegal"))
    table = commands.add_parser("table", help="build, print, examine or sign a dispatch table")
    add_table_commands(table, _console)
    add_export_options(commands.add_parser("export", help="write a table as one PyTorch file with its kernels"))
    _add_merge(commands.add_parser("merge", help="merge the trials of several results directories"))
    _add_doctor(commands.add_parser("doctor", help="say what was found on this machine, and what to type for the rest"))
    return parser


def _add_tune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shapes", type=Path, required=True, metavar="FILE", help="the problems: shapes.yaml")
    parser.add_argument("--space", type=space_file, metavar="FILE", help="the search space (default: the device's own)")
    parser.add_argument("--device", choices=("auto", "hip", "cuda", "emulated"), default="auto")
    parser.add_argument("--strategy", default="tpe", metavar="NAME", help="how to search (default: %(default)s)")
    parser.add_argument("--trials", type=_positive, default=96, metavar="N", help="per shape (default: %(default)s)")
    parser.add_argument("--time-budget", type=_seconds, metavar="S", help="stop asking for more after S seconds")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: out/<device>")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=_positive, default=os.cpu_count(), metavar="N", help="default: one per core")
    parser.add_argument("--hipkittens", type=Path, metavar="DIR", help="HipKittens headers (default: pinned, fetched)")
    _add_gpu(parser)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--resume", action="store_true", help="go on from the trials in DIR (what happens anyway)")
    mode.add_argument("--fresh", action="store_true", help="set the trials in DIR aside and start again")
    parser.set_defaults(run=_tune)


def _add_gpu(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gpus",
        type=_positive,
        metavar="N",
        help="share the shapes between the first N GPUs (default: all that are visible); 1 keeps another's heat and "
        "power out of the times",
    )
    parser.add_argument("--prebuilt", type=Path, metavar="DIR", help="try only what hktune build left in DIR")
    parser.add_argument(
        "--cache", choices=("cold", "warm"), default="cold", help="of a GPU, when timing (default: %(default)s)"
    )


def _add_verify(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument("--problem", type=_problem, metavar="MxNxK", help="prove the config on this problem too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hipkittens", type=Path, metavar="DIR")
    add_kernel_options(parser)
    parser.set_defaults(run=_verify)


def _add_explain(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument("--problem", type=_problem, metavar="MxNxK", help="judge the config for this problem too")
    parser.set_defaults(run=_explain)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--space", type=space_file, default=DEFAULT_SPACE, metavar="FILE")
    parser.add_argument("config", nargs="*", metavar="PARAMETER=VALUE", help="what differs from the defaults")


def _add_merge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", nargs="+", type=Path, metavar="DIR_OR_CSV")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")
    parser.set_defaults(run=_merge)


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hipkittens", type=Path, metavar="DIR")
    parser.set_defaults(run=_doctor)


def _tune(options: argparse.Namespace) -> int:
    from hktune.report.summary import print_summary
    from hktune.run import RunOptions, tune

    common = ("shapes", "space", "device", "strategy", "trials", "out", "seed", "fresh", "workers")
    names = (*common, "hipkittens", "prebuilt", "cache", "gpus")
    chosen = RunOptions(**{name: getattr(options, name) for name in names}, time_budget_s=options.time_budget)
    summary = tune(chosen, Settings.from_environment(os.environ), ["hktune", *options.words], _console())
    print_summary(_console(), summary)
    return FAILED if summary.without_kernel else DONE


def _verify(options: argparse.Namespace) -> int:
    from hktune.bench import EmulatedBench
    from hktune.model import Failure
    from hktune.space import load_space, require_legal

    if options.kernel:
        return verify_kernel(options)
    space = load_space(options.space)
    config = space.parse(options.config)
    require_legal(space, config, [options.problem])
    settings = Settings.from_environment(os.environ)
    prover = EmulatedBench(options.space, options.seed, settings, options.hipkittens)()
    attempt = prover(config)
    own = None if attempt.failure or not options.problem else prover.on(config, options.problem)
    failure = own if isinstance(own, Failure) else attempt.failure
    if failure:
        print(f"{failure.status}: {failure.detail}")
        return FAILED
    proofs = [*map(str, space.template.proof_problems(config)), *([str(options.problem)] if own else [])]
    print(f"proved on {'; '.join(proofs)}: relative error {attempt.relative_error:.2e}")
    print(f"{attempt.resources}")
    return DONE


def _explain(options: argparse.Namespace) -> int:
    from hktune.space import explain, load_space

    space = load_space(options.space)
    lines = explain(space, space.parse(options.config), options.problem)
    print("\n".join(lines) if lines else "legal")
    return FAILED if lines else DONE


def _merge(options: argparse.Namespace) -> int:
    from hktune.store import merge

    trials = merge(options.shards, options.out)
    print(f"{len(trials)} trials in {options.out}")
    return DONE


def _doctor(options: argparse.Namespace) -> int:
    from hktune.doctor import examine
    from hktune.report.tables import print_findings

    settings = Settings.from_environment(os.environ)
    findings = examine(replace(settings, hipkittens_root=options.hipkittens or settings.hipkittens_root))
    print_findings(_console(), findings)
    return DONE


def _console() -> Console:
    from rich.console import Console

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = LOG_COLUMNS
    return console


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, got {text}")
    return value


def _problem(text: str) -> object:
    from hktune.model import Problem

    try:
        m, n, k = (_positive(part) for part in text.split("x"))
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(f"must be MxNxK such as 4096x4096x4096, got {text!r}") from None
    return Problem(m, n, k)
