"""The command line: every command of `hktune`, put together. Exit codes are those of `hktune.commands.parser`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hktune import __version__
from hktune.commands import bench, build, doctor, explain, export, merge, tune, verify
from hktune.commands.parser import BAD_INPUT, FAILED, INTERRUPTED, Parser
from hktune.commands.table import add_table_group
from hktune.errors import HktuneError
from hktune.interruption import Interruption
from hktune.report.standard_output import standard_output


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with standard_output() as output, Interruption().heard():
        code = _run(words)
    if output.lost is None or isinstance(output.lost, BrokenPipeError):  # whoever closed it has read enough
        return code
    print(f"hktune: standard output cannot be written ({output.lost.strerror})", file=sys.stderr)
    return code or FAILED


def _run(words: list[str]) -> int:
    try:
        options = make_parser().parse_args(words)
        options.words = words
        return int(options.run(options))
    except HktuneError as error:
        print(f"hktune: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("hktune: interrupted", file=sys.stderr)
        return INTERRUPTED


def make_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(prog="hktune", description="Tune, prove and dispatch GEMM kernels.", epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"hktune {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for command in (tune, explain, verify, bench, build):
        command.COMMAND.add_to(commands)
    add_table_group(commands)
    for command in (export, merge, doctor):
        command.COMMAND.add_to(commands)
    return parser


_EPILOG = """begin with:
  hktune doctor
  hktune tune --shapes shapes.yaml
  hktune table show out/gfx950-emulated

hktune COMMAND --help says more of each.

exit codes: 0 done; 1 finished, but something asked for failed; 2 bad input, said in one line; 130 interrupted"""
