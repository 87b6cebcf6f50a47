"""torch's own products by a table, with no module patched.

While enabled, the kernels that torch's dispatcher calls for its matrix products on the table's device are those of a
`Door`. When nothing is enabled the kernels are taken back, and nothing is left.
"""

from __future__ import annotations

import threading
from types import TracebackType

import torch

from hktune.core.errors import InputError, TableError
from hktune.runtime import operators
from hktune.runtime.door import Door
from hktune.runtime.loaded import LoadedTable


class Enabled:
    """What `enable` returns: leaving it as a context ends what it began."""

    def __init__(self, table: LoadedTable) -> None:
        self.table = table

    def __enter__(self) -> Enabled:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _lock:
            if self in _enabled:
                _enabled.remove(self)
                _follow()


_lock = threading.Lock()
_enabled: list[Enabled] = []
_doors: dict[str, Door] = {}


def enable(table: LoadedTable | None = None) -> Enabled:
    """Serve torch's own products on the device of `table`, or of the table that is current now, in every thread. Ends
    with `disable()`, or when what this returns is left as a context; another one within takes its place until then.

    Raises TableError when there is no table, and TypeError for what is none. Raises InputError where torch is older
    than 2.9, which cannot say what kernel it has.
    """
    if table is None:
        current = operators.table_numbered(operators.CURRENT)
        if not isinstance(current, LoadedTable):
            raise TableError(f"the current table is a {type(current).__name__}: pass one that hktune.load returned")
        table = current
    if not isinstance(table, LoadedTable):
        raise TypeError(f"enable(): argument 'table' (position 1) must be LoadedTable, not {type(table).__name__}")
    if not hasattr(torch.library, "get_kernel"):
        raise InputError(f"torch {torch.__version__} cannot give its kernels back: hktune.enable() needs torch 2.9")
    entered = Enabled(table)
    with _lock:
        _enabled.append(entered)
        _follow()
    return entered


def disable() -> None:
    """End all that `enable` began; nothing happens where there is nothing."""
    with _lock:
        _enabled.clear()
        _follow()


def table_on(device: torch.device) -> LoadedTable | None:
    """What serves torch's own products on `device` now."""
    door = _doors.get("CPU" if device.type == "cpu" else "CUDA")
    return None if door is None else door.table


def enabled_entries() -> tuple[int, ...]:
    """Those of the tables that are enabled, in numbers as `entries_number` has them: the same in any process."""
    return tuple(door.table.entries_number for _, door in sorted(_doors.items()))


def _follow() -> None:
    """Have the last table of each device serve there, and leave a device that has none."""
    wanted = {each.table.dispatch_key: each.table for each in _enabled}
    for key, door in list(_doors.items()):
        if door.table is not wanted.get(key):
            _doors.pop(key).close()
    for key, table in wanted.items():
        if key not in _doors:
            _doors[key] = Door(key, table)
