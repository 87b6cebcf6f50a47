"""The shader clock of a board that nobody has measured, from that of another with the same chip.

At full power a board's clock follows from what its chip may draw. Some of the board's power does not depend on the
clock. The rest is that of the switching circuits, which goes with the share of the time that the MFMA pipes are busy,
with the clock, and with the square of the voltage. The voltage goes with the clock.
"""

from __future__ import annotations

from hktune.core.board import Board

Curve = tuple[tuple[float, float], ...]
"""Points of an MFMA share and the clock in GHz that is sustained at it."""

CLOCKLESS_W = 400.0  # assumed: HBM, IO dies and leakage of a busy board
CLOCK_EXPONENT = 3.0  # of f V^2 with V proportional to f


def derived_curve(curve: Curve, measured: Board, board: Board) -> Curve:
    """The curve of `board`, from that of `measured`. Its first point is where power begins to limit the highest
    clock."""
    power = (board.power_w - CLOCKLESS_W) / (measured.power_w - CLOCKLESS_W)
    slower = power ** (1 / CLOCK_EXPONENT)
    (first_share, first_ghz), *others = curve
    begins = first_share * power * (first_ghz / board.max_clock_ghz) ** CLOCK_EXPONENT
    limited = [(share, ghz * slower) for share, ghz in others if ghz * slower < board.max_clock_ghz]
    return ((begins, board.max_clock_ghz), *limited)
