"""Vector loads and stores of every width in every addressing, LDS and private: against the bytes they must move."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from gfx950_code import own_bytes, run_lanes

LOADS = {"ubyte": (1, False), "sbyte": (1, True), "ushort": (2, False), "sshort": (2, True)}
HALVES = {"ubyte": (1, False), "sbyte": (1, True), "short": (2, False)}
WIDE = {"dword": 4, "dwordx2": 8, "dwordx3": 12, "dwordx4": 16}
LDS_LOADS = {"u8": (1, False), "i8": (1, True), "u16": (2, False), "i16": (2, True)}
LDS_HALVES = {"u8": (1, False), "i8": (1, True), "u16": (2, False)}
LDS_WIDE = {"b32": 4, "b64": 8, "b96": 12, "b128": 16}

SETUP = own_bytes(4)
"""Each lane has 16 bytes of its own, 2048 bytes into the first argument (from 0 in LDS, from 8 in private memory)."""

PLACES = {
    "global": ("global_{} {}, v3, s[6:7] offset:2048", "global_{} v3, {}, s[6:7] offset:2048"),
    "flat": ("flat_{} {}, v[4:5]", "flat_{} v[4:5], {}"),
    "buffer": ("buffer_{} {}, v3, s[12:15], 0 offen offset:2048", "buffer_{} {}, v3, s[12:15], 0 offen offset:2048"),
    "LDS": ("ds_{} {}, v3", "ds_{} v3, {}"),
    "scratch": ("scratch_{} {}, off, off offset:8", "scratch_{} off, {}, off offset:8"),
}
RNG = np.random.default_rng(9)
MEMORY = RNG.integers(0, 1 << 32, (4, 64), dtype=np.uint32)  # what the lanes' 16 bytes hold first
DATA = RNG.integers(0, 1 << 32, (4, 64), dtype=np.uint32)  # what is stored, or loaded into
WAIT = "s_waitcnt vmcnt(0) lgkmcnt(0)"


def span(first: int, size: int) -> str:
    count = max(1, size // 4)
    return f"v[{first}:{first + count - 1}]" if count > 1 else f"v{first}"


def run(place: str, cases: list[str]) -> npt.NDArray[np.uint32]:
    """Every case works on fresh memory and fresh v[80:83], which come back with what it loads to v[84:87]."""
    load, store = PLACES[place]
    wide = "b128" if place == "LDS" else "dwordx4"
    words = ("read", "write") if place == "LDS" else ("load", "store")
    lines = [SETUP]
    for i, case in enumerate(cases):
        lines.append("\n".join(f"v_mov_b32 v{80 + j}, v{14 + j}" for j in range(4)))
        lines += [store.format(f"{words[1]}_{wide}", "v[10:13]"), WAIT, case, WAIT]
        if "v[80:8" not in case and " v80" not in case:
            raise AssertionError(case)
        if words[1] in case.split()[0]:
            lines += [load.format(f"{words[0]}_{wide}", "v[80:83]"), WAIT]
        lines.append("\n".join(f"v_mov_b32 v{20 + 4 * i + j}, v{80 + j}" for j in range(4)))
    filler = [np.zeros(64, np.uint32)] * 8  # the lanes' own bytes
    found = run_lanes("\n".join(lines), [*MEMORY, *DATA, *filler], 4 * len(cases), lds_bytes=1024, scratch_bytes=32)
    return found.reshape(len(cases), 4, 64)


def names(place: str) -> tuple[dict[str, tuple[int, bool]], dict[str, tuple[int, bool]], dict[str, int], str, str]:
    if place == "LDS":
        return LDS_LOADS, LDS_HALVES, LDS_WIDE, "read", "write"
    return LOADS, HALVES, WIDE, "load", "store"


@pytest.mark.parametrize("place", PLACES)
def test_loads(place: str) -> None:
    small, halves, wide, verb, _ = names(place)
    template = PLACES[place][0]
    cases = [template.format(f"{verb}_{name}", "v80") for name in small]
    cases += [template.format(f"{verb}_{name}_d16{half}", "v80") for name in halves for half in ("", "_hi")]
    cases += [template.format(f"{verb}_{name}", span(80, size)) for name, size in wide.items()]
    found = run(place, cases)
    at = 0
    for size, signed in small.values():
        assert (found[at, 0] == loaded(size, signed, 32)).all(), cases[at]
        at += 1
    for size, signed in halves.values():
        value = loaded(size, signed, 16)
        assert (found[at, 0] == value).all(), cases[at]  # with SRAM-ECC the other half is written too
        assert (found[at + 1, 0] == value << 16).all(), cases[at + 1]
        at += 2
    for size in wide.values():
        expected = np.concatenate([MEMORY[: size // 4], DATA[size // 4 :]])
        assert (found[at] == expected).all(), cases[at]
        at += 1


@pytest.mark.parametrize("place", PLACES)
def test_two_half_loads_into_one_register_leave_only_the_younger(place: str) -> None:
    """With SRAM-ECC halves are put together by an OR of two registers, not by loading twice into one."""
    _, halves, _, verb, _ = names(place)
    name, (size, signed) = list(halves.items())[-1]
    low, high = (PLACES[place][0].format(f"{verb}_{name}_d16{half}", "v80") for half in ("", "_hi"))
    apart = high.replace("v80", "v81")
    found = run(
        place, [f"{low}\n{WAIT}\n{high}", f"{high}\n{WAIT}\n{low}", f"{low}\n{apart}\n{WAIT}\nv_or_b32 v80, v80, v81"]
    )
    value = loaded(size, signed, 16)
    assert found[0, 0].tolist() == (value << 16).tolist()
    assert found[1, 0].tolist() == value.tolist()
    assert found[2, 0].tolist() == (value << 16 | value).tolist()


@pytest.mark.parametrize("place", PLACES)
def test_a_half_load_leaves_inactive_lanes_whole(place: str) -> None:
    _, halves, _, verb, _ = names(place)
    name, (size, signed) = list(halves.items())[-1]
    load = PLACES[place][0].format(f"{verb}_{name}_d16_hi", "v80")
    found = run(place, [f"s_mov_b64 exec, 0xff\n{load}\n{WAIT}\ns_mov_b64 exec, -1"])[0, 0]
    assert found[:8].tolist() == (loaded(size, signed, 16) << 16)[:8].tolist()
    assert found[8:].tolist() == DATA[0, 8:].tolist()


def loaded(size: int, signed: bool, bits: int) -> npt.NDArray[np.uint32]:
    values = [int.from_bytes(int(word).to_bytes(4, "little")[:size], "little", signed=signed) for word in MEMORY[0]]
    return np.array([value & (1 << bits) - 1 for value in values], np.uint32)


@pytest.mark.parametrize("place", PLACES)
def test_stores(place: str) -> None:
    _, _, wide, _, verb = names(place)
    template = PLACES[place][1]
    small = {"b8": 1, "b16": 2} if place == "LDS" else {"byte": 1, "short": 2}
    cases = [template.format(f"{verb}_{name}{half}", "v80") for name in small for half in ("", "_d16_hi")]
    cases += [template.format(f"{verb}_{name}", span(80, size)) for name, size in wide.items()]
    found = run(place, cases)
    moved = [(size, shift) for size in small.values() for shift in (0, 16)] + [(size, 0) for size in wide.values()]
    for case, got, (size, shift) in zip(cases, found, moved, strict=True):
        for lane in range(64):
            data = b"".join(int(word).to_bytes(4, "little") for word in DATA[:, lane])[shift // 8 :][:size]
            kept = b"".join(int(word).to_bytes(4, "little") for word in MEMORY[:, lane])[size:]
            assert np.ascontiguousarray(got[:, lane]).tobytes() == data + kept, (case, lane)
