"""A table on disk: `table.json` and `objects/<sha256>.hsaco`, published so that a reader never sees half of one.

A table may come from a stranger. Reading opens nothing outside its directory and nothing but plain files, each of a
bounded size. `content_sha256` in table.json tells a damaged or edited file; only a signature (sign.py) tells whose it
is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import msgspec
from msgspec import Meta, structs

from hktune.core.config import compact_json
from hktune.core.errors import InputError, TableError
from hktune.core.escaped import shown
from hktune.core.json_file import check_keys, typed
from hktune.core.lock_file import lock_file
from hktune.core.operand import operands_of
from hktune.core.operation import BF16_NT, operation_of
from hktune.core.outside_file import FileKind, nature, own_folder
from hktune.core.problem import Problem
from hktune.core.publish import publish, scratch_folder
from hktune.core.remedy import of_a_newer, with_remedy
from hktune.dispatch.layout import (
    OBJECT_FILE,
    OBJECTS_NAME,
    SIGNATURE_FILE,
    SIGNATURE_NAME,
    TABLE_FILE,
    TABLE_NAME,
    object_name,
    suffix,
)
from hktune.dispatch.sign import PublicKey, check_signature
from hktune.dispatch.table import ENTRIES_MAX, VERSION, Entry, Header, Sha256, Table
from hktune.dispatch.version_2 import Version2Entry, as_version_2, current_entries

LOCK_TIMEOUT_S = 60  # it is held for milliseconds
_OBJECT_NAME = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Trust:
    """What a table must be, apart from whole. `public_key`: signed by its owner. `sha256`: the very one of this
    content_sha256. `created_after`: made then or later, so that an older table, however well signed, is refused. Raises
    TableError for what is no time."""

    public_key: PublicKey | None = None
    sha256: str | None = None
    created_after: datetime | str | None = None

    def __post_init__(self) -> None:
        if self.created_after is not None:
            _time(self.created_after, "created_after")


ANY = Trust()

_NO_ENTRIES = b"\n ]\n}\n"
_OPTIONAL = tuple(field.name for field in structs.fields(Entry) if field.default is None)


_Stored = TypeVar("_Stored", Entry, Version2Entry)
"""An entry in the words of its file's version."""


class _Version(msgspec.Struct):
    """What is looked at first: a table of another version is no malformed one."""

    version: int = VERSION


class _OperationOnly(msgspec.Struct):
    operation: str = str(BF16_NT)


class _Operations(msgspec.Struct):
    """What is looked at where a file cannot be read: a table with an operation of a later hktune is no malformed
    one."""

    entries: Annotated[tuple[_OperationOnly, ...], Meta(max_length=ENTRIES_MAX)] = ()


class _Sealed(Header, Generic[_Stored], frozen=True, kw_only=True):
    """table.json as it is on disk, its entries not yet checked against each other."""

    entries: Annotated[tuple[_Stored, ...], Meta(max_length=ENTRIES_MAX)]
    content_sha256: Sha256


def read_table(directory: Path, trust: Trust = ANY) -> Table:
    """Read and check `directory`/table.json, its signature first where `trust` has a key.

    Raises TableError when it is missing, truncated, malformed, not what its content_sha256 says, or not to be trusted.
    """
    path = directory / TABLE_NAME
    data = TABLE_FILE.read_inside(directory, TABLE_NAME)
    if trust.public_key is not None:
        check_signature(path, data, SIGNATURE_FILE.read_inside(directory, SIGNATURE_NAME), trust.public_key)
    try:
        version = msgspec.json.decode(data, type=_Version).version
    except (ValueError, RecursionError):
        version = VERSION  # whatever is wrong is said below
    if version not in (2, VERSION):
        rule = f"table version saved={version} current={VERSION}, and 2 is read too"
        raise TableError(f"{path}: {rule}: upgrade hktune") if version > VERSION else TABLE_FILE.broken(path, rule)
    try:
        table, saved = _unsealed(data, version)
        if not _is_as_written(data, table, saved):
            check_keys(data)
    except ValueError as wrong:
        if unknown := _unknown_operation(data):
            raise TableError(of_a_newer(f"{path}:", unknown, TABLE_FILE.remedy)) from None
        raise TABLE_FILE.broken(path, f"truncated, malformed or not JSON ({wrong})") from None
    current = content_sha256(table)
    if saved != current:
        raise TABLE_FILE.broken(path, f"damaged or edited: content_sha256 saved={saved} current={current}")
    _check_pins(path, table, current, trust)
    return table


def _unknown_operation(data: bytes) -> str | None:
    """What is not known of the first operation of a file's entries that this hktune cannot read; None where it reads
    all of them, or there are none to see."""
    try:
        for entry in typed(data, _Operations).entries:
            operands_of(operation_of(entry.operation))
    except InputError as unknown:
        return str(unknown)
    except ValueError:
        return None
    return None


