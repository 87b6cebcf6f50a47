"""Waves that share LDS and memory: barriers order them, and what barriers do not order is a hazard with both sides."""

from __future__ import annotations

import pytest
from hazard_kernels import BUFFER, hazard

WAVE = "v_readfirstlane_b32 s20, v0\ns_lshr_b32 s20, s20, 6\ns_cmp_eq_u32 s20, 0"
"""SCC: whether this is wave 0."""

EXCHANGE = """
v_xor_b32 v3, 0x100, v1
ds_write_b32 v1, v1
s_waitcnt lgkmcnt(0)
s_barrier
ds_read_b32 v10, v3
s_waitcnt lgkmcnt(0)
s_barrier
ds_write_b32 v1, v10
"""
"""Two waves swap 256 bytes each, then write their own place again."""


def test_waves_that_exchange_through_lds_are_right() -> None:
    assert hazard(EXCHANGE, waves=2) is None


@pytest.mark.parametrize(
    ("lost", "complaint"),
    [
        ("s_waitcnt lgkmcnt(0)\ns_barrier\nds_read", "ds_write_b32"),
        ("s_barrier\nds_read", "ds_write_b32"),
        ("s_barrier\nds_write", "ds_read_b32"),
        ("s_waitcnt lgkmcnt(0)\ns_barrier\nds_write", "reads v10"),
    ],
    ids=["no wait before the first barrier", "no first barrier", "no second barrier", "no wait for the read"],
)
def test_an_exchange_without_one_of_its_parts_is_a_race(lost: str, complaint: str) -> None:
    whole, kept = lost.split("\n")[0] + "\n", lost.split("\n", 1)[1]
    assert lost in EXCHANGE
    found = hazard(EXCHANGE.replace(lost, kept), waves=2)
    assert found is not None, whole
    assert complaint in found


def test_a_race_names_both_sides_and_the_remedy() -> None:
    found = hazard(EXCHANGE.replace("s_barrier\nds_read", "ds_read"), waves=2)
    assert found is not None
    assert "ds_read_b32" in found
    assert "wave 0 of workgroup (0, 0, 0): reads LDS address 256, which ds_write_b32" in found
    assert "of wave 1 wrote" in found
    assert "s_barrier" in found


STAGGERED = f"""
{WAVE}
s_cbranch_scc1 first
s_barrier
first:
ds_write_b32 v1, v1
s_waitcnt lgkmcnt(0)
s_barrier
s_barrier
v_xor_b32 v3, 0x100, v1
ds_read_b32 v10, v3
s_waitcnt lgkmcnt(0)
{WAVE}
s_cbranch_scc0 last
s_barrier
last:
s_nop 0
"""
"""Wave 1 waits at one barrier more at the start, wave 0 at the end: wave 0 runs one barrier ahead of wave 1."""


def test_staggered_waves_are_ordered_by_how_many_barriers_they_passed() -> None:
    """Wave 0 writes before barrier 1 and reads after barrier 2; wave 1 writes after barrier 1, arrives at barrier 2
    having waited, and reads after barrier 3."""
    assert hazard(STAGGERED, waves=2) is None


def test_a_stagger_without_the_barrier_that_makes_up_for_it_is_a_race() -> None:
    one_barrier = STAGGERED.replace("s_barrier\ns_barrier\nv_xor", "s_barrier\nv_xor")
    found = hazard(one_barrier, waves=2)
    assert found is not None
    assert "wave 0 of workgroup (0, 0, 0): reads LDS address 256, which ds_write" in found or "nothing has" in found


TO_LDS = f"""
{BUFFER}
v_xor_b32 v3, 0x400, v2
v_readfirstlane_b32 s20, v2
s_mov_b32 m0, s20
s_nop 0
buffer_load_dwordx4 v2, s[12:15], 0 offen lds
s_waitcnt vmcnt(0)
s_barrier
ds_read_b128 v[20:23], v3
s_waitcnt lgkmcnt(0)
s_barrier
buffer_load_dwordx4 v2, s[12:15], 0 offen lds
"""
"""Each of two waves loads 1 KiB to LDS, reads the other's and loads its own again."""


