"""Every scalar atomic, plain and through a buffer resource: what it leaves and returns, by Python's integers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from gfx950_code import assemble, launch, mnemonics

from hktune.core.errors import KernelFault

WAVES = 8
_HALF = {1: 1 << 31, 2: 1 << 63}


def _signed(value: int, dwords: int) -> int:
    return value - 2 * _HALF[dwords] if value >= _HALF[dwords] else value


def _results(dwords: int) -> dict[str, Callable[[int, int, int], int]]:
    """What each leaves of (what was there, the operand, what cmpswap compares with)."""
    return {
        "swap": lambda _old, new, _: new,
        "cmpswap": lambda old, new, expected: new if old == expected else old,
        "add": lambda old, new, _: old + new,
        "sub": lambda old, new, _: old - new,
        "smin": lambda old, new, _: min(old, new, key=lambda v: _signed(v, dwords)),
        "umin": lambda old, new, _: min(old, new),
        "smax": lambda old, new, _: max(old, new, key=lambda v: _signed(v, dwords)),
        "umax": lambda old, new, _: max(old, new),
        "and": lambda old, new, _: old & new,
        "or": lambda old, new, _: old | new,
        "xor": lambda old, new, _: old ^ new,
        "inc": lambda old, new, _: 0 if old >= new else old + 1,
        "dec": lambda old, new, _: new if old == 0 or old > new else old - 1,
    }


def _operands(dwords: int) -> npt.NDArray[np.uint64]:
    """(wave, 3): what is there, the operand, what is compared with. Zeros, equals and either order are among them."""
    rng = np.random.default_rng(3)
    values = rng.integers(0, 1 << 32 * dwords, (WAVES, 3), dtype=np.uint64)
    values[0, 0] = 0
    values[1, :2] = 5, 5
    values[2, :2] = 4, 9
    values[3, :2] = 9, 4
    values[4, 2] = values[4, 0]
    values[5, 2] = values[5, 0]
    return values


def _words(values: npt.NDArray[np.uint64], dwords: int) -> npt.NDArray[np.uint32]:
    pairs = np.ascontiguousarray(values).view(np.uint32).reshape(*values.shape, 2)
    return np.ascontiguousarray(pairs[..., :dwords])


SETUP = """
s_load_dwordx2 s[6:7], s[0:1], 0
s_load_dwordx2 s[8:9], s[0:1], 8
s_load_dwordx2 s[10:11], s[0:1], 16
v_readfirstlane_b32 s20, v0
s_lshr_b32 s20, s20, 6
s_lshl_b32 s21, s20, 5
s_waitcnt lgkmcnt(0)
s_load_dwordx4 s[24:27], s[6:7], s21
s_mul_i32 s21, s20, 256
s_add_u32 s8, s8, s21
s_addc_u32 s9, s9, 0
s_add_u32 s10, s10, s21
s_addc_u32 s11, s11, 0
s_mov_b32 s12, s8
s_and_b32 s13, s9, 0xffff
s_mov_b32 s14, 256
s_mov_b32 s15, 0x20000
s_waitcnt lgkmcnt(0)
"""
"""Wave w's operand and what it compares with in s[24:27], its 256 bytes at s[8:9] (also the buffer s[12:15]), and 256
more for what comes back at s[10:11]."""


def _calls(prefix: str, dwords: int) -> tuple[list[str], list[str]]:
    """The lines that execute all atomics of a family, number i on place i; and their names, in order."""
    names = sorted(_results(dwords))
    base = "s[12:15]" if prefix == "s_buffer_atomic_" else "s[8:9]"
    lines = []
    for i, name in enumerate(names):
        count = dwords * (2 if name == "cmpswap" else 1)
        data = "s40" if count == 1 else f"s[40:{39 + count}]"
        back = "s40" if dwords == 1 else "s[40:41]"
        size = f"dword{'x2' * (dwords == 2)}"
        lines += [f"s_mov_b32 s{40 + j}, s{24 + j}" for j in range(4)]
        lines += [f"s_mov_b32 s31, {8 * i}", f"{prefix}{name}{'_x2' * (dwords == 2)} {data}, {base}, s31 glc"]
        lines += ["s_waitcnt lgkmcnt(0)", f"s_store_{size} {back}, s[10:11], s31"]
    return lines, names


@pytest.mark.parametrize("dwords", [1, 2])
@pytest.mark.parametrize("prefix", ["s_atomic_", "s_buffer_atomic_"])
def test_scalar_atomics(prefix: str, dwords: int) -> None:
    lines, names = _calls(prefix, dwords)
    assert {f"{prefix}{name}{'_x2' * (dwords == 2)}" for name in names} <= mnemonics("SMEM")
    values = _operands(dwords)
    given = np.zeros((WAVES, 8), np.uint32)
    given[:, : 2 * dwords] = _words(values[:, 1:], dwords).reshape(WAVES, -1)
    places = np.zeros((WAVES, 32, 2), np.uint32)
    places[:, : len(names), :dwords] = _words(values[:, :1], dwords)
    code = assemble("\n".join([SETUP, *lines, "s_endpgm"]), pointers=3)
    _, left, back = launch(code, given, places, np.zeros((WAVES, 32, 2), np.uint32), block=(64 * WAVES, 1, 1))
    for wave, (old, new, expected) in enumerate(values.tolist()):
        for i, name in enumerate(names):
            after = _results(dwords)[name](old, new, expected) % (1 << 32 * dwords)
            assert left[wave, i].view(np.uint64)[0] == after, (name, wave)
            assert back[wave, i].view(np.uint64)[0] == old, (name, wave)


def test_without_glc_the_register_keeps_its_operand() -> None:
    lines = [SETUP, "s_atomic_dec s24, s[8:9], 0x4", "s_store_dword s24, s[10:11], 0", "s_endpgm"]
    given = np.full((WAVES, 8), 16, np.uint32)
    places = np.arange(WAVES * 64, dtype=np.uint32).reshape(WAVES, 64)
    code = assemble("\n".join(lines), pointers=3)
    _, left, back = launch(code, given, places, np.zeros((WAVES, 64), np.uint32), block=(64 * WAVES, 1, 1))
    assert back[:, 0].tolist() == [16] * WAVES
    # Wave w finds 64 * w + 1 there: 1 counts down to 0, and what is above 16 begins again at 16.
    assert left[:, 1].tolist() == [0] + [16] * (WAVES - 1)
    assert (left[:, 2:] == places[:, 2:]).all()


@pytest.mark.parametrize(("offset", "reached"), [(0xFC, True), (0x100, False)])
def test_an_atomic_outside_its_buffer_does_nothing(offset: int, reached: bool) -> None:
    lines = [SETUP, f"s_buffer_atomic_add s24, s[12:15], {offset:#x} glc", "s_waitcnt lgkmcnt(0)"]
    lines += ["s_store_dword s24, s[10:11], 0", "s_endpgm"]
    given, places = np.full((WAVES, 8), 3, np.uint32), np.full((WAVES + 1, 64), 7, np.uint32)
    code = assemble("\n".join(lines), pointers=3)
    _, left, back = launch(code, given, places, np.zeros((WAVES, 64), np.uint32), block=(64 * WAVES, 1, 1))
    assert back[:, 0].tolist() == [7 if reached else 0] * WAVES
    assert left[:WAVES, 63].tolist() == [10 if reached else 7] * WAVES
    assert left[1:, 0].tolist() == [7] * WAVES


def test_waves_count_down_together() -> None:
    """Eight waves take one each of a counter; what they found is every number from 8 to 1."""
    lines = """
    s_load_dwordx2 s[6:7], s[0:1], 0
    s_load_dwordx2 s[8:9], s[0:1], 8
    v_readfirstlane_b32 s20, v0
    s_lshr_b32 s20, s20, 4
    s_mov_b32 s24, 8
    s_waitcnt lgkmcnt(0)
    s_atomic_dec s24, s[6:7], 0 glc
    s_waitcnt lgkmcnt(0)
    s_store_dword s24, s[8:9], s20
    s_endpgm
    """
    code = assemble(lines, pointers=2)
    counter, found = launch(code, np.array([8], np.uint32), np.zeros(WAVES, np.uint32), block=(64 * WAVES, 1, 1))
    assert counter[0] == 0
    assert sorted(found.tolist()) == list(range(1, WAVES + 1))


def test_an_atomic_outside_every_allocation_is_a_hazard() -> None:
    lines = [SETUP, "s_atomic_add s24, s[8:9], 0x10000", "s_endpgm"]
    arrays = [np.zeros((WAVES, 64), np.uint32)] * 3
    with pytest.raises(KernelFault, match=r"s_atomic_add at .* wave 0 of workgroup \(0, 0, 0\): address") as fault:
        launch(assemble("\n".join(lines), pointers=3), *arrays, block=(64 * WAVES, 1, 1))
    assert fault.value.status == "hazard"
