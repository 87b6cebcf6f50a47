"""The rates of one machine: a board's, with the constants that a calibration found."""

from __future__ import annotations

import dataclasses

from hktune.core.board import Board
from hktune.core.calibration import Calibration
from hktune.core.errors import InputError
from hktune.emulator.clock.constants import with_constants
from hktune.emulator.clock.rates import Rates, rates_of


def calibrated_rates(board: Board, calibration: Calibration | None) -> Rates:
    """The rates of `board`, with what `calibration`, of its clock, has in their place. Raises InputError for constants
    that the clock does not have."""
    rates = rates_of(board)
    if calibration is None:
        return rates
    floats = {field.name for field in dataclasses.fields(Rates) if isinstance(getattr(rates, field.name), float)}
    unknown = sorted(calibration.constants.keys() - floats)
    if unknown:
        raise InputError(f"--calibration has {unknown[0]}, which is no constant of the clock: make it anew")
    shares = [share for share, _ in calibration.clock_ghz]
    if not shares or shares != sorted(set(shares)):
        raise InputError("--calibration has a clock_ghz whose MFMA shares do not rise: make it anew")
    return dataclasses.replace(with_constants(rates, calibration.constants), clock_ghz=calibration.clock_ghz)
