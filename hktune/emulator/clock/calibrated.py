"""The rates of one machine: a board's, with the constants that a calibration found."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hktune.core.board import Board
from hktune.core.calibration import Calibration
from hktune.core.errors import InputError
from hktune.emulator.clock.constants import with_constants
from hktune.emulator.clock.rates import Rates, rates_of


def calibrated_rates(board: Board, calibration: Calibration | None, origin: Path | None = None) -> Rates:
    """The rates of `board`, with what `calibration`, read from `origin`, has in their place. Raises InputError for one
    of something else, and for a constant that the clock does not have."""
    rates = rates_of(board)
    if calibration is None:
        return rates
    named = origin or Path("the calibration")
    calibration.require_board(board, named)
    floats = {field.name for field in dataclasses.fields(Rates) if isinstance(getattr(rates, field.name), float)}
    unknown = sorted(calibration.constants.keys() - floats)
    if unknown:
        raise InputError(f"{named}: the clock has no constant {unknown[0]}: make it anew with hktune calibrate")
    shares = [share for share, _ in calibration.clock_ghz]
    if not shares or shares != sorted(set(shares)):
        raise InputError(f"{named}: clock_ghz must have MFMA shares that rise: make it anew with hktune calibrate")
    return dataclasses.replace(with_constants(rates, calibration.constants), clock_ghz=calibration.clock_ghz)
