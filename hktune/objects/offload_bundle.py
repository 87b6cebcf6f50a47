"""Code objects inside other files: clang's offload bundles, compressed ones too, and programs that hipcc linked.

Formats: clang's "Offload Bundler" page, "Bundled Code Object Layout" and "Compressed Offload Bundle". A program has its
bundles in the section .hip_fatbin, one for each source, each at a multiple of a page.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Iterator

from hktune.core.errors import TableError
from hktune.objects.code_object import read_code_object
from hktune.objects.elf import Elf

ELF_MAGIC, BUNDLE_MAGIC, COMPRESSED_MAGIC = b"\x7fELF", b"__CLANG_OFFLOAD_BUNDLE__", b"CCOB"
_ENTRY = struct.Struct("<QQQ")  # offset and size of the object, size of the name behind
_HEADER_BYTES = {1: 20, 2: 24, 3: 32}  # of a compressed bundle, by its version
_ZLIB = 0
_CONTENT_BYTES_MAX = 1 << 30
_FAT_SECTION = ".hip_fatbin"
_PAGE_BYTES = 4096
_AMD = 224


def device_objects(data: bytes, arch: str) -> list[bytes]:
    """The code objects for `arch` that `data` is or holds, in order: of a code object itself, whatever it is for.
    Raises TableError for a file that is damaged, or of none of these kinds."""
    if data.startswith((BUNDLE_MAGIC, COMPRESSED_MAGIC)):
        return _of_arch(data, arch)
    elf = Elf(data)
    fat = elf.section(_FAT_SECTION) if elf.machine != _AMD else None
    if fat is None:
        return [data]
    content, found = bytes(fat.data), []
    for at in range(0, len(content), _PAGE_BYTES):
        if content.startswith((BUNDLE_MAGIC, COMPRESSED_MAGIC), at):
            found += _of_arch(content[at:], arch)
    return found


def _of_arch(bundle: bytes, arch: str) -> list[bytes]:
    objects = [part for _, part in bundled(decompressed(bundle)) if part.startswith(ELF_MAGIC)]
    return [each for each in objects if read_code_object(each, ()).misfit(arch) is None]


def decompressed(data: bytes) -> bytes:
    """A compressed bundle's content (magic, version, method, sizes, hash); another one as it is. Raises TableError."""
    if not data.startswith(COMPRESSED_MAGIC):
        return data
    if len(data) < max(_HEADER_BYTES.values()):
        raise TableError("a compressed bundle that is cut off")
    version, method = struct.unpack_from("<HH", data, len(COMPRESSED_MAGIC))
    if version not in _HEADER_BYTES:
        raise TableError(f"a compressed bundle of version {version}; 1 to 3 are read")
    body = data[_HEADER_BYTES[version] :]
    if method == _ZLIB:
        try:
            return zlib.decompressobj().decompress(body, _CONTENT_BYTES_MAX)
        except zlib.error as error:
            raise TableError(f"a compressed bundle is damaged ({error})") from None
    return _by_zstd(body)


def _by_zstd(body: bytes) -> bytes:
    program = shutil.which("zstd")
    if program is None:
        raise TableError("compressed with zstd: install the program zstd")
    with tempfile.TemporaryFile() as file:
        file.write(body)
        file.seek(0)
        quiet = subprocess.DEVNULL
        with subprocess.Popen([program, "-dcq"], stdin=file, stdout=subprocess.PIPE, stderr=quiet) as running:
            assert running.stdout is not None
            content = running.stdout.read(_CONTENT_BYTES_MAX)  # of what may be endless
            running.kill()
    if not content.startswith(BUNDLE_MAGIC):
        raise TableError("a compressed bundle is damaged")
    return content


def bundled(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a bundle's entries; those that are not whole are left out."""
    if len(data) < len(BUNDLE_MAGIC) + 8:
        return
    (count,) = struct.unpack_from("<Q", data, len(BUNDLE_MAGIC))
    at = len(BUNDLE_MAGIC) + 8
    for _ in range(min(count, len(data))):
        if at + _ENTRY.size > len(data):
            return
        offset, size, length = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size + length
        name = data[at - length : at].decode(errors="replace")
        if offset + size <= len(data):
            yield name, data[offset : offset + size]
