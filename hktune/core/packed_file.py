"""Bytes from outside that may be compressed: in gzip, or as the one file of a zip archive."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib

from hktune.core.escaped import escaped

_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_ERRORS = (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError)
_SAID_MAX = 200  # characters of what is wrong: a file's own words may be part of it


def unpacked(data: bytes, bytes_max: int) -> bytes:
    """What was compressed, or `data` where nothing was. No more than `bytes_max` bytes are ever unpacked. Raises
    ValueError, one line, for more, for what cannot be unpacked, and for an archive of several files."""
    try:
        if data.startswith(_GZIP):
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(bytes_max + 1)
        elif data.startswith(_ZIP):
            data = _of_zip(data, bytes_max)
    except _SeveralFiles:
        raise
    except _ERRORS as wrong:
        said = escaped(" ".join(str(wrong).split()))[:_SAID_MAX]
        raise ValueError(f"cannot be unpacked ({said})") from None
    if len(data) > bytes_max:
        raise ValueError(f"has more than {bytes_max} bytes when unpacked")
    return data


class _SeveralFiles(ValueError):
    """An archive has not the one file that is wanted."""


def _of_zip(data: bytes, bytes_max: int) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            raise _SeveralFiles(f"has {len(names)} files in its archive, not one")
        with archive.open(names[0]) as file:
            return file.read(bytes_max + 1)
