"""`hktune summary`: what a results directory says, as Markdown for a pull request."""

from __future__ import annotations

import argparse

from hktune.commands.arguments import add_out, add_results_directories, add_shapes
from hktune.commands.parser import DONE, Command
from hktune.core.errors import InputError
from hktune.core.publish import publish
from hktune.core.remedy import with_remedy


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune summary`."""
    add_results_directories(parser)
    add_out(parser, "the file to write (default: it is printed)", required=False, metavar="FILE")
    add_shapes(parser, "a shapes file: names, and how often each shape is called")


def _run(options: argparse.Namespace) -> int:
    """Print or write the summary. Raises InputError, one line, when it cannot be made or written."""
    from hktune.report.pages.markdown_summary import summary_of, summary_of_two
    from hktune.report.results.directory_comparison import compare
    from hktune.report.results.of_directory import read_results

    first = read_results(options.directory, options.shapes)
    second = read_results(options.second, options.shapes) if options.second else None
    text = summary_of_two(compare(first, second)) if second else summary_of(first)
    if options.out is None:
        print(text, end="")
        return DONE
    try:
        publish(options.out, text.encode())
    except OSError as error:
        raise InputError(with_remedy(f"{options.out}: cannot be written", error, "pass another -o")) from None
    print(f"{options.out}: {len(text.splitlines())} lines")
    return DONE


COMMAND = Command(
    "summary",
    "what a run gained, as Markdown for a pull request",
    _add_options,
    _run,
    examples=(
        "hktune summary out/gfx950-emulated",
        "hktune summary out/before out/after --shapes shapes.yaml -o comment.md",
    ),
)
