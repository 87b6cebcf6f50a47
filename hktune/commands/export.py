"""`hktune export`: a dispatch table as source code."""

from __future__ import annotations

import argparse

from hktune.commands.arguments import add_operation, add_out, add_table_directory
from hktune.commands.parser import DONE, Command
from hktune.core.errors import TableError
from hktune.core.publish import publish
from hktune.core.remedy import with_remedy
from hktune.core.shipped import DEFAULT_SPACE


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune export`."""
    add_table_directory(parser)
    parser.add_argument(
        "--format", choices=("inline",), default="inline", help="one PyTorch file (default: %(default)s)"
    )
    forms = ("matmul", "matmul-bt", "linear")
    parser.add_argument("--form", choices=forms, default="matmul", help="what ModelNew is (default: %(default)s)")
    add_operation(parser, "of a table of several the one to export, with its epilogues")
    add_out(parser, "the file to write", metavar="FILE")


def _run(options: argparse.Namespace) -> int:
    """Write the file. Raises TableError, one line, when it cannot be made or written."""
    from hktune.export import export_inline

    text = export_inline(options.directory, DEFAULT_SPACE, options.form, options.operation)
    try:
        publish(options.out, text.encode())
    except OSError as error:
        raise TableError(with_remedy(f"{options.out}: cannot be written", error, "pass another -o")) from None
    print(f"{options.out}: {len(text.splitlines())} lines")
    return DONE


COMMAND = Command(
    "export",
    "write a dispatch table as one PyTorch file with its kernels",
    _add_options,
    _run,
    examples=(
        "hktune export out/gfx950-emulated -o model_new.py",
        "hktune export out/gfx950-emulated --operation f16.nt -o model_new.py",
    ),
)
