"""Production's side: load a results directory, then call its kernels on torch tensors.

    table = hktune.load("results/gfx950-emulated", allow_modelled=True)
    y = hktune.linear(x, weight)        # x [..., K], weight [N, K] as nn.Linear holds it

Nothing that tunes is imported here.
"""

from __future__ import annotations

import warnings
from os import PathLike
from pathlib import Path

from torch import Tensor

from hktune.device.device import Device
from hktune.dispatch import Table, Validated, read_table, validate
from hktune.errors import DeviceError, TableError
from hktune.model import Source
from hktune.runtime.loaded import Fallback, LoadedTable, Stats

__all__ = ["Fallback", "LoadedTable", "Stats", "linear", "load", "matmul", "stats"]

_current: LoadedTable | None = None


def load(directory: str | PathLike[str], allow_modelled: bool = False, device: Device | None = None) -> LoadedTable:
    """Read the table of `directory`, check it against its device, and make it the current one.

    Entries whose time is modelled are used only when `allow_modelled` says so. `device` overrides the device that the
    table names. An entry that cannot be used is left out, with one warning that counts them. Raises TableError when
    the table is not readable, is of another architecture, or has no usable entry at all; DeviceError when this version
    has no such device.
    """
    global _current
    path = Path(directory)
    table = read_table(path)
    _check_any(table, path, allow_modelled)
    device = device or _open_device(table)
    validated = validate(table, path, device.identity, allow_modelled)
    _report_skipped(validated, path)
    _current = LoadedTable(validated, device)
    return _current


def matmul(a: Tensor, bt: Tensor) -> Tensor:
    """a [..., K] @ bt [N, K]^T -> [..., N] by the current table. Raises TableError when none is loaded."""
    return _table().linear(a, bt)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As torch.nn.functional.linear, by the current table. Raises TableError when none is loaded."""
    return _table().linear(x, weight, bias)


def stats() -> Stats:
    """What the current table has served. Raises TableError when none is loaded."""
    return _table().stats()


def _table() -> LoadedTable:
    if _current is None:
        raise TableError("no dispatch table is loaded: call hktune.load(DIR) first")
    return _current


def _check_any(table: Table, path: Path, allow_modelled: bool) -> None:
    if not table.entries:
        raise TableError(f"{path}: the table has no entries: tune some shapes into it")
    if not allow_modelled and all(entry.source is Source.MODELLED for entry in table.entries):
        rule = f"{path}: all {len(table.entries)} entries have modelled times, which are no proof of speed"
        raise TableError(f"{rule}: pass allow_modelled=True to use them all the same")


def _open_device(table: Table) -> Device:
    kind = table.device.kind
    if kind == "emulated":
        from hktune.device.emulated import EmulatedDevice

        return EmulatedDevice()
    rule = f"the table is for {kind} device {table.device.name}, which this version cannot drive"
    raise DeviceError(f"{rule}: pass device=, or a table of an emulated device")


def _report_skipped(validated: Validated, path: Path) -> None:
    skipped = validated.skipped
    if not skipped:
        return
    counts = ", ".join(f"{reason}: {count}" for reason, count in validated.skipped_by_reason.items())
    total = len(skipped) + len(validated.usable)
    first = f"first: {skipped[0].entry.problem}, {skipped[0].detail}"
    if not validated.usable:
        raise TableError(f"{path}: none of {total} entries can be used ({counts}; {first}): build the table again here")
    warnings.warn(f"{path}: {len(skipped)} of {total} entries are not used ({counts}; {first})", stacklevel=3)
