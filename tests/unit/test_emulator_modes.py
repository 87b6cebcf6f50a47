"""Features and modes of the target that change what instructions do: emulated, or refused with a line that says so.

Truths: numpy's float arithmetic with subnormals flushed by hand, and the ISA guide's rules for NaNs and modifiers.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
import pytest
from gfx950_code import Words, assemble, launch, run_lanes

from hktune.core.errors import DeviceError, KernelFault
from hktune.core.launch import Launch
from hktune.device.emulated import EmulatedDevice

TINY = np.finfo(np.float32).tiny
RNG = np.random.default_rng(12)
# A quarter each: subnormals, small normals whose differences are subnormal, ordinary numbers, zeros of either sign.
SMALL = np.concatenate(
    [
        RNG.integers(1, 1 << 23, 16, dtype=np.uint32).view(np.float32) * np.where(RNG.random(16) < 0.5, -1, 1),
        TINY * RNG.uniform(1, 2, 16),
        RNG.standard_normal(16),
        np.array([0.0, -0.0] * 8),
    ]
).astype(np.float32)
X, Y = SMALL, SMALL[RNG.permutation(64)]
DENORMALS = ".amdhsa_float_denorm_mode_32"


def flush(value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.where(np.abs(value) < TINY, np.copysign(np.float32(0), value), value).astype(np.float32)


def run32(
    lines: str, *inputs: npt.NDArray[np.float32], outputs: int = 1, directives: str = ""
) -> npt.NDArray[np.float32]:
    return run_lanes(lines, inputs, outputs, directives=directives).view(np.float32)


@pytest.mark.parametrize("mode", range(4))
def test_float32_subnormals_are_kept_or_flushed_as_the_descriptor_says(mode: int) -> None:
    """Bit 0 of the mode keeps subnormal sources, bit 1 subnormal results."""
    lines = """
    v_add_f32 v20, v10, v11
    v_mul_f32 v21, v10, v11
    v_fma_f32 v22, v10, v11, v10
    v_max_f32 v23, v10, v10
    v_sub_f32_e64 v24, |v10|, v11
    v_mov_b32 v25, v10
    v_mov_b32 v26, v10
    v_fmac_f32 v26, v11, v11
    v_cndmask_b32 v27, v10, v11, vcc
    """
    found = run32(f"s_mov_b64 vcc, 0\n{lines}", X, Y, outputs=8, directives=f"{DENORMALS} {mode}")
    x, y = (v if mode & 1 else flush(v) for v in (X, Y))
    positive = np.abs(x)
    exact = [x + y, x * y, (x.astype(float) * y + x).astype(np.float32), x, positive - y]
    results = [value if mode & 2 else flush(value) for value in exact]
    for number, expected in enumerate(results):
        assert found[number].tobytes() == expected.astype(np.float32).tobytes(), number
    assert found[5].tobytes() == found[7].tobytes() == X.tobytes()  # bits are moved, whatever they mean
    accumulated = (y.astype(float) * y + x).astype(np.float32)
    assert found[6].tobytes() == (accumulated if mode & 2 else flush(accumulated)).tobytes()


@pytest.mark.parametrize("mode", [0, 3])
def test_packed_float32_follows_the_mode(mode: int) -> None:
    found = run32("v_pk_add_f32 v[20:21], v[10:11], v[12:13]", X, Y, Y, X, outputs=2, directives=f"{DENORMALS} {mode}")
    expected = X + Y if mode else flush(flush(X) + flush(Y))
    assert found[0].tobytes() == found[1].tobytes() == expected.tobytes()


@pytest.mark.parametrize("mode", [0, 3])
def test_comparisons_see_flushed_sources_and_classes_do_not(mode: int) -> None:
    lines = """
    v_cmp_gt_f32 vcc, v10, v11
    v_cndmask_b32 v20, 0, 1, vcc
    v_mov_b32 v12, 0x90
    v_cmp_class_f32 vcc, v10, v12
    v_cndmask_b32 v21, 0, 1, vcc
    """
    found = run_lanes(lines, (X, Y), 2, directives=f"{DENORMALS} {mode}")
    x, y = (X, Y) if mode else (flush(X), flush(Y))
    assert found[0].tolist() == (x > y).astype(int).tolist()
    assert found[1].tolist() == ((X != 0) & (np.abs(X) < TINY)).astype(int).tolist()


@pytest.mark.parametrize("mode", [0, 3])
def test_float16_subnormals_have_a_mode_of_their_own(mode: int) -> None:
    halves = RNG.integers(0, 1 << 15, (2, 64)).astype(np.uint16)
    halves[:, :32] &= 0x83FF  # subnormal
    a, b = halves.view(np.float16)
    lines = "v_add_f16 v20, v10, v11\nv_pk_add_f16 v21, v10, v11\nv_add_f32 v22, v12, v12"
    inputs = (halves[0].astype(np.uint32), halves[1].astype(np.uint32), X)
    found = run_lanes(lines, inputs, 3, directives=f".amdhsa_float_denorm_mode_16_64 {mode}")
    tiny = np.finfo(np.float16).tiny

    def flush16(v: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
        return v if mode else np.where(np.abs(v) < tiny, np.copysign(np.float16(0), v), v).astype(np.float16)

    with np.errstate(over="ignore", invalid="ignore"):
        expected = flush16((flush16(a) + flush16(b)).astype(np.float16))
    right = np.isnan(expected) | (found[0].astype(np.uint16) == expected.view(np.uint16))
    assert right.all()
    assert ((found[1] & 0xFFFF) == found[0])[~np.isnan(expected)].all()
    assert found[2].view(np.float32).tolist() == (X + X).tolist()


QUIET, SIGNALLING = 0x7FC00001, 0x7F800001


@pytest.mark.parametrize("ieee", [0, 1])
def test_ieee_mode_decides_what_a_signalling_nan_does_in_minima(ieee: int) -> None:
    values = np.array([SIGNALLING, QUIET, SIGNALLING, QUIET] * 16, np.uint32)
    others = np.array([0x40000000, 0x40000000, QUIET, SIGNALLING] * 16, np.uint32)
    lines = "v_min_f32 v20, v10, v11\nv_max_f32 v21, v10, v11\nv_med3_f32 v22, v10, v11, v11"
    found = run_lanes(lines, (values, others), 3, directives=f".amdhsa_ieee_mode {ieee}")
    for row in found[:2]:
        if ieee:  # the signalling NaN comes out quiet; a number beats a quiet one
            assert [hex(v) for v in row[:4]] == ["0x7fc00001", "0x40000000", "0x7fc00001", "0x7fc00001"]
        else:  # a number beats either
            assert row[:2].tolist() == [0x40000000] * 2
            assert np.isnan(row[2:4].view(np.float32)).all()
    assert (found[2, 1] == 0x40000000) if ieee else (found[2, :2] == 0x40000000).all()


@pytest.mark.parametrize("dx10", [0, 1])
def test_clamping_a_nan_gives_zero_only_with_dx10_clamp(dx10: int) -> None:
    values = np.array([np.nan, -2.0, 0.25, 7.0] * 16, np.float32)
    found = run32("v_add_f32_e64 v20, v10, 0 clamp", values, directives=f".amdhsa_dx10_clamp {dx10}")[0]
    assert (found[0] == 0.0) if dx10 else np.isnan(found[0])
    assert found[1:4].tolist() == [0.0, 0.25, 1.0]


@pytest.mark.parametrize(("ieee", "denormals"), [(1, 3), (1, 0), (0, 3), (0, 0)])
def test_output_scaling_needs_flushed_results_and_no_ieee_mode(ieee: int, denormals: int) -> None:
    values = np.array([1.5, -0.0, 0.0, -3.0] * 16, np.float32)
    mode = f".amdhsa_ieee_mode {ieee}\n{DENORMALS} {denormals}"
    found = run32("v_add_f32_e64 v20, v10, v10 mul:4", values, directives=mode)[0]
    applies = not ieee and not denormals
    assert found[:4].tolist() == ([12.0, 0.0, 0.0, -24.0] if applies else [3.0, -0.0, 0.0, -6.0])
    assert np.signbit(found[1]) == (not applies)  # a scaled -0 becomes +0


def test_workgroups_that_are_split_over_units_are_refused_by_name() -> None:
    with pytest.raises(KernelFault, match="tg_split"):
        EmulatedDevice().load(assemble("s_endpgm", directives=".amdhsa_tg_split 1"), "kernel")


def with_flags(code: bytes, flags: int) -> bytes:
    return code[:48] + struct.pack("<I", flags) + code[52:]


FLAGS = {
    # EF_AMDGPU_FEATURE_XNACK_V4 in bits 9:8, SRAMECC in 11:10: 1 any, 2 off, 3 on.
    "any, any": (0x54F, None),
    "xnack off, sramecc on": (0xE4F, None),
    "xnack on": (0x74F, "gfx950:xnack\\+, this device is gfx950:sramecc\\+:xnack-"),
    "sramecc off": (0x94F, "gfx950:sramecc-, this device is gfx950:sramecc\\+:xnack-"),
}


@pytest.mark.parametrize("name", FLAGS)
def test_code_for_other_settings_of_the_target_is_refused(name: str) -> None:
    flags, refusal = FLAGS[name]
    code = with_flags(assemble("s_endpgm"), flags)
    if refusal is None:
        assert EmulatedDevice().load(code, "kernel").symbol == "kernel"
        return
    with pytest.raises(DeviceError, match=refusal):
        EmulatedDevice().load(code, "kernel")


def launched(lds_bytes: int, dynamic_bytes: int = 0, block: int = 64) -> None:
    device = EmulatedDevice()
    kernel = device.load(assemble("s_endpgm", pointers=0, lds_bytes=lds_bytes), "kernel")
    device.launch(kernel, Launch((1, 1, 1), (block, 1, 1), dynamic_bytes, ()), {})


def test_a_workgroup_has_at_most_160_kib_of_lds_and_16_waves() -> None:
    launched(163840)
    launched(0, 163840, block=1024)
    for lds_bytes, dynamic_bytes in ((65536, 98305), (163840, 1)):
        with pytest.raises(DeviceError, match="163840 is the most"):
            launched(lds_bytes, dynamic_bytes)
    with pytest.raises(DeviceError, match="1025 work-items"):
        launched(0, block=1025)


def test_the_last_word_of_the_largest_lds_is_its_own() -> None:
    lines = """
    v_mov_b32 v2, 0x27ffc
    v_mov_b32 v3, 7
    ds_write_b32 v2, v3
    ds_read_b32 v20, v2
    v_add_u32 v2, 4, v2
    ds_write_b32 v2, v3
    ds_read_b32 v21, v2
    s_waitcnt lgkmcnt(0)
    """
    found = run_lanes(lines, (), 2, lds_bytes=163840)
    assert found[0].tolist() == [7] * 64
    assert found[1].tolist() == [0] * 64


def test_vskip_skips_vector_instructions_and_no_others() -> None:
    lines = """
    v_mov_b32 v20, 1
    s_mov_b32 s20, 0x8
    s_mov_b32 s21, 0
    s_setvskip s20, 3
    v_mov_b32 v20, 2
    ds_write_b32 v1, v20
    global_store_dword v1, v20, s[8:9]
    s_add_u32 s21, s21, 5
    s_setvskip s20, 2
    v_mov_b32 v21, s21
    ds_read_b32 v22, v1
    s_waitcnt lgkmcnt(0)
    """
    lines = "v_mov_b32 v5, 9\nds_write_b32 v1, v5\ns_waitcnt lgkmcnt(0)\n" + lines
    found = run_lanes(lines, (), 3, lds_bytes=256)
    assert [row[0] for row in found] == [1, 5, 9]


def test_waves_skip_each_by_itself() -> None:
    """Wave w of four skips when bit w of 0b0110 is set; all meet again."""
    lines = """
    s_load_dwordx2 s[6:7], s[0:1], 0
    v_lshlrev_b32 v1, 2, v0
    v_readfirstlane_b32 s20, v0
    s_lshr_b32 s20, s20, 6
    s_mov_b32 s21, 6
    v_mov_b32 v2, 1
    s_waitcnt lgkmcnt(0)
    s_setvskip s21, s20
    v_mov_b32 v2, 2
    s_setvskip 0, 0
    global_store_dword v1, v2, s[6:7]
    s_endpgm
    """
    found = launch(assemble(lines, pointers=1), np.zeros(256, np.uint32), block=(256, 1, 1))[0]
    assert found.reshape(4, 64)[:, 0].tolist() == [2, 1, 1, 2]


def registers(count: int) -> str:
    return "\n".join(f"v_mov_b32 v{40 + i}, {100 + i}" for i in range(count))


def run_indexed(lines: str, outputs: int) -> Words:
    return run_lanes(f"{registers(8)}\ns_mov_b32 s20, 3\n{lines}", (), outputs)


def test_registers_are_indexed_through_m0() -> None:
    lines = """
    s_set_gpr_idx_on s20, gpr_idx(SRC0)
    v_mov_b32 v20, v40
    v_add_u32 v21, v40, v41
    s_set_gpr_idx_mode gpr_idx(SRC1)
    v_add_u32 v22, v40, v41
    s_set_gpr_idx_idx 5
    v_add_u32 v23, v40, v41
    s_set_gpr_idx_mode gpr_idx(SRC0,DST)
    s_set_gpr_idx_idx 2
    v_mov_b32 v22, v40
    s_set_gpr_idx_off
    v_mov_b32 v25, v40
    s_mov_b32 s21, m0
    v_mov_b32 v26, s21
    """
    found = run_indexed(lines, 7)
    assert [int(row[0]) for row in found] == [103, 103 + 101, 100 + 104, 100 + 106, 102, 100, 2 | 0b1001 << 12]


def test_accumulation_registers_are_indexed_too() -> None:
    lines = """
    v_accvgpr_write_b32 a4, 7
    v_accvgpr_write_b32 a7, 11
    s_set_gpr_idx_on s20, gpr_idx(SRC0)
    v_accvgpr_read_b32 v20, a4
    s_set_gpr_idx_off
    v_accvgpr_read_b32 v21, a4
    """
    assert [int(row[0]) for row in run_indexed(lines, 2)] == [11, 7]


def test_waves_index_each_by_their_own() -> None:
    lines = f"""
    s_load_dwordx2 s[6:7], s[0:1], 0
    v_lshlrev_b32 v1, 2, v0
    v_readfirstlane_b32 s20, v0
    s_lshr_b32 s20, s20, 6
    {registers(4)}
    s_waitcnt lgkmcnt(0)
    s_set_gpr_idx_on s20, gpr_idx(SRC0)
    v_mov_b32 v2, v40
    s_set_gpr_idx_off
    global_store_dword v1, v2, s[6:7]
    s_endpgm
    """
    found = launch(assemble(lines, pointers=1), np.zeros(256, np.uint32), block=(256, 1, 1))[0]
    assert found.reshape(4, 64)[:, 5].tolist() == [100, 101, 102, 103]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("v_mov_b32 v20, v254", "register 254 indexed by 3"),
        ("s_mov_b32 m0, 0", "M0 written while it indexes registers"),
    ],
)
def test_what_indexing_does_not_cover_is_refused(line: str, rule: str) -> None:
    with pytest.raises(KernelFault, match=rule):
        run_indexed(f"s_set_gpr_idx_on s20, gpr_idx(SRC0)\n{line}\ns_set_gpr_idx_off", 1)
