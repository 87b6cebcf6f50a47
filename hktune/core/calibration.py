"""A calibration: constants of a model that measured times were fitted to, in a file that a later command is given."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from hktune.core.board import Board, board_named
from hktune.core.bounded_text import FolderName, Text, Word
from hktune.core.config import compact_json
from hktune.core.errors import InputError
from hktune.core.json_file import decoded
from hktune.core.outside_file import FileKind
from hktune.core.publish import publish
from hktune.core.remedy import with_remedy

FILE_NAME = "calibration.json"
CALIBRATION_FILE = FileKind("a calibration", 1 << 20, InputError, "make it with hktune calibrate")

CLOCK: Final = "clock"
ESTIMATE: Final = "estimate"

ConstantName = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9_]{0,63}\Z")]
Constant = Annotated[float, Meta(gt=0, le=1e12)]
Share = Annotated[float, Meta(ge=0, le=1)]
Gigahertz = Annotated[float, Meta(gt=0, le=100)]


class Calibration(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Constants `of` the clock of a board, or of the estimate of a search space, as `rows` trials of `shapes` shapes on
    `device` tell them. `clock_ghz` is a clock's whole curve of MFMA shares and GHz.

    `error_before` and `error_after` are what the model was off on shapes that a fit had not seen: the mean of
    |modelled / measured - 1| of a clock, and of an estimate what the best of its first few configs loses.
    """

    format: Literal["hktune-calibration"] = "hktune-calibration"
    version: Literal[1] = 1
    of: Literal["clock", "estimate"]
    arch: FolderName
    board: Word | None = None
    space: Word | None = None
    device: Text
    rows: Annotated[int, Meta(ge=1)]
    shapes: Annotated[int, Meta(ge=1)]
    error_before: Annotated[float, Meta(ge=0)]
    error_after: Annotated[float, Meta(ge=0)]
    constants: Annotated[dict[ConstantName, Constant], Meta(max_length=256)] = {}
    clock_ghz: Annotated[tuple[tuple[Share, Gigahertz], ...], Meta(max_length=64)] = ()
    hktune: Word
    made_at: Text

    @property
    def id(self) -> str:
        """What differs where a constant does: 8 hex digits."""
        said = [self.of, self.arch, self.board, self.space, self.constants, self.clock_ghz]
        return hashlib.sha256(compact_json(msgspec.to_builtins(said)).encode()).hexdigest()[:8]

    @property
    def whose(self) -> str:
        """What it is a calibration of."""
        return f"the clock of {self.board}" if self.of == CLOCK else f"the estimate of {self.space}"


def modelled_board(name: str | None, calibration: Calibration | None) -> Board:
    """The board whose times are modelled: the one called `name`, else that of `calibration`, else the usual one. Raises
    InputError for a calibration of anything else than its clock."""
    if calibration is None:
        return board_named(name)
    if calibration.of != CLOCK:
        raise InputError(f"--calibration is of {calibration.whose}, not of a clock: pass one of an AMD GPU")
    if name not in (None, calibration.board):
        raise InputError(f"--calibration is of {calibration.whose}: pass --board {calibration.board}, or another file")
    return board_named(calibration.board)


def calibration_path(given: Path) -> Path:
    """The file that a person means by `given`: itself, or the calibration in that directory."""
    return given / FILE_NAME if given.is_dir() else given


def read_calibration(given: Path) -> Calibration:
    """The calibration in a file, or in the directory that `given` is. Raises InputError for what is none."""
    path = calibration_path(given)
    try:
        return decoded(CALIBRATION_FILE.read(path), Calibration)
    except ValueError as wrong:
        raise CALIBRATION_FILE.broken(path, f"not what hktune calibrate writes ({wrong})") from None


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Publish it at `path`. Raises InputError where it cannot be written."""
    text = msgspec.json.format(msgspec.json.encode(calibration), indent=2) + b"\n"
    try:
        publish(path, text)
    except OSError as error:
        raise InputError(with_remedy(f"{path}: cannot be written", error, "pass another -o FILE")) from None
