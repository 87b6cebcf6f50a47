"""LDS accesses of every width against a byte array, and transposed reads against the ISA's description."""

from __future__ import annotations

import numpy as np
import pytest
from gfx950_code import run_lanes

LANE = np.arange(64)
RNG = np.random.default_rng(11)
ROWS = [RNG.integers(0, 1 << 32, 64, dtype=np.uint32) for _ in range(4)]
LDS_BYTES = 8192


def filled(width: int) -> tuple[str, bytes]:
    """Code that writes ROWS, `width` bytes a lane side by side, and the memory that gives."""
    memory = np.array(ROWS[: max(1, width // 4)]).T.astype("<u4").tobytes()
    size = {1: "b8", 2: "b16"}.get(width, f"b{8 * width}")
    last = 10 + max(1, width // 4) - 1
    data = "v10" if last == 10 else f"v[10:{last}]"
    if width < 4:
        memory = b"".join(int(word).to_bytes(4, "little")[:width] for word in ROWS[0])
    return f"v_mul_u32_u24 v2, {width}, v0\nds_write_{size} v2, {data}\ns_waitcnt lgkmcnt(0)", memory


@pytest.mark.parametrize("written", [1, 2, 4, 8, 12, 16])
@pytest.mark.parametrize("read", [4, 8, 12, 16])
def test_widths_meet_in_the_same_bytes(written: int, read: int) -> None:
    """What one width writes, another reads, at addresses only dword-aligned."""
    write, memory = filled(written)
    count = len(memory) // 4 - read // 4
    address = (RNG.integers(0, count, 64) * 4).astype(np.uint32)
    target = f"v[20:{19 + read // 4}]" if read > 4 else "v20"
    lines = f"{write}\nds_read_b{8 * read} {target}, v14\ns_waitcnt lgkmcnt(0)"
    found = run_lanes(lines, (*ROWS, address), read // 4, LDS_BYTES)
    for lane, start in enumerate(address.tolist()):
        assert found[:, lane].tobytes() == memory[start : start + read]


@pytest.mark.parametrize("size", [2, 4, 8, 12, 16])
def test_reads_and_writes_may_begin_at_any_byte(size: int) -> None:
    """In the unaligned mode, which ROCm's driver sets."""
    write, memory = filled(4)
    address = RNG.integers(0, len(memory) - 2 * size, 64).astype(np.uint32)
    read, count = (f"u{8 * size}" if size < 4 else f"b{8 * size}"), max(size // 4, 1)
    target = f"v[20:{19 + count}]" if count > 1 else "v20"
    lines = f"{write}\nds_read_{read} {target}, v14 offset:1\ns_waitcnt lgkmcnt(0)"
    found = run_lanes(lines, (*ROWS, address), count, LDS_BYTES)
    for lane, start in enumerate(address.tolist()):
        assert found[:, lane].tobytes()[:size] == memory[start + 1 : start + 1 + size]
    again = run_lanes(
        f"{lines}\nv_mul_u32_u24 v3, {size + 3}, v0\nds_write_b{8 * size} v3, {target} offset:1\n"
        f"s_waitcnt lgkmcnt(0)\nds_read_{read} {target}, v3 offset:1\ns_waitcnt lgkmcnt(0)",
        (*ROWS, address), count, LDS_BYTES,
    )  # fmt: skip
    assert again.tolist() == found.tolist()


def test_small_reads_extend_or_fill_halves() -> None:
    write, memory = filled(4)
    lines = f"""
    {write}
    v_lshlrev_b32 v2, 2, v0
    v_mov_b32 v24, -1
    v_mov_b32 v25, -1
    ds_read_u8 v20, v2 offset:1
    ds_read_i8 v21, v2 offset:3
    ds_read_u16 v22, v2 offset:2
    ds_read_i16 v23, v2
    ds_read_u16_d16 v24, v2
    ds_read_u16_d16_hi v25, v2
    s_waitcnt lgkmcnt(0)
    """
    found = run_lanes(lines, ROWS, 6, LDS_BYTES)
    words = np.frombuffer(memory, "<u4")
    low, high = words & 0xFFFF, words >> 16
    assert found[0].tolist() == (words >> 8 & 0xFF).tolist()
    assert found[1].view(np.int32).tolist() == (words >> 24).astype(np.uint8).view(np.int8).tolist()
    assert found[2].tolist() == high.tolist()
    assert found[3].view(np.int32).tolist() == low.astype(np.uint16).view(np.int16).tolist()
    assert found[4].tolist() == low.tolist()
    assert found[5].tolist() == (low << 16).tolist()


def test_two_accesses_in_one_instruction() -> None:
    lines = """
    v_lshlrev_b32 v2, 3, v0
    ds_write2_b32 v2, v10, v11 offset0:1 offset1:0
    ds_write2st64_b64 v2, v[10:11], v[12:13] offset0:2 offset1:4
    ds_read2_b32 v[20:21], v2 offset0:0 offset1:1
    ds_read2st64_b64 v[22:25], v2 offset0:4 offset1:2
    ds_read_b64 v[26:27], v2 offset:1024
    s_waitcnt lgkmcnt(0)
    """
    found = run_lanes(lines, ROWS, 8, LDS_BYTES)
    order = [1, 0, 2, 3, 0, 1, 0, 1]
    assert found.tolist() == [ROWS[i].tolist() for i in order]


@pytest.mark.parametrize("strides", ["", "st64"])
@pytest.mark.parametrize("bits", [32, 64])
def test_pairs_lie_where_their_offsets_say(bits: int, strides: str) -> None:
    """Offsets count elements, or 64 of them; a pair of writes meets a byte array, a pair of reads another."""
    size, count = bits // 8, bits // 32
    unit = size * (64 if strides else 1)
    address = (RNG.permutation(64) * size).astype(np.uint32)
    offsets = {"write": (3, 5), "read": (5, 4)} if strides else {"write": (0, 100), "read": (100, 36)}
    spans = ("v10", "v11", "v[20:21]") if count == 1 else ("v[10:11]", "v[12:13]", "v[20:23]")
    lines = f"""
    v_lshlrev_b32 v3, 4, v0
    ds_write_b128 v3, v[10:13]
    ds_write_b128 v3, v[10:13] offset:1024
    ds_write_b128 v3, v[10:13] offset:2048
    ds_write2{strides}_b{bits} v14, {spans[0]}, {spans[1]} offset0:{offsets["write"][0]} offset1:{offsets["write"][1]}
    ds_read2{strides}_b{bits} {spans[2]}, v14 offset0:{offsets["read"][0]} offset1:{offsets["read"][1]}
    s_waitcnt lgkmcnt(0)
    """
    found = run_lanes(lines, (*ROWS, address), 2 * count, LDS_BYTES)
    memory = bytearray(np.array(ROWS).T.astype("<u4").tobytes() * 3)
    for source, offset in enumerate(offsets["write"]):
        for lane, start in enumerate(address.tolist()):
            words = np.array([ROWS[source * count + i][lane] for i in range(count)], "<u4")
            memory[start + offset * unit : start + offset * unit + size] = words.tobytes()
    for lane, start in enumerate(address.tolist()):
        expected = b"".join(bytes(memory[start + at * unit : start + at * unit + size]) for at in offsets["read"])
        assert found[:, lane].tobytes() == expected, lane


def test_a_negative_base_wraps_with_its_offset() -> None:
    """What clang makes of `block[63 - lane]`: the base is -4 * lane, the offset 252."""
    write, memory = filled(4)
    lines = f"""
    {write}
    v_mul_u32_u24 v3, 4, v0
    v_sub_u32 v3, 0, v3
    ds_read_b32 v20, v3 offset:252
    ds_read2_b32 v[22:23], v3 offset0:63 offset1:64
    s_waitcnt lgkmcnt(0)
    """
    found = run_lanes(lines, ROWS, 4, LDS_BYTES)
    words = np.frombuffer(memory, "<u4")
    assert found[0].tolist() == words[63 - LANE].tolist()
    assert found[2].tolist() == words[63 - LANE].tolist()
    assert found[3, 1:].tolist() == words[64 - LANE[1:]].tolist()


def test_outside_the_allocation_reads_zero_and_writes_nothing() -> None:
    lines = f"""
    v_mov_b32 v2, {LDS_BYTES - 4}
    v_mov_b32 v3, 0x77
    ds_write_b32 v2, v3
    ds_write_b64 v2, v[10:11]
    ds_write_b32 v2, v10 offset:4
    ds_read_b32 v20, v2
    ds_read_b32 v21, v2 offset:4
    ds_read_b64 v[22:23], v2
    s_waitcnt lgkmcnt(0)
    """
    found = run_lanes(lines, ROWS, 4, LDS_BYTES)
    assert [int(row[0]) for row in found] == [0x77, 0, 0, 0]


def test_inactive_lanes_neither_write_nor_read() -> None:
    lines = """
    v_lshlrev_b32 v2, 2, v0
    v_mov_b32 v20, 5
    ds_write_b32 v2, v10
    s_mov_b64 exec, 0xffff0000
    ds_write_b32 v2, v11
    ds_read_b32 v20, v2
    s_mov_b64 exec, -1
    ds_read_b32 v21, v2
    s_waitcnt lgkmcnt(0)
    """
    found = run_lanes(lines, ROWS, 2, LDS_BYTES)
    inside = (LANE >= 16) & (LANE < 32)
    assert found[0].tolist() == np.where(inside, ROWS[1], 5).tolist()
    assert found[1].tolist() == np.where(inside, ROWS[1], ROWS[0]).tolist()


def test_transposed_read_gives_each_lane_a_column() -> None:
    """16 lanes read a block of 4 rows of 16 values, 4 values a lane; lane i receives column i."""
    write, memory = filled(8)
    lines = f"{write}\nds_read_b64_tr_b16 v[20:21], v2\ns_waitcnt lgkmcnt(0)"
    found = run_lanes(lines, ROWS, 2, LDS_BYTES)
    blocks = np.frombuffer(memory, "<u2").reshape(4, 4, 16)
    for lane in range(64):
        column = blocks[lane // 16, :, lane % 16]
        assert found[:, lane].tobytes() == column.tobytes()


@pytest.mark.parametrize(("name", "bits", "size"), [("b64_tr_b8", 8, 8), ("b64_tr_b4", 4, 8), ("b96_tr_b6", 6, 12)])
def test_smaller_elements_are_transposed_alike(name: str, bits: int, size: int) -> None:
    """16 lanes read rows of 16 elements one after another, wherever each lane's bytes lie; lane i receives column i."""
    rows = np.random.default_rng(bits).integers(0, 1 << 32, (size // 4, 64), dtype=np.uint32)
    places = (np.random.default_rng(1).permutation(64) * 16).astype(np.uint32)
    data = f"v[10:{9 + size // 4}]"
    lines = f"""
    ds_write_b{8 * size} v13, {data}
    ds_read_{name} v[20:{19 + size // 4}], v13
    s_waitcnt lgkmcnt(0)
    """
    given = np.zeros((4, 64), np.uint32)
    given[: size // 4], given[3] = rows, places
    found = run_lanes(lines, given, size // 4, LDS_BYTES)
    numbers = [int.from_bytes(np.ascontiguousarray(rows[:, lane]).tobytes(), "little") for lane in range(64)]
    per_lane = 8 * size // bits
    for lane in range(64):
        elements = [
            number >> bits * i & (1 << bits) - 1 for number in numbers[lane & ~15 :][:16] for i in range(per_lane)
        ]
        column = sum(element << bits * i for i, element in enumerate(elements[lane % 16 :: 16]))
        assert np.ascontiguousarray(found[:, lane]).tobytes() == column.to_bytes(size, "little"), lane


def test_atomics_on_lds_return_what_was_there() -> None:
    """All lanes add to one counter: what they see is every partial sum once, and the total stays behind."""
    lines = """
    v_mov_b32 v2, 0
    v_mov_b32 v3, 100
    ds_write_b32 v2, v3
    v_mov_b32 v3, 1
    ds_add_rtn_u32 v20, v2, v3
    ds_read_b32 v21, v2
    ds_max_u32 v2, v10
    ds_read_b32 v22, v2
    s_waitcnt lgkmcnt(0)
    """
    found = run_lanes(lines, ROWS, 4, LDS_BYTES)
    assert sorted(found[0].tolist()) == list(range(100, 164))
    assert (found[1] == 164).all()
    assert (found[2] == ROWS[0].max()).all()
