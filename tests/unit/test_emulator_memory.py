"""Global, buffer, scalar and private memory, and loads that go straight to LDS."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from gfx950_code import assemble, launch, run_lanes, vector_program

from hktune.core.errors import KernelFault

RNG = np.random.default_rng(3)
DATA = RNG.integers(0, 1 << 32, (16, 64), dtype=np.uint32)
LANE = np.arange(64)

# A buffer descriptor in s[12:15] for the first argument, with num_records bytes.
RESOURCE = """
s_mov_b32 s12, s6
s_and_b32 s13, s7, 0xffff
s_mov_b32 s14, {records}
s_mov_b32 s15, 0x00020000
"""


def run(lines: str, outputs: int = 1, lds_bytes: int = 0) -> npt.NDArray[np.uint32]:
    """`lines` on one wave with DATA (4096 bytes) behind the first argument, in s[6:7]."""
    code = assemble(vector_program(lines, 0, outputs), lds_bytes=lds_bytes)
    found: npt.NDArray[np.uint32] = launch(code, DATA, np.zeros((outputs, 64), np.uint32))[1]
    return found


@pytest.mark.parametrize(("name", "count"), [("dword", 1), ("dwordx2", 2), ("dwordx3", 3), ("dwordx4", 4)])
def test_global_loads_and_stores_of_every_width(name: str, count: int) -> None:
    start = (RNG.permutation(64) * 4 * count).astype(np.uint32)
    last = f"v[20:{19 + count}]" if count > 1 else "v20"
    found = run_lanes(
        f"global_load_{name} {last}, v11, s[6:7]\ns_waitcnt vmcnt(0)", (DATA[0], start, *DATA[1:4]), count
    )
    image = np.concatenate([DATA[0], start, *DATA[1:4]])
    expected = np.array([image[at // 4 : at // 4 + count] for at in start]).T
    assert found.tolist() == expected.tolist()
    store = (
        f"v_mul_u32_u24 v2, {4 * count}, v0\nglobal_store_{name} v2, {last.replace('20', '10', 1)}, s[8:9]\ns_endpgm"
    )
    store = store.replace(f"v[10:{19 + count}]", f"v[10:{9 + count}]")
    code = assemble(vector_program(store, count, 0))
    stored = launch(code, DATA, np.zeros(64 * count, np.uint32))[1]
    assert stored.reshape(64, count).T.tolist() == DATA[:count].tolist()


def test_addresses_in_register_pairs_and_negative_offsets() -> None:
    lines = """
    v_mov_b32 v3, s7
    v_add_co_u32 v2, vcc, s6, v1
    v_addc_co_u32 v3, vcc, 0, v3, vcc
    global_load_dword v20, v[2:3], off offset:512
    v_add_u32 v4, 0x400, v1
    global_load_dword v21, v4, s[6:7] offset:-256
    flat_load_dword v22, v[2:3] offset:256
    s_waitcnt vmcnt(0) lgkmcnt(0)
    """
    assert run(lines, 3).tolist() == DATA[[2, 3, 1]].tolist()


def test_small_loads_extend_and_small_stores_take_one_half() -> None:
    lines = """
    v_mov_b32 v23, 0x12345678
    global_load_ubyte v20, v1, s[6:7] offset:3
    global_load_sbyte v21, v1, s[6:7] offset:1
    global_load_sshort v22, v1, s[6:7] offset:2
    global_load_short_d16_hi v23, v1, s[6:7]
    s_waitcnt vmcnt(0)
    """
    found = run(lines, 4)
    octets = DATA[0].view(np.uint8).reshape(64, 4)
    assert found[0].tolist() == octets[:, 3].tolist()
    assert found[1].view(np.int32).tolist() == octets[:, 1].view(np.int8).tolist()
    assert found[2].view(np.int32).tolist() == DATA[0].view(np.int16)[1::2].tolist()
    assert found[3].tolist() == (DATA[0] << 16).tolist()
    store = """
    v_lshlrev_b32 v2, 1, v0
    global_store_short_d16_hi v2, v10, s[8:9]
    global_store_byte v2, v11, s[8:9] offset:128
    """
    code = assemble(vector_program(store, 2, 0))
    stored = launch(code, DATA, np.zeros(256, np.uint8))[1]
    assert stored[:128].view(np.uint16).tolist() == (DATA[0] >> 16).tolist()
    assert stored[128::2].tolist() == (DATA[1] & 0xFF).tolist()


def test_two_bytes_may_lie_at_any_address() -> None:
    lines = """
    global_load_ushort v20, v1, s[6:7] offset:1
    global_load_sshort v21, v1, s[6:7] offset:3
    s_waitcnt vmcnt(0)
    """
    found = run(lines, 2)
    octets = DATA.view(np.uint8).reshape(-1)
    for at, kind, words in ((1, np.uint16, found[0]), (3, np.int16, found[1].view(np.int32))):
        expected = [octets[4 * lane + at : 4 * lane + at + 2].copy().view(kind)[0] for lane in range(64)]
        assert words.tolist() == [int(value) for value in expected]
    store = """
    v_lshlrev_b32 v2, 2, v0
    global_store_short v2, v10, s[8:9] offset:1
    """
    stored = launch(assemble(vector_program(store, 1, 0)), DATA, np.zeros(260, np.uint8))[1]
    rows = stored[:256].reshape(64, 4)
    assert np.ascontiguousarray(rows[:, 1:3]).view(np.uint16)[:, 0].tolist() == (DATA[0] & 0xFFFF).tolist()
    assert not rows[:, [0, 3]].any()


def test_buffer_loads_are_checked_against_num_records() -> None:
    """Outside means soffset + inst_offset + voffset; a wide access is cut dword by dword."""
    lines = (
        RESOURCE.format(records=600)
        + """
    s_mov_b32 s16, 400
    buffer_load_dword v20, v1, s[12:15], 0 offen offset:512
    buffer_load_dword v21, v1, s[12:15], s16 offen
    v_lshlrev_b32 v2, 4, v0
    buffer_load_dwordx4 v[22:25], v2, s[12:15], 0 offen offset:8
    buffer_load_dword v26, off, s[12:15], s16 offset:196
    buffer_load_dword v27, off, s[12:15], s16 offset:200
    s_waitcnt vmcnt(0)
    """
    )
    found = run(lines, 8)
    flat = DATA.reshape(-1)

    def word(at: int) -> int:
        return int(flat[at // 4]) if at + 4 <= 600 else 0

    assert found[0].tolist() == [word(512 + 4 * lane) for lane in range(64)]
    assert found[1].tolist() == [word(400 + 4 * lane) for lane in range(64)]
    for i in range(4):
        assert found[2 + i].tolist() == [word(8 + 16 * lane + 4 * i) for lane in range(64)]
    assert (found[6] == word(596)).all()
    assert (found[7] == 0).all()


def test_buffer_stores_outside_are_dropped() -> None:
    lines = (
        RESOURCE.format(records=100).replace("s6", "s8").replace("s7", "s9")
        + """
    v_lshlrev_b32 v2, 3, v0
    buffer_store_dwordx2 v[10:11], v2, s[12:15], 0 offen
    """
    )
    code = assemble(vector_program(lines, 2, 0))
    stored = launch(code, DATA, np.full(128, 7, np.uint32))[1]
    expected = np.full(128, 7, np.uint32)
    expected[:25] = np.array(DATA[:2]).T.reshape(-1)[:25]
    assert stored.tolist() == expected.tolist()


def test_structured_buffers_are_checked_by_index() -> None:
    lines = (
        RESOURCE.format(records=10).replace("0xffff\n", "0xffff\ns_or_b32 s13, s13, 0x00200000\n")
        + """
    buffer_load_dword v20, v0, s[12:15], 0 idxen offset:4
    s_waitcnt vmcnt(0)
    """
    )
    flat = DATA.reshape(-1)
    assert run(lines)[0].tolist() == [int(flat[(32 * lane + 4) // 4]) if lane < 10 else 0 for lane in range(64)]


# The first 1280 bytes of LDS, filled with 0x55 before a snippet runs and stored after it.
FILL = """
v_lshlrev_b32 v4, 2, v0
v_mov_b32 v3, 0x55
ds_write_b32 v4, v3
ds_write_b32 v4, v3 offset:256
ds_write_b32 v4, v3 offset:512
ds_write_b32 v4, v3 offset:768
ds_write_b32 v4, v3 offset:1024
"""


def lds_after(lines: str) -> npt.NDArray[np.uint32]:
    reads = "\n".join(f"ds_read_b32 v{20 + i}, v4 offset:{256 * i}" for i in range(5))
    return run(f"{FILL}\n{lines}\n{reads}\ns_waitcnt lgkmcnt(0)", 5, 8192).reshape(-1)


@pytest.mark.parametrize(("width", "count", "spacing"), [("dword", 1, 4), ("dwordx3", 3, 16), ("dwordx4", 4, 16)])
def test_loads_to_lds_go_where_m0_says(width: str, count: int, spacing: int) -> None:
    """LDS address is M0 + inst_offset + lane * spacing; inst_offset moves the memory address too. Lanes outside the
    buffer bring zeros, inactive lanes nothing."""
    resource = RESOURCE.format(records=16 + 40 * spacing)
    lines = f"""{resource}
    v_mul_u32_u24 v2, {spacing}, v0
    s_mov_b32 m0, 64
    s_mov_b64 exec, 0xfffffffffffffff0
    buffer_load_{width} v2, s[12:15], 0 offen offset:16 lds
    s_mov_b64 exec, -1
    s_waitcnt vmcnt(0)
    """
    expected = np.full(320, 0x55, np.uint32)
    flat = DATA.reshape(-1)
    for lane in range(4, 64):
        at = (64 + 16 + lane * spacing) // 4
        source = (16 + lane * spacing) // 4
        expected[at : at + count] = flat[source : source + count] if lane < 40 else 0
    assert lds_after(lines).tolist() == expected.tolist()


def test_global_loads_to_lds() -> None:
    """The same, addressed by a register pair and a scattered offset: LDS still fills lane after lane."""
    lines = """
    v_lshlrev_b32 v2, 4, v0
    v_xor_b32 v2, 0x30, v2
    s_mov_b32 m0, 128
    global_load_lds_dwordx4 v2, s[6:7] offset:64
    s_waitcnt vmcnt(0)
    """
    flat = DATA.reshape(-1)
    expected = np.full(320, 0x55, np.uint32)
    expected[48:304] = flat[16:272].reshape(16, 4, 4)[:, ::-1].reshape(-1)
    assert lds_after(lines).tolist() == expected.tolist()


TO_LDS = {"ubyte": 1, "sbyte": 1, "ushort": 2, "sshort": 2, "dword": 4, "dwordx3": 12, "dwordx4": 16}


@pytest.mark.parametrize(("width", "size"), TO_LDS.items())
def test_widths_of_global_loads_to_lds(width: str, size: int) -> None:
    """Bytes and shorts fill a dword, extended. M0 counts in dwords: its lowest two bits are not looked at."""
    spacing, signed = 16 if size > 4 else 4, width.startswith("s")
    lines = f"""
    v_mul_u32_u24 v2, {max(size, 2)}, v0
    s_mov_b32 m0, 66
    s_mov_b64 exec, 0xfffffffffffffff0
    global_load_lds_{width} v2, s[6:7] offset:16
    s_mov_b64 exec, -1
    s_waitcnt vmcnt(0)
    """
    memory = DATA.tobytes()
    expected = np.full(320, 0x55, np.uint32)
    for lane in range(4, 64):
        source, at = 16 + max(size, 2) * lane, (64 + 16 + spacing * lane) // 4
        data = memory[source : source + size]
        if size < 4:
            data = int.from_bytes(data, "little", signed=signed).to_bytes(4, "little", signed=signed)
        expected[at : at + len(data) // 4] = np.frombuffer(data, "<u4")
    assert lds_after(lines).tolist() == expected.tolist()


@pytest.mark.parametrize("count", [1, 2, 4, 8, 16])
def test_widths_of_scalar_loads(count: int) -> None:
    """The byte offset is a constant, a register (its lowest two bits are not looked at), or both; buffers end at
    num_records, dword by dword."""
    kind = "dword" if count == 1 else f"dwordx{count}"
    target = [f"s[{at}:{at + count - 1}]" if count > 1 else f"s{at}" for at in (32, 48, 64, 80)]
    lines = f"""{RESOURCE.format(records=600)}
    s_mov_b32 s10, 0x103
    s_load_{kind} {target[0]}, s[6:7], s10
    s_load_{kind} {target[1]}, s[6:7], 0x84
    s_buffer_load_{kind} {target[2]}, s[12:15], 588
    s_buffer_load_{kind} {target[3]}, s[12:15], s10
    s_waitcnt lgkmcnt(0)
    """
    moves = [f"v_mov_b32 v{20 + i * count + j}, s{32 + 16 * i + j}" for i in range(4) for j in range(count)]
    found = run("\n".join([lines, *moves]), 4 * count)[:, 0].reshape(4, count)
    flat = DATA.reshape(-1)
    for row, start, end in zip(found, (0x100, 0x84, 588, 0x100), (4096, 4096, 600, 600), strict=True):
        words = [int(flat[at // 4]) if at + 4 <= end else 0 for at in range(start, start + 4 * count, 4)]
        assert row.tolist() == words, start


def test_scalar_loads() -> None:
    lines = """
    s_load_dwordx8 s[16:23], s[6:7], 0x100
    s_mov_b32 s10, 0x204
    s_load_dword s24, s[6:7], s10
    s_buffer_load_dwordx2 s[26:27], s[12:15], 20
    s_waitcnt lgkmcnt(0)
    """
    moves = [f"v_mov_b32 v{20 + i}, s{register}" for i, register in enumerate((16, 23, 24, 26, 27))]
    found = run("\n".join([RESOURCE.format(records=24), lines, *moves]), 5)
    expected = [DATA[1, 0], DATA[1, 7], DATA[2, 1], DATA[0, 5], 0]
    assert [int(row[0]) for row in found] == [int(word) for word in expected]


def test_private_memory_belongs_to_the_lane() -> None:
    lines = """
    s_mov_b32 s10, 8
    scratch_store_dword off, v10, s10
    scratch_store_dwordx2 off, v[12:13], off offset:16
    v_mov_b32 v2, 4
    scratch_load_dword v20, v2, off offset:4
    v_mov_b32 v21, 3
    scratch_load_dwordx2 v[22:23], off, off offset:16
    s_waitcnt vmcnt(0)
    """
    code = assemble(vector_program(lines, 4, 4), scratch_bytes=32)
    found = launch(code, DATA, np.zeros((4, 64), np.uint32))[1]
    assert found[[0, 2, 3]].tolist() == DATA[[0, 2, 3]].tolist()


def test_global_atomics() -> None:
    lines = """
    v_mov_b32 v2, 0
    v_mov_b32 v3, 2
    global_atomic_add v20, v2, v3, s[8:9] offset:1024 sc0
    v_mov_b32 v3, 1.0
    global_atomic_add_f32 v2, v3, s[8:9] offset:1028
    v_mov_b32 v6, 77
    v_mov_b32 v7, 0
    global_atomic_cmpswap v2, v[6:7], s[8:9] offset:1032
    v_mov_b32 v3, 0x3f804000
    global_atomic_pk_add_bf16 v2, v3, s[8:9] offset:1036
    s_waitcnt vmcnt(0)
    """
    code = assemble(vector_program(lines, 0, 1))
    out = launch(code, DATA, np.zeros(300, np.uint32))[1]
    assert sorted(out[:64].tolist()) == list(range(0, 128, 2))
    assert (out[256], out[257:258].view(np.float32)[0], out[258]) == (128, 64.0, 77)
    assert out[259] == 0x42804300  # 64 times 1.0, and 64 times 2.0, as bf16


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("global_load_dword v20, v2, s[6:7]", "lane 0: address 0x"),
        ("s_mov_b64 exec, 32\nglobal_store_dword v2, v0, s[6:7]", "lane 5: address 0x"),
        ("s_mov_b32 s7, 9\ns_load_dword s20, s[6:7], 0", "wave 0 of workgroup (0, 0, 0): address 0x9"),
        ("v_mov_b32 v2, 0x40\nscratch_load_dword v20, v2, off", "is not in 0 private bytes"),
    ],
)
def test_accesses_outside_every_allocation_are_hazards(line: str, place: str) -> None:
    with pytest.raises(KernelFault) as caught:
        run(f"v_mov_b32 v2, 0x10000\n{line}")
    assert caught.value.status == "hazard"
    assert place in caught.value.detail
    assert line.split("\n")[-1].split()[0] in caught.value.detail
    assert "\n" not in caught.value.detail


def test_code_can_be_read_but_not_written() -> None:
    lines = "s_getpc_b64 s[10:11]\ns_load_dword s12, s[10:11], 0\nv_mov_b32 v2, 0\nglobal_store_dword v2, v0, s[10:11]"
    with pytest.raises(KernelFault, match="is read-only"):
        run(lines)
