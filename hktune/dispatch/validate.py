"""Which entries of a table can be trusted on this device: judged row by row, every refusal with its reason."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from hktune import model
from hktune.code_object import AmdCodeObject, read_code_object
from hktune.dispatch.files import OBJECT_BYTES_MAX, object_path, read_bounded
from hktune.dispatch.table import Entry, Kernel, Table
from hktune.errors import TableError
from hktune.model import Source


class Reason(str, Enum):
    """Why an entry is not used."""

    MODELLED = "modelled"
    OTHER_DEVICE = "other device"
    OBJECT_MISSING = "object missing"
    OBJECT_CHANGED = "object changed"
    OBJECT_UNREADABLE = "object unreadable"
    SYMBOL_MISSING = "symbol missing"
    ARGUMENTS = "arguments"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Skipped:
    """An entry that is not used, and why: `detail` is one line."""

    entry: Entry
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Validated:
    """What is left of a table on one device: entries to use, the verified bytes of their objects, and the rest."""

    usable: tuple[Entry, ...]
    objects: Mapping[str, bytes]
    skipped: tuple[Skipped, ...]

    @property
    def skipped_by_reason(self) -> dict[str, int]:
        return dict(Counter(str(skipped.reason) for skipped in self.skipped))


def validate(table: Table, directory: Path, identity: model.Identity, allow_modelled: bool) -> Validated:
    """Judge every entry of `table`, read from `directory`, for the device `identity`.

    Raises TableError when the whole table is of another architecture. An entry is skipped when its time is modelled and
    that is not allowed, when it was measured on another SKU, and when its code object is missing, is not the bytes that
    the table names, lacks the symbol or takes other arguments. Objects are read once, here.
    """
    if table.arch != identity.arch:
        rule = f"{directory}: the table is of another architecture: saved={table.arch} current={identity.arch}"
        raise TableError(f"{rule}: pass a table tuned for {identity.arch}")
    shelf = _Shelf(table, directory)
    usable: list[Entry] = []
    skipped: list[Skipped] = []
    for entry in table.entries:
        refusal = _refusal(entry, table, identity, allow_modelled) or shelf.refusal(entry.kernel)
        if refusal:
            skipped.append(Skipped(entry, *refusal))
        else:
            usable.append(entry)
    named = {entry.kernel.object_sha256 for entry in usable if entry.kernel}
    return Validated(tuple(usable), {sha256: shelf.data[sha256] for sha256 in named}, tuple(skipped))


_Refusal = tuple[Reason, str]


def _refusal(entry: Entry, table: Table, identity: model.Identity, allow_modelled: bool) -> _Refusal | None:
    if entry.source is Source.MODELLED:
        return None if allow_modelled else (Reason.MODELLED, "its time is modelled, and allow_modelled is False")
    saved, current = _sku(table.identity), _sku(identity)
    if saved != current:
        return Reason.OTHER_DEVICE, f"measured on another device: saved={saved} current={current}"
    return None


def _sku(identity: model.Identity) -> str:
    """What decides whether a measured time holds: not the marketing name, which drivers spell differently."""
    parts = {"compute_units": identity.compute_units, "pci_id": identity.pci_id, "partition": identity.partition}
    return " ".join(f"{name}:{value}" for name, value in parts.items() if value is not None)


class _Shelf:
    """The code objects of a table, each read, hashed and parsed at most once."""

    def __init__(self, table: Table, directory: Path) -> None:
        self.data: dict[str, bytes] = {}
        self._table = table
        self._directory = directory
        self._judged: dict[str, AmdCodeObject | _Refusal] = {}

    def refusal(self, kernel: Kernel | None) -> _Refusal | None:
        if kernel is None:
            return None
        sha256 = kernel.object_sha256
        if sha256 not in self._judged:
            self._judged[sha256] = self._judge(sha256)
        judged = self._judged[sha256]
        return _unfit(judged, kernel) if isinstance(judged, AmdCodeObject) else judged

    def _judge(self, sha256: str) -> AmdCodeObject | _Refusal:
        path = object_path(self._directory, self._table, sha256)
        if not path.is_file():
            return Reason.OBJECT_MISSING, f"{path} is not there"
        try:
            data = read_bounded(path, OBJECT_BYTES_MAX)
            found = hashlib.sha256(data).hexdigest()
            if found != sha256:
                return Reason.OBJECT_CHANGED, f"{path}: sha256 saved={sha256} current={found}"
            code_object = read_code_object(data)
        except TableError as error:
            return Reason.OBJECT_UNREADABLE, str(error)
        if code_object.arch != self._table.arch:
            return Reason.OBJECT_UNREADABLE, f"{path}: arch saved={self._table.arch} current={code_object.arch}"
        self.data[sha256] = data
        return code_object


def _unfit(code_object: AmdCodeObject, kernel: Kernel) -> _Refusal | None:
    image = code_object.kernels.get(kernel.symbol)
    if image is None:
        return Reason.SYMBOL_MISSING, f"{kernel.object_sha256} has no kernel {kernel.symbol}"
    mismatch = image.mismatch(kernel.launch.as_model().arguments)
    if mismatch:
        return Reason.ARGUMENTS, mismatch
    work_items, work_items_max = math.prod(kernel.launch.block), image.resources.max_workgroup_size
    if work_items > work_items_max:
        return Reason.ARGUMENTS, f"launches {work_items} work-items a workgroup, {kernel.symbol} takes {work_items_max}"
    return None
