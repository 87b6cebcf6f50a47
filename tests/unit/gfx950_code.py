"""Small gfx950 kernels for the emulator's tests, assembled or compiled by the clang in the `ziglang` package."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hktune.core.launch import Argument, Launch
from hktune.device.emulated import EmulatedDevice
from hktune.emulator.instructions import decode

pytest.importorskip("ziglang")

Words = npt.NDArray[np.uint32]

_DENORMALS = ".amdhsa_float_denorm_mode_32"
_VERSION = "amdhsa.version: [1, 2]\namdhsa.target: amdgcn-amd-amdhsa--gfx950"
_SHELL = """
.amdgcn_target "amdgcn-amd-amdhsa--gfx950"
.text
.globl kernel
.p2align 8
.type kernel,@function
kernel:
{body}
.section .rodata
.p2align 6
.amdhsa_kernel kernel
  .amdhsa_user_sgpr_kernarg_segment_ptr 1
  .amdhsa_system_sgpr_workgroup_id_x 1
  .amdhsa_system_sgpr_workgroup_id_y 1
  .amdhsa_system_sgpr_workgroup_id_z 1
  .amdhsa_system_vgpr_workitem_id {item_axes}
  .amdhsa_group_segment_fixed_size {lds_bytes}
  .amdhsa_private_segment_fixed_size {scratch_bytes}
  .amdhsa_next_free_vgpr 512
  .amdhsa_next_free_sgpr 96
  .amdhsa_accum_offset 256
  .amdhsa_user_sgpr_kernarg_preload_length {preload_dwords}
  {directives}
.end_amdhsa_kernel
.amdgpu_metadata
---
{version}
amdhsa.kernels:
  - .name: kernel
    .symbol: kernel.kd
    .kernarg_segment_size: {kernarg_bytes}
    .kernarg_segment_align: 8
    .group_segment_fixed_size: {lds_bytes}
    .private_segment_fixed_size: {scratch_bytes}
    .wavefront_size: 64
    .sgpr_count: 96
    .vgpr_count: 512
    .agpr_count: 256
    .max_flat_workgroup_size: 1024
    .args:
{arguments}
...
.end_amdgpu_metadata
"""


@cache
def assemble(
    body: str,
    pointers: int = 2,
    lds_bytes: int = 0,
    scratch_bytes: int = 0,
    item_axes: int = 0,
    preload_dwords: int = 0,
    hidden: tuple[tuple[str, int], ...] = (),
    directives: str = "",
    version: str = _VERSION,
) -> bytes:
    """A code object with one kernel, `kernel`: `pointers` pointer arguments (kernarg pointer in s[0:1], workgroup id
    in s2, s3, s4), then `hidden` arguments as (kind, bytes). `directives` are lines of its descriptor."""
    text = source_of(
        body,
        pointers,
        hidden,
        lds_bytes=lds_bytes,
        scratch_bytes=scratch_bytes,
        item_axes=item_axes,
        preload_dwords=preload_dwords,
        directives=directives if _DENORMALS in directives else f"{_DENORMALS} 3\n{directives}",
        version=version,
    )
    with TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.s"
        source.write_text(text)
        return link(source, ("--target=amdgcn-amd-amdhsa", "-mcpu=gfx950"))


_FIELDS: dict[str, Any] = {
    "lds_bytes": 0, "scratch_bytes": 0, "item_axes": 0, "preload_dwords": 0, "directives": "", "version": _VERSION
}  # fmt: skip


def source_of(body: str, pointers: int, hidden: tuple[tuple[str, int], ...] = (), **fields: Any) -> str:
    """The assembly text of `assemble`."""
    slots = [("global_buffer", 8)] * pointers + list(hidden)
    lines, offset = [], 0
    for kind, size in slots:
        offset = -(-offset // size) * size
        lines.append(f"      - {{.offset: {offset}, .size: {size}, .value_kind: {kind}}}")
        offset += size
    arguments = "\n".join(lines) or "      []"
    return _SHELL.format(**_FIELDS | fields, body=body, kernarg_bytes=offset, arguments=arguments)


def link(source: Path, flags: Sequence[str]) -> bytes:
    """A shared object from one source file: by clang with `flags`, then lld."""
    target, output = source.with_suffix(".o"), source.with_suffix(".so")
    for command in (["clang", *flags, "-c", "-o", target, source], ["ld.lld", "-shared", "-o", output, target]):
        subprocess.run([sys.executable, "-m", "ziglang", *map(str, command)], check=True)
    return output.read_bytes()


def launch(
    code: bytes,
    *arrays: npt.NDArray[Any],
    grid: tuple[int, int, int] = (1, 1, 1),
    block: tuple[int, int, int] = (64, 1, 1),
    device: EmulatedDevice | None = None,
) -> list[npt.NDArray[Any]]:
    """Run `kernel` with a buffer for each array, and return what the buffers hold then."""
    device = device or EmulatedDevice(deadline_s=60.0)
    buffers = [device.allocate(array.nbytes) for array in arrays]
    for buffer, array in zip(buffers, arrays, strict=True):
        device.write(buffer, array)
    names = [f"argument{i}" for i in range(len(arrays))]
    shape = Launch(grid, block, 0, tuple(Argument(name, "pointer") for name in names))
    device.launch(device.load(code, "kernel"), shape, dict(zip(names, buffers, strict=True)))
    results = [np.empty_like(array) for array in arrays]
    for buffer, result in zip(buffers, results, strict=True):
        device.read(buffer, result)
    return results


def vector_program(lines: str, inputs: int, outputs: int) -> str:
    """A wave that loads v[10 + i] from row i of its first argument, runs `lines`, and stores v[20 + i] to row i of
    its second. v0 is the lane, v1 four times the lane."""
    loads = "\n".join(f"global_load_dword v{10 + i}, v1, s[6:7] offset:{256 * i}" for i in range(inputs))
    # Rows go out one by one: 13 bits of offset hold 16 of them.
    stores = "\n".join(
        f"global_store_dword v1, v{20 + i}, s[8:9]\ns_add_u32 s8, s8, 256\ns_addc_u32 s9, s9, 0" for i in range(outputs)
    )
    return f"""
    s_load_dwordx2 s[6:7], s[0:1], 0
    s_load_dwordx2 s[8:9], s[0:1], 8
    v_lshlrev_b32 v1, 2, v0
    s_waitcnt lgkmcnt(0)
    {loads}
    s_waitcnt vmcnt(0)
    {lines}
    {stores}
    s_endpgm
    """


@cache
def mnemonics(form: str) -> frozenset[str]:
    """What the encoding `form` of the ISA's table has."""
    table = json.loads(Path(decode.__file__).with_name("cdna4.json").read_text())
    return frozenset(name for name, _ in table[form]["opcodes"].values())


