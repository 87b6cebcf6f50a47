"""Files of other tools, each known by what is in it, whatever its name; plain, in gzip, or alone in a zip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hktune.core.errors import ShapesError
from hktune.core.escaped import escaped
from hktune.core.operation import Operation
from hktune.core.outside_file import FileKind
from hktune.core.packed_file import unpacked
from hktune.exchange import aiter_csv, blas_log, profiler_trace, tunableop
from hktune.exchange.lines import numbered_lines
from hktune.exchange.product import Product

FORMATS = (aiter_csv.NAME, tunableop.NAME, blas_log.NAME, profiler_trace.NAME)
BYTES_MAX = 512 << 20  # unpacked; a trace of a minute of training has some 200 MB
_FILE = FileKind("a shapes file", 256 << 20, ShapesError, "pass a file like shapes.yaml", "split it")
_SAID_MAX = 200


@dataclass(frozen=True)
class ForeignFile:
    """What another tool's file says. `format` is one of `FORMATS`. `facts` are what its times hold for."""

    format: str
    products: tuple[Product, ...]
    facts: Mapping[str, str] = field(default_factory=dict)


def read_foreign(path: Path, operation: Operation | None = None) -> ForeignFile | None:
    """What the file at `path` says; None where it is of no format that is known here. `operation` is what a file
    computes that does not say. Raises ShapesError, one line, for a file that cannot be read or is broken as a whole."""
    try:
        data = unpacked(_FILE.read(path), BYTES_MAX)
        if profiler_trace.knows(data):
            return ForeignFile(profiler_trace.NAME, tuple(profiler_trace.products(data)))
    except (ValueError, RecursionError) as wrong:
        said = escaped(" ".join(str(wrong).split()))[:_SAID_MAX]
        raise _FILE.broken(path, said if isinstance(wrong, ValueError) else "is nested too deep") from None
    try:
        text = _FILE.text(data, path)
    except ShapesError:
        return None
    return _of_text(text, operation)


def _of_text(text: str, operation: Operation | None) -> ForeignFile | None:
    if tunableop.knows(text):
        facts = tunableop.validators(text)
        arch = facts.get("GCN_ARCH_NAME", "").partition(":")[0]
        return ForeignFile(tunableop.NAME, tuple(tunableop.products(numbered_lines(text), arch)), facts)
    if aiter_csv.knows(text):
        return ForeignFile(aiter_csv.NAME, tuple(aiter_csv.products(numbered_lines(text), operation)))
    found = blas_log.products(text, operation)
    return ForeignFile(blas_log.NAME, tuple(found)) if found else None
