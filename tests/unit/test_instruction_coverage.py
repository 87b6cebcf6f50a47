"""scripts/instruction_coverage.py counts what can be run and names what cannot, whichever path it stands on."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

from gfx950_code import assemble

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "instruction_coverage.py"
BRANCH = "s_cmp_eq_u32 s2, 7\ns_cbranch_scc1 rare\ns_endpgm\nrare:\n{}\ns_endpgm"


def counted(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *options], capture_output=True, text=True, check=False
    )


def test_objects_are_counted_and_stoppers_named(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "fine.co").write_bytes(assemble("v_mov_b32 v1, v0\ns_endpgm"))
    (tmp_path / "unreached.co").write_bytes(assemble("s_endpgm\ns_setkill 1"))  # behind the end: nobody gets there
    (tmp_path / "notes.txt").write_text("no code object")
    done = counted(tmp_path)
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        ["2 of 2 gfx950 code objects: every instruction decoded and implemented"],
    )
    (tmp_path / "trap.co").write_bytes(assemble(BRANCH.format("s_setkill 1")))
    (tmp_path / "both.co").write_bytes(assemble(BRANCH.format("s_setkill 1\ns_setreg_b32 hwreg(HW_REG_TRAPSTS), s3")))
    (tmp_path / "split.co").write_bytes(assemble("s_endpgm", directives=".amdhsa_tg_split 1"))
    done = counted(tmp_path, "--list")
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert lines[0].startswith("2 of 5 ")
    assert lines[1].split() == ["2", "s_setkill"]
    assert {line.split()[1] for line in lines[2:4]} == {"s_setreg_b32", "splits"}
    assert f"{tmp_path / 'both.co'}: s_setkill, s_setreg_b32" in lines


def bundle(*entries: tuple[str, bytes]) -> bytes:
    """clang's offload bundle (ClangOffloadBundler.rst, "Bundled Code Object Layout")."""
    names = b"".join(struct.pack("<QQQ", 0, 0, len(name)) + name.encode() for name, _ in entries)
    at = 24 + 8 + len(names)
    table, contents = b"", b""
    for name, content in entries:
        table += struct.pack("<QQQ", at + len(contents), len(content), len(name)) + name.encode()
        contents += content
    return b"__CLANG_OFFLOAD_BUNDLE__" + struct.pack("<Q", len(entries)) + table + contents


def compressed(content: bytes, version: int, method: int) -> bytes:
    """The same, "Compressed Offload Bundle": method 0 zlib, 1 zstd."""
    if method:
        body = subprocess.run(["zstd", "-cq"], input=content, capture_output=True, check=True).stdout
    else:
        body = zlib.compress(content)
    sizes = {1: "<I", 2: "<II", 3: "<QQ"}[version]
    header_bytes = 8 + struct.calcsize(sizes) + 8
    total = [header_bytes + len(body), len(content)][3 - len(sizes) :]
    return b"CCOB" + struct.pack("<HH", version, method) + struct.pack(sizes, *total) + bytes(8) + body


def test_objects_in_bundles_are_counted(tmp_path: Path) -> None:
    fine, stopped = assemble("v_mov_b32 v1, v0\ns_endpgm"), assemble(BRANCH.format("s_setkill 1"))
    entries = [("host-x86_64-unknown-linux-gnu", b""), ("hipv4-amdgcn-amd-amdhsa--gfx950", fine)]
    (tmp_path / "plain.hsaco").write_bytes(bundle(*entries))
    for version in (1, 2, 3):
        (tmp_path / f"zlib{version}.co").write_bytes(compressed(bundle(*entries), version, 0))
    methods = [1] if shutil.which("zstd") else []
    for method in methods:
        (tmp_path / "zstd.co").write_bytes(compressed(bundle(*entries), 3, method))
    assert counted(tmp_path).stdout.startswith(f"{4 + len(methods)} of {4 + len(methods)} ")
    both = bundle(*entries, ("hipv4-amdgcn-amd-amdhsa--gfx950:xnack-", stopped))
    (tmp_path / "two.co").write_bytes(compressed(both, 2, 0))
    done = counted(tmp_path, "--list")
    assert done.stdout.startswith(f"{5 + len(methods)} of {6 + len(methods)} ")
    assert f"{tmp_path / 'two.co'} hipv4-amdgcn-amd-amdhsa--gfx950:xnack-: s_setkill" in done.stdout


def test_objects_for_another_gpu_are_counted_when_asked_for(tmp_path: Path) -> None:
    code = bytearray(assemble("s_endpgm", version="amdhsa.version: [1, 1]"))
    struct.pack_into("<I", code, 48, 0x54C)
    (tmp_path / "older.co").write_bytes(code)
    assert counted(tmp_path).stdout.startswith("0 of 0 gfx950 ")
    assert counted(tmp_path, "--arch", "gfx942").stdout.startswith("1 of 1 gfx942 ")


def test_a_compression_that_is_not_known_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "newer.co").write_bytes(b"CCOB" + struct.pack("<HH", 9, 0) + bytes(64))
    done = counted(tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"{tmp_path / 'newer.co'}: a compressed bundle of version 9; 1 to 3 are read"]


def test_a_folder_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    done = counted(tmp_path / "nowhere")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
