"""`hktune explain`: what a config is, or which rules it breaks."""

from __future__ import annotations

import argparse

from hktune.commands.arguments import add_config, add_problem
from hktune.commands.parser import DONE, FAILED, Command


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune explain`."""
    add_config(parser)
    add_problem(parser, "judge the config for this problem too")


def _run(options: argparse.Namespace) -> int:
    """Print the rules that the config breaks; 1 when there are any."""
    from hktune.space import explain, load_space

    space = load_space(options.space)
    lines = explain(space, space.parse(options.config), options.problem)
    print("\n".join(lines) if lines else "legal")
    return FAILED if lines else DONE


COMMAND = Command(
    "explain",
    "say what a config is, or which rules it breaks",
    _add_options,
    _run,
    examples=(
        "hktune explain block_m=256 stages=3",
        "hktune explain block_m=128 block_n=128 split=1 --problem 256x4096x4096",
    ),
    failed="the config breaks a rule",
)
