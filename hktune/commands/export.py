"""`hktune export`: a dispatch table as source code."""

from __future__ import annotations

import argparse
from pathlib import Path

from hktune.errors import TableError
from hktune.publish import publish
from hktune.shipped import KERNELS

DONE = 0


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune export`; sets `run`."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="the results directory with the table")
    parser.add_argument("--format", choices=("inline",), default="inline", help="inline: one PyTorch file")
    forms = ("matmul", "matmul-bt", "linear")
    parser.add_argument("--form", choices=forms, default="matmul", help="what ModelNew is (default: %(default)s)")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE")
    parser.set_defaults(run=export)


def export(options: argparse.Namespace) -> int:
    """Write the file. Raises TableError, one line, when it cannot be made or written."""
    from hktune.export import export_inline

    text = export_inline(options.directory, KERNELS, options.form)
    try:
        publish(options.out, text.encode())
    except OSError as error:
        raise TableError(f"{options.out}: cannot be written ({error.strerror}): pass another -o") from None
    print(f"{options.out}: {len(text.splitlines())} lines")
    return DONE
