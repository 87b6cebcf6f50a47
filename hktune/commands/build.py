"""`hktune build`: compile here what another machine will measure."""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from hktune.commands.arguments import (
    COUNT_MAX,
    add_aiter,
    add_hipkittens,
    add_operation,
    add_out,
    add_prior,
    add_seed,
    add_shapes,
    add_space,
    add_workers,
    integer,
    path_given,
    refuse_unused,
    settings_of,
)
from hktune.commands.parser import DONE, FAILED, Command
from hktune.core.escaped import escaped
from hktune.core.outcome import Status
from hktune.core.shipped import space_word

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hktune.core.config import Config
    from hktune.core.operation import Operation
    from hktune.core.problem import Problem
    from hktune.space import SearchSpace
    from hktune.tuning.benches.prebuilt import BuildSummary


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune build`."""
    add_space(parser, "the search space", required=True)
    add_out(parser, "for tune --prebuilt DIR")
    parser.add_argument(
        "--configs", type=path_given, metavar="FILE", help="also these, a line of PARAMETER=VALUE words each"
    )
    parser.add_argument("--near-seeds", action="store_true", help="also what differs from a seed in one parameter")
    kind = integer(0, COUNT_MAX)
    parser.add_argument("--random", type=kind, default=0, metavar="N", help="also N others, drawn at random")
    parser.add_argument("--all", action="store_true", help="the whole space")
    add_shapes(parser, "also what the space favours for these; only what is legal for one")
    add_prior(parser)
    add_operation(parser, "build for this operation (default: those of the shapes, else the template's first)")
    add_seed(parser, "what --random draws")
    add_workers(parser)
    add_hipkittens(parser)
    add_aiter(parser)


def _run(options: argparse.Namespace) -> int:
    """Build, print what it came to; 1 when nothing was built."""
    from hktune.compile import compiler_for
    from hktune.exchange import read_shapes
    from hktune.report.heartbeat import working
    from hktune.space import load_space
    from hktune.tuning.benches.prebuilt import Wanted, build, replaced_build

    if not options.random:
        refuse_unused(options, ("seed",), "is of what --random N draws, which is not asked for")
    space = load_space(options.space)
    problems = read_shapes(options.shapes).shapes.problems if options.shapes else ()
    wanted = Wanted(
        listed=[*_listed(options, space), *_favoured(options, space, problems)],
        near_seeds=options.near_seeds,
        random=options.random,
        everything=options.all,
        problems=problems,
        seed=options.seed,
    )
    parts = wanted.of_each_operation(space, options.operation)
    settings = replace(settings_of(options), cache_dir=options.out)
    compiler = compiler_for(space.template.language, settings, options.hipkittens)
    if replaced := replaced_build(options.out, space.template, compiler.identity):
        print(escaped(replaced))
    count, before, done = sum(len(configs) for _, configs in parts), 0, 0

    def built(now: int) -> None:
        nonlocal done
        done = before + now

    summaries: dict[Operation, BuildSummary] = {}
    with working(lambda: f"{done}/{count} configs compiled"):
        for own, configs in parts:
            before = done
            summaries[own.template.operation] = build(own, compiler, configs, options.out, options.workers, built)
    _print_built(options, summaries, space.template.operation)
    return DONE if any(summary.statuses[Status.OK] for summary in summaries.values()) else FAILED


def _listed(options: argparse.Namespace, space: SearchSpace) -> list[Config]:
    """The configs of --configs."""
    from hktune.tuning.benches.prebuilt import read_configs

    return read_configs(options.configs, space) if options.configs else []


def _favoured(options: argparse.Namespace, space: SearchSpace, problems: Sequence[Problem]) -> list[Config]:
    """The configs that the results of --prior favour for `problems`; without problems, for any."""
    from hktune.tuning.priors.prior import Prior

    prior = Prior(options.prior, space)
    favoured = chain.from_iterable(map(prior.favoured, problems)) if problems else prior.everything()
    return list(filter(space.domain(None).has_values_of, favoured))


def _print_built(options: argparse.Namespace, summaries: Mapping[Operation, BuildSummary], usual: Operation) -> None:
    from hktune.core.command_words import command_line
    from hktune.report.columns import print_line, print_prose
    from hktune.report.console import make_console
    from hktune.report.failures import print_build_failures

    console = make_console()
    space = ("--space", space_word(options.space))
    for operation, summary in summaries.items():
        counts = ", ".join(f"{count} {status}" for status, count in sorted(summary.statuses.items()))
        print_prose(console, f"{options.out}: {operation}: {counts or 'nothing wanted'}; {summary.elapsed_s:.0f} s")
        asked = () if operation == usual else ("--operation", str(operation))
        again = ["hktune", "verify", *space, *asked]
        print_build_failures(console, summary.statuses, summary.examples, options.out, again)
    files = ("--shapes", options.shapes or "FILE", *space, "--prebuilt", options.out)
    print_line(console, f"next, where the GPU is: {command_line('hktune', 'tune', *files)}")


COMMAND = Command(
    "build",
    "compile here, without a GPU, what another machine will measure",
    _add_options,
    _run,
    examples=(
        "hktune build --space sm90a_gemm_bf16 -o built",
        "hktune build --space FILE --shapes shapes.yaml --random 200 -o built",
    ),
    failed="nothing was built",
    about="The space's seeds are always built; what is in the folder already is not compiled again.",
)
