"""Exactly which device something was made on."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from hktune.core.board import BOARDS, DEFAULT_BOARD, Board, device_name, identified
from hktune.core.bounded_text import ComputeUnits, FolderName, Text, Word


@dataclass(frozen=True)
class Identity:
    """Exactly which device: `kind` is emulated, hip or cuda; `pci_id` is absent where nothing is plugged in. `board` is
    the name of its record in `core.board`, absent where it has none, and in what was written before there were any."""

    kind: FolderName
    arch: FolderName
    name: Text
    compute_units: ComputeUnits
    pci_id: Word | None = None
    partition: Word | None = None
    board: Word | None = None

    def __str__(self) -> str:
        known = ((field.name, getattr(self, field.name)) for field in fields(self))
        return " ".join(f"{name}={value}" for name, value in known if value is not None)

    @property
    def slug(self) -> str:
        """The folder name of its results. The emulated device's has the board where that is not the usual one."""
        emulated = self.kind if self.board in (None, DEFAULT_BOARD.name) else f"{self.kind}-{self.board}"
        tail = emulated if self.kind == "emulated" else self.name.lower().replace(" ", "-")
        return f"{self.arch}-{tail}"

    @property
    def known_board(self) -> Board | None:
        """The record of the board that it names, else of the one that its PCI id or its name is of; None for none."""
        if self.board is not None:
            return BOARDS.get(self.board)
        if self.kind == "emulated":
            return DEFAULT_BOARD if self.arch == DEFAULT_BOARD.arch.name else None
        return identified(self.arch, self.pci_id, self.name)

    @property
    def comparable(self) -> Identity:
        """What makes it another device than others. An emulated one that was written before there were boards is that
        of today; a GPU's board follows from the rest."""
        if self.kind != "emulated":
            return replace(self, board=None)
        board = self.known_board
        return replace(self, name=device_name(self.name) or self.name, board=board.name if board else self.board)
