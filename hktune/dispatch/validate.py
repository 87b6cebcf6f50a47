"""Which entries of a table can be used on this device: objects read and checked, then each row judged by itself."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hktune.core.errors import TableError
from hktune.core.identity import Identity
from hktune.core.problem import Key
from hktune.dispatch.judge import Found, Mismatch, ObjectFound, Reason, judge
from hktune.dispatch.layout import OBJECT_FILE, object_name
from hktune.dispatch.table import Entry, Table
from hktune.objects.code_object import read_code_object
from hktune.objects.cubin import read_cubin

OBJECTS_BYTES_MAX = 64 << 20  # of one table, all together, over a thousand kernels: they stay in memory


@dataclass(frozen=True)
class Skipped:
    """An entry that is not used, and why: `detail` is one line."""

    entry: Entry
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Validated:
    """What is left of a table on one device: entries to use, the verified bytes of their objects, and the rest.

    `reported` are entries that are used although something about them is not as saved.
    """

    usable: tuple[Entry, ...]
    objects: Mapping[str, bytes]
    skipped: tuple[Skipped, ...]
    reported: tuple[Skipped, ...] = field(default=())

    @property
    def skipped_by_reason(self) -> dict[str, int]:
        return dict(Counter(str(skipped.reason) for skipped in self.skipped))

    @property
    def of_sibling(self) -> frozenset[Key]:
        """The problems whose entries are used and were made on a sibling of the device."""
        return frozenset(each.entry.problem.key for each in self.reported if each.reason is Reason.SIBLING_DEVICE)

    @property
    def reported_by_reason(self) -> dict[str, int]:
        return dict(Counter(str(reported.reason) for reported in self.reported))


def validate(
    table: Table,
    directory: Path,
    identity: Identity,
    allow_modelled: bool,
    templates: Mapping[str, str] | None = None,
    allow_sibling_board: bool = False,
    libraries: Mapping[str, str] | None = None,
) -> Validated:
    """Judge every entry of `table`, read from `directory`, for the device `identity` (`judge.judge` has the rules).

    `templates` maps the names of templates known here to their sha256, `libraries` those of the vendor's libraries to
    their versions; what is not given is not judged. Objects are
    read once, here, and hashed before anything else looks at them. Raises TableError when the whole table is of another
    architecture.
    """
    if table.arch != identity.arch:
        rule = f"{directory}: the table is of another architecture: saved={table.arch} current={identity.arch}"
        raise TableError(f"{rule}: pass a table tuned for {identity.arch}")
    found = Found(identity, allow_modelled, templates or {}, allow_sibling_board, libraries)
    shelf = _Shelf(table, directory)
    usable: list[Entry] = []
    skipped: list[Skipped] = []
    reported: list[Skipped] = []
    for entry in table.entries:
        code = shelf.code(entry.kernel.object_sha256) if entry.kernel else None
        mismatches = judge(entry, table.identity, found, code)
        named = [Skipped(entry, mismatch.reason, mismatch.detail) for mismatch in mismatches[:1]]
        if mismatches and mismatches[0].level == "hard":
            skipped += named
        else:
            usable.append(entry)
            reported += named
    used = {entry.kernel.object_sha256 for entry in usable if entry.kernel}
    objects = {sha256: shelf.data[sha256] for sha256 in sorted(used)}
    return Validated(tuple(usable), objects, tuple(skipped), tuple(reported))


class _Shelf:
    """The code objects of a table, each read and hashed once, and of its kernels those parsed that rows name."""

    def __init__(self, table: Table, directory: Path) -> None:
        self.data: dict[str, bytes] = {}
        self._table = table
        self._directory = directory
        self._bytes_left = OBJECTS_BYTES_MAX
        self._found: dict[str, ObjectFound] = {}
        self._symbols: dict[str, set[str]] = {}
        for entry in table.entries:
            if entry.kernel:
                self._symbols.setdefault(entry.kernel.object_sha256, set()).add(entry.kernel.symbol)

    def code(self, sha256: str) -> ObjectFound:
        if sha256 not in self._found:
            self._found[sha256] = self._read(sha256)
        return self._found[sha256]

    def _read(self, sha256: str) -> ObjectFound:
        name = object_name(self._table.arch, sha256)
        path = self._directory / name
        kind = replace(OBJECT_FILE, bytes_max=min(OBJECT_FILE.bytes_max, self._bytes_left))
        try:
            data = kind.read_if_there(self._directory, name)
            if data is None:
                return Mismatch("hard", Reason.OBJECT_MISSING, f"{path} is not there")
            found = hashlib.sha256(data).hexdigest()
            if found != sha256:
                return Mismatch("hard", Reason.OBJECT_CHANGED, f"{path}: sha256 saved={sha256} current={found}")
            read = read_code_object if self._table.arch.startswith("gfx") else read_cubin
            code = read(data, self._symbols[sha256])
        except TableError as error:
            return Mismatch("hard", Reason.OBJECT_UNREADABLE, str(error))
        self._bytes_left -= len(data)
        self.data[sha256] = data
        return code
