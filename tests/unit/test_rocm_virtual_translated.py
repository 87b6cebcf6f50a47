"""Kernels for gfx90a as kernels for gfx950: their bytes are those that LLVM's assembler makes for gfx950."""

from __future__ import annotations

import ctypes
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from rocm_virtual.translated import translate

pytest.importorskip("ziglang")

NAME = "TensileLibrary_BB_BB_Contraction_gfx90a.co"
SAME = """
  v_mfma_f32_32x32x8{half} v[0:15], v[40:41], v[42:43], v[0:15]
  v_mfma_f32_16x16x4{single} v[0:3], v4, v5, v[0:3]
  buffer_load_dwordx4 v[0:3], v4, s[0:3], 0 offen offset:16
  ds_read_b128 v[0:3], v4 offset:64
  v_add_u32 v0, 0x12345678, v1
  s_waitcnt vmcnt(3) lgkmcnt(0)
  s_endpgm
"""
MFMAS: Mapping[str, tuple[str, int]] = {
    "32x32x4bf16_1k": ("32x32x4_2b_bf16", 32),
    "16x16x4bf16_1k": ("16x16x4_4b_bf16", 16),
    "4x4x4bf16_1k": ("4x4x4_16b_bf16", 4),
    "32x32x8bf16_1k": ("32x32x8_bf16", 16),
    "16x16x16bf16_1k": ("16x16x16_bf16", 4),
}
"""What gfx90a and gfx950 call the same instruction, and the registers of its sums."""
WORDS = {"gfx90a": {"half": "f16", "single": "f32"}, "gfx950": {"half": "_f16", "single": "_f32"}}


@cache
def assembled(gpu: str) -> bytes:
    lines = []
    for older, (newer, count) in MFMAS.items():
        sums = f"v[0:{count - 1}]"
        lines.append(f"v_mfma_f32_{older if gpu == 'gfx90a' else newer} {sums}, v[40:41], v[42:43], {sums}")
    text = "\n".join(lines) + SAME.format(**WORDS[gpu])
    with TemporaryDirectory() as folder:
        source, out = Path(folder) / "kernel.s", Path(folder) / "kernel.o"
        source.write_text(f'.amdgcn_target "amdgcn-amd-amdhsa--{gpu}"\n.text\n{text}')
        command = [sys.executable, "-m", "ziglang", "clang", "-target", "amdgcn-amd-amdhsa", f"-mcpu={gpu}", "-c"]
        subprocess.run([*command, "-o", out, source], check=True)
        return out.read_bytes()


def text_of(code: bytes) -> bytes:
    (table,) = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    sections = [struct.unpack_from("<IIQQQQ", code, table + place * size) for place in range(count)]
    [(begin, length)] = [(each[4], each[5]) for each in sections if each[1] == 1 and each[2] & 4]
    return code[begin : begin + length]


def bundled(code: bytes) -> bytes:
    """In a clang offload bundle, after an entry of the host."""
    names = (b"host-x86_64-unknown-linux-gnu-", b"hipv4-amdgcn-amd-amdhsa--gfx90a")
    at = 32 + sum(24 + len(name) for name in names)
    entries = b"".join(
        struct.pack("<QQQ", at, size, len(name)) + name for name, size in zip(names, (0, len(code)), strict=True)
    )
    return b"__CLANG_OFFLOAD_BUNDLE__" + struct.pack("<Q", len(names)) + entries + code


def compressed(bundle: bytes, version: int = 3) -> bytes:
    try:
        zstd = ctypes.CDLL("libzstd.so.1")
    except OSError:
        pytest.skip("needs libzstd, which Debian's dpkg brings")
    room = ctypes.create_string_buffer(len(bundle) + 1024)
    zstd.ZSTD_compress.restype = ctypes.c_size_t
    size = zstd.ZSTD_compress(room, ctypes.c_size_t(len(room)), bundle, ctypes.c_size_t(len(bundle)), 3)
    return b"CCOB" + struct.pack("<HHQQQ", version, 1, 32 + size, len(bundle), 0) + room.raw[:size]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    folder.mkdir()
    (folder / "TensileLibrary_lazy_gfx90a.dat").write_bytes(b"solutions of gfx90a")
    (folder / "TensileLibrary_lazy_gfx1100.dat").write_bytes(b"solutions of gfx1100")
    (folder / "TensileLibrary_BB_BB_Contraction_CU104_gfx90a.dat").write_bytes(b"of another board")
    (folder / "TensileLibrary_DD_DD_Contraction_gfx90a.co").write_bytes(b"of float64")
    (folder / "TensileLiteLibrary_lazy_Mapping.dat").write_bytes(b"what is where: gfx90a")
    return folder


def squeezed(code: bytes) -> bytes:
    return compressed(bundled(code))


@pytest.mark.parametrize("packed", [bytes, bundled, squeezed])
def test_code_becomes_what_the_assembler_makes_for_gfx950(
    library: Path, tmp_path: Path, packed: Callable[[bytes], bytes]
) -> None:
    (library / NAME).write_bytes(packed(assembled("gfx90a")))
    translate(library, tmp_path / "out")
    made = (tmp_path / "out" / NAME.replace("gfx90a", "gfx950")).read_bytes()
    assert text_of(made) == text_of(assembled("gfx950")) != text_of(assembled("gfx90a"))
    assert made[48] == assembled("gfx950")[48] != assembled("gfx90a")[48]


def test_files_are_renamed_inside_and_those_of_others_left_out(library: Path, tmp_path: Path) -> None:
    translate(library, tmp_path / "out")
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert found == {
        "TensileLibrary_lazy_gfx950.dat": b"solutions of gfx950",
        "TensileLiteLibrary_lazy_Mapping.dat": b"what is where: gfx950",
    }


def test_what_is_not_known_is_refused(library: Path, tmp_path: Path) -> None:
    for data, says in (
        (compressed(b"x", version=4), "a compressed bundle of version 4, method 1"),
        (bundled(b"").replace(b"gfx90a", b"gfx908"), "a bundle without gfx90a"),
        (assembled("gfx950"), "a code object of machine 0x4f, not gfx90a"),
    ):
        (library / NAME).write_bytes(data)
        with pytest.raises(ValueError, match=says):
            translate(library, tmp_path / says)
