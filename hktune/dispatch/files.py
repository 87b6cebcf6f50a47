"""A table on disk: `table.json` beside `objects/<sha256>.hsaco`, published so that a reader never sees half of one.

A table may come from a stranger. Reading opens nothing outside its directory and nothing but plain files, each of a
bounded size. `content_sha256` in table.json tells a damaged or edited file; only a signature (sign.py) tells whose it
is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock

from hktune.dispatch.sign import SIGNATURE_BYTES, SIGNATURE_NAME, PublicKey, check_signature
from hktune.dispatch.table import Table
from hktune.errors import TableError
from hktune.model import compact_json
from hktune.publish import publish

FILE_NAME = "table.json"
VERSION = 2
FILE_BYTES_MAX = 64 << 20
OBJECT_BYTES_MAX = 16 << 20
LOCK_TIMEOUT_S = 60  # it is held for milliseconds
_REBUILD = "build it again with `hktune table build`"
_SEAL = "content_sha256"


def object_name(table: Table, sha256: str) -> str:
    """Where the code object of `sha256`, as a `Table` carries it (64 hex digits), lies in its directory."""
    return f"objects/{sha256}{_suffix(table.arch)}"


def read_table(directory: Path, public_key: PublicKey | None = None) -> Table:
    """Read and check `directory`/table.json; with `public_key`, its signature first (see `sign.py`).

    Raises TableError when it is missing, truncated, malformed, not what its content_sha256 says, or not signed so.
    """
    path = directory / FILE_NAME
    data = read_within(directory, FILE_NAME, FILE_BYTES_MAX)
    if public_key is not None:
        check_signature(path, data, read_within(directory, SIGNATURE_NAME, SIGNATURE_BYTES), public_key)
    try:
        document = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise TableError(f"{path}: truncated or not JSON ({_line(error)}): {_REBUILD}") from None
    saved_sha256 = document.pop(_SEAL, None) if isinstance(document, dict) else None
    if isinstance(document, dict) and document.get("version", VERSION) != VERSION:
        found = repr(document["version"])[:40]
        raise TableError(f"{path}: table version saved={found} current={VERSION}: {_REBUILD}")
    try:
        table = msgspec.convert(document, Table)
    except (msgspec.ValidationError, RecursionError) as error:
        raise TableError(f"{path}: malformed table: {_line(error)}: {_REBUILD}") from None
    if saved_sha256 != content_sha256(table):
        found = repr(saved_sha256)[:80]
        raise TableError(
            f"{path}: damaged or edited: {_SEAL} saved={found} current={content_sha256(table)}: {_REBUILD}"
        )
    return table


def read_within(directory: Path, name: str, bytes_max: int) -> bytes:
    """The bytes of the plain file `name` (parts joined by /) in `directory`.

    Raises TableError when it cannot be read, is a symbolic link or reached through one, is no plain file, or is larger
    than `bytes_max`. `directory` itself may be a link: the caller chose it.
    """
    path = directory / name
    try:
        with _opened(directory, name) as handle:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise TableError(f"{path}: is no plain file: {_REBUILD}")
            with os.fdopen(os.dup(handle), "rb") as file:
                data = file.read(bytes_max + 1)
    except OSError as error:
        rule = "is, or is reached through, a symbolic link" if _is_link(directory, name) else "cannot be read"
        raise TableError(f"{path}: {rule} ({error.strerror}): pass a directory that `hktune tune` made") from None
    if len(data) > bytes_max:
        raise TableError(f"{path}: has over {bytes_max} bytes, which no table has: {_REBUILD}")
    return data


def write_table(table: Table, objects: Mapping[str, bytes], directory: Path) -> None:
    """Publish a table and its code objects (sha256 -> bytes): objects first, then table.json, each by atomic rename.

    An object already there need not be given again. A signature of the old table goes before the new one appears, and
    objects that the new table does not name go last, so a reader of the old table may lose one but never reads a wrong
    one. A file lock orders those who write one directory. Raises TableError when an object is neither given nor there,
    when bytes and sha256 disagree, and when the directory cannot be written.
    """
    try:
        (directory / "objects").mkdir(parents=True, exist_ok=True)
        with FileLock(directory / f"{FILE_NAME}.lock", timeout=LOCK_TIMEOUT_S):
            for sha256 in sorted(table.object_sha256s):
                _put_object(directory / object_name(table, sha256), sha256, objects.get(sha256))
            data = table_json(table)
            path = directory / FILE_NAME
            if not path.is_file() or path.read_bytes() != data:
                (directory / SIGNATURE_NAME).unlink(missing_ok=True)
                publish(path, data)
            _remove_unnamed(directory, table)
    except OSError as error:
        raise TableError(
            f"{directory}: table cannot be written ({error.strerror or error}): pass another DIR"
        ) from None


def table_json(table: Table) -> bytes:
    """The bytes of table.json: one line per header field and per entry, so that a retuned shape is a one-line diff (and
    the line of content_sha256)."""
    fields = msgspec.to_builtins(table)
    entries = ",\n".join("  " + _json(_present(entry)) for entry in fields.pop("entries"))
    fields[_SEAL] = content_sha256(table)
    header = "".join(f" {_json(name)}: {_json(value)},\n" for name, value in fields.items())
    return f'{{\n{header} "entries": [\n{entries}\n ]\n}}\n'.encode()


def content_sha256(table: Table) -> str:
    """The sha256 of all that a table says, however its file spells it."""
    return hashlib.sha256(compact_json(msgspec.to_builtins(table)).encode()).hexdigest()


@contextlib.contextmanager
def _opened(directory: Path, name: str) -> Iterator[int]:
    """A handle of the file, opened part by part without following a link, and without waiting for a pipe's writer."""
    handles = [os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        *folders, last = name.split("/")
        for folder in folders:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            handles.append(os.open(folder, flags, dir_fd=handles[-1]))
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handles.append(os.open(last, flags, dir_fd=handles[-1]))
        yield handles[-1]
    finally:
        for handle in handles:
            os.close(handle)


def _is_link(directory: Path, name: str) -> bool:
    parts = name.split("/")
    return any(directory.joinpath(*parts[: end + 1]).is_symlink() for end in range(len(parts)))


def _put_object(path: Path, sha256: str, data: bytes | None) -> None:
    if data is None and path.is_file():
        data = path.read_bytes()
    if data is None:
        raise TableError(f"the table names code object {sha256}, which was not given: build it first")
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise TableError(f"code object sha256: saved={sha256} current={found}: build it again")
    if not path.is_file() or path.read_bytes() != data:
        publish(path, data)


def _remove_unnamed(directory: Path, table: Table) -> None:
    named = {Path(object_name(table, sha256)).name for sha256 in table.object_sha256s}
    for path in (directory / "objects").iterdir():
        if path.suffix == _suffix(table.arch) and path.name not in named:
            path.unlink(missing_ok=True)


def _suffix(arch: str) -> str:
    return ".hsaco" if arch.startswith("gfx") else ".cubin"


def _present(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if value is not None}


def _json(value: Any) -> str:
    return json.dumps(value, separators=(", ", ": "))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return fields


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number of JSON")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
