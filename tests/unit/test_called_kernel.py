"""`hktune.verify(...)`: any kernel, called from Python with tensors, and usable as a test."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import hktune
from hktune.compile.command_line import device_flags
from hktune.core.errors import InputError
from hktune.core.settings import Settings
from hktune.verify.called_kernel import KernelRefuted, KernelResult, verify_kernel
from hktune.verify.kernel_source import kernel_code

pytest.importorskip("ziglang")

SOURCE = r"""
#include <hip/hip_runtime.h>
struct Row { const __bf16 *x; int first, count; float scale; };
extern "C" __global__ void axpy(Row row, float *y, const unsigned char *mask, long stride, double shift,
                                _Float16 half) {
    const int i = blockIdx.x * 64 + threadIdx.x;
    if (i < row.count && (!mask || mask[i]))
        y[i * stride] = float(row.x[i]) * row.scale + float(shift) + float(half) + row.first;
}
"""


@pytest.fixture(scope="module")
def code() -> bytes:
    data, symbol = kernel_code(SOURCE.encode(), Path("axpy.hip"), None, device_flags(""), Settings.from_environment({}))
    assert symbol == "axpy"
    return data


def operands() -> tuple[Any, torch.Tensor]:
    torch.manual_seed(5)
    return (torch.randn(128).to(torch.bfloat16), 3, 128, 0.5), torch.zeros(128)


def expected(row: Any, y: torch.Tensor, mask: Any, stride: int, shift: float, half: float) -> torch.Tensor:
    return row[0].float() * row[3] + shift + half + row[1]


def test_a_right_kernel_gives_its_outputs_and_changes_nothing(code: bytes) -> None:
    row, y = operands()
    result = verify_kernel(code, 2, 64, [row, y, None, 1, 0.25, 1.5], reference=expected)
    assert isinstance(result, KernelResult)
    assert (result.right, result.failures, result.findings, result.symbol) == (True, (), (), "axpy")
    assert not y.any()
    [left] = result.outputs
    assert left.dtype == torch.float32
    torch.testing.assert_close(left, expected(row, y, None, 1, 0.25, 1.5))
    assert str(result).startswith("axpy: no hazard found; outputs are as expected\ntakes ")


def test_a_reference_may_write_its_own_arguments(code: bytes) -> None:
    row, _ = operands()
    arrays = np.full(128, 7.0, np.float32), np.arange(128) % 2 == 1

    def in_place(row: Any, y: Any, mask: Any, *rest: Any) -> None:
        y[mask] = (row[0].float() * row[3] + row[1]).numpy()[mask]

    result = verify_kernel(code, (2, 1), (64,), [row, *arrays, 1, 0.0, 0.0], reference=in_place)
    assert result.outputs[0].dtype == np.float32
    assert (result.outputs[0][::2] == 7).all()
    assert (result.outputs[0][1::2] != 7).all()


def test_strides_are_kept(code: bytes) -> None:
    row, _ = operands()
    column = torch.zeros(128, 3)[:, 1]
    result = verify_kernel(code, 2, 64, [row, column, None, 3, 0.0, 0.0], reference=expected)
    assert result.outputs[0].stride() == (3,)


class Row(ctypes.Structure):
    _fields_ = (("x", ctypes.c_uint64), ("first", ctypes.c_int), ("count", ctypes.c_int), ("scale", ctypes.c_float))


def test_structs_may_come_as_bytes(code: bytes) -> None:
    y = torch.full((64,), 2.0)
    result = verify_kernel(code, 1, 64, [Row(0, 3, 0, 1.0), y, None, 1, 0.0, 0.0])
    assert result.outputs == ()
    assert "values were not compared" in str(result)


def test_what_is_wrong_fails_a_test(code: bytes) -> None:
    row, y = operands()
    with pytest.raises(KernelRefuted, match=r"wrong: argument 1: 128 of 128 elements wrong, first \[0\]") as caught:
        verify_kernel(code, 2, 64, [row, y, None, 1, 0.25, 1.5], reference=lambda *args: expected(*args) + 1)
    assert isinstance(caught.value, AssertionError)
    assert hktune.verify.KernelRefuted is KernelRefuted
    assert caught.value.result.failures[0].status == "wrong"
    near = {"reference": lambda *args: expected(*args) + 1, "tolerance": (0.0, 1.01)}
    assert verify_kernel(code, 2, 64, [row, y, None, 1, 0.25, 1.5], **near).right
    unchecked = verify_kernel(code, 1, 64, [row, y, None, 1, 0.25, 1.5], outputs=[1], check=False)
    assert "64 of 128 elements never written, first [64]" in unchecked.failures[0].detail
    short = (row[0][:100].clone(), *row[1:])
    astray = verify_kernel(code, 2, 64, [short, y, None, 1, 0.25, 1.5], check=False)
    assert {each.rule.name for each in astray.findings} == {"memory-bounds"}
    assert not astray.right
    assert "run past their allocation" in str(astray) or "is in no allocation" in str(astray)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"args": [1, 2]}, "axpy takes 6 arguments, the launch gives 2"),
        ({"outputs": [2]}, "outputs names argument 2, which is no tensor: tensors are 0.0, 1"),
        ({"at": (1, "text")}, "argument 1 is a str: give tensors"),
        ({"at": (1, torch.zeros(2, dtype=torch.complex64))}, "a tensor of complex64: types are"),
        ({"reference": lambda *args: (1, 2)}, "the reference makes 2 outputs, and the kernel wrote arguments 1"),
        ({"constants": {"B": 1}}, "constants and options are for a function of triton.jit"),
        ({"kernel": 7}, "hktune.verify of a int"),
        ({"grid": 0}, "--grid '0' is 0"),
    ],
)
def test_what_cannot_be_run_is_one_line(code: bytes, change: dict[str, Any], said: str) -> None:
    row, y = operands()
    args = change.pop("args", [row, y, None, 1, 0.25, 1.5])
    if "at" in change:
        position, value = change.pop("at")
        args[position] = value
    kernel, grid = change.pop("kernel", code), change.pop("grid", 2)
    with pytest.raises(InputError, match=said.replace(".", r"\.")) as caught:
        verify_kernel(kernel, grid, 64, args, **change)
    assert "\n" not in str(caught.value)


def test_a_kernel_that_triton_compiled_says_how_it_is_launched(code: bytes) -> None:
    """What triton.compile returns, made of a kernel that is not Triton's."""
    metadata = SimpleNamespace(name="axpy", num_warps=2, shared=16, global_scratch_size=0, profile_scratch_size=0)
    compiled = SimpleNamespace(asm={"hsaco": code}, metadata=metadata)
    row, y = operands()
    verify_kernel(compiled, 1, args=[row, y, None, 1, 0.0, 0.0], outputs=[1])  # one workgroup of 2 waves writes all
    elsewhere = SimpleNamespace(asm={"cubin": b""}, metadata=metadata)
    with pytest.raises(InputError, match="compile it for gfx950"):
        verify_kernel(elsewhere, 1, args=[])


