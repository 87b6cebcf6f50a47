"""`hktune report`: what a results directory says, as a page to look at."""

from __future__ import annotations

import argparse

from hktune.commands.arguments import add_out, add_results_directories, add_shapes
from hktune.commands.parser import DONE, Command
from hktune.core.errors import InputError
from hktune.core.publish import publish
from hktune.core.remedy import with_remedy


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune report`."""
    add_results_directories(parser)
    add_out(parser, "the page to write", metavar="FILE")
    add_shapes(parser, "a shapes file: names, and how often each shape is called")


def _run(options: argparse.Namespace) -> int:
    """Write the page. Raises InputError, one line, when it cannot be made or written."""
    from hktune.report.heartbeat import working
    from hktune.report.pages.comparison_page import comparison_page
    from hktune.report.pages.html_page import check_installed
    from hktune.report.pages.report_page import report_page
    from hktune.report.results.directory_comparison import compare
    from hktune.report.results.of_directory import read_results

    check_installed()
    if options.out.suffix in (".md", ".markdown"):
        raise InputError(f"{options.out}: a report is HTML: pass another -o, or hktune summary, which writes Markdown")
    with working(lambda: "writing the report"):
        first = read_results(options.directory, options.shapes)
        second = read_results(options.second, options.shapes) if options.second else None
        data = comparison_page(compare(first, second)) if second else report_page(first)
    try:
        publish(options.out, data)
    except OSError as error:
        raise InputError(with_remedy(f"{options.out}: cannot be written", error, "pass another -o")) from None
    print(f"{options.out}: {len(data) / 1e6:.1f} MB, opens in a browser without a network")
    return DONE


_ABOUT = """What was gained and where, how each search went, which parameters mattered, the roofline, ties, what \
serving neighbours loses, failures, clocks and power, and the environment.

Of two directories: what the second does slower and faster than the first, what costs most time first."""

COMMAND = Command(
    "report",
    "write a page with pictures of what a run found (pip install 'hktune[report]')",
    _add_options,
    _run,
    examples=(
        "hktune report out/gfx950-emulated -o report.html",
        "hktune report out/before out/after --shapes shapes.yaml -o changes.html",
    ),
    about=_ABOUT,
)
