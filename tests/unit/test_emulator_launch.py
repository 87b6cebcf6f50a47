"""What waves find when they start, and what the emulated device does beyond the contract of devices."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from gfx950_code import assemble, launch, vector_program

from hktune.core.errors import DeviceError, InputError, KernelFault
from hktune.core.launch import Argument, Launch
from hktune.device.emulated import EmulatedDevice

# Every work-item stores its packed id, and its workgroup's coordinates, at its linear number.
WHO = """
    s_load_dwordx2 s[6:7], s[0:1], 0
    s_load_dwordx2 s[8:9], s[0:1], 8
    s_load_dword s10, s[0:1], 16
    s_load_dword s11, s[0:1], 20
    s_waitcnt lgkmcnt(0)
    v_and_b32 v2, 0x3ff, v0
    v_bfe_u32 v3, v0, 10, 10
    v_bfe_u32 v4, v0, 20, 10
    s_mul_i32 s12, s4, s11
    s_add_u32 s12, s12, s3
    s_mul_i32 s12, s12, s10
    s_add_u32 s12, s12, s2
    v_mad_u32_u24 v5, v4, {height}, v3
    v_mad_u32_u24 v5, v5, {width}, v2
    s_mul_i32 s13, s12, {items}
    v_add_u32 v5, s13, v5
    v_lshlrev_b32 v5, 2, v5
    s_lshl_b32 s14, s2, 8
    s_or_b32 s14, s14, s3
    s_lshl_b32 s14, s14, 8
    s_or_b32 s14, s14, s4
    v_mov_b32 v6, s14
    global_store_dword v5, v0, s[6:7]
    global_store_dword v5, v6, s[8:9]
    s_endpgm