def test_loads_to_lds_are_seen_after_wait_and_barrier() -> None:
    assert hazard(TO_LDS, waves=2) is None


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("s_waitcnt vmcnt(0)\n", "", "wave 1 must wait for it with s_waitcnt vmcnt, then both pass an s_barrier"),
        ("s_waitcnt vmcnt(0)\n", "s_waitcnt vmcnt(1)\n", "with s_waitcnt vmcnt"),
        ("s_waitcnt vmcnt(0)\ns_barrier\n", "s_barrier\ns_waitcnt vmcnt(0)\n", "no s_barrier lies between"),
        ("s_barrier\nds_read", "ds_read", "no s_barrier lies between"),
        (
            "s_waitcnt lgkmcnt(0)\ns_barrier\nbuffer",
            "s_barrier\nbuffer",
            "wave 1 must wait for it with s_waitcnt lgkmcnt",
        ),
        ("s_barrier\nbuffer", "buffer", "no s_barrier lies between"),
    ],
)
def test_loads_to_lds_without_order_are_races(right: str, wrong: str, complaint: str) -> None:
    assert TO_LDS.count(right) == 1
    found = hazard(TO_LDS.replace(right, wrong), waves=2)
    assert found is not None
    assert complaint in found


TILES = """
s_mov_b32 s22, 2
v_xor_b32 v3, 0x100, v1
tile:
global_load_dword v10, v1, s[8:9]
s_waitcnt vmcnt(0)
ds_write_b32 v1, v10
s_waitcnt lgkmcnt(0)
s_barrier
ds_read_b32 v11, v3
s_waitcnt lgkmcnt(0)
s_barrier
s_sub_u32 s22, s22, 1
s_cmp_lg_u32 s22, 0
s_cbranch_scc1 tile
"""
"""Two waves exchange what they loaded, tile after tile."""


def test_a_second_tile_waits_for_the_readers_of_the_first() -> None:
    """Though data on their way from memory leave the readers hundreds of cycles."""
    assert hazard(TILES, waves=2) is None
    found = hazard(TILES.replace("s_barrier\ns_sub", "s_sub"), waves=2)
    assert found is not None
    assert "no s_barrier lies between" in found


def test_a_wave_alone_waits_for_its_own_load_to_lds() -> None:
    alone = TO_LDS.replace("v_xor_b32 v3, 0x400, v2", "v_mov_b32 v3, v2").replace("s_barrier\n", "")
    assert hazard(alone) is None
    found = hazard(alone.replace("s_waitcnt vmcnt(0)\n", ""))
    assert found is not None
    assert "this wave must wait for it with s_waitcnt vmcnt" in found
    late_read = hazard(alone.replace("s_waitcnt lgkmcnt(0)\n", ""))
    assert late_read is not None
    assert "this wave must wait for it with s_waitcnt lgkmcnt" in late_read


def test_lds_keeps_the_order_of_one_wave() -> None:
    assert hazard("ds_write_b32 v1, v1\nds_read_b32 v10, v1\nds_write_b32 v1, v2") is None


def test_waves_that_write_one_place_at_once_race() -> None:
    assert hazard("ds_write_b32 v1, v1", waves=2) is None
    found = hazard("v_and_b32 v3, 0xff, v1\nds_write_b32 v3, v1", waves=2)
    assert found is not None
    assert "writes LDS address" in found


def test_bytes_beside_each_other_are_not_one_place() -> None:
    """Two waves write the two halves of the same dwords."""
    lines = f"v_and_b32 v3, 0xff, v1\n{WAVE}\ns_cselect_b32 s21, 0, 2\nv_add_u32 v3, s21, v3\nds_write_b16 v3, v1"
    assert hazard(lines, waves=2) is None


def test_atomics_on_lds_do_not_race_with_each_other() -> None:
    start = f"{WAVE}\ns_cbranch_scc0 wait\nds_write_b32 v1, v1\ns_waitcnt lgkmcnt(0)\nwait:\ns_barrier\n"
    add = "v_and_b32 v3, 0xff, v1\nv_mov_b32 v4, 1\nds_add_u32 v3, v4"
    assert hazard(start + add, waves=2) is None
    found = hazard(f"{start}{add}\nds_read_b32 v10, v3", waves=2)
    assert found is not None
    assert "ds_add_u32" in found


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("ds_read_b32 v10, v1", "reads LDS address 0, which nothing has written"),
        ("ds_write_b32 v1, v1 offset:8192", "runs past the workgroup's 8192 bytes"),
        ("v_add_u32 v3, 2, v1\nds_add_u32 v3, v20", "LDS address 2, which is not aligned to 4 bytes, as it must be"),
        ("v_add_u32 v3, 4, v2\nds_read_b64_tr_b16 v[20:21], v3", "LDS address 4, which is not aligned to 8 bytes"),
        (
            f"{BUFFER}\ns_mov_b32 m0, 2\ns_nop 0\nbuffer_load_dwordx4 v2, s[12:15], 0 offen lds",
            "LDS address 2, which is not aligned to 4 bytes",
        ),
        ("v_add_u32 v3, 4, v2\nds_write_b128 v3, v[20:23]", "LDS address 4, which is not aligned to its 16 bytes"),
    ],
)
def test_lds_addresses_are_judged(line: str, complaint: str) -> None:
    values = "\n".join(f"v_mov_b32 v{register}, 0" for register in range(20, 24))
    found = hazard(f"{values}\n{line}")
    assert found is not None
    assert complaint in found


