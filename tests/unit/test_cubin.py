"""The cubin reader against kernels whose answers are written in their source."""

from __future__ import annotations

import contextlib
import re
import struct
import subprocess
from functools import lru_cache
from pathlib import Path

import pytest
from cuda_tools import nvdisasm
from hypothesis import given, settings
from hypothesis import strategies as st

from hktune.compile.nvrtc import NvrtcCompiler
from hktune.core.config import Config
from hktune.core.errors import TableError
from hktune.core.launch import Argument
from hktune.core.variant import CodeObject, Variant
from hktune.objects.cubin import Box, Parameter, read_cubin

pytest.importorskip("cuda.bindings.nvrtc", reason="pip install 'hktune[cuda]'")

FLOAT16 = 6  # CU_TENSOR_MAP_DATA_TYPE_FLOAT16
SOURCE = """
struct alignas(64) Map { unsigned long long opaque[16]; };
struct Box { unsigned rows, columns; };
struct TypedBox { unsigned rows, columns, data_type; };
extern "C" __constant__ Box hktune_box_a = {96, 64};
extern "C" __constant__ Box hktune_box_bt = {256, 32};
extern "C" __constant__ TypedBox hktune_box_c = {64, 128, 6};

extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)
first(const __grid_constant__ Map a, int m, float scale, long long* out) {
    __shared__ float staged[700];
    staged[threadIdx.x] = scale * m;
    __syncthreads();
    out[threadIdx.x] = staged[383 - threadIdx.x] + a.opaque[m % 16];
}

extern "C" __global__ void __launch_bounds__(64) second(int* x, int i) {
    volatile int kept[100];
    for (int j = 0; j < 100; ++j) kept[(i + j) % 100] = x[j];
    x[i] = kept[i % 7];
}
"""


@lru_cache
def built(symbol: str = "first", arch: str = "sm90a") -> CodeObject:
    variant = Variant("sm90a/sample", "0" * 64, arch, "cuda", symbol, SOURCE, Config({}))
    code = NvrtcCompiler().compile(variant, 120.0)
    assert isinstance(code, CodeObject), code
    return code


def test_kernels_are_read_as_their_source_says() -> None:
    cubin = read_cubin(built().data)
    assert cubin.capability == 90
    assert sorted(cubin.kernels) == ["first", "second"]
    first, second = cubin.kernels["first"], cubin.kernels["second"]
    assert (first.cluster, second.cluster) == ((2, 1, 1), (1, 1, 1))
    assert [slot.size_bytes for slot in first.parameters] == [128, 4, 4, 8]
    base = first.parameters[0].offset_bytes
    assert [slot.offset_bytes - base for slot in first.parameters] == [0, 128, 132, 136]
    assert [slot.is_tensor_map for slot in first.parameters] == [True, False, False, False]
    assert second.parameters == (Parameter(0, 8), Parameter(8, 4))


def test_a_constant_says_that_kernels_wait_by_themselves() -> None:
    assert not any(kernel.programmatic for kernel in read_cubin(built().data).kernels.values())
    source = 'extern "C" __constant__ int hktune_programmatic = 1;\n' + SOURCE
    code = NvrtcCompiler().compile(
        Variant("sm90a/sample", "0" * 64, "sm90a", "cuda", "first", source, Config({})), 120.0
    )
    assert isinstance(code, CodeObject), code
    assert all(kernel.programmatic for kernel in read_cubin(code.data).kernels.values())


def test_resources_are_what_the_source_declares() -> None:
    kernels = read_cubin(built().data).kernels
    first, second = kernels["first"].resources, kernels["second"].resources
    assert (first.lds_bytes, first.scratch_bytes, first.max_workgroup_size) == (700 * 4, 0, 384)
    assert (second.lds_bytes, second.scratch_bytes, second.max_workgroup_size) == (0, 100 * 4, 64)
    assert (first.spills, second.spills) == (0, 100)
    assert first.agprs == first.sgprs == 0


