"""`hktune shapes`: the shapes of other tools' files, as the shapes.yaml that `hktune tune` reads."""

from __future__ import annotations

import argparse
import sys

from hktune.commands.arguments import add_json, add_operation, add_out, path_given
from hktune.commands.parser import DONE, Command
from hktune.core.errors import InputError, ShapesError
from hktune.core.publish import publish
from hktune.core.remedy import with_remedy


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune shapes`."""
    parser.add_argument(
        "files", nargs="+", type=path_given, metavar="FILE", help="what is read; its format is known by what is in it"
    )
    add_operation(parser, "what is computed in a file that does not say")
    add_out(parser, "the shapes file to write (default: none)", required=False, metavar="FILE")
    add_json(parser, "each shape, and each reason why products were left out")


def _run(options: argparse.Namespace) -> int:
    """Read, print what was taken and what was not, and write it. Raises ShapesError, one line, before that."""
    from hktune.core.shapes import PROBLEMS_MAX, merged_shapes, shapes_yaml
    from hktune.exchange import read_shapes
    from hktune.report.console import make_console
    from hktune.report.found_shapes import as_json, counted, print_found
    from hktune.report.heartbeat import working

    now = "reading"
    with working(lambda: now):
        found = {}
        for path in dict.fromkeys(options.files):
            now = f"reading {path}"
            found[path] = read_shapes(path, options.operation)
    shapes = merged_shapes(shape for each in found.values() for shape in each.shapes)
    if len(shapes) > PROBLEMS_MAX:
        raise ShapesError(f"{len(shapes)} problems, at most {PROBLEMS_MAX} are tuned at once: pass fewer files")
    if options.json:
        for line in as_json(shapes, found):
            print(line)
    else:
        print_found(make_console(), shapes, found)
    if options.out:
        try:
            publish(options.out, shapes_yaml(shapes).encode())
        except OSError as error:
            raise InputError(with_remedy(f"{options.out}: cannot be written", error, "pass another -o")) from None
        print(f"{options.out}: {counted(shapes)}", file=sys.stderr if options.json else sys.stdout)
    return DONE


_ABOUT = """Reads AITER's CSV files of untuned and tuned products; TunableOp's results and untuned products; logs of \
hipBLASLt and rocBLAS (command lines of their benchmarks, YAML, and what the benchmarks print); traces of PyTorch's \
profiler, made with record_shapes=True; and shapes.yaml. Each may be in gzip.

A shape's weight is how often it was called, where the file says that. What no table can serve is left out, with the \
reason. hktune tune --shapes reads the same files."""

COMMAND = Command(
    "shapes",
    "list the shapes of another tool's file, and write them as shapes.yaml",
    _add_options,
    _run,
    examples=(
        "hktune shapes tunableop_results0.csv -o shapes.yaml",
        "hktune shapes trace.json.gz",
        "hktune shapes llama70B_untuned_gemm.csv --operation bf16.nt -o shapes.yaml",
    ),
    about=_ABOUT,
)
