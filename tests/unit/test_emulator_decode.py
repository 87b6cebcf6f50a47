"""Decoding against the assembler's own encodings, and the table against what it is generated from."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from gfx950_code import assemble

from hktune.core.errors import KernelFault
from hktune.emulator.instructions.decode import Instruction, decode
from hktune.objects.code_object import read_code_object

ROOT = Path(__file__).parents[2]

# One of every encoding, its size in words behind it.
LINES = {
    "s_mov_b32 s3, 0x12345678": 2,
    "s_not_b64 s[4:5], vcc": 1,
    "s_add_u32 s3, s4, -7": 1,
    "s_cmp_lt_i32 s3, 0x1000": 2,
    "s_movk_i32 s3, 0x7fff": 1,
    "s_barrier": 1,
    "s_load_dwordx4 s[4:7], s[0:1], 0x10": 2,
    "v_mov_b32 v3, 0x3fc00000": 2,
    "v_add_f32 v3, s4, v5": 1,
    "v_fmamk_f32 v3, v4, 0x41200000, v5": 2,
    "v_cmp_gt_u32 vcc, v3, v4": 1,
    "v_add_u32_sdwa v3, v4, v5 dst_sel:BYTE_0 dst_unused:UNUSED_PAD src0_sel:WORD_1 src1_sel:DWORD": 2,
    "v_mov_b32_dpp v3, v4 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf": 2,
    "v_fma_f32 v3, v4, v5, -v6": 2,
    "v_add_co_u32 v3, s[4:5], v5, v6": 2,
    "v_pk_fma_f32 v[4:5], v[6:7], v[8:9], v[10:11]": 2,
    "v_mfma_f32_16x16x32_bf16 a[0:3], v[0:3], v[4:7], a[0:3]": 2,
    "ds_read_b128 v[4:7], v3 offset:4096": 2,
    "buffer_load_dwordx4 v1, s[8:11], 0 offen lds": 2,
    "global_store_short_d16_hi v0, v1, s[2:3]": 2,
    "flat_load_dword v3, v[4:5]": 2,
    "scratch_store_dword off, v3, s4": 2,
}


def instructions(body: str) -> list[Instruction]:
    code = read_code_object(assemble(body, pointers=0))
    address = code.kernels["kernel"].entry_address
    start, data = next(part for part in code.segments if part[0] <= address < part[0] + len(part[1]))
    found: list[Instruction] = []
    while not found or found[-1].mnemonic != "s_endpgm":
        found.append(decode(data[address - start :], address))
        address = found[-1].next_address
    return found


def test_every_encoding_decodes_to_its_name_and_size() -> None:
    found = instructions("\n".join([*LINES, "s_endpgm"]))
    names = [line.split()[0].removesuffix("_sdwa").removesuffix("_dpp") for line in LINES]
    assert [each.mnemonic for each in found] == [*names, "s_endpgm"]
    assert [len(each.words) for each in found] == [*LINES.values(), 1]
    assert {each.variant for each in found} == {"", "sdwa", "dpp"}


# Words that llvm-mc 22 prints for gfx950, written down once.
@pytest.mark.parametrize(
    ("words", "name", "fields"),
    [
        (0x04020900_D3B58000, "v_mfma_f32_16x16x32_bf16", {"acc_cd": 1, "src0": 256, "src1": 260, "src2": 256}),
        (0x80020001_E05D1000, "buffer_load_dwordx4", {"lds": 1, "offen": 1, "srsrc": 2, "vaddr": 1, "soffset": 128}),
        (0x00020100_DC6C8000, "global_store_short_d16_hi", {"addr": 0, "data": 1, "saddr": 2, "offset": 0}),
        (0x00020501_D2680000, "v_cvt_pk_bf16_f32", {"vdst": 0, "src0": 257, "src1": 258}),
        (0xBF8C0F70, "s_waitcnt", {"simm16": 0x0F70}),
    ],
)
def test_fields_of_known_words(words: int, name: str, fields: dict[str, int]) -> None:
    found = decode(words.to_bytes(8, "little"), 0)
    assert found.mnemonic == name
    assert {key: found.fields[key] for key in fields} == fields


def test_an_operand_knows_its_registers() -> None:
    found = instructions("v_mfma_f32_32x32x16_bf16 v[0:15], v[16:19], v[20:23], v[0:15]\ns_endpgm")[0]
    assert [found.operand(name).registers for name in ("src0", "src1", "src2", "vdst")] == [4, 4, 16, 16]


@pytest.mark.parametrize("word", [0xFFFFFFFF, 0xBFFF0000])
def test_unknown_words_are_a_crash_that_shows_them(word: int) -> None:
    with pytest.raises(KernelFault, match=f"{word:08x}") as caught:
        decode(word.to_bytes(8, "little"), 0x1234)
    assert caught.value.status == "crashed"
    assert "0x1234" in caught.value.detail


def test_the_table_is_what_its_generator_makes() -> None:
    pytest.importorskip("tinygrad")
    generator = runpy.run_path(str(ROOT / "scripts" / "generate_cdna4_table.py"))
    assert generator["table"]() == (ROOT / "hktune" / "emulator" / "instructions" / "cdna4.json").read_text()