def test_small_floats_and_double_pointers_of_numbers() -> None:
    source = r"""
    #include <hip/hip_runtime.h>
    #include <hip/hip_fp8.h>
    extern "C" __global__ void widen(const __hip_fp8_e4m3 *x, double *y) { y[threadIdx.x] = float(x[threadIdx.x]); }
    """
    x = torch.arange(-32, 32).float().to(torch.float8_e4m3fn)
    result = hktune.verify(source, 1, 64, [x, torch.zeros(64, dtype=torch.float64)], reference=lambda x, y: x.double())
    assert torch.equal(result.outputs[0], x.double())


def test_importing_hktune_stays_light_and_the_room_can_still_be_imported() -> None:
    lines = (
        "import sys, hktune",
        "assert not {'numpy', 'torch', 'hktune.verify'} & set(sys.modules)",
        "assert callable(hktune.verify)",
        "from hktune.verify import Proof, compare",
        "assert 'torch' not in sys.modules and 'hktune.verify.called_kernel' not in sys.modules",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


def test_variables_of_the_device_keep_what_a_kernel_stores_there() -> None:
    source = r"""
    #include <hip/hip_runtime.h>
    __device__ int tickets = 5;
    __device__ int last[4];
    __constant__ int table[2] = {10, 20};
    extern "C" __global__ void draw(int *y) {
        const int mine = atomicAdd(&tickets, 1);
        last[threadIdx.x & 3] = table[threadIdx.x & 1];
        y[mine - 5] = last[threadIdx.x & 3];
    }
    """
    result = hktune.verify(source, 1, 64, [torch.zeros(64, dtype=torch.int32)], check=False)
    assert not [each for each in result.findings if each.counts]
    assert sorted(result.outputs[0].tolist()) == [10] * 32 + [20] * 32
