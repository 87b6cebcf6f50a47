"""The Buffer of the real devices."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class DeviceBuffer:
    """Device memory; given back with its last reference if it was allocated here. `owner` keeps borrowed memory."""

    address: int
    size_bytes: int
    owner: object = None
