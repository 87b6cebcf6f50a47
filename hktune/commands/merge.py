"""`hktune merge`: the trials of several results directories as one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hktune.commands.arguments import add_out, add_trials, path_given
from hktune.commands.parser import DONE, Command

if TYPE_CHECKING:
    from hktune.store import SignedBy


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune merge`."""
    add_trials(parser)
    add_out(parser, "where the merged trials go")
    parser.add_argument(
        "--key",
        type=path_given,
        action="append",
        default=[],
        metavar="FILE",
        help="the public key of somebody who may have signed a directory's table; may be given again",
    )


def _run(options: argparse.Namespace) -> int:
    """Merge, say where the rows are from and where they disagree, and how many there are."""
    from hktune.core.escaped import escaped
    from hktune.core.trial import by_problem
    from hktune.report.heartbeat import working
    from hktune.report.operations import operation_names
    from hktune.store import folder_of, merge

    folders = dict.fromkeys(map(folder_of, options.trials))
    signed_by = {folder: _signed_by(folder, options.key) for folder in folders} if options.key else {}
    with working(lambda: "merging trials"):
        merged = merge(options.trials, options.out, signed_by)
    for identity, origin in sorted(merged.origins.items(), key=lambda item: (item[1].name, item[0])):
        print(escaped(f"from {identity} {origin}"))
    for remark in merged.remarks:
        print(escaped(remark))
    operations = operation_names(problem.operation for problem in by_problem(merged.trials))
    print(f"{len(merged.trials)} trials in {options.out}{f': {operations}' if operations else ''}")
    return DONE


def _signed_by(folder: Path, keys: Sequence[Path]) -> list[SignedBy]:
    """Which of `keys` signed the table of `folder`; none where there is no signed table. Raises TableError for a key
    that is none, and for a signature of somebody else."""
    from hktune.core.errors import TableError
    from hktune.dispatch import Trust, key_sha256, read_table
    from hktune.dispatch.layout import SIGNATURE_NAME
    from hktune.store import SignedBy, merged_trials

    named = {key: key_sha256(key) for key in keys}
    if not (folder / SIGNATURE_NAME).exists():
        return []
    entries = read_table(folder).entries
    kernels = {(e.problem, e.kernel.object_sha256, e.time_us) for e in entries if e.kernel}
    rows = {(row.problem, row.object_sha256, row.time_us) for row in merged_trials([folder])}
    found = []
    for key, sha256 in named.items():
        try:
            read_table(folder, Trust(key))
        except TableError:
            continue
        found.append(SignedBy(key.name, sha256, len(kernels), len(kernels & rows)))
    if not found:
        names = ", ".join(map(str, keys))
        raise TableError(f"{folder}: its table is signed, by none of {names}: pass the key of who signed it with --key")
    return found


_ABOUT = """Every row gets the origin that it is from, and origins.json says what that is: the directory's name, its \
device, driver and commit, and, with --key, whose signature its table has. Rows of unlike devices are refused.

What several have measured of one config becomes one row, whose interval holds all of theirs. Where their intervals \
have no time in common, they disagree: that is listed."""

COMMAND = Command(
    "merge",
    "merge the trials of several results directories",
    _add_options,
    _run,
    examples=(
        "hktune merge out/first out/second -o out/both",
        "hktune merge ann bob --key ann.pub --key bob.pub -o all",
    ),
    about=_ABOUT,
)
