"""The boards that hktune knows: accelerators of one architecture that differ in clock and power."""

from __future__ import annotations

from dataclasses import dataclass

from hktune.core.arch import GFX950, Arch
from hktune.core.errors import InputError


@dataclass(frozen=True)
class Board:
    """One product with an architecture's chip. `name` is what `--board` takes. `product` is in the name that drivers
    give it, and `pci_ids` are PCI device ids of vendor 1002, of the board itself and of its virtual functions. The chip
    runs at `max_clock_ghz` at most, and at less where the board would draw more than `power_w`."""

    name: str
    product: str
    arch: Arch
    max_clock_ghz: float
    power_w: int
    pci_ids: tuple[str, ...]


# Highest clock and total board power: AMD's data sheets of 2025, and its Hot Chips talk of August 2025. hipBLASLt's
# benchmark prints 2200 MHz as the highest clock of an MI350X and 2400 MHz as that of an MI355X.
# PCI ids: GFX_CHIP_IDS of TensileLite (ROCm 7) lists 75a0, 75b0, 75a3 and 75b3 for gfx950. AMD's Cluster Bloom and its
# AIM engine, after the GPU operator's node rules, name their products. libdrm's amdgpu.ids has none of them yet.
MI350X = Board("mi350x", "MI350X", GFX950, max_clock_ghz=2.2, power_w=1000, pci_ids=("75a0", "75b0"))
MI355X = Board("mi355x", "MI355X", GFX950, max_clock_ghz=2.4, power_w=1400, pci_ids=("75a3", "75b3"))

BOARDS = {board.name: board for board in (MI350X, MI355X)}

DEFAULT_BOARD = MI355X
"""What the emulated gfx950 is without `--board`. The clock was fitted to AITER's tables, which do not name their board:
but their 1597 TFLOP/s at 8192 cubed are the 1591 that HipKittens measured of AITER on an MI355X, and no published
figure of an MI350X comes near."""

_BEFORE_BOARDS = "emulated gfx950"
"""What the emulated device was called when there was one record of clocks, an MI355X's."""


def board_named(name: str | None) -> Board:
    """The record of `name`, of None the usual one. Raises InputError for a board that hktune does not know."""
    if name is None:
        return DEFAULT_BOARD
    if name not in BOARDS:
        raise InputError(f"unknown board {name!r}: known are {', '.join(BOARDS)}")
    return BOARDS[name]


def identified(arch: str, pci_id: str | None, name: str, max_clock_ghz: float | None = None) -> Board | None:
    """The board of a plugged-in device: by its PCI id where that is known, else by its name, else by its highest
    clock. `pci_id` is vendor:device:subsystem, or the device's alone."""
    of_arch = [board for board in BOARDS.values() if board.arch.name == arch]
    if pci_id:
        parts = pci_id.lower().removeprefix("0x").split(":")
        device = parts[1] if len(parts) > 1 else parts[0]
        return next((board for board in of_arch if device in board.pci_ids), None)
    by_name = next((board for board in of_arch if board.product in name.upper().split()), None)
    if by_name or max_clock_ghz is None:
        return by_name
    return next((board for board in of_arch if abs(board.max_clock_ghz - max_clock_ghz) < 0.01), None)


def emulated_name(board: Board) -> str:
    """What the emulated device is called that models `board`."""
    return f"emulated {board.product}"


def device_name(name: str | None) -> str | None:
    """The present name of a device that a row or an environment names."""
    return emulated_name(DEFAULT_BOARD) if name == _BEFORE_BOARDS else name
