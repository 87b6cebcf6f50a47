"""The HIP headers of our own carry everything that HipKittens asks of HIP, and say what the hardware can do."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from hktune.compile import HipCompiler
from hktune.compile.hipkittens import HipKittens, find_hipkittens
from hktune.compile.toolchain import HIP_HEADERS, HipToolchain, find_zig
from hktune.core.config import Config
from hktune.core.settings import Settings
from hktune.core.variant import CodeObject, Variant
from hktune.objects.code_object import read_code_object

PRELUDE = '#include <hip/hip_runtime.h>\n#include "kittens.cuh"\nusing namespace kittens;\n'
KERNEL = 'extern "C" __global__ __launch_bounds__(64) void probe'


@pytest.fixture(scope="session")
def compiler() -> HipCompiler:
    settings, toolchain = Settings.from_environment(os.environ), find_zig()
    assert toolchain is not None, "pip install 'hktune[gfx950]'"
    return HipCompiler(toolchain, find_hipkittens(settings), settings.cache_dir)


def build(compiler: HipCompiler, source: str) -> CodeObject:
    built = compiler.compile(Variant("probe", "0" * 64, "gfx950", "hip", "probe", source, Config({})), 300)
    assert isinstance(built, CodeObject), built
    assert built.resources.scratch_bytes == 0, "a call was left in the kernel"
    return built


@pytest.mark.parametrize("element", ["float", "float2", "bf16", "bf16_2", "half", "half_2"])
def test_every_operation_of_hipkittens_compiles(compiler: HipCompiler, element: str) -> None:
    unary = ["exp", "exp2", "log", "log2", "abs", "relu"]
    binary = ["sum", "sub", "mul", "div", "max", "min"]
    body = [f"v = base_ops::{name}::op<T>(v);" for name in unary]
    body += [f"v = base_ops::{name}::op<T>(v, *b);" for name in binary]
    build(compiler, f"{PRELUDE}using T = {element};\n{KERNEL}(T* a, T* b) {{ T v = *a; {' '.join(body)} *a = v; }}")


@pytest.mark.parametrize(
    ("wide", "narrow", "instruction"),
    [
        ("float2", "bf16_2", "v_cvt_pk_bf16_f32"),
        ("float2", "half_2", "v_cvt_f16_f32"),
        ("float", "fp8e4m3", "v_cvt_pk_fp8_f32"),
        ("float2", "fp8e4m3_2", "v_cvt_pk_fp8_f32"),
        ("float4", "fp8e4m3_4", "v_cvt_pk_fp8_f32"),
        ("float", "fp4e2m1", "v_cvt_scalef32_pk_fp4_f32"),
        ("float4", "fp4e2m1_4", "v_cvt_scalef32_pk_fp4_f32"),
    ],
)
def test_every_conversion_compiles(compiler: HipCompiler, wide: str, narrow: str, instruction: str) -> None:
    pair = f"using W = {wide}; using N = {narrow};\n"
    body = "*n = base_types::convertor<N, W>::convert(*w); w[1] = base_types::convertor<W, N>::convert(n[1]);"
    built = build(compiler, f"{PRELUDE}{pair}{KERNEL}(W* w, N* n) {{ {body} }}")
    assert built.resources.vgprs > 0
    assert instruction in assembly(PRELUDE + pair + f"{KERNEL}(W* w, N* n) {{ {body} }}", compiler)


def test_shuffles_of_hipkittens_compile(compiler: HipCompiler) -> None:
    body = """
    *f = packed_shfl_down(MASK_ALL, *f, 3);
    *f2 = packed_shfl(MASK_ALL, packed_shfl_down(MASK_ALL, *f2, 1), 2);
    *b = packed_shfl(MASK_ALL, *b, 3);
    *b2 = packed_shfl(MASK_ALL, packed_shfl_down(MASK_ALL, *b2, 3), 2);
    *h = packed_shfl(MASK_ALL, *h, 3);
    *h2 = packed_shfl(MASK_ALL, *h2, 3);
    """
    build(compiler, f"{PRELUDE}{KERNEL}(float* f, float2* f2, bf16* b, bf16_2* b2, half* h, half_2* h2) {{ {body} }}")


def test_coordinates_need_no_library(compiler: HipCompiler) -> None:
    body = "*x = threadIdx.x + threadIdx.y * blockDim.x + blockIdx.z * gridDim.y + blockDim.z;"
    image = read_code_object(build(compiler, f"{PRELUDE}{KERNEL}(unsigned* x) {{ {body} }}").data)
    hidden = {slot.name or slot.value_kind for slot in image.kernels["probe"].arguments if slot.hidden}
    assert {"hidden_block_count_y", "hidden_group_size_x", "hidden_group_size_z"} <= hidden


@pytest.mark.parametrize(("bounds", "limit"), [("256, 8", 64), ("256, 4", 128), ("256, 2", 256)])
def test_launch_bounds_ask_for_waves_per_simd(compiler: HipCompiler, bounds: str, limit: int) -> None:
    """512 registers a SIMD lane are shared by the waves asked for (AMD CDNA4 ISA guide, section 3.6)."""
    loop = "\n#pragma unroll\nfor (int i = 0; i < 96; i++)"
    greedy = f"float kept[96]; {loop} kept[i] = x[i * 256 + threadIdx.x]; __syncthreads();"
    greedy += f"{loop} x[i * 256 + threadIdx.x] = kept[95 - i];"
    kernel = KERNEL.replace("(64)", f"({bounds})")
    variant = Variant("probe", "", "gfx950", "hip", "probe", f"{PRELUDE}{kernel}(float* x) {{{greedy}}}", Config({}))
    built = compiler.compile(variant, 300)
    assert isinstance(built, CodeObject), built
    assert built.resources.max_workgroup_size == 256
    assert built.resources.vgprs <= limit
    assert (built.resources.spills > 0) == (limit < 256), "96 values and their addresses fit two waves only"


INCLUDES = re.compile(r"#\s*include\s*<((?:hip/)?(?:amd_detail/)?(?:amd_)?hip[^>]*)>")


def test_every_hip_header_that_hipkittens_includes_is_there(compiler: HipCompiler) -> None:
    headers: HipKittens = compiler._headers
    trees = [headers.include / "cdna4", headers.include / "pyutils" / "util.cuh"]
    files = [path for tree in trees for path in ([tree] if tree.is_file() else tree.rglob("*.cuh"))]
    named = {name for path in files for name in INCLUDES.findall(path.read_text())}
    assert "hip/hip_runtime.h" in named
    both_spellings = named | {name.removeprefix("hip/") for name in named}
    roots = (HIP_HEADERS, HIP_HEADERS / "hip")
    assert [name for name in sorted(both_spellings) if not any((root / name).is_file() for root in roots)] == []


@pytest.mark.parametrize("header", sorted(path.name for path in (HIP_HEADERS / "hip").glob("*.h")))
def test_every_header_stands_alone(compiler: HipCompiler, header: str) -> None:
    build(compiler, f"#include <{header}>\n{KERNEL}(int* x) {{ *x = threadIdx.x; }}")
    build(compiler, f"#include <hip/{header}>\n{KERNEL}(int* x) {{ *x = threadIdx.x; }}")


def assembly(source: str, compiler: HipCompiler) -> str:
    """What the compiler says `source` becomes, as text."""
    toolchain: HipToolchain = compiler._toolchain
    argv = [*compiler._compile_argv("gfx950"), "-S", "-o", "-", "-"]
    assert Path(toolchain.driver[0]).is_file()
    return subprocess.run(argv, input=source, capture_output=True, text=True, check=True).stdout
