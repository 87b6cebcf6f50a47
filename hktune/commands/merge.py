"""`hktune merge`: the trials of several results directories as one."""

from __future__ import annotations

import argparse

from hktune.commands.arguments import add_out, add_trials
from hktune.commands.parser import DONE, Command


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune merge`."""
    add_trials(parser)
    add_out(parser, "where the merged trials go")


def _run(options: argparse.Namespace) -> int:
    """Merge and say how many trials there are."""
    from hktune.core.escaped import escaped
    from hktune.core.trial import by_problem
    from hktune.report.heartbeat import working
    from hktune.report.operations import operation_names
    from hktune.store import merge

    with working(lambda: "merging trials"):
        merged = merge(options.trials, options.out)
    for remark in merged.remarks:
        print(escaped(remark))
    operations = operation_names(problem.operation for problem in by_problem(merged.trials))
    print(f"{len(merged.trials)} trials in {options.out}{f': {operations}' if operations else ''}")
    return DONE


COMMAND = Command(
    "merge",
    "merge the trials of several results directories",
    _add_options,
    _run,
    examples=("hktune merge out/first out/second -o out/both",),
)
