"""Arguments of any kernel, described in a line: what the kernel finds, as C++ itself lays it out."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from hktune.cli import main
from hktune.commands.kernel import ARGUMENTS_HELP
from hktune.compile.command_line import device_flags
from hktune.compile.host_code import with_values, without_host_code
from hktune.core.errors import HktuneError, InputError
from hktune.core.expression import Expression
from hktune.objects.demangled import chosen_symbol, kernel_name
from hktune.verify.argument_struct import Values, packed
from hktune.verify.kernel_arguments import buffers_of, parse_numbers, parse_parameters
from hktune.verify.kernel_buffers import difference, filled_buffers, read_array, stored, unwritten, unwritten_bits

pytest.importorskip("ziglang")


def layout(text: str, **numbers: int | float) -> bytes:
    parameters = parse_parameters(text)
    names = buffers_of(parameters)
    shapes = {name: [int(size.value(numbers)) for size in each.dimensions] for name, each in names.items()}
    values = Values({name: 0x1000 * (i + 1) for i, name in enumerate(names)}, shapes, numbers)
    [only] = [packed(parameter, values).data for parameter in parameters]
    return only


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # struct { char a; double b; short c; }: 8-byte alignment inside, and 24 bytes in all
        ("s:{a:i8=-1 b:f64=0.5 c:u16=7}", struct.pack("<b7xdH6x", -1, 0.5, 7)),
        ("s:{p:f32[4] q:null n=3}", struct.pack("<QQi4x", 0x1000, 0, 3)),
        ("s:{a:u8=1 in:{x:u16=2 y:u32=3} z:u8=4}", struct.pack("<B3xH2xIB3x", 1, 2, 3, 4)),
        ("s:{h:f16=1.5 b:bf16=1 e:e4m3=2 raw:bytes=0aff pad:bytes[2]}", bytes.fromhex("003e803f400aff0000") + b"\0"),
        ("t:gl:bf16[3,5]", struct.pack("<QQQQQ8x", 0x1000, 1, 1, 3, 5)),
        ("t:out:gl:e4m3[3!,5!]", struct.pack("<Q8x", 0x1000)),
        ("t:gl:f32[1!,2,3,4!]", struct.pack("<Qx7xQQxx6x", 0x1000, 2, 3)),
        ("n:i64=2*m+1", struct.pack("<q", 13)),
        ("x:f64=m", struct.pack("<d", 6.0)),
    ],
)
def test_values_are_laid_out_as_cpp_does(text: str, wanted: bytes) -> None:
    assert layout(text, m=6) == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s:{a:i8", "a brace is open"),
        ("s:{}", "a struct has at least one field"),
        ("a:f32}", "braces must match"),
        ("{" * 9, "8 is the deepest"),
        ("s:{a@4:i8=1}", "only a whole argument has an offset"),
        ("a:bytes=0g", "bytes=HEX what the digits say"),
        ("a:bytes[0]", "bytes[N] are N zeros"),
        ("a:bytes[99999]", "at most 4096"),
        ("a:f32[2!]", "a size that ends with !"),
        ("a:gl:f32[1,2,3,4,5]", "a gl of 4"),
        ("a:gl:f32", "a buffer has sizes"),
        ("a:mxfp4", "type 'mxfp4' is not one of"),
        ("a:f32[2] s:{a=1}", "each of another name"),
        ("a:out", "a buffer has sizes"),
    ],
)
def test_what_describes_no_arguments_is_one_line(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said.replace("[", r"\[").replace("!", r"\!")):
        parse_parameters(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:u8=256", "give 0 to 255"),
        ("a:i64=1.5", "give an integer"),
        ("a:f32=1e39", "give -3.4e"),
        ("a", "add a=VALUE"),
    ],
)
def test_a_number_is_one_of_its_type(text: str, said: str) -> None:
    with pytest.raises(HktuneError, match=said):
        layout(text)


def filled(text: str, **numbers: int) -> np.ndarray:
    [only] = filled_buffers(buffers_of(parse_parameters(text)), numbers, 3, 0).values()
    return only


def test_buffers_hold_what_is_said(tmp_path: Path) -> None:
    assert filled("x:f16[2,3]=ones").tolist() == [[0x3C00] * 3] * 2
    assert filled("x:f64[2]=2.5").tolist() == [2.5, 2.5]
    assert filled("x:i16[4]=arange").tolist() == [0, 1, 2, 3]
    spread = filled("x:u8[4000]=3..7")
    assert set(spread.tolist()) == {3, 4, 5, 6, 7}
    assert filled("x:mxfp4[2,8]").shape == (2, 4)
    with pytest.raises(InputError, match="must be a multiple of 2"):
        filled("x:mxfp4[3]")
    with pytest.raises(InputError, match="a buffer holds zeros, ones"):
        filled("x:f32[3]=sevens")
    file = tmp_path / "x.npy"
    np.save(file, np.asfortranarray(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])))
    assert filled(f"x:bf16[]=@{file}").tolist() == [[0x3F80, 0x4000, 0x4040], [0x4080, 0x40A0, 0x40C0]]
    with pytest.raises(InputError, match="correct one"):
        filled(f"x:bf16[3,2]=@{file}")
    np.save(file, np.array([0x3F80], np.uint16))
    assert filled(f"x:bf16[1]=@{file}").tolist() == [0x3F80], "bits of its width are taken as they are"


@pytest.mark.parametrize(
    "harm", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'shape': (9999999999999,)}"]
)
def test_a_file_that_is_no_array_is_one_line(tmp_path: Path, harm: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(harm)
    with pytest.raises(InputError, match=r"not a \.npy file of numbers"):
        read_array(tmp_path / "x.npy")
    np.save(tmp_path / "y.npy", np.arange(5.0))
    (tmp_path / "z.npy").write_bytes((tmp_path / "y.npy").read_bytes()[:-1])
    with pytest.raises(InputError, match="do not hold"):
        read_array(tmp_path / "z.npy")


def test_differences_are_judged_by_the_type() -> None:
    got = stored(np.array([1.0, 2.0, np.nan, np.inf], np.float32), "f32")
    assert difference(got, np.array([1.0, 2.0 + 1e-6, np.nan, np.inf]), "f32", None) is None
    assert difference(got, np.array([1.0, 2.5, np.nan, -np.inf]), "f32", None) == (
        "2 of 4 elements wrong, first [1]: 2 instead of 2.5; the largest difference is 0.5"
    )
    assert difference(got, np.array([1.0, 2.5, np.nan, np.inf]), "f32", (0.2, 0.0)) is None
    small = stored(np.array([1.0, 16.0]), "e4m3")
    assert difference(small, np.array([1.125, 18.0]), "e4m3", None) is None
    assert difference(small, np.array([1.0, 20.0]), "e4m3", None) is not None
    whole = stored(np.array([3, 2**40]), "i64")
    assert difference(whole, np.array([3, 2**40 + 1]), "i64", None) is not None


def test_a_byte_that_a_kernel_may_compute_is_no_proof_of_silence() -> None:
    for kind in ("u8", "i64", "e5m2", "f64"):
        first, second = unwritten_bits(kind, 0), unwritten_bits(kind, 1)
        assert first != second
        array = np.array([first, second], f"u{8 if kind in ('i64', 'f64') else 1}")
        assert unwritten(array, kind, 0).tolist() == [True, False]


HOST = r"""#include "kittens.cuh"
// main() { of a comment
const char *text = "main() { <<<";
#define SIZE 8192  // as large as it gets
constexpr int DEPTH = 64 * 2;
struct args { int a; dim3 grid() { return dim3(a); } };
namespace inner {
__global__ void kernel(args a) { if (a.a) { a.a = 1; } }
template <int n> void launch(args a) {
    kernel<<<a.grid(), n>>>(a);
}
__device__ int kept() { return 1; }
std::vector<float> filled(int n) { std::vector<float> all(n); return all; }
int plain(int x) { return x + 1; }
}
int main(int argc, char **argv) {
    inner::launch<3>({1});
}
PYBIND11_MODULE(extension, m) {
    m.def("launch", &inner::launch<3>);
}
"""


def test_only_what_no_kernel_calls_is_left_out() -> None:
    cut = without_host_code(HOST)
    assert cut.count("\n") == HOST.count("\n")
    for gone in ("<<<a", "inner::launch", "all(n)", "PYBIND11", 'm.def("'):
        assert gone not in cut
    for kept in ("a.a = 1", "return 1", "x + 1", "return dim3(a)", "main() { of", "int main(int argc, char **argv) {"):
        assert kept in cut
    assert cut.splitlines()[7] == HOST.splitlines()[7]


def test_values_take_the_place_of_the_files_own() -> None:
    changed, left = with_values(HOST, {"SIZE": "256", "DEPTH": "32", "OTHER": "1"})
    assert "#define SIZE 256\n" in changed
    assert "constexpr int DEPTH = 32;" in changed
    assert left == {"OTHER": "1"}
    assert changed.count("\n") == HOST.count("\n")


def test_a_makefiles_line_is_read() -> None:
    line = (
        "/opt/rocm/bin/hipcc kernel.cpp -DKITTENS_CDNA4 --offload-arch=gfx950 -std=c++20 -w -I/a/include -I /b "
        "-L/opt/lib -lpthread -shared -fPIC -Rpass-analysis=kernel-resource-usage --save-temps -D N='4 + 4' "
        "-ffast-math -O2 -fopenmp -Wl,--gc -o tk_kernel.so"
    )
    flags = device_flags(line, ["M=3"], ["/c"])
    assert flags.defines == {"KITTENS_CDNA4": "1", "N": "4 + 4", "M": "3"}
    assert flags.flags == ("-std=c++20", "-I/a/include", "-I", "/b", "-ffast-math", "-O2", "-I", "/c")
    for bad, said in ((("'",), "No closing quotation"), (("", ["3=4"]), "write -D NAME")):
        with pytest.raises(InputError, match=said):
            device_flags(*bad)


SYMBOLS = ("_ZN4math6squareILi4EEEvPf", "_ZN4math6squareILi8EEEvPf", "plain")


def test_kernels_are_named_as_cpp_writes_them() -> None:
    assert kernel_name(SYMBOLS[0]) == "math::square<4>"
    assert kernel_name("_Znonsense") == "_Znonsense"
    for asked, found in (("square<4>", 0), ("math::square< 8 >", 1), ("plain", 2), (SYMBOLS[1], 1)):
        assert chosen_symbol(SYMBOLS, asked, "x") == SYMBOLS[found]
    assert chosen_symbol(SYMBOLS[:1], "square", "x") == SYMBOLS[0]
    for asked, said in (("square", "has the kernels math::square<4>, math::square<8>"), ("cube", "no kernel 'cube'")):
        with pytest.raises(InputError, match=said):
            chosen_symbol(SYMBOLS, asked, "x")


KERNEL = r"""
#include <hip/hip_runtime.h>
#include <pybind11/pybind11.h>
#include <torch/extension.h>
#include <iostream>
#include "scale.h"
#define WIDTH 8192
struct View { float *data; unsigned char tag; long rows, columns; };
struct Everything { View x; double alpha; short count; const float *nothing; };
template <typename T, int copies>
__global__ void spread(const Everything all, T *y, unsigned char *bytes, float beta) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const bool right = all.x.tag == 7 && all.x.rows == 2 && all.x.columns == WIDTH && !all.nothing && all.count == -3;
    for (int copy = 0; copy < copies; copy++)
        y[copy * WIDTH + i] = T(right ? SCALE * all.x.data[i] * all.alpha + beta : -1.0f);
    bytes[i] = 0xD5;
}
void launch(torch::Tensor x, torch::Tensor y) {
    Everything all{};
    spread<double, 2><<<1, WIDTH>>>(all, y.data_ptr<double>(), nullptr, 1.0f);
    std::cout << x.numel() << std::endl;
}
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) { m.def("launch", &launch); }
int main() { launch({}, {}); }
"""
ARGUMENTS = (
    "all:{x:{data:f32[64]=arange tag:u8=7 rows:i64=2 columns:i64=n} alpha:f64 count:i16=-3 nothing:null} "
    "y:out:f64[2,64] bytes:out:u8[64] beta:f32=0.25"
)


def test_a_file_with_host_code_structs_and_templates_runs_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kernel.cpp").write_text(KERNEL)
    (tmp_path / "scale.h").write_text("#define SCALE 3.0\n")
    (tmp_path / "truth.py").write_text("import numpy\ndef truth(data, n): return {'bytes': numpy.full(n, 0xD5)}\n")
    expected = np.tile(1.5 * np.arange(64) + 0.25, (2, 1))
    wrong = expected.copy()
    wrong[1, 3] += 1
    np.save(tmp_path / "want.npy", wrong)
    command = ["verify", "--kernel", str(tmp_path / "kernel.cpp"), "--symbol", "spread<double, 2>", "-D", "WIDTH=64"]
    command += ["--args", ARGUMENTS, "--dump", str(tmp_path / "out"), "n=64", "alpha=0.5", "--tolerance", "1e-6"]
    command += ["--expect", f"y={tmp_path / 'want.npy'}", "--reference", f"{tmp_path / 'truth.py'}:truth"]
    assert main(command) == 1
    assert "wrong: y: 1 of 128 elements wrong, first [1, 3]: 4.75 instead of 5.75" in capsys.readouterr().out
    assert np.array_equal(np.load(tmp_path / "out" / "y.npy"), expected)


def test_an_expression_in_a_launch_still_has_no_floats() -> None:
    assert Expression("m//2", "--grid").value({"m": 5}) == 2
    assert parse_numbers(["m=3", "x=2.5e-1"]) == {"m": 3, "x": 0.25}


def test_kernels_inside_bundles_and_programs_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """clang's bundle as hipcc --genco leaves it, and the section of a program that has two of them."""
    from gfx950_code import assemble, link
    from test_instruction_coverage import bundle, compressed

    first, second = assemble("s_endpgm"), assemble("v_mov_b32 v1, v0\ns_endpgm", pointers=1)
    second = second.replace(b"kernel.kd\0", b"worker.kd\0").replace(b"kernel\0", b"worker\0")
    second = second.replace(b"\xa9kernel.kd", b"\xa9worker.kd").replace(b"\xa6kernel", b"\xa6worker")
    entries = [("host-x86_64-unknown-linux-gnu", b""), ("hipv4-amdgcn-amd-amdhsa--gfx950", first)]
    (tmp_path / "plain.co").write_bytes(bundle(*entries))
    (tmp_path / "packed.co").write_bytes(compressed(bundle(*entries), 2, 0))
    arguments = ["--args", "x:f32[4] y:f32[4]"]
    for name in ("plain", "packed"):
        assert main(["verify", "--kernel", str(tmp_path / f"{name}.co"), *arguments]) == 0
        assert capsys.readouterr().out.startswith("kernel: no hazard found")
    other = bundle(entries[0], ("hipv4-amdgcn-amd-amdhsa--gfx950:sramecc+:xnack-", second))
    whole = bundle(*entries)
    (tmp_path / "fat.bin").write_bytes(whole.ljust(-(-len(whole) // 4096) * 4096, b"\0") + other)
    source = tmp_path / "program.s"
    source.write_text(f'.section .hip_fatbin,"a"\n.p2align 12\n.incbin "{tmp_path / "fat.bin"}"\n')
    (tmp_path / "program.so").write_bytes(link(source, ("--target=x86_64-linux-gnu",)))
    command = ["verify", "--kernel", str(tmp_path / "program.so")]
    assert main([*command, *arguments]) == 2
    assert "has the kernels kernel, worker: name one with --symbol" in capsys.readouterr().err
    assert main([*command, "--symbol", "worker", "--args", "x:f32[4]"]) == 0
    assert capsys.readouterr().out.startswith("worker: no hazard found")
    (tmp_path / "older.co").write_bytes(bundle(entries[0]))
    assert main(["verify", "--kernel", str(tmp_path / "older.co"), *arguments]) == 2
    assert "has no code object for gfx950: compile it with --offload-arch=gfx950" in capsys.readouterr().err


def test_what_the_help_says_of_arguments_is_taken() -> None:
    examples = [line[:22] for line in ARGUMENTS_HELP.splitlines() if line.startswith("  ") and line[:22].strip()]
    assert len(examples) == 8
    kinds = {each.kind for example in examples for each in parse_parameters(example)}
    assert kinds == {"buffer", "number", "struct", "null", "bytes", "gl"}
    assert all(f"={word}" in ARGUMENTS_HELP for word in ("zeros", "ones", "arange", "uniform", "normal"))
