"""Scalar stores, plain and through a buffer resource: against the bytes that they must move."""

from __future__ import annotations

import numpy as np
import pytest
from gfx950_code import assemble, launch

from hktune.core.errors import KernelFault

ENTRY = """
s_load_dwordx2 s[6:7], s[0:1], 0
s_mov_b32 s20, 0x11111111
s_mov_b32 s21, 0x22222222
s_mov_b32 s22, 0x33333333
s_mov_b32 s23, 0x44444444
s_mov_b32 s24, 32
s_mov_b32 s12, 0
s_waitcnt lgkmcnt(0)
s_mov_b32 s12, s6
s_mov_b32 s13, s7
s_mov_b32 s14, 40
s_mov_b32 s15, 0x20000
"""
WORDS = [0x11111111, 0x22222222, 0x33333333, 0x44444444]


def stored(line: str) -> dict[int, int]:
    """The dwords that are not zero afterwards, by number."""
    code = assemble(f"{ENTRY}\n{line}\ns_dcache_wb\ns_endpgm", pointers=1)
    found = launch(code, np.zeros(32, np.uint32))[0]
    return {int(i): int(found[i]) for i in np.flatnonzero(found)}


def words(count: int, first: int) -> dict[int, int]:
    return {first + i: WORDS[i] for i in range(count)}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("s_store_dword s20, s[6:7], 0x10", words(1, 4)),
        ("s_store_dwordx2 s[20:21], s[6:7], 0x8", words(2, 2)),
        ("s_store_dwordx4 s[20:23], s[6:7], 0x20", words(4, 8)),
        ("s_store_dword s20, s[6:7], s24", words(1, 8)),
        ("s_store_dword s20, s[6:7], 0x13", words(1, 4)),  # the low two bits do not count
        ("s_buffer_store_dword s20, s[12:15], 0x24", words(1, 9)),
        ("s_buffer_store_dwordx2 s[20:21], s[12:15], s24", words(2, 8)),
        ("s_buffer_store_dwordx4 s[20:23], s[12:15], 0x10", words(4, 4)),
        ("s_buffer_store_dwordx4 s[20:23], s[12:15], 0x20", words(2, 8)),  # the buffer ends at 40
        ("s_buffer_store_dword s20, s[12:15], 0x28", {}),
    ],
)
def test_scalars_are_stored(line: str, expected: dict[int, int]) -> None:
    assert stored(line) == expected


def test_each_wave_stores_its_own_scalar() -> None:
    lines = """
    s_load_dwordx2 s[6:7], s[0:1], 0
    v_readfirstlane_b32 s20, v0
    s_lshr_b32 s21, s20, 4
    s_waitcnt lgkmcnt(0)
    s_store_dword s20, s[6:7], s21
    s_dcache_wb
    s_endpgm
    """
    found = launch(assemble(lines, pointers=1), np.zeros(4, np.uint32), block=(256, 1, 1))[0]
    assert found.tolist() == [0, 64, 128, 192]


def test_a_store_past_an_allocation_is_a_hazard() -> None:
    with pytest.raises(KernelFault, match=r"s_store_dword at .* wave 0 of workgroup \(0, 0, 0\): address") as fault:
        stored("s_store_dword s20, s[6:7], 0x1000")
    assert fault.value.status == "hazard"
