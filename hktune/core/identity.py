"""Exactly which device something was made on."""

from __future__ import annotations

from dataclasses import dataclass, fields

from hktune.core.bounded_text import ComputeUnits, FolderName, Text, Word


@dataclass(frozen=True)
class Identity:
    """Exactly which device: `kind` is emulated, hip or cuda; `pci_id` is absent where nothing is plugged in."""

    kind: FolderName
    arch: FolderName
    name: Text
    compute_units: ComputeUnits
    pci_id: Word | None = None
    partition: Word | None = None

    def __str__(self) -> str:
        known = ((field.name, getattr(self, field.name)) for field in fields(self))
        return " ".join(f"{name}={value}" for name, value in known if value is not None)

    @property
    def slug(self) -> str:
        """The folder name of its results."""
        tail = self.kind if self.kind == "emulated" else self.name.lower().replace(" ", "-")
        return f"{self.arch}-{tail}"
