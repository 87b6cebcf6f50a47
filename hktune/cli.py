"""The command line: every command of `hktune`, put together. Exit codes are those of `hktune.commands.parser`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from hktune.commands.output import printing, why_lost
from hktune.commands.parser import BAD_INPUT, DONE, FAILED, Parser
from hktune.core.errors import HktuneError
from hktune.core.interruption import INTERRUPTED, INTERRUPTED_LINE, Interruption
from hktune.core.needs import require_packages, require_working_directory
from hktune.core.remedy import with_remedy
from hktune.core.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command within a process that goes on; returns the exit code."""
    return _run(list(sys.argv[1:] if arguments is None else arguments), last=False)


def run_last(words: list[str]) -> int:
    """Run one command as the last that this process does; returns the exit code, and signals are ignored."""
    return _run(words, last=True)


def _run(words: list[str], last: bool) -> int:
    interruption = Interruption()
    with printing() as output, interruption.heard(then_ignored=last):
        code = _exit_code(words, interruption)
        output.flush()
        lost = why_lost(output)
        if lost is None:
            return code
        print(f"hktune: {lost}", file=sys.stderr)
        return code or FAILED


def _exit_code(words: list[str], interruption: Interruption) -> int:
    """What the command ended with. No signal raises any more when this returns, or ever raises twice."""
    try:
        try:
            return _command(words)
        finally:
            interruption.defer()
    except KeyboardInterrupt:
        print(INTERRUPTED_LINE, file=sys.stderr)
        return INTERRUPTED


def _command(words: list[str]) -> int:
    try:
        require_working_directory()
        require_packages()
        options = make_parser().parse_args(words)
        options.words = words
        return int(options.run(options))
    except HktuneError as error:
        print(f"hktune: {error}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:  # what reads and writes has its own words; asking what is at a path has none
        print(f"hktune: {_refused(error)}", file=sys.stderr)
        return BAD_INPUT
    except MemoryError:
        print("hktune: this machine has not the memory for that: make the problem smaller", file=sys.stderr)
        return BAD_INPUT
    except SystemExit as ended:  # argparse's, after --help and --version
        return int(ended.code or DONE)


def _refused(error: OSError) -> HktuneError:
    """The line for what the system refused before any reader or writer could say so: a folder that this user may not
    enter, a name that is too long."""
    path = error.filename
    what = f"{os.fsdecode(path)}: cannot be reached" if isinstance(path, str | bytes) else "this machine refused"
    return HktuneError(with_remedy(what, error, "give a path that this user can reach"))


def make_parser() -> Parser:
    """The parser of all commands, which import what they need: `require_packages` comes first."""
    from hktune.commands import (
        bench,
        build,
        calibrate,
        compare,
        doctor,
        explain,
        export,
        merge,
        report,
        shapes,
        simulate,
        summary,
        tune,
        verify,
    )
    from hktune.commands.table import add_table_group

    parser = Parser(prog="hktune", description="Tune, prove and dispatch GEMM kernels.", epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"hktune {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for command in (tune, explain, verify, bench, build):
        command.COMMAND.add_to(commands)
    add_table_group(commands)
    for command in (report, summary, shapes, compare, calibrate, export, merge, simulate, doctor):
        command.COMMAND.add_to(commands)
    return parser


_EPILOG = """begin with:
  hktune doctor
  hktune tune --shapes shapes.yaml
  hktune table show out/gfx950-emulated

hktune COMMAND --help says more of each.

exit codes: 0 done; 1 finished, but something asked for failed; 2 bad input, said in one line; 130 interrupted"""
