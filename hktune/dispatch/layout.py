"""The files that a table is made of, and what each may be."""

from __future__ import annotations

from hktune.core.errors import TableError
from hktune.core.outside_file import FileKind

TABLE_NAME = "table.json"
SIGNATURE_NAME = "table.json.sig"
OBJECTS_NAME = "objects"

_REBUILD = "build it again with `hktune table build`"
TABLE_FILE = FileKind("a table", 32 << 20, TableError, _REBUILD)
SIGNATURE_FILE = FileKind("a signature", 64, TableError, "sign it again with `hktune table sign`")
OBJECT_FILE = FileKind("a code object", 16 << 20, TableError, _REBUILD)


def object_name(arch: str, sha256: str) -> str:
    """Where the code object of `sha256`, as a `Table` carries it (64 hex digits), is in a table's directory."""
    return f"{OBJECTS_NAME}/{sha256}{suffix(arch)}"


def suffix(arch: str) -> str:
    """How the names of code objects for `arch` end."""
    return ".hsaco" if arch.startswith("gfx") else ".cubin"
