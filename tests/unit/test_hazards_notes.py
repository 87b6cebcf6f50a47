"""Rules of the ISA guide that AMD's own kernels keep nowhere: notes of a launch, and hazards only when asked for.

Each stands beside a neighbour that is no such thing and stays a hazard either way.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gfx950_code import assemble, launch
from hazard_kernels import BUFFER, ENTRY, hazard

from hktune.cli import main
from hktune.core.errors import KernelFault
from hktune.device.emulated import EmulatedDevice

MATRIX = "\n".join(f"v_mov_b32 v{register}, 0" for register in range(4, 60))
SETUP = (
    f"{ENTRY}\n{BUFFER}\n{MATRIX}\ns_mov_b32 m0, 0\nv_mov_b32 v2, 0\nds_write_b32 v1, v2\ns_waitcnt lgkmcnt(0)\ns_nop 7"
)
MFMA = "v_mfma_f32_16x16x32_bf16 v[20:23], v[4:7], v[8:11], v[20:23]"
THIRD = "v_mfma_f32_16x16x32_bf16 v[46:49], v[34:37], v[38:41], v[46:49]"
OTHER = "v_mfma_f32_16x16x32_bf16 v[30:33], v[34:37], v[38:41], v[30:33]"
READS = "\n".join(f"ds_read_b32 v{64 + i}, v1" for i in range(20))

BY_THE_BOOK = {
    "M0 right before a load to LDS": ("s_mov_b32 m0, 0\nbuffer_load_dword v1, s[12:15], 0 offen lds", "through M0"),
    "a mask right before its use": (
        "v_cmp_eq_u32 vcc, v4, v5\nv_cndmask_b32 v42, v4, v5, vcc",
        "reads a scalar that the VALU wrote",
    ),
    "a mask one state before its use": (
        "v_cmp_eq_u32 s[20:21], v4, v5\ns_nop 0\nv_cndmask_b32 v42, v4, v5, s[20:21]",
        "reads a scalar that the VALU wrote",
    ),
    "another MFMA between VALU and MFMA": (f"v_mov_b32 v4, 0\n{OTHER}\n{MFMA}", "an MFMA reads what a VALU"),
    "a flat load waited for by vmcnt alone": (
        "v_mov_b32 v60, s6\nv_mov_b32 v61, s7\nflat_load_dword v42, v[60:61]\n"
        "s_waitcnt vmcnt(0)\nv_add_u32 v43, v1, v42",
        "reads v42, which flat_load_dword",
    ),
    "an MFMA's result two states later": (f"{MFMA}\ns_nop 1\nv_add_f32 v42, v20, v20", "reads the result of an MFMA"),
    "an MFMA's result changed in place": (f"{MFMA}\ns_nop 1\nv_cvt_f32_i32 v20, v20", "reads the result of an MFMA"),
    "an MFMA's result stored behind two others, which waited for the pipe": (
        f"{MFMA}\n{OTHER}\n{THIRD}\ns_nop 1\nglobal_store_dword v1, v20, s[8:9]",
        "a memory operation reads the result of an MFMA",
    ),
    "what DPP moves between lanes one state later": (
        "v_mov_b32 v4, 0\ns_nop 0\nv_mov_b32_dpp v42, v4 row_shr:1 row_mask:0xf bank_mask:0xf",
        "DPP moves between lanes",
    ),
    "what DPP does not move": (
        "v_mov_b32 v4, 0\nv_add_f32_dpp v42, v5, v4 row_shr:1 row_mask:0xf bank_mask:0xf",
        "but moves another register",
    ),
    "16 bytes of LDS on 8": (
        "v_add_u32 v3, 8, v2\nds_write_b128 v3, v[4:7]",
        "not aligned to its 16 bytes: that is slow",
    ),
    "8 bytes of LDS on an odd one": (
        "v_lshlrev_b32 v3, 3, v0\nds_write_b64 v3, v[4:5] offset:1",
        "not aligned to its 8 bytes: that is slow",
    ),
    "loads to LDS by 16 bytes on 8": (
        "s_mov_b32 m0, 8\ns_nop 0\nbuffer_load_dwordx4 v1, s[12:15], 0 offen lds",
        "not aligned to its 16 bytes: that is slow",
    ),
    "more LDS reads than the counter holds": (f"{READS}\ns_waitcnt lgkmcnt(15)\nv_add_u32 v42, v64, v65", "reads v64"),
}
SPARSE = "v_smfmac_f32_16x16x64_f16 v[20:23], v[4:7], v[8:15], v16"
HAZARDS = {
    "a sparse MFMA's result one state later": f"{SPARSE}\ns_nop 0\nv_add_f32 v42, v20, v20",
    "a sparse MFMA's index right behind the VALU": f"v_mov_b32 v16, 0\n{SPARSE}",
    "a sparse MFMA's addend right behind the VALU": f"v_mov_b32 v20, 0\n{SPARSE}",
    "an atomic on LDS at half its size": "v_mov_b32 v3, 2\nds_add_u32 v3, v4",
    "a transposed read on 4": "v_mov_b32 v3, 4\nds_read_b64_tr_b16 v[42:43], v3",
    "a load to LDS between dwords": "s_mov_b32 m0, 2\ns_nop 0\nbuffer_load_dword v1, s[12:15], 0 offen lds",
    "a VALU result right into an MFMA": f"v_mov_b32 v4, 0\n{MFMA}",
    "a VALU result into an MFMA behind something else": f"v_mov_b32 v4, 0\nv_mov_b32 v42, 0\n{MFMA}",
    "an MFMA's result one state later": f"{MFMA}\ns_nop 0\nv_add_f32 v42, v20, v20",
    "an MFMA's result overwritten soon": f"{MFMA}\ns_nop 1\nv_mov_b32 v20, v4",
    "an MFMA's result stored through a buffer": f"{MFMA}\ns_nop 1\nbuffer_store_dword v20, v1, s[12:15], 0 offen",
    "an MFMA's result stored soon": f"{MFMA}\ns_nop 6\nglobal_store_dword v1, v20, s[8:9]",
    "an MFMA's result stored behind one other": f"{MFMA}\n{OTHER}\ns_nop 0\nglobal_store_dword v1, v20, s[8:9]",
    "an MFMA's result overwritten": f"{MFMA}\ns_nop 6\nv_mov_b32 v20, 0",
    "what DPP moves between lanes": ("v_mov_b32 v4, 0\nv_mov_b32_dpp v42, v4 row_shr:1 row_mask:0xf bank_mask:0xf"),
    "a lane select": "v_readfirstlane_b32 s20, v4\nv_readlane_b32 s21, v4, s20",
    "a scalar into an address": "v_readfirstlane_b32 s20, v4\nbuffer_load_dword v42, v1, s[12:15], s20 offen",
    "the fifteenth youngest LDS read": f"{READS}\ns_waitcnt lgkmcnt(15)\nv_add_u32 v42, v1, v69",
    "the youngest LDS read": f"{READS}\nv_add_u32 v42, v1, v83",
}


def notes(lines: str, strict: bool = False) -> tuple[str, ...]:
    """What the checker notes of a kernel of `lines`. Raises KernelFault for a hazard."""
    code = assemble(f"{SETUP}\n{lines}\ns_endpgm", lds_bytes=8192)
    device = EmulatedDevice(deadline_s=60.0, find_hazards=True, strict_hazards=strict)
    launch(code, np.zeros(4096, np.uint32), np.zeros(4096, np.uint32), device=device)
    return device.hazard_notes


@pytest.mark.parametrize("name", BY_THE_BOOK)
def test_what_production_kernels_do_is_noted(name: str) -> None:
    lines, what = BY_THE_BOOK[name]
    found = notes(lines)
    assert found
    assert all(what in note or "reads v65" in note for note in found)
    assert "wave 0 of workgroup (0, 0, 0)" in found[0]
    assert "[kernel+0x" in found[0]


@pytest.mark.parametrize("name", BY_THE_BOOK)
def test_and_is_a_hazard_when_asked_for(name: str) -> None:
    lines, what = BY_THE_BOOK[name]
    with pytest.raises(KernelFault, match=what) as fault:
        notes(lines, strict=True)
    assert fault.value.status == "hazard"


@pytest.mark.parametrize("name", HAZARDS)
def test_their_neighbours_are_hazards_either_way(name: str) -> None:
    for strict in (False, True):
        with pytest.raises(KernelFault) as fault:
            notes(HAZARDS[name], strict)
        assert fault.value.status == "hazard"


def test_an_instruction_is_noted_once() -> None:
    """However many waves and iterations execute it."""
    loop = """
    s_mov_b32 s20, 5
    again:
    s_mov_b32 m0, 0
    buffer_load_dword v1, s[12:15], 0 offen lds
    s_sub_u32 s20, s20, 1
    s_cmp_lg_u32 s20, 0
    s_cbranch_scc1 again
    s_waitcnt vmcnt(0)
    """
    assert len(notes(loop)) == 1


def test_a_launch_without_objections_has_no_notes() -> None:
    assert notes("v_mov_b32 v42, v4") == ()
    assert hazard("v_mov_b32 v42, v1") is None


def test_verify_prints_notes_and_counts_them_when_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines, _ = BY_THE_BOOK["M0 right before a load to LDS"]
    file = tmp_path / "kernel.co"
    file.write_bytes(assemble(f"{SETUP}\n{lines}\ns_endpgm", lds_bytes=8192))
    words = ["verify", "--kernel", str(file), "--args", "a:u32[4096] b:inout:u32[4096]"]
    assert main(words) == 0
    assert "note: wait-state-by-the-book at kernel+0x" in capsys.readouterr().out
    assert main([*words, "--strict"]) == 1
    assert "error: wait-state-by-the-book at kernel+0x" in capsys.readouterr().out


def test_skipped_instructions_are_not_judged() -> None:
    """v50 is never loaded, since vector instructions are skipped there."""
    skipped = "global_load_dword v50, v1, s[6:7]\nv_add_u32 v42, v50, v1"
    lines = f"s_mov_b32 s20, 1\ns_setvskip s20, 0\n{skipped}\ns_setvskip 0, 0"
    assert notes(f"{lines}\nv_mov_b32 v42, v50") == ()
