"""`hktune verify --kernel`: a kernel of one's own, as source or code object, and what its author is told."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from naive_gemm import OBJECT

from hktune.cli import main
from hktune.core.errors import InputError, TableError
from hktune.objects import source_lines
from hktune.verify.kernel_arguments import parse_parameters

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


def test_what_was_found_is_said_where_a_file_of_it_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(tmp_path, REVERSE, *REVERSED, "--try-seconds", "0", "--sarif", str(tmp_path / "none" / "x")) == 2
    out, err = capsys.readouterr()
    assert out.startswith("reverse: no hazard found")
    assert err.startswith("hktune: --sarif ")


def test_an_output_is_compared_with_one_array(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twice = ("--expect", f"y={tmp_path / 'a.npy'}", "--expect", f"y={tmp_path / 'b.npy'}")
    assert verify(tmp_path, REVERSE, *REVERSED, *twice) == 2
    assert "y is given twice: leave one out" in capsys.readouterr().err


def test_a_missing_barrier_is_named_with_its_source_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(tmp_path, REVERSE.replace("__syncthreads();", ""), *REVERSED) == 1
    out = capsys.readouterr().out
    assert out.startswith("reverse: 1 error, 1 warning\nerror: lds-race at kernel.hip:7: reads LDS address 1020"), out
    assert "fix: s_waitcnt lgkmcnt(0) and s_barrier before ds_read_b32 at kernel.hip:7 (tried: it is gone" in out


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        (
            ("", ""),
            (*REVERSED[:3], "n//256+1", *REVERSED[4:]),
            r"error: memory-bounds at kernel.hip:5: .*no allocation",
        ),
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
    assert "c is bf16.nt of a and b" in capsys.readouterr().out
    assert verify(tmp_path, PRODUCT.replace("i = 0;", "i = 1;"), *PRODUCT_ARGUMENTS, "--gemm", *sizes) == 1
    assert "elements wrong" in capsys.readouterr().out


HALVES = """#include <hip/hip_runtime.h>
extern "C" __global__ void product(const _Float16 *b, const float *bias, float *c, const _Float16 *a, int m, int n,
                                   int k) {
    const int row = blockIdx.x, column = threadIdx.x;
    float sum = bias[column];
    for (int i = 0; i < k; i++) sum += float(a[i * m + row]) * float(b[i * n + column]);
    c[row * n + column] = sum;
}
"""
HALVES_ARGUMENTS = ("--args", "b:f16[k,n] bias:f32[n] c:out:f32[m,n] a:f16[k,m] m n k", "--grid", "m", "--block", "n")


def test_a_product_is_compared_with_the_operation_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, operation = (*HALVES_ARGUMENTS, "m=8", "n=64", "k=32", "--gemm"), "f16.tn->f32+bias"
    assert verify(tmp_path, HALVES, *words, operation) == 0
    assert f"c is {operation} of a and b" in capsys.readouterr().out
    assert verify(tmp_path, HALVES.replace("bias[column]", "0"), *words, operation) == 1
    assert "512 of 512 elements wrong" in capsys.readouterr().out
    assert verify(tmp_path, HALVES, *words, "f16.tn+bias") == 2
    assert "bias:f16[n] c:out:f16[m,n]: name these in --args" in capsys.readouterr().err
    assert verify(tmp_path, HALVES, *words, "f16.nn->f32+bias") == 2
    assert "k is 8 and 32 in --args" in capsys.readouterr().err


CONSTANT = """#include <hip/hip_runtime.h>
extern "C" __global__ void constant(_Float16 *y, int n) {
    if (threadIdx.x < n) y[threadIdx.x] = _Float16(-93.3125f);
}
"""


def test_a_number_whose_bytes_repeat_is_a_written_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-93.3125 is 0xD5D5 in float16."""
    words = ("--args", "y:out:f16[64] n", "--grid", "1", "--block", "64")
    assert verify(tmp_path, CONSTANT, *words, "n=64") == 0
    capsys.readouterr()
    assert verify(tmp_path, CONSTANT, *words, "n=60") == 1
    assert "y: 4 of 64 elements never written, first [60]" in capsys.readouterr().out


def test_other_outputs_of_a_product_must_be_written_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = PRODUCT.replace("__bf16 *c, int m", "__bf16 *c, float *d, int m")
    source = source.replace("c[row * n", "if (row < m - 1) d[row] = sum;\n    c[row * n")
    words = ("--args", "a:bf16[m,k] bt:bf16[n,k] c:out:bf16[m,n] d:out:f32[m] m n k", *PRODUCT_ARGUMENTS[2:])
    words = (*words, "--gemm", "m=8", "n=64", "k=32")
    assert verify(tmp_path, source, *words) == 1
    assert "d: 1 of 8 elements never written, first [7]" in capsys.readouterr().out
    assert verify(tmp_path, source.replace("row < m - 1", "true"), *words) == 0


