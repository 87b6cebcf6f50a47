"""Which AMD GPU it is, to the SKU and the partition mode: from the HIP runtime and the kernel driver's sysfs files."""

from __future__ import annotations

from pathlib import Path

from hktune.core.board import identified
from hktune.core.identity import Identity
from hktune.device.hip_library import HipLibrary

PCI_DEVICES = Path("/sys/bus/pci/devices")
_COMPUTE_UNITS = 63  # hipDeviceAttributeMultiprocessorCount: of this partition, not of the whole package
_MAX_CLOCK_KHZ = 5  # hipDeviceAttributeClockRate


def identify(hip: HipLibrary, ordinal: int) -> Identity:
    """Device number `ordinal`. `pci_id` is vendor:device:subsystem, which tells MI350X from MI355X.

    A field of sysfs that is not there (in some containers) is None.
    """
    target = hip.target(ordinal)
    arch = target.partition(":")[0]
    folder = PCI_DEVICES / pci_address(hip, ordinal)
    # The runtime looks names up in libdrm's amdgpu.ids and has none where that file is missing or older.
    name = hip.text("hipDeviceGetName", ordinal) or f"AMD {arch}"
    pci_id = _joined(":", [_hex(folder / name) for name in ("vendor", "device", "subsystem_device")])
    max_clock_ghz = hip.number("hipDeviceGetAttribute", _MAX_CLOCK_KHZ, ordinal) * 1e-6
    board = identified(arch, pci_id, name, max_clock_ghz)
    return Identity(
        kind="hip",
        arch=arch,
        name=name,
        compute_units=hip.number("hipDeviceGetAttribute", _COMPUTE_UNITS, ordinal),
        pci_id=pci_id,
        partition=_partition(folder),
        board=board.name if board else None,
    )


def pci_address(hip: HipLibrary, ordinal: int) -> str:
    """domain:bus:device.function, as sysfs spells it."""
    return hip.text("hipDeviceGetPCIBusId", ordinal).lower()


def _partition(folder: Path) -> str | None:
    """Compute and memory partition, SPX/NPS1; None on a GPU that cannot be partitioned."""
    compute, memory = (_text(folder / f"current_{part}_partition") for part in ("compute", "memory"))
    return _joined("/", [compute, memory]) or compute


def _joined(separator: str, parts: list[str | None]) -> str | None:
    known = [part for part in parts if part]
    return separator.join(known) if len(known) == len(parts) else None


def _hex(path: Path) -> str | None:
    text = _text(path)
    return text.removeprefix("0x") if text else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
