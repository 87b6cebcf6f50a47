"""`hktune explain`: what a config is, or which rules it breaks."""

from __future__ import annotations

import argparse

from hktune.commands.arguments import add_config, add_operation, add_problem
from hktune.commands.parser import DONE, FAILED, Command


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune explain`."""
    add_config(parser)
    add_problem(parser, "judge the config for this problem too")
    add_operation(parser, "as the code of this operation (default: that of --problem, else the first)")


def _run(options: argparse.Namespace) -> int:
    """Print the config, or the rules that it breaks (then 1); without a config the parameters that there are."""
    from hktune.commands.asked_code import space_for
    from hktune.commands.config_words import ConfigWords
    from hktune.report.console import make_console
    from hktune.report.explained import print_config, print_parameters
    from hktune.space import explain, load_space

    words = ConfigWords(options.config)
    file = options.space or words.space_file()
    space = load_space(file)
    if not options.config and options.problem is None and options.operation is None:
        print_parameters(make_console(), space, file)
        return DONE
    space = space_for(space, options.operation, [options.problem] if options.problem else [])
    config = words.config(space)
    if note := words.note(space):
        print(note)
    if lines := explain(space, config, options.problem):
        print("\n".join(lines))
        return FAILED
    print_config(make_console(), space, file, config, options.problem)
    return DONE


COMMAND = Command(
    "explain",
    "say what a config is, or which rules it breaks",
    _add_options,
    _run,
    examples=(
        "hktune explain",
        "hktune explain block_m=256 stages=3",
        "hktune explain block_m=128 block_n=128 split=1 --problem 256x4096x4096",
        "hktune explain block_m=128 block_n=128 split=1 --problem 256x4096x4096:f16.nt",
        "hktune explain out/gfx950-emulated:5357f7f5",
    ),
    failed="the config breaks a rule",
    about="Without a config: the operations of the space, its parameters, their values and what they mean.",
)