def encodings(snippet: str) -> list[str]:
    """`snippet`, and the same in VOP3 if its instructions have that beside a short encoding. VOP3 takes no literal."""
    short, long = mnemonics("VOP1") | mnemonics("VOP2"), mnemonics("VOP3") | mnemonics("VOP3SD")
    lines = [line.partition(" ") for line in snippet.split("\n")]
    both = [name in short & long and "0x" not in rest for name, _, rest in lines]
    again = "\n".join(f"{name}{'_e64' * longer} {rest}" for (name, _, rest), longer in zip(lines, both, strict=True))
    return [snippet, again] if any(both) else [snippet]


def run_lanes(
    lines: str,
    inputs: Sequence[npt.NDArray[Any]],
    outputs: int = 1,
    lds_bytes: int = 0,
    scratch_bytes: int = 0,
    directives: str = "",
) -> Words:
    """Run `lines` on one wave with (64,) 32-bit inputs; the (outputs, 64) words it leaves."""
    body = vector_program(lines, len(inputs), outputs)
    code = assemble(body, lds_bytes=lds_bytes, scratch_bytes=scratch_bytes, directives=directives)
    given = np.array([np.asarray(row).view(np.uint32) for row in inputs] or [np.zeros(64)], np.uint32)
    found: Words = launch(code, given, np.zeros((outputs, 64), np.uint32))[1]
    return found


def run_scalar(lines: str, outputs: int = 1) -> list[int]:
    """Run scalar `lines` and return s20, s21, ... of `outputs` registers."""
    moves = "\n".join(f"v_mov_b32 v{20 + i}, s{20 + i}" for i in range(outputs))
    return [int(row[0]) for row in run_lanes(f"{lines}\n{moves}", (), outputs)]


def own_bytes(shift: int) -> str:
    """Each lane has 1 << shift bytes of its own: its offset is in v3, its place 2048 bytes into the first argument in
    v[4:5], that argument as a buffer in s[12:15]."""
    return f"""
v_lshlrev_b32 v3, {shift}, v0
v_mov_b32 v5, s7
v_add_co_u32 v4, vcc, s6, v3
v_addc_co_u32 v5, vcc, 0, v5, vcc
v_add_co_u32 v4, vcc, 0x800, v4
v_addc_co_u32 v5, vcc, 0, v5, vcc
s_mov_b32 s12, s6
s_and_b32 s13, s7, 0xffff
s_mov_b32 s14, {512 << shift:#x}
s_mov_b32 s15, 0x20000
"""