OWN = "v_lshl_add_u32 v3, s2, 8, v1"
"""A place of its own for each workgroup of one wave."""


def test_workgroups_that_store_apart_are_right_and_together_are_not() -> None:
    assert hazard(f"{OWN}\nglobal_store_dword v3, v1, s[8:9]", groups=4) is None
    found = hazard("global_store_dword v1, v1, s[8:9]", groups=4)
    assert found is not None
    assert "workgroups run in any order" in found


def test_a_load_of_what_another_workgroup_stores_is_a_race_either_way_round() -> None:
    later = f"{OWN}\nglobal_store_dword v3, v1, s[8:9]\ns_waitcnt vmcnt(0)\nglobal_load_dword v10, v1, s[8:9]"
    assert "stored" in str(hazard(later, groups=2))
    first = f"{OWN}\nglobal_load_dword v10, v1, s[8:9]\ns_waitcnt vmcnt(0)\nglobal_store_dword v3, v1, s[8:9]"
    assert "loaded" in str(hazard(first, groups=2))


def test_waves_of_a_workgroup_exchange_through_memory_in_order() -> None:
    exchange = """
    global_store_dword v1, v1, s[8:9]
    s_waitcnt vmcnt(0)
    s_barrier
    v_xor_b32 v3, 0x100, v1
    global_load_dword v10, v3, s[8:9]
    """
    assert hazard(exchange, waves=2) is None
    assert "stored" in str(hazard(exchange.replace("s_barrier\n", ""), waves=2))
    assert "stored" in str(hazard(exchange.replace("s_waitcnt vmcnt(0)\n", ""), waves=2))


LAST_ONE_READS = f"""
{OWN}
global_store_dword v3, v1, s[8:9]
buffer_wbl2 sc1
s_waitcnt vmcnt(0)
s_mov_b64 s[20:21], exec
s_mov_b64 exec, 1
v_mov_b32 v4, 1
v_mov_b32 v5, 0
global_atomic_add v6, v5, v4, s[6:7] sc0
s_waitcnt vmcnt(0)
buffer_inv sc1
v_readfirstlane_b32 s22, v6
s_mov_b64 exec, s[20:21]
s_cmp_lg_u32 s22, 2
s_cbranch_scc1 end
global_load_dword v10, v1, s[8:9]
global_load_dword v11, v1, s[8:9] offset:256
global_load_dword v12, v1, s[8:9] offset:512
end:
"""
"""Three workgroups store, count themselves in, and the last one reads what all have stored."""


def test_workgroups_exchange_through_an_atomic_that_releases_and_acquires() -> None:
    assert hazard(LAST_ONE_READS, groups=3) is None


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("buffer_wbl2 sc1\n", ""),
        ("buffer_wbl2 sc1\n", "buffer_wbl2\n"),
        ("buffer_wbl2 sc1\ns_waitcnt vmcnt(0)\n", "buffer_wbl2 sc1\n"),
        ("buffer_wbl2 sc1\ns_waitcnt vmcnt(0)\n", "s_waitcnt vmcnt(0)\nglobal_store_dword v3, v1, s[8:9]\n"),
        ("buffer_inv sc1\n", ""),
        ("buffer_inv sc1\n", "buffer_inv\n"),
        ("s_waitcnt vmcnt(0)\nbuffer_inv sc1\n", "buffer_inv sc1\ns_waitcnt vmcnt(0)\n"),
        ("v_mov_b32 v5, 0\n", "v_mov_b32 v5, s2\nv_lshlrev_b32 v5, 2, v5\ns_mov_b32 s23, 2\n"),
    ],
)
def test_each_step_of_such_an_exchange_is_needed(right: str, wrong: str) -> None:
    """In the last case each counts at an address of its own, so that nobody is told anything."""
    assert LAST_ONE_READS.count(right) == 1
    kernel = LAST_ONE_READS.replace(right, wrong)
    if "v5" in wrong:
        kernel = kernel.replace("s_cmp_lg_u32 s22, 2", "s_cmp_lg_u32 s2, 2")
    found = hazard(kernel, groups=3)
    assert found is not None
    assert "stored" in found


def test_an_atomic_alone_orders_no_stores() -> None:
    lines = "v_mov_b32 v4, 1\nglobal_atomic_add v1, v4, s[6:7]\nglobal_store_dword v1, v1, s[8:9]"
    assert "workgroups run in any order" in str(hazard(lines, groups=2))