def _unsealed(data: bytes, version: int) -> tuple[Table, str]:
    """The table of a file's bytes, and the content_sha256 that the file names. Raises ValueError."""
    if version == VERSION:
        sealed = typed(data, _Sealed[Entry])
        entries, saved = sealed.entries, sealed.content_sha256
        header: Header = sealed
    else:
        header = older = typed(data, _Sealed[Version2Entry])
        entries, saved = current_entries(older.entries), older.content_sha256
    return Table(**{name: getattr(header, name) for name in Header.__struct_fields__}, entries=entries), saved


def _stored(table: Table) -> Iterator[Entry | Version2Entry]:
    """The entries in the words of the table's version."""
    return iter(table.entries) if table.version == VERSION else map(as_version_2, table.entries)


def _check_pins(path: Path, table: Table, sha256: str, trust: Trust) -> None:
    if trust.sha256 is not None and trust.sha256 != sha256:
        rule = f"{path}: content_sha256 pinned={shown(trust.sha256, 70)} current={sha256}"
        raise TableError(f"{rule}: get that table, or pin this one")
    if trust.created_after is None:
        return
    oldest, made = _time(trust.created_after, "created_after"), _time(table.created_at, f"{path}: created_at")
    if made < oldest:
        raise TableError(f"{path}: made at {made.isoformat()}, before {oldest.isoformat()}: get the newer table")


def _time(moment: datetime | str, what: str) -> datetime:
    """A moment with its time zone; UTC where it names none."""
    at: object = moment
    if isinstance(moment, str):
        with suppress(ValueError):
            at = datetime.fromisoformat(moment)
    if not isinstance(at, datetime):
        raise TableError(f"{what}={shown(str(moment))} is no time: write it as 2026-11-29T12:00:00+00:00")
    return at if at.tzinfo else at.replace(tzinfo=timezone.utc)


def write_table(table: Table, objects: Mapping[str, bytes], directory: Path) -> None:
    """Publish a table and its code objects (sha256 -> bytes): objects first, then table.json, each by atomic rename.

    An object already there need not be given again. A signature of the old table goes before the new one appears.
    Objects that the new table does not name go last, so a reader of the old table may lose one but never reads a wrong
    one. A file lock orders those who write one directory.

    Raises TableError when an object is neither given nor there, or when its bytes and sha256 disagree. It does so too
    when objects/ is a link, the table is larger than a reader takes, or the directory cannot be written.
    """
    data = table_json(table)
    if len(data) > TABLE_FILE.bytes_max:
        rule = f"{directory}: {len(table.entries)} entries are {len(data)} bytes, a table has {TABLE_FILE.bytes_max}"
        raise TableError(f"{rule}: make two tables of them")
    try:
        own_folder(directory, OBJECTS_NAME, TableError)
        _check_files(directory, sorted(Path(object_name(table.arch, each)).name for each in table.object_sha256s))
        with lock_file(directory, f"{TABLE_NAME}.lock", LOCK_TIMEOUT_S, TableError):
            for sha256 in sorted(table.object_sha256s):
                _put_object(directory, object_name(table.arch, sha256), sha256, objects.get(sha256))
            if _there(directory, TABLE_NAME, TABLE_FILE) != data:
                (directory / SIGNATURE_NAME).unlink(missing_ok=True)
                publish(directory / TABLE_NAME, data)
            _remove_unnamed(directory, table)
    except OSError as error:
        raise TableError(with_remedy(f"{directory}: table cannot be written", error, "pass another DIR")) from None


def check_table_place(directory: Path) -> None:
    """Raise now, TableError or MachineError, what would keep `write_table` from writing into `directory`."""
    try:
        objects = own_folder(directory, OBJECTS_NAME, TableError)
        _check_files(directory, sorted(path.name for path in objects.iterdir() if _OBJECT_NAME.match(path.stem)))
        lock = lock_file(directory, f"{TABLE_NAME}.lock", LOCK_TIMEOUT_S, TableError)
        with lock, scratch_folder(directory), scratch_folder(objects):
            pass
    except OSError as error:
        raise TableError(
            with_remedy(f"{directory}: no table can be written there", error, "pass another DIR")
        ) from None


def _check_files(directory: Path, objects: Iterable[str]) -> None:
    """Raises TableError where a table, its signature or one of `objects` would have to replace what is no file."""
    for name in (TABLE_NAME, SIGNATURE_NAME, *(f"{OBJECTS_NAME}/{each}" for each in objects)):
        found = nature(directory / name)
        if found:
            raise TableError(f"{directory / name}: is {found}, where a table has a file: move it away")


def table_json(table: Table) -> bytes:
    """The bytes of table.json: one line per header field and per entry, so that a retuned shape is a one-line diff (and
    the line of content_sha256)."""
    return b"".join(_lines(table, content_sha256(table)))


