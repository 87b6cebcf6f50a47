"""`hktune table`: build, show, diff, regret, doctor, sign and verify a dispatch table. None of them needs a GPU."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hktune.commands import table_build, table_diff, table_regret
from hktune.commands.arguments import (
    add_key,
    add_shapes,
    add_table_directory,
)
from hktune.commands.parser import DONE, FAILED, Command, Parser
from hktune.core.errors import InputError
from hktune.core.escaped import escaped
from hktune.core.shipped import KERNELS

if TYPE_CHECKING:
    from hktune.core.identity import Identity
    from hktune.dispatch import Trust


def add_table_group(commands: argparse._SubParsersAction[Parser]) -> None:
    """`hktune table` and its commands."""
    names = " ".join(each.name for each in _COMMANDS)
    group = commands.add_parser(
        "table",
        help="build, print, examine or sign a dispatch table",
        description="Build, print, examine or sign a dispatch table. None of it needs a GPU.",
        epilog=f"hktune table COMMAND --help says more of each: {names}",
    )
    own = group.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for command in _COMMANDS:
        command.add_to(own)


def _add_doctor_options(parser: argparse.ArgumentParser) -> None:
    add_table_directory(parser)
    add_shapes(parser, "the shapes that will be called: shapes.yaml")
    parser.add_argument(
        "--device",
        default="auto",
        metavar="FILE",
        help="the environment.json of where it will run (default: the GPU found here, else the table's own device)",
    )
    parser.add_argument(
        "--allow-modelled", action="store_true", help="modelled times are no fault, as for load(allow_modelled=True)"
    )
    parser.add_argument(
        "--allow-sibling-board",
        action="store_true",
        help="rows of another board of the architecture are no fault, as for load(allow_sibling_board=True)",
    )
    add_key(parser, "the public key that must have signed it", required=False)
    _add_pins(parser)


def _add_private_key(parser: argparse.ArgumentParser) -> None:
    add_table_directory(parser)
    add_key(parser, "ed25519 private key, PEM")


def _add_public_key(parser: argparse.ArgumentParser) -> None:
    add_table_directory(parser)
    add_key(parser, "ed25519 public key, PEM")
    _add_pins(parser)


def _add_pins(parser: argparse.ArgumentParser) -> None:
    """What tells a table from an older one of the same author."""
    parser.add_argument("--sha256", metavar="HEX", help="the content_sha256 that it must have")
    parser.add_argument("--created-after", metavar="TIME", help="the oldest that it may be, such as 2026-11-29")


def _trust(options: argparse.Namespace) -> Trust:
    from hktune.dispatch import Trust

    return Trust(options.key, options.sha256, options.created_after)


def _add_show_options(parser: argparse.ArgumentParser) -> None:
    add_table_directory(parser)
    parser.add_argument(
        "--device", metavar="FILE", help="say which rows serve where this environment.json is from, or its directory"
    )


def _show(options: argparse.Namespace) -> int:
    from hktune.report.console import make_console
    from hktune.report.tables import print_table

    print_table(make_console(), options.directory, _saved_identity(options.device) if options.device else None)
    return DONE


def _doctor(options: argparse.Namespace) -> int:
    from hktune.exchange import read_shapes
    from hktune.tables.findings import Call, examine_table

    shapes = read_shapes(options.shapes).shapes if options.shapes else ()
    calls = [Call(shape.problem, shape.name, shape.weight) for shape in shapes]
    identity = _identity(options.device)
    allowed = options.allow_modelled, options.allow_sibling_board
    libraries = _libraries(identity) if options.device == "auto" else None
    findings = examine_table(options.directory, calls, identity, _templates(), _trust(options), *allowed, libraries)
    for finding in findings:
        print(escaped(str(finding)))
    where = "the device it was made on" if identity is None else str(identity)
    wrong = sum(finding.wrong for finding in findings)
    print(f"{wrong} wrong, {len(findings) - wrong} notes; judged for {where}")
    return FAILED if wrong else DONE


def _libraries(identity: Identity | None) -> dict[str, str] | None:
    """The vendor's libraries of the GPU found here, and their versions; None where there is no GPU to ask."""
    if identity is None:
        return None
    from hktune.device.vendor_libraries import vendor_libraries

    return {library.name: library.version for library in vendor_libraries(identity.kind)}


def _identity(device: str) -> Identity | None:
    """The device of an environment.json, or the GPU found here; None where there is neither."""
    from hktune.device.opening import find_device

    if device != "auto":
        return _saved_identity(device)
    found = find_device().identity
    return None if found.kind == "emulated" else found


def _saved_identity(device: str) -> Identity:
    """The device of an environment.json, or of the one in a directory."""
    from hktune.store import read_environment

    path = Path(device)
    environment = read_environment(path if path.is_dir() else path.parent)
    if environment is None:
        raise InputError(f"{device}: no environment.json there: pass one that `hktune tune` left on the device")
    return environment.identity


def _templates() -> Mapping[str, str]:
    """The templates that come with hktune."""
    from hktune.template import load_template

    templates = [load_template(path.parent) for path in sorted(KERNELS.glob("*/*/template.yaml"))]
    return {template.name: template.sha256 for template in templates}


def _sign(options: argparse.Namespace) -> int:
    from hktune.dispatch import read_table, sign_table

    read_table(options.directory)
    print(f"signed: {sign_table(options.directory, options.key)}")
    return DONE


def _verify(options: argparse.Namespace) -> int:
    from hktune.dispatch import content_sha256, read_table, validate

    table = read_table(options.directory, _trust(options))
    skipped = validate(table, options.directory, table.identity, allow_modelled=True).skipped
    for each in skipped:
        print(f"{each.entry.problem}: {each.reason}: {each.detail}")
    objects = len(table.object_sha256s)
    print(f"signed by {options.key}: {len(table.entries)} shapes, {objects} code objects, {len(skipped)} not as signed")
    print(f"content_sha256 {content_sha256(table)}, made {table.created_at}: pin either, and no older one replaces it")
    return FAILED if skipped else DONE


_COMMANDS = (
    table_build.COMMAND,
    Command(
        "show",
        "print a table, and check its objects",
        _add_show_options,
        _show,
        examples=(
            "hktune table show out/gfx950-emulated",
            "hktune table show out/h100 --device out/sm90a-nvidia-h200",
        ),
    ),
    table_diff.COMMAND,
    table_regret.COMMAND,
    Command(
        "doctor",
        "say what is wrong with a table",
        _add_doctor_options,
        _doctor,
        examples=(
            "hktune table doctor out/gfx950-emulated --shapes shapes.yaml",
            "hktune table doctor out/gfx950-emulated --shapes shapes.yaml --allow-modelled",
        ),
        failed="something is wrong with the table",
        about="Every finding is a line: wrong or note, the rule, the value, the next step. Notes leave the exit code "
        "0, so that the command can guard a pipeline; modelled times are wrong there unless --allow-modelled is given.",
    ),
    Command(
        "sign",
        "sign a table (pip install 'hktune[sign]')",
        _add_private_key,
        _sign,
        examples=("hktune table sign table --key key.pem",),
    ),
    Command(
        "verify",
        "check a table's signature and every code object",
        _add_public_key,
        _verify,
        examples=("hktune table verify table --key key.pub",),
        failed="an object is not as signed",
    ),
)
