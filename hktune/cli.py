"""The command line: every command of `hktune`, put together. Exit codes are those of `hktune.commands.parser`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hktune import __version__
from hktune.commands.output import printing, why_lost
from hktune.commands.parser import BAD_INPUT, DONE, FAILED, INTERRUPTED, Parser
from hktune.core.errors import HktuneError
from hktune.core.interruption import Interruption
from hktune.core.needs import require_packages


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with printing() as output, Interruption().heard():
        code = _run(words)
        output.flush()
        lost = why_lost(output)
        if lost is None:
            return code
        print(f"hktune: {lost}", file=sys.stderr)
        return code or FAILED


def _run(words: list[str]) -> int:
    try:
        require_packages()
        options = make_parser().parse_args(words)
        options.words = words
        return int(options.run(options))
    except HktuneError as error:
        print(f"hktune: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("hktune: interrupted", file=sys.stderr)
        return INTERRUPTED
    except MemoryError:
        print("hktune: this machine has not the memory for that: make the problem smaller", file=sys.stderr)
        return BAD_INPUT
    except SystemExit as ended:  # argparse's, after --help and --version
        return int(ended.code or DONE)


def make_parser() -> Parser:
    """The parser of all commands, which import what they need: `require_packages` comes first."""
    from hktune.commands import bench, build, doctor, explain, export, merge, tune, verify
    from hktune.commands.table import add_table_group

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
