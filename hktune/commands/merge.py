"""`hktune merge`: the trials of several results directories as one."""

from __future__ import annotations

import argparse

from hktune.commands.arguments import path_given
from hktune.commands.parser import DONE, Command


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune merge`."""
    parser.add_argument(
        "shards", nargs="+", type=path_given, metavar="DIR_OR_CSV", help="results directories, or their trials.csv"
    )
    parser.add_argument("-o", "--out", type=path_given, required=True, metavar="DIR", help="where the merged trials go")


def _run(options: argparse.Namespace) -> int:
    """Merge and say how many trials there are."""
    from hktune.core.escaped import escaped
    from hktune.report.heartbeat import working
    from hktune.store import merge

    with working(lambda: "merging trials"):
        merged = merge(options.shards, options.out)
    for remark in merged.remarks:
        print(escaped(remark))
    print(f"{len(merged.trials)} trials in {options.out}")
    return DONE


COMMAND = Command(
    "merge",
    "merge the trials of several results directories",
    _add_options,
    _run,
    examples=("hktune merge out/first out/second -o out/both",),
)