def test_registers_cover_those_that_the_machine_code_names(tmp_path: Path) -> None:
    path = tmp_path / "sample.cubin"
    path.write_bytes(built().data)
    listing = subprocess.run([nvdisasm(), "-c", path], capture_output=True, text=True, check=True).stdout
    for symbol, kernel in read_cubin(built().data).kernels.items():
        body = listing.split(f".text.{symbol}:")[1].split(".section")[0]
        highest = max(int(number) for number in re.findall(r"\bR(\d+)\b", body))
        assert highest < kernel.resources.vgprs <= highest + 1 + 8  # allocated in steps of 8


def test_an_older_architecture_reserves_no_shared_memory() -> None:
    source = """extern "C" __global__ void k(int* x) {
        __shared__ int s[64];
        s[threadIdx.x] = *x;
        __syncthreads();
        *x = s[1];
    }"""
    code = NvrtcCompiler().compile(Variant("t", "0" * 64, "sm80", "cuda", "k", source, Config({})), 120.0)
    assert isinstance(code, CodeObject), code
    assert (read_cubin(code.data).capability, code.resources.lds_bytes) == (80, 256)


def test_boxes_are_read_by_argument() -> None:
    boxes = read_cubin(built().data).boxes
    assert boxes == {"a": Box(96, 64), "b": Box(256, 32), "c": Box(64, 128, FLOAT16)}
    assert [boxes[name].dtypes[0].name for name in ("a", "b", "c")] == ["bf16", "bf16", "f16"], "two words are bf16's"


def test_boxes_of_an_unknown_format_are_refused() -> None:
    data = bytearray(built().data)
    box = struct.pack("<III", 64, 128, FLOAT16)
    assert data.count(box) == 1
    at = data.index(box)
    data[at : at + len(box)] = struct.pack("<III", 64, 128, 8)
    known = r"0 \(e4m3/e5m2/i8\), 3 \(i32\), 6 \(f16\), 7 \(f32\), 9 \(bf16\); rebuil"
    with pytest.raises(TableError, match=rf"hktune_box_c has elements of type 8, known are {known}"):
        read_cubin(bytes(data))


def test_formats_have_the_drivers_numbers() -> None:
    driver = pytest.importorskip("cuda.bindings.driver")
    types = driver.CUtensorMapDataType
    assert int(types.CU_TENSOR_MAP_DATA_TYPE_FLOAT16) == FLOAT16
    assert int(types.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16) == Box(1, 1).data_type


def test_arguments_that_do_not_fit_are_named() -> None:
    kernel = read_cubin(built().data).kernels["first"]
    a, m, scale, out = Argument("a", "pointer"), Argument("m", "i32"), Argument("n", "f32"), Argument("c", "pointer")
    assert kernel.mismatch((a, m, scale, out)) is None
    assert kernel.mismatch((a, m, scale)) == "first takes 4 arguments, the launch gives 3"
    offset = kernel.parameters[3].offset_bytes
    expected = f"first takes 8 bytes at offset {offset}, the launch gives k (i32)"
    assert kernel.mismatch((a, m, scale, Argument("k", "i32"))) == expected
    assert kernel.mismatch((m, m, scale, out)) is not None


@pytest.mark.parametrize("data", [b"", b"not a cubin", b"\x7fELF" + bytes(60)])
def test_what_is_no_cubin_is_one_line(data: bytes) -> None:
    with pytest.raises(TableError, match="rebuild it"):
        read_cubin(data)


def test_another_machines_object_is_refused() -> None:
    data = bytearray(built().data)
    struct.pack_into("<H", data, 18, 224)  # e_machine: an AMD GPU
    with pytest.raises(TableError, match="not a readable cubin: machine is 224"):
        read_cubin(bytes(data))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_are_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    damaged = bytearray(built().data)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    with contextlib.suppress(TableError):
        read_cubin(bytes(damaged))
