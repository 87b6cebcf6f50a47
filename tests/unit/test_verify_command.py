"""`hktune verify --kernel`: a kernel of one's own, as source or code object, and what its author is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hktune.cli import main
from hktune.errors import InputError
from hktune.verify.kernel_file import parse_parameters

pytest.importorskip("ziglang")

REVERSE = """#include <hip/hip_runtime.h>
extern "C" __global__ __launch_bounds__(256) void reverse(const float *x, float *y, int n) {
    __shared__ float tile[256];
    const int i = blockIdx.x * 256 + threadIdx.x;
    tile[threadIdx.x] = x[i];
    __syncthreads();
    y[i] = tile[255 - threadIdx.x];
}
"""
REVERSED = ("--args", "x:f32[n] y:out:f32[n] n", "--grid", "n//256", "--block", "256", "n=512")

PRODUCT = """#include <hip/hip_runtime.h>
extern "C" __global__ void product(const __bf16 *a, const __bf16 *bt, __bf16 *c, int m, int n, int k) {
    const int row = blockIdx.x, column = threadIdx.x;
    float sum = 0;
    for (int i = 0; i < k; i++) sum += float(a[row * k + i]) * float(bt[column * k + i]);
    c[row * n + column] = __bf16(sum);
}
"""
PRODUCT_ARGUMENTS = ("--args", "a:bf16[m,k] bt:bf16[n,k] c:out:bf16[m,n] m n k", "--grid", "m", "--block", "n")


def verify(folder: Path, source: str, *words: str) -> int:
    path = folder / "kernel.hip"
    path.write_text(source)
    return main(["verify", "--kernel", str(path), *words])


def test_a_right_kernel_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(tmp_path, REVERSE, *REVERSED) == 0
    assert capsys.readouterr().out.startswith("reverse: no hazard found")


def test_a_missing_barrier_is_named_with_its_source_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(tmp_path, REVERSE.replace("__syncthreads();", ""), *REVERSED) == 1
    out = capsys.readouterr().out
    assert re.match(r"hazard: ds_read_b32 at 0x\w+ .*reverse\+0x\w+, kernel.hip:7\], wave 0 of workgroup", out), out
    assert "s_barrier" in out


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        (("", ""), (*REVERSED[:3], "n//256+1", *REVERSED[4:]), r"hazard: .*kernel.hip:5\].* is in no allocation"),
        (("y[i] =", "if (i) y[i] ="), REVERSED, r"wrong: y: 1 of 512 elements never written, first \[0\]"),
    ],
)
def test_other_faults_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], words: tuple[str, ...], said: str
) -> None:
    assert verify(tmp_path, REVERSE.replace(*change), *words) == 1
    assert re.search(said, capsys.readouterr().out)


def test_a_product_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("m=8", "n=64", "k=32")
    assert verify(tmp_path, PRODUCT, *PRODUCT_ARGUMENTS, "--gemm", *sizes) == 0
    assert "c is a @ bt^T" in capsys.readouterr().out
    assert verify(tmp_path, PRODUCT.replace("i = 0;", "i = 1;"), *PRODUCT_ARGUMENTS, "--gemm", *sizes) == 1
    assert "elements wrong" in capsys.readouterr().out


def test_a_code_object_needs_no_compiler(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gfx950_code import assemble

    path = tmp_path / "kernel.hsaco"
    path.write_bytes(assemble("s_load_dwordx2 s[4:5], s[0:1], 0\ns_load_dword s6, s[4:5], 0\ns_endpgm", pointers=1))
    assert main(["verify", "--kernel", str(path), "--args", "x:f32[16]"]) == 1
    assert "reads s4, which s_load_dwordx2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--args", "x:f32[n] y:f32[n]", "n=4"), "takes 3 arguments, the launch gives 2"),
        (("--args", "x:f33[n]", "n=4"), "type f33 is not one of"),
        (("--args", "x:f32[n] y:f32[n] n"), "has no value here"),
        (("--args", "x:f32[n] y:f32[n] n", "n=four"), "write NAME=NUMBER"),
        (("--symbol", "other", *REVERSED), "no kernel other"),
    ],
)
def test_what_does_not_fit_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert verify(tmp_path, REVERSE, *words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error


def test_arguments_are_described_in_a_line() -> None:
    a, c, count, scale = parse_parameters("a:bf16[m,2*k] c:out:f32[m] m alpha:f32")
    assert [size.value({"m": 3, "k": 4}) for size in a.dimensions] == [3, 8]
    assert (a.argument.kind, c.way, count.argument.kind, scale.argument.kind) == ("pointer", "out", "i32", "f32")
    with pytest.raises(InputError, match="write name"):
        parse_parameters("a:bf16[m")


def test_a_config_is_proved_on_a_problem_of_ones_own_too(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["block_m=64", "block_n=64", "warps_n=2", "split=1"]
    assert main(["verify", "--problem", "70x90x136", *small]) == 0
    assert "; 70x90x136 bf16: relative error" in capsys.readouterr().out
    assert main(["verify", "--problem", "70x90x133", *small]) == 2
    assert "k=133 is not a multiple of 8" in capsys.readouterr().err
