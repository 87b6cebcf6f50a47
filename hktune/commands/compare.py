"""`hktune compare`: a table and the times of another tool."""

from __future__ import annotations

import argparse

from hktune.commands.arguments import add_json, add_operation, add_table_directory, path_given
from hktune.commands.parser import DONE, Command


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune compare`."""
    add_table_directory(parser)
    parser.add_argument(
        "file", type=path_given, metavar="FILE", help="their times; its format is known by what is in it"
    )
    add_operation(parser, "what is computed in a file that does not say")
    add_json(parser, "each problem")


def _run(options: argparse.Namespace) -> int:
    """Print who is faster where. Raises TableError or ShapesError, one line, before that."""
    from hktune.core.errors import ShapesError
    from hktune.dispatch import read_table
    from hktune.exchange import read_foreign
    from hktune.report.compared_times import as_json, print_compared
    from hktune.report.console import make_console
    from hktune.tables.other_times import compare_times

    table = read_table(options.directory)
    file = read_foreign(options.file, options.operation)
    if file is None:
        raise ShapesError(f"{options.file}: is no file of times that is known here: see hktune compare --help")
    found = compare_times(table, file)
    if options.json:
        for line in as_json(table, file, found):
            print(line)
    else:
        print_compared(make_console(), table, file, found)
    return DONE


_ABOUT = """Reads the times in AITER's CSV files of tuned products, in TunableOp's results, and in what \
hipblaslt-bench and rocblas-bench print.

theirs / ours above 1: the table is faster. Who is faster is said where their time is outside the interval of the \
table's. What a file does not say is not known here: cold or warm operands, clocks, how often it was measured. Times \
of unlike boards, and measured and modelled ones, are counted apart."""

COMMAND = Command(
    "compare",
    "compare a table with the times of another tool",
    _add_options,
    _run,
    examples=(
        "hktune compare out/gfx950-emulated bf16_tuned_gemm.csv",
        "hktune compare out/gfx950-emulated tunableop_results0.csv --json",
    ),
    about=_ABOUT,
)