"""


def test_ids_and_hidden_block_counts() -> None:
    grid, (width, height, depth) = (3, 2, 2), (10, 5, 2)
    items = width * height * depth
    hidden = (("hidden_block_count_x", 4), ("hidden_block_count_y", 4))
    code = assemble(WHO.format(width=width, height=height, items=items), pointers=2, item_axes=2, hidden=hidden)
    count = grid[0] * grid[1] * grid[2] * items
    ids, groups = launch(code, *np.zeros((2, count), np.uint32), grid=grid, block=(width, height, depth))
    one = [x | y << 10 | z << 20 for z in range(depth) for y in range(height) for x in range(width)]
    assert ids.tolist() == one * 12
    expected = [x << 16 | y << 8 | z for z in range(2) for y in range(2) for x in range(3) for _ in range(items)]
    assert groups.tolist() == expected


def test_hidden_arguments_describe_the_launch() -> None:
    kinds = ("group_size_x", "group_size_y", "grid_dims", "remainder_x")
    hidden = (*((f"hidden_{kind}", 2) for kind in kinds), ("hidden_dynamic_lds_size", 4))
    lines = """
    s_load_dwordx2 s[6:7], s[0:1], 0
    s_load_dwordx2 s[8:9], s[0:1], 8
    s_load_dword s10, s[0:1], 16
    v_mov_b32 v1, 0
    v_mov_b32 v2, s8
    v_mov_b32 v3, s9
    v_mov_b32 v4, s10
    global_store_dwordx2 v1, v[2:3], s[6:7]
    global_store_dword v1, v4, s[6:7] offset:8
    s_endpgm
    """
    code = assemble(lines, pointers=1, hidden=hidden)
    found = launch(code, np.zeros(6, np.uint16), grid=(1, 3, 1), block=(32, 4, 1))[0]
    assert found.tolist() == [32, 4, 2, 0, 0, 0]


def test_preloaded_arguments_skip_the_prologue() -> None:
    """Arguments come in registers, and the first 256 bytes are for hardware that does not bring them."""
    lines = """
    s_endpgm
    .fill 63, 4, 0xbf800000
    v_lshlrev_b32 v1, 2, v0
    s_lshl_b32 s5, s4, 8
    v_add_u32 v1, s5, v1
    v_mov_b32 v2, s4
    global_store_dword v1, v2, s[2:3]
    s_endpgm
    """
    code = assemble(lines, pointers=1, preload_dwords=2)
    assert launch(code, np.full(192, 9, np.uint32), grid=(2, 1, 1))[0].tolist() == [0] * 64 + [1] * 64 + [9] * 64


def test_the_last_wave_has_only_its_work_items() -> None:
    lines = "s_load_dwordx2 s[6:7], s[0:1], 0\nv_lshlrev_b32 v1, 2, v0\nv_mov_b32 v2, 1\n"
    code = assemble(f"{lines}global_store_dword v1, v2, s[6:7]\ns_endpgm", pointers=1)
    found = launch(code, np.zeros(128, np.uint32), block=(70, 1, 1))[0]
    assert found.tolist() == [1] * 70 + [0] * 58


def test_registers_and_lds_start_as_garbage_not_as_zero() -> None:
    """A kernel that reads what nothing wrote must not be right by luck."""
    lines = "v_mov_b32 v20, v77\nv_accvgpr_read_b32 v21, a9\nds_read_b32 v22, v1\ns_waitcnt lgkmcnt(0)"
    code = assemble(vector_program(lines, 0, 3), lds_bytes=1024)
    found = launch(code, np.zeros(1, np.uint32), np.zeros((3, 64), np.uint32))[1]
    assert np.isnan(found.view(np.float32)).all()


def test_only_gfx950_is_emulated() -> None:
    with pytest.raises(InputError, match="gfx942"):
        EmulatedDevice("gfx942")


def test_freed_buffers_leave_the_address_space() -> None:
    device = EmulatedDevice()
    target, other = device.allocate(256), device.allocate(256)
    device.write(other, np.array([target.address], np.int64))
    lines = "s_load_dwordx2 s[6:7], s[0:1], 0\ns_load_dwordx2 s[8:9], s[6:7], 0\ns_load_dword s10, s[8:9], 0\ns_endpgm"
    kernel = device.load(assemble(lines, pointers=1), "kernel")
    shape = Launch((1, 1, 1), (64, 1, 1), 0, (Argument("a", "pointer"),))
    device.launch(kernel, shape, {"a": other})
    del target
    gc.collect()
    with pytest.raises(KernelFault, match="is in no allocation"):
        device.launch(kernel, shape, {"a": other})


def test_buffers_and_kernels_of_another_device_are_refused() -> None:
    class Foreign:
        address, size_bytes, symbol = 4096, 16, "kernel"

    device = EmulatedDevice()
    with pytest.raises(DeviceError, match="another device"):
        device.write(Foreign(), np.zeros(1))
    with pytest.raises(DeviceError, match="another device"):
        device.launch(Foreign(), Launch((1, 1, 1), (64, 1, 1), 0, ()), {})
    other, code = EmulatedDevice(), assemble("s_endpgm", pointers=1)
    shape = Launch((1, 1, 1), (64, 1, 1), 0, (Argument("a", "pointer"),))
    here, there = device.load(code, "kernel"), other.load(code, "kernel")
    for kernel, buffer in ((there, device.allocate(4)), (here, other.allocate(4))):
        with pytest.raises(DeviceError, match="another device"):
            device.launch(kernel, shape, {"a": buffer})


def test_many_workgroups_run_in_batches() -> None:
    """More workgroups than run side by side: each adds one to its own word and to a shared count."""
    lines = """
    s_load_dwordx2 s[6:7], s[0:1], 0
    s_lshl_b32 s8, s2, 2
    v_mov_b32 v1, s8
    v_mov_b32 v2, 1
    s_mov_b64 exec, 1
    global_atomic_add v1, v2, s[6:7]
    s_endpgm
    """
    found = launch(assemble(lines, pointers=1), np.zeros(300, np.uint32), grid=(300, 1, 1))[0]
    assert (found == 1).all()
