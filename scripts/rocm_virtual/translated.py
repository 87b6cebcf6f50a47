"""hipBLASLt's kernels for gfx90a as kernels for gfx950, which Debian's package has none of.

Names are changed, and the numbers of five instructions: MI300's book gives bf16 MFMAs that MI200 has others (LLVM's
VOP3PInstructions.td, V_MFMA_F32_*BF16_1K for gfx90a and gfx940). Nearly all else that these kernels use is the same.
What is not, such as bf16 MFMAs without `_1k`, the emulator refuses.
They are not what an MI350X would run: what they show is that the library's code around them, and the way into it, work.
Words are looked at, and not instructions. So a constant in the code that looks like such an MFMA would be changed too.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from ctypes import c_char_p, c_size_t
from pathlib import Path

FROM, TO = b"gfx90a", b"gfx950"
_MACHINES = {FROM: 0x3F, TO: 0x4F}  # EF_AMDGPU_MACH_AMDGCN_*, LLVM's AMDGPUUsage.rst
_FLAGS_AT, _SECTIONS_AT = 48, 40  # of an ELF header
_PROGBITS, _EXECUTABLE = 1, 4
_SHORTEST = 8  # bytes of an MFMA
_MFMA, _MFMA_BITS, _OPCODE_SHIFT, _OPCODE = 0xD3800000, 0xFF800000, 16, 0x7F
_OPCODES = {0x63 + place: 0x5D + place for place in range(5)}  # 32x32x4, 16x16x4, 4x4x4, 32x32x8, 16x16x16
_KINDS = ("_BB_BB_", "_BB_SB_", "_HH_HH_", "_HH_SH_", "_SS_SS_")  # bf16, f16 and f32, some with float32 output
_ANOTHER_BOARD = "_CU104_"


def translate(library: Path, folder: Path) -> None:
    """Write what hipBLASLt reads of its folder `library` into `folder`, as HIPBLASLT_TENSILE_LIBPATH names it."""
    folder.mkdir(parents=True)
    for path in _wanted(library):
        data = path.read_bytes()
        if path.suffix in (".co", ".hsaco") and FROM.decode() in path.name:
            data = _of_gfx950(_unbundled(data))
        (folder / path.name.replace(FROM.decode(), TO.decode())).write_bytes(data.replace(FROM, TO))


def _wanted(library: Path) -> Iterator[Path]:
    """Its files for gfx90a and for all GPUs, without the kernels of formats that hktune has no use for."""
    for path in sorted(library.iterdir()):
        other = "gfx" in path.name and FROM.decode() not in path.name
        unused = path.suffix == ".co" and "Contraction" in path.name and not any(kind in path.name for kind in _KINDS)
        if not other and not unused and _ANOTHER_BOARD not in path.name:
            yield path


def _unbundled(data: bytes) -> bytes:
    """The code object of a file, which may be in a clang offload bundle, and that compressed by zstd (version 3, LLVM's
    ClangOffloadBundler.rst)."""
    if data.startswith(b"CCOB"):
        version, method, _, size = struct.unpack_from("<HHQQ", data, 4)
        if (version, method) != (3, 1):
            raise ValueError(f"a compressed bundle of version {version}, method {method}: known is version 3, zstd")
        data = _decompressed(data[32:], size)
    if not data.startswith(b"__CLANG_OFFLOAD_BUNDLE__"):
        return data
    (entries,), at = struct.unpack_from("<Q", data, 24), 32
    for _ in range(entries):
        begin, size, length = struct.unpack_from("<QQQ", data, at)
        target = data[at + 24 : at + 24 + length]
        at += 24 + length
        if FROM in target:
            return data[begin : begin + size]
    raise ValueError(f"a bundle without {FROM.decode()}")


def _decompressed(data: bytes, size: int) -> bytes:
    zstd = ctypes.CDLL("libzstd.so.1")  # which dpkg needs as well
    zstd.ZSTD_decompress.argtypes = (c_char_p, c_size_t, c_char_p, c_size_t)
    zstd.ZSTD_decompress.restype = c_size_t
    out = ctypes.create_string_buffer(size)
    if zstd.ZSTD_decompress(out, size, data, len(data)) != size:
        raise ValueError("a compressed bundle that zstd does not read")
    return out.raw


def _of_gfx950(code: bytes) -> bytes:
    """A code object with the other machine and the other numbers of instructions."""
    changed = bytearray(code)
    if changed[_FLAGS_AT] != _MACHINES[FROM]:
        raise ValueError(f"a code object of machine {changed[_FLAGS_AT]:#x}, not {FROM.decode()}")
    changed[_FLAGS_AT] = _MACHINES[TO]
    for begin, size in _code_sections(code):
        for at in range(begin, begin + size - _SHORTEST + 1, 4):
            (word,) = struct.unpack_from("<I", changed, at)
            opcode = word >> _OPCODE_SHIFT & _OPCODE
            if word & _MFMA_BITS == _MFMA and opcode in _OPCODES:
                other = word & ~(_OPCODE << _OPCODE_SHIFT) | _OPCODES[opcode] << _OPCODE_SHIFT
                struct.pack_into("<I", changed, at, other)
    return bytes(changed)


def _code_sections(code: bytes) -> Iterator[tuple[int, int]]:
    (table,) = struct.unpack_from("<Q", code, _SECTIONS_AT)
    size, count = struct.unpack_from("<HH", code, 58)
    for place in range(count):
        _, kind, flags, _, begin, length = struct.unpack_from("<IIQQQQ", code, table + place * size)
        if kind == _PROGBITS and flags & _EXECUTABLE:
            yield begin, length
