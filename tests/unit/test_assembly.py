"""Instructions as text: clang reads it back into the same words."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from gfx950_code import assemble, link
from naive_gemm import OBJECT

from hktune.emulator.instructions.assembly import assembly
from hktune.emulator.instructions.decode import Instruction, decode
from hktune.objects.code_object import read_code_object

LINES = """
v_pk_fma_f32 v[4:5], v[6:7], s[8:9], v[10:11] op_sel:[0,1,0] op_sel_hi:[1,0,1] neg_lo:[1,0,0]
v_pk_mul_f16 v4, v5, v6 neg_hi:[0,1] clamp
v_mfma_f32_16x16x32_bf16 a[0:3], v[4:7], a[8:11], a[0:3]
v_mfma_f32_16x16x128_f8f6f4 v[0:3], v[4:7], v[8:11], v[0:3] cbsz:4 blgp:4
v_mfma_scale_f32_16x16x128_f8f6f4 v[0:3], v[4:11], v[12:19], v[0:3], v20, v21 op_sel:[1,0,0] op_sel_hi:[0,1,0]
v_smfmac_f32_16x16x64_bf16 v[0:3], v[4:7], v[8:15], v16 abid:1
v_accvgpr_write_b32 a3, v4
v_accvgpr_read_b32 v4, a3
v_mov_b32_dpp v5, v4 row_shr:1 row_mask:0xf bank_mask:0xf
v_add_f32_dpp v5, -v4, |v6| quad_perm:[1,0,3,2] row_mask:0xa bank_mask:0xf bound_ctrl:0
v_mov_b32_dpp v5, v4 row_bcast:31 row_mask:0xc bank_mask:0xf
v_add_u32_sdwa v5, v6, v7 dst_sel:BYTE_1 dst_unused:UNUSED_PRESERVE src0_sel:WORD_1 src1_sel:DWORD
v_lshlrev_b32_sdwa v5, s6, v7 dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:DWORD src1_sel:BYTE_2
v_cmp_eq_u32 vcc, v4, v5
v_cmp_lt_f32 s[20:21], -v4, |v5|
v_cmpx_gt_u32 exec, v4, v5
v_cndmask_b32 v4, v5, v6, vcc
v_addc_co_u32 v4, vcc, 0, v5, vcc
v_add_co_u32 v4, s[20:21], v5, v6
v_mad_u64_u32 v[4:5], s[20:21], v6, s7, v[8:9]
v_fma_f32 v4, -v5, 0.5, |v6| clamp mul:2
v_fmamk_f32 v4, v5, 0x41200000, v6
v_fmaak_f32 v4, v5, v6, 0x41200000
v_med3_f16 v4, v5, v6, v7 op_sel:[0,1,0,1]
v_readlane_b32 s4, v5, s6
v_readfirstlane_b32 s4, v5
v_writelane_b32 v4, s5, 7
ds_read_b128 a[4:7], v3 offset:16
ds_read2st64_b32 v[4:5], v3 offset0:1 offset1:2
ds_write2_b64 v3, v[4:5], v[6:7] offset1:9
ds_add_rtn_u32 v4, v3, v5 offset:8
ds_read_b64_tr_b16 v[4:5], v3
buffer_load_dwordx4 v[4:7], v3, s[12:15], s8 offen offset:64 sc0 nt
buffer_load_dwordx4 v3, s[12:15], 0 offen lds
buffer_store_short v4, v[6:7], s[12:15], 0 idxen offen
buffer_wbl2 sc1
buffer_inv sc1
global_load_dword v4, v5, s[6:7] offset:-16
global_load_dwordx3 v[4:6], v[8:9], off
global_store_dwordx4 v5, a[4:7], s[6:7] offset:32
global_atomic_add_f32 v5, v4, s[6:7]
global_atomic_cmpswap_x2 v[4:5], v6, v[8:11], s[6:7] sc0
global_load_lds_dwordx4 v5, s[6:7] offset:16
flat_load_dwordx2 v[4:5], v[6:7] offset:8
scratch_store_dword off, v4, s33 offset:4
scratch_load_dwordx2 v[4:5], v6, off
s_load_dwordx4 s[12:15], s[0:1], 0x10
s_load_dword s4, s[0:1], s5 offset:0x20
s_buffer_load_dwordx2 s[4:5], s[12:15], s6
s_add_u32 s4, s5, 0x12345678
s_and_saveexec_b64 s[20:21], vcc
s_mov_b64 exec, -1
s_bfe_u32 s4, m0, 0x80004
s_cmp_lg_u64 s[4:5], 0
s_movk_i32 s4, 0xff80
s_getreg_b32 s4, hwreg(1, 0, 4)
s_setreg_imm32_b32 hwreg(1, 2, 2), 0x3
s_waitcnt vmcnt(63) lgkmcnt(3)
s_waitcnt vmcnt(0) expcnt(0) lgkmcnt(0)
s_nop 7
s_sleep 2
s_setprio 1
s_barrier
"""


def instructions(data: bytes, start: int, entry: int) -> list[Instruction]:
    """From `entry` to the first s_endpgm, of code at `start`."""
    found, address = [], entry
    while not found or found[-1].mnemonic != "s_endpgm":
        found.append(decode(data[address - start : address - start + 16], address))
        address = found[-1].next_address
    return found


def of_object(data: bytes) -> list[Instruction]:
    image = read_code_object(data)
    entry = next(iter(image.kernels.values())).entry_address
    start, code = next(part for part in image.segments if part[0] <= entry < part[0] + len(part[1]))
    return instructions(code, start, entry)


def reassembled(folder: Path, lines: list[str]) -> list[Instruction]:
    source = folder / "text.s"
    source.write_text('.amdgcn_target "amdgcn-amd-amdhsa--gfx950"\n.text\n' + "\n".join(lines) + "\n")
    link(source, ("--target=amdgcn-amd-amdhsa", "-mcpu=gfx950"))
    text = ELFFile(io.BytesIO(source.with_suffix(".o").read_bytes())).get_section_by_name(".text").data()
    return instructions(text, 0, 0)


@pytest.mark.parametrize("code", [assemble(f"{LINES}\ns_endpgm"), OBJECT], ids=["every form", "a compiled kernel"])
def test_an_assembler_reads_the_text_back(tmp_path: Path, code: bytes) -> None:
    known = [each for each in of_object(code) if not each.mnemonic.startswith(("s_branch", "s_cbranch"))]
    again = reassembled(tmp_path, [assembly(each) for each in known])
    assert [(assembly(each), each.words) for each in again] == [(assembly(each), each.words) for each in known]


def test_a_branch_is_counted_from_the_kernels_beginning() -> None:
    code = assemble("again:\ns_nop 0\ns_cbranch_scc1 again\ns_endpgm")
    nop, branch, _ = of_object(code)
    assert assembly(branch, nop.address) == "s_cbranch_scc1 +0x0"
