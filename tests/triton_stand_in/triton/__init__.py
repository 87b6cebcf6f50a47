"""Stands in for Triton in the process that compiles: as much of it as hktune calls, and quick.

It runs a kernel's body, with its constants, and takes what that returns for the kernel's instructions. OPTIONS has what
Triton would find out: how much LDS and scratch the kernel wants.
"""

import inspect
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

__version__ = "0.1"
knobs = SimpleNamespace(
    runtime=SimpleNamespace(add_stages_inspection_hook=None), amd=SimpleNamespace(use_async_copy=None)
)

SHELL = """
.amdgcn_target "amdgcn-amd-amdhsa--{arch}"
.text
.globl {name}
.p2align 8
.type {name},@function
{name}:
{body}
s_endpgm
.section .rodata
.p2align 6
.amdhsa_kernel {name}
\t\t.amdhsa_group_segment_fixed_size 0
  .amdhsa_next_free_vgpr 8
  .amdhsa_next_free_sgpr 16
  .amdhsa_accum_offset 8
.end_amdhsa_kernel
.amdgpu_metadata
---
amdhsa.version: [1, 2]
amdhsa.target: amdgcn-amd-amdhsa--{arch}
amdhsa.kernels:
  - .name: {name}
    .symbol: {name}.kd
    .kernarg_segment_size: 8
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 8
    .agpr_count: 0
    .max_flat_workgroup_size: {work_items}
...
.end_amdgpu_metadata
"""


class JITFunction:
    def __init__(self, fn):
        self.fn, self.__name__, self.arg_names = fn, fn.__name__, list(inspect.signature(fn).parameters)


jit = JITFunction


def compile(src, target, options):
    metadata = {
        "shared": options["shared"],
        "global_scratch_size": options.get("scratch", 0),
        "profile_scratch_size": 0,
    }
    assert set(src.signature) == set(src.fn.arg_names), "every parameter has a type or a value"
    body = src.fn.fn(**dict.fromkeys(src.fn.arg_names) | src.constexprs)
    work_items = target.warp_size * options["num_warps"]
    text = SHELL.format(name=src.fn.__name__, arch=target.arch, body=body, work_items=work_items)
    stages = {"hsaco": lambda text, metadata: assembled(text, target.arch)}
    knobs.runtime.add_stages_inspection_hook(None, stages, options, None, None)
    return SimpleNamespace(metadata=SimpleNamespace(**metadata), asm={"hsaco": stages["hsaco"](text, metadata)})


def assembled(text, arch):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "kernel.s").write_text(text)
        zig = [sys.executable, "-m", "ziglang"]
        clang = [*zig, "clang", "--target=amdgcn-amd-amdhsa", f"-mcpu={arch}", "-c", "kernel.s", "-o", "kernel.o"]
        subprocess.run(clang, cwd=folder, check=True)
        subprocess.run([*zig, "ld.lld", "-shared", "kernel.o", "-o", "kernel.hsaco"], cwd=folder, check=True)
        return Path(folder, "kernel.hsaco").read_bytes()