def test_a_code_object_needs_no_compiler(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gfx950_code import assemble

    path = tmp_path / "kernel.hsaco"
    path.write_bytes(assemble("s_load_dwordx2 s[4:5], s[0:1], 0\ns_load_dword s6, s[4:5], 0\ns_endpgm", pointers=1))
    assert main(["verify", "--kernel", str(path), "--args", "x:f32[16]"]) == 1
    assert "missing-wait at kernel+0x8: reads s4, which `s_load_dwordx2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--args", "x:f32[n] y:f32[n]", "n=4"), "takes 3 arguments, the launch gives 2"),
        (("--args", "x:f33[n]", "n=4"), "type 'f33' is not one of"),
        (("--args", "x:f32[n] y:f32[n] n"), "has no value here"),
        (("--args", "x:f32[n] y:f32[n] n", "n=four"), "write NAME=NUMBER"),
        (("--symbol", "other", *REVERSED), "has no kernel 'other': it has reverse"),
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
    assert (a.kind, c.way, count.kind, count.type, scale.type) == ("buffer", "out", "number", "i32", "f32")
    with pytest.raises(InputError, match="write name"):
        parse_parameters("a:bf16[m")


def test_a_config_is_proved_on_a_problem_of_ones_own_too(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["block_m=64", "block_n=64", "warps_n=2", "split=1"]
    assert main(["verify", "--problem", "70x90x136", *small]) == 0
    assert "; 70x90x136 bf16.nt, exact sums: relative error" in capsys.readouterr().out
    assert main(["verify", "--problem", "70x90x133", *small]) == 2
    assert "k=133 is not a multiple of 8" in capsys.readouterr().err


SUM = ("--args", "x:f32[n] y:out:f32[n] n")


def test_a_config_is_proved_as_the_code_of_the_problems_operation(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["block_m=64", "block_n=64", "warps_m=2", "warps_n=2", "split=1"]
    assert main(["verify", *words, "--problem", "70x90x136:f16.nt+bias"]) == 0
    proved = " ".join(capsys.readouterr().out.split())
    assert "; 70x90x136 f16.nt+bias, exact sums: relative error" in proved
    assert "bf16" not in proved
    assert main(["explain", *words, "--problem", "70x90x136:f16.nt+bias"]) == 0
    assert "legal for 70x90x136 f16.nt+bias: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--problem", "8x8x8:f32.nn"],
            "cannot do f32.nn: it does bf16.nn->f32, f16.nn->f32,",
        ),
        (["--operation", "f32.nn"], "gfx950/gemm_bf16 cannot do f32.nn: it does bf16.nn->f32,"),
        (["--operation", "bf16.nt", "--problem", "8x8x8:f16.nt"], "bf16.nt and f16.nt need different code"),
        (["--problem", "8x8x8:grouped.f16.nt"], "say how many, such as grouped8.f16.nt"),
        (["--problem", "8x8x8:grouped4.f16.tt"], "grouped4.f16.tt: its operands are not known"),
        (["--gemm", "f16.nt"], "--gemm is for a kernel of your own: add --kernel FILE, or leave it out"),
        (["--args", "x:f32[2]"], "--args is for a kernel of your own"),
        (["--strict"], "--strict is for a kernel of your own"),
        (["--operation", "f16"], "operation 'f16' must read like bf16.nt"),
    ],
)
def test_an_operation_that_cannot_be_proved_is_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert main(["verify", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert says in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*SUM, "n=inf"), "'n=inf': write NAME=NUMBER, such as m=128 or alpha=2.5e-3"),
        ((*SUM, "n=nan"), "'n=nan': write NAME=NUMBER"),
        ((*SUM, "n=0x10"), "'n=0x10': write NAME=NUMBER"),
        ((*SUM, "n=1_6"), "'n=1_6': write NAME=NUMBER"),
        ((*SUM, "n=" + "9" * 5000), "write NAME=NUMBER"),
        ((*SUM, "n=2e10"), "argument x 'n' is 20000000000.0: it must be an integer from 1 to 268435456"),
        ((*SUM, "n=2.5"), "argument x 'n' is 2.5: it must be an integer"),
        ((*SUM, "n=20000000000"), "argument x 'n' is 20000000000: it must be an integer from 1 to"),
        ((*SUM, "n=200000000"), "argument x has the sizes [200000000]: buffers have at most 268435456 bytes together"),
        ((*SUM, "n=0"), "argument x 'n' is 0: it must be an integer from 1"),
        ((*SUM, "n=4", "n=5"), "'n' is given twice: leave one out"),
        ((*SUM, "n=4", "--problem", "64x64x64"), "--problem is for a config, and --kernel"),
        ((*SUM, "n=4", "--operation", "f16.nt"), "--operation is for a config, and --kernel"),
        ((*SUM, "n=4", "--space", "x.yaml"), "--space is for a config, and --kernel"),
        ((*SUM, "=4"), "'=4': write NAME=NUMBER"),
        ((*SUM, "n"), "'n': write NAME=NUMBER"),
        ((*SUM, "n=4", "--grid", "n//8"), "--grid 'n//8' is 0: it must be an integer from 1 to 2147483647"),
        ((*SUM, "n=4", "--grid", "n*10000000000"), "--grid 'n*10000000000' is 40000000000"),
        ((*SUM, "n=4", "--grid", "1,1,1,1"), "has 4 sides, a launch has at most 3"),
        ((*SUM, "n=4", "a=2.0", "--block", "a"), "--block 'a' is 2.0: it must be an integer from 1 to 1024"),
        ((*SUM, "n=4", "--block", "2048"), "--block '2048' is 2048: it must be an integer from 1 to 1024"),
        ((*SUM, "n=4", "--lds", "-1"), "--lds '-1' is -1: it must be an integer from 0"),
        ((*SUM, "n=4", "--lds", "'x'"), "it must be an integer from 0"),
        ((*SUM, "n=4", "--grid", ""), "--grid: ``: not an expression"),
        ((*SUM, "n=4", "--gemm"), "--gemm bf16.nt compares a:bf16[m,k] b:bf16[n,k] c:out:bf16[m,n]: name these"),
        ((*SUM, "n=4", "--gemm", "f16.xx"), "operation 'f16.xx' must read like bf16.nt"),
        ((*SUM, "n=4", "--gemm", "i9.nt"), "dtype 'i9' is not known"),
        (
            (*SUM, "n=4", "--gemm", "grouped.bf16.nt"),
            "--gemm grouped.bf16.nt: several products, and those with scales or onto C, are",
        ),
        (
            ("--args", "a:bf16[n] c:out:bf16[n] n", "n=4", "--gemm"),
            "--gemm bf16.nt compares a:bf16[m,k] b:bf16[n,k] c:out:bf16[m,n]: name these",
        ),
        (
            ("--args", "a:f32[n] bt:bf16[n] n", "n=2147483648"),
            "argument a 'n' is 2147483648: it must be an integer from 1",
        ),
        (("--args", "n:u32 x:f32[2] y:f32[2]", "n=-1"), "argument n=-1 is u32: give 0 to 4294967295"),
        (("--args", "x:f32[2] y:f32[2] n", "n=2147483648"), "argument n=2147483648 is i32: give -2147483648 to"),
        (("--args", "x:f32[2] y:f32[2] n", "n=1.5"), "argument n=1.5 is i32: give an integer"),
        (("--args", "x:f32[2] x:f32[2]"), "each of another name"),
        (("--args", "x:f32[,]"), "not an expression"),
        (("--args", "x:f32[" + ",".join("1" * 9) + "]"), "at most 64 arguments of 8 sizes"),
        (("--args", " ".join(f"x{n}" for n in range(65))), "at most 64 arguments"),
        (("--args", "\u0661:f32[2]"), "write name"),
        (("--args", "x\x1b[2J"), "argument 'x\\x1b[2J': write name"),
    ],
)
def test_numbers_and_descriptions_from_outside_are_bounded_and_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    from gfx950_code import assemble

    path = tmp_path / "kernel.hsaco"
    path.write_bytes(assemble("s_endpgm", pointers=2, hidden=(("by_value", 4),)))
    assert main(["verify", "--kernel", str(path), *words]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert said in output.err
    assert output.err.count("\n") == 1
    assert len(output.err) < 500


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "is a pipe, not a kernel"),
        (Path.mkdir, "is a directory, not a kernel"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device, not a kernel"),
        (lambda path: path.write_bytes(b"\x7fELF"), "not a 64-bit little-endian ELF file"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "must be UTF-8 text"),
        (lambda path: path.write_bytes(b"__global__ void a(); \0"), "NUL"),
        (lambda path: path.write_text("int x;"), "it defines no kernel, or a template"),
        (
            lambda path: path.write_text(
                "#include <hip/hip_runtime.h>\n__global__ void a(int x) {} namespace n { __global__ void b() {} }"
            ),
            "has the kernels a, n::b: name one with --symbol",
        ),
        (lambda path: path.write_text("__global__ " * 300_000), "does not compile"),
        (lambda path: path.write_text("__launch_bounds__(" * 200_000), "does not compile"),
        (lambda path: path.write_text("__global__ " + "x" * 3_000_000), "does not compile"),
    ],
)
def test_a_file_that_is_no_kernel_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], object], said: str
) -> None:
    make(tmp_path / "kernel")
    assert main(["verify", "--kernel", str(tmp_path / "kernel")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_debug_lines_that_lead_nowhere_are_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The section is there, and is nonsense: the fault is told without a line."""
    monkeypatch.setattr(source_lines, "_DEBUG_LINES", ".text")
    for data in (OBJECT, OBJECT[:64] + bytes(64) + OBJECT[128:]):
        with contextlib.suppress(TableError):
            assert source_lines.source_places(data, [0]) == {}
