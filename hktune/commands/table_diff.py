"""`hktune table diff`: how one dispatch table differs from another."""

from __future__ import annotations

import argparse

from hktune.commands.arguments import add_json, add_shapes, path_given
from hktune.commands.parser import DONE, Command


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune table diff`."""
    for name, metavar in (("first", "A"), ("second", "B")):
        parser.add_argument(name, type=path_given, metavar=metavar, help="a results directory with a table")
    add_shapes(parser, "gives problems the weight of their calls (default: each counts once)")
    add_json(parser, "the whole, then each problem,")


def _run(options: argparse.Namespace) -> int:
    """Print how the second table differs. Raises TableError, one line, for one that cannot be read."""
    from hktune.dispatch import read_table
    from hktune.emulator.clock.model_error import model_error
    from hktune.exchange import read_shapes
    from hktune.report.console import make_console
    from hktune.report.table_differences import as_json, print_differences
    from hktune.tables.differences import differences

    first, second = read_table(options.first), read_table(options.second)
    shapes = read_shapes(options.shapes).shapes if options.shapes else ()
    weights = {shape.problem: shape.weight for shape in shapes}
    found = differences(first, second, weights, model_error().tie_factor)
    if options.json:
        for line in as_json(found):
            print(line)
    else:
        print_differences(make_console(), found, options.first, options.second)
    return DONE


COMMAND = Command(
    "diff",
    "compare two tables: choices, times, and what only one serves",
    _add_options,
    _run,
    examples=("hktune table diff out/before out/after --shapes shapes.yaml",),
    about="Lists the problems where the choice, the time beyond its interval, the m served or the code object differ, "
    "those first that change most by weight. Times are compared where both are of one board, and both measured or "
    "both modelled.",
)
