"""scripts/instruction_coverage.py counts what can be run and names what cannot, whichever path it stands on."""

from __future__ import annotations

import subprocess
import sys
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
    (tmp_path / "unreached.co").write_bytes(assemble("s_endpgm\ns_trap 2"))  # behind the end: nobody gets there
    (tmp_path / "notes.txt").write_text("no code object")
    done = counted(tmp_path)
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        ["2 of 2 gfx950 code objects: every instruction decoded and implemented"],
    )
    (tmp_path / "trap.co").write_bytes(assemble(BRANCH.format("s_trap 2")))
    (tmp_path / "both.co").write_bytes(assemble(BRANCH.format("s_trap 2\ns_setreg_b32 hwreg(HW_REG_TRAPSTS), s3")))
    (tmp_path / "split.co").write_bytes(assemble("s_endpgm", directives=".amdhsa_tg_split 1"))
    done = counted(tmp_path, "--list")
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert lines[0].startswith("2 of 5 ")
    assert lines[1].split() == ["2", "s_trap"]
    assert {line.split()[1] for line in lines[2:4]} == {"s_setreg_b32", "splits"}
    assert f"{tmp_path / 'both.co'}: s_setreg_b32, s_trap" in lines


def test_a_folder_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    done = counted(tmp_path / "nowhere")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
