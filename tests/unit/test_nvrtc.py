"""The NVRTC compiler keeps the Compiler contract, with no GPU and no CUDA toolkit."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from hktune.compile import CachedCompiler, Compiler, compile_many
from hktune.compile.nvrtc import NvrtcCompiler, nvidia_name
from hktune.core.config import Config
from hktune.core.errors import ToolchainError
from hktune.core.outcome import Failure, Status
from hktune.core.variant import CodeObject, Variant
from hktune.objects.cubin import read_cubin

pytest.importorskip("cuda.bindings.nvrtc", reason="pip install 'hktune[cuda]'")

DEADLINE_S = 120.0
SCALE = """
extern "C" __global__ void __launch_bounds__(128) scale(float* x, float by) {
    __shared__ float staged[128];
    staged[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = staged[127 - threadIdx.x] * by + @ADDEND@;
}
"""
# Every level computes half a million sums while it is compiled, which takes NVRTC minutes in all.
ENDLESS = """
constexpr unsigned long spin(unsigned long n) {
    unsigned long sum = 0;
    for (unsigned long i = 0; i < n; ++i) sum += i;
    return sum;
}
template <int N> struct level { static constexpr unsigned long value = spin(500000) + level<N - 1>::value; };
template <> struct level<0> { static constexpr unsigned long value = 0; };
extern "C" __global__ void scale(unsigned long* x) { *x = level<150>::value; }
"""


def variant(source: str, symbol: str = "scale") -> Variant:
    return Variant("sm90a/sample", "0" * 64, "sm90a", "cuda", symbol, source, Config({}))


def scale(addend: int) -> Variant:
    return variant(SCALE.replace("@ADDEND@", f"{addend}.0f"))


@pytest.fixture(params=["nvrtc", "cached"])
def compiler(request: pytest.FixtureRequest, tmp_path: Path) -> Compiler:
    return NvrtcCompiler() if request.param == "nvrtc" else CachedCompiler(NvrtcCompiler(), tmp_path)


def test_a_variant_becomes_a_code_object(compiler: Compiler) -> None:
    built = compiler.compile(scale(1), DEADLINE_S)
    assert isinstance(built, CodeObject), built
    assert built.sha256 == hashlib.sha256(built.data).hexdigest()
    assert (built.symbol, built.arch, built.compiler) == ("scale", "sm90a", compiler.identity)
    assert built.compile_s > 0
    cubin = read_cubin(built.data)
    assert cubin.capability == 90
    assert built.resources == cubin.kernels["scale"].resources
    assert built.resources.lds_bytes == 128 * 4
    assert built.resources.max_workgroup_size == 128
    assert built.resources.spills == built.resources.scratch_bytes == 0


def test_equal_sources_give_equal_objects_and_others_do_not(compiler: Compiler) -> None:
    first, again, other = (compiler.compile(scale(addend), DEADLINE_S) for addend in (1, 1, 2))
    assert isinstance(first, CodeObject)
    assert isinstance(again, CodeObject)
    assert isinstance(other, CodeObject)
    assert first.data == again.data
    assert first.data != other.data


def test_a_broken_source_is_a_compile_error_that_names_the_line(compiler: Compiler) -> None:
    broken = compiler.compile(variant(SCALE.replace("@ADDEND@", "offset")), DEADLINE_S)
    assert broken == Failure(Status.COMPILE_ERROR, 'sample.cu:6: error: identifier "offset" is undefined')


def test_an_instruction_that_the_assembler_refuses_is_a_compile_error(compiler: Compiler) -> None:
    refused = compiler.compile(
        variant(SCALE.replace("@ADDEND@", '([] { asm("nonsense.f32;"); return 0; }())')), DEADLINE_S
    )
    assert isinstance(refused, Failure)
    assert refused.status is Status.COMPILE_ERROR
    assert refused.detail.startswith("sample.cu: error: ")
    assert "nonsense" in refused.detail


def test_a_header_of_this_machine_is_not_found(compiler: Compiler) -> None:
    failure = compiler.compile(variant("#include <cuda_fp16.h>\n" + SCALE.replace("@ADDEND@", "0")), DEADLINE_S)
    assert isinstance(failure, Failure)
    assert failure.detail.startswith("sample.cu:1: error: ")


def test_a_missing_symbol_is_a_compile_error_that_lists_what_is_there(compiler: Compiler) -> None:
    failure = compiler.compile(variant(SCALE.replace("@ADDEND@", "0"), "gemm"), DEADLINE_S)
    assert isinstance(failure, Failure)
    assert failure.status is Status.COMPILE_ERROR
    assert "no kernel gemm, found scale" in failure.detail


def test_past_the_deadline_is_a_timeout(compiler: Compiler) -> None:
    failure = compiler.compile(variant(ENDLESS), 1.0)
    assert failure == Failure(Status.TIMEOUT, "sample.cu: still compiling after 1 s")


def test_threads_may_share_it() -> None:
    compiler = NvrtcCompiler()
    variants = [scale(addend) for addend in (1, 2, 1)]
    built = dict(compile_many(compiler, variants, DEADLINE_S, workers=2))
    for item in variants:
        alone = compiler.compile(item, DEADLINE_S)
        together = built[item]
        assert isinstance(alone, CodeObject)
        assert isinstance(together, CodeObject)
        assert together.data == alone.data


def test_its_identity_is_one_line_that_names_no_folder_but_the_version(compiler: Compiler) -> None:
    from importlib.metadata import version

    assert version("nvidia-cuda-nvrtc") in compiler.identity
    assert not set(compiler.identity) & {"\n", "/"}


def test_architectures_are_spelled_as_nvidia_does() -> None:
    assert [nvidia_name(arch) for arch in ("sm90a", "sm80")] == ["sm_90a", "sm_80"]


def test_without_the_packages_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ToolchainError, match=r"pip install 'hktune\[cuda\]'"):
        NvrtcCompiler()


def test_importing_the_compiler_does_not_load_nvrtc() -> None:
    code = "import sys, hktune.compile.nvrtc; print('cuda.bindings.nvrtc' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "False"
