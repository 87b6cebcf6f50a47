"""`hktune table regret`: what the table of one board costs on another."""

from __future__ import annotations

import argparse

from hktune.commands.arguments import add_json, path_given
from hktune.commands.parser import DONE, Command


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune table regret`."""
    parser.add_argument("first", type=path_given, metavar="A", help="the results directory whose table would serve")
    parser.add_argument("second", type=path_given, metavar="B", help="that of the board on which it would serve")
    add_json(parser, "the whole, then each problem,")


def _run(options: argparse.Namespace) -> int:
    """Print what A's choices take on B's board. Raises TableError or StoreError, one line, for what cannot be read."""
    from hktune.core.errors import TableError
    from hktune.dispatch import read_table
    from hktune.report.board_regret import as_json, print_other_board
    from hktune.report.console import make_console
    from hktune.store.trials import FILE_NAME, read_trials
    from hktune.tables.other_board import on_other_board
    from hktune.tuning.confirming.confirmation import deciding

    first, second = read_table(options.first), read_table(options.second)
    if first.arch != second.arch:
        rule = f"tables of two architectures: A={first.arch} B={second.arch}"
        raise TableError(f"{rule}: no kernel of one runs on the other, pass two boards of one")
    trials = read_trials(options.second / FILE_NAME)
    found = on_other_board(first, second, trials, deciding(trials))
    if options.json:
        for line in as_json(found):
            print(line)
    else:
        print_other_board(make_console(), first, second, found)
    return DONE


COMMAND = Command(
    "regret",
    "what the table of one board costs on another, where both were tuned",
    _add_options,
    _run,
    examples=("hktune table regret out/sm90a-nvidia-h100-80gb-hbm3 out/sm90a-nvidia-h200",),
    about="For every problem of both tables: what A's choice takes on B's board, over what B's own choice takes there. "
    "A's choice is known there where B's trials have a row of that config with a time, or where it is the vendor's "
    "library. A row of other rounds is carried over by its ratio to the vendor's library. What has no row is missing, "
    "and nothing is guessed.",
)