def content_sha256(table: Table) -> str:
    """The sha256 of all that a table says, however its file spells it: of its sorted compact JSON. That is made entry
    by entry, since all of it at once takes as much memory as the table."""
    header = msgspec.to_builtins(structs.replace(table, entries=()))
    before, after = compact_json(header).split('"entries":[]')
    digest = hashlib.sha256(f'{before}"entries":['.encode())
    for number, entry in enumerate(_stored(table)):
        digest.update(b"," * (number > 0) + _sorted_compact(entry))
    digest.update(f"]{after}".encode())
    return digest.hexdigest()


_ENERGIES = ("energy_j", "baseline_energy_j")
_LATER = ("name", "vendor_best", "vendor_best_us", "origins", "vendor_algorithm", *_ENERGIES)
"""What entries have not always had: a table from before keeps its sha256, so where there is none it is not said."""


def _sorted_compact(entry: Entry | Version2Entry) -> bytes:
    """`compact_json` of an entry, without what of `_LATER` it has not. Of ASCII, and of times that Python writes
    without an exponent, msgspec's own is the same bytes, 20 times as fast."""
    lacking = [name for name in _LATER if getattr(entry, name, None) is None]
    times = (entry.time_us, entry.time_us_low, entry.time_us_high, entry.baseline_us)
    later = (getattr(entry, name, None) for name in ("vendor_best_us", *_ENERGIES))
    if all(number is None or number >= 1e-3 for number in (*times, *later)):
        text = msgspec.json.encode(entry, order="sorted")
        if text.isascii():
            for name in lacking:
                text = text.replace(b',"%s":null' % name.encode(), b"")
            return text
    fields = {name: value for name, value in msgspec.to_builtins(entry).items() if name not in lacking}
    return compact_json(fields).encode()


def _lines(table: Table, sha256: str) -> Iterator[bytes]:
    """table.json, line by line."""
    header = msgspec.to_builtins(structs.replace(table, entries=()))
    del header["entries"]
    header["content_sha256"] = sha256
    yield b"{\n"
    yield from (f" {_json(name)}: {_json(value)},\n".encode() for name, value in header.items())
    yield b' "entries": [\n'
    for number, entry in enumerate(_stored(table), start=1):
        end = ",\n" if number < len(table.entries) else "\n"
        yield f"  {_json(_present(msgspec.to_builtins(entry)))}{end}".encode()
    yield _NO_ENTRIES.removeprefix(b"\n" * bool(table.entries))


def _is_as_written(data: bytes, table: Table, sha256: str) -> bool:
    """Whether `data` is what `write_table` makes of `table`, which holds no key twice: seen much faster than looked
    for. Of text that is not ASCII it may say that it is not."""
    header = b"".join(_lines(structs.replace(table, entries=()), sha256)).removesuffix(_NO_ENTRIES)
    if not data.startswith(header):
        return False
    at = len(header)
    for entry in _stored(table):
        end = data.find(b"\n", at)
        if msgspec.json.format(data[at:end].removesuffix(b","), indent=-1) != _compact(entry):
            return False
        at = end + 1
    return data[at:] == _NO_ENTRIES.removeprefix(b"\n" * bool(table.entries))


def _compact(entry: Entry | Version2Entry) -> bytes:
    """An entry as its line has it, without spaces."""
    text = msgspec.json.encode(entry)
    for name in _OPTIONAL:
        if getattr(entry, name, None) is None:
            text = text.replace(b',"%s":null' % name.encode(), b"", 1)
    return text


def saved_names(directory: Path) -> dict[Problem, str]:
    """What the entries of the table in `directory` are called; of no table, or one that is no good, nothing."""
    try:
        return {entry.problem: entry.name for entry in read_table(directory).entries if entry.name}
    except TableError:
        return {}


def _put_object(directory: Path, name: str, sha256: str, given: bytes | None) -> None:
    there = _there(directory, name, OBJECT_FILE)
    data = there if given is None else given
    if data is None:
        raise TableError(f"the table names code object {sha256}, which was not given: build it first")
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise TableError(f"code object sha256: saved={sha256} current={found}: build it again")
    if there != data:
        publish(directory / name, data)


def _there(directory: Path, name: str, kind: FileKind) -> bytes | None:
    """The bytes of a file that is to be replaced; None where it is no plain one."""
    try:
        return kind.read_if_there(directory, name)
    except TableError:
        return None


def _remove_unnamed(directory: Path, table: Table) -> None:
    """Remove objects of other tables; what is not named like one is somebody else's."""
    named = {Path(object_name(table.arch, sha256)).name for sha256 in table.object_sha256s}
    for path in (directory / OBJECTS_NAME).iterdir():
        like_one = path.suffix == suffix(table.arch) and _OBJECT_NAME.match(path.stem)
        if like_one and path.name not in named and (path.is_file() or path.is_symlink()):
            path.unlink(missing_ok=True)


def _present(entry: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in entry.items() if value is not None}


_json = json.JSONEncoder(separators=(", ", ": ")).encode
