"""A table on disk: `table.json` beside `objects/<sha256>.hsaco`, published so that a reader never sees half of one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock

from hktune.dispatch.table import Table
from hktune.errors import TableError
from hktune.publish import publish

FILE_NAME = "table.json"
VERSION = 1
FILE_BYTES_MAX = 64 << 20
OBJECT_BYTES_MAX = 64 << 20
LOCK_TIMEOUT_S = 60  # it is held for milliseconds
_REBUILD = "build it again with `hktune table build`"


def object_path(directory: Path, table: Table, sha256: str) -> Path:
    """Where the code object of `sha256`, as a `Table` carries it (64 hex digits), lies."""
    return directory / "objects" / f"{sha256}{_suffix(table.arch)}"


def read_table(directory: Path) -> Table:
    """Read and check `directory`/table.json. Raises TableError when it is missing, truncated or malformed."""
    path = directory / FILE_NAME
    data = read_bounded(path, FILE_BYTES_MAX)
    try:
        document = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise TableError(f"{path}: truncated or not JSON ({_line(error)}): {_REBUILD}") from None
    if isinstance(document, dict) and document.get("version", VERSION) != VERSION:
        found = repr(document["version"])[:40]
        raise TableError(f"{path}: table version saved={found} current={VERSION}: {_REBUILD}")
    try:
        return msgspec.convert(document, Table)
    except (msgspec.ValidationError, RecursionError) as error:
        raise TableError(f"{path}: malformed table: {_line(error)}: {_REBUILD}") from None


def read_bounded(path: Path, bytes_max: int) -> bytes:
    """A file's bytes. Raises TableError when it cannot be read or is larger than `bytes_max`."""
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise TableError(
            f"{path}: cannot be read ({error.strerror}): pass a directory that `hktune tune` made"
        ) from None
    if len(data) > bytes_max:
        raise TableError(f"{path}: has over {bytes_max} bytes, which no table has: {_REBUILD}")
    return data


def write_table(table: Table, objects: Mapping[str, bytes], directory: Path) -> None:
    """Publish a table and its code objects (sha256 -> bytes): objects first, then table.json, each by atomic rename.

    An object already there need not be given again. Objects that the new table does not name are removed last, so a
    reader of the old table may lose one but never reads a wrong one. A file lock orders those who write one directory.
    Raises TableError when an object is neither given nor there, when bytes and sha256 disagree, and when the directory
    cannot be written.
    """
    try:
        (directory / "objects").mkdir(parents=True, exist_ok=True)
        with FileLock(directory / f"{FILE_NAME}.lock", timeout=LOCK_TIMEOUT_S):
            for sha256 in sorted(table.object_sha256s):
                _put_object(object_path(directory, table, sha256), sha256, objects.get(sha256))
            publish(directory / FILE_NAME, table_json(table))
            _remove_unnamed(directory, table)
    except OSError as error:
        raise TableError(
            f"{directory}: table cannot be written ({error.strerror or error}): pass another DIR"
        ) from None


def table_json(table: Table) -> bytes:
    """The bytes of table.json: one line per header field and per entry, so that a retuned shape is a one-line diff."""
    fields = msgspec.to_builtins(table)
    entries = ",\n".join("  " + _json(_present(entry)) for entry in fields.pop("entries"))
    header = "".join(f" {_json(name)}: {_json(value)},\n" for name, value in fields.items())
    return f'{{\n{header} "entries": [\n{entries}\n ]\n}}\n'.encode()


def _put_object(path: Path, sha256: str, data: bytes | None) -> None:
    if data is None and path.is_file():
        data = read_bounded(path, OBJECT_BYTES_MAX)
    if data is None:
        raise TableError(f"the table names code object {sha256}, which was not given: build it first")
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise TableError(f"code object sha256: saved={sha256} current={found}: build it again")
    if not path.exists() or path.read_bytes() != data:
        publish(path, data)


def _remove_unnamed(directory: Path, table: Table) -> None:
    named = {object_path(directory, table, sha256).name for sha256 in table.object_sha256s}
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
