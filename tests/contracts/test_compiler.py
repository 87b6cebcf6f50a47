"""What every Compiler promises, run on each implementation."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest

from hktune.compile import CachedCompiler, Compiler, HipCompiler, compile_many
from hktune.compile.hipkittens import HipKittens, find_hipkittens
from hktune.compile.toolchain import find_rocm, find_zig
from hktune.core.config import Config
from hktune.core.outcome import Failure, Status
from hktune.core.settings import Settings
from hktune.core.variant import CodeObject, Variant
from hktune.objects.code_object import read_code_object

DEADLINE_S = 300.0
SCALE = """
#include <hip/hip_runtime.h>
extern "C" __global__ __launch_bounds__(128) void scale(float* x, float by) {
    __shared__ float staged[128];
    staged[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = staged[127 - threadIdx.x] * by + @ADDEND@;
}
"""
# Includes itself twice at each of 60 levels: 2^60 files to read, in little memory.
ENDLESS = """
#if __INCLUDE_LEVEL__ < 60
#include "sample.hip"
#include "sample.hip"
#endif
"""


def variant(source: str, symbol: str = "scale") -> Variant:
    return Variant("gfx950/sample", "0" * 64, "gfx950", "hip", symbol, source, Config({}))


def scale(addend: int) -> Variant:
    return variant(SCALE.replace("@ADDEND@", f"{addend}.0f"))


@pytest.fixture(scope="session")
def headers() -> HipKittens:
    return find_hipkittens(Settings.from_environment(os.environ))


class CompilerContract:
    """Subclasses give the fixture `compiler`."""

    def test_a_variant_becomes_a_code_object(self, compiler: Compiler) -> None:
        built = compiler.compile(scale(1), DEADLINE_S)
        assert isinstance(built, CodeObject), built
        assert built.sha256 == hashlib.sha256(built.data).hexdigest()
        assert (built.symbol, built.arch, built.compiler) == ("scale", "gfx950", compiler.identity)
        assert built.compile_s > 0
        image = read_code_object(built.data)
        assert image.arch == "gfx950"
        assert built.resources == image.kernels["scale"].resources
        assert built.resources.lds_bytes == 128 * 4
        assert built.resources.max_workgroup_size == 128
        assert built.resources.spills == built.resources.scratch_bytes == 0

    def test_equal_sources_give_equal_objects_and_others_do_not(self, compiler: Compiler) -> None:
        first, again, other = (compiler.compile(scale(addend), DEADLINE_S) for addend in (1, 1, 2))
        assert isinstance(first, CodeObject)
        assert isinstance(again, CodeObject)
        assert isinstance(other, CodeObject)
        assert first.data == again.data
        assert first.data != other.data

    def test_a_broken_source_is_a_compile_error_that_names_the_line(self, compiler: Compiler) -> None:
        broken = compiler.compile(variant(SCALE.replace("@ADDEND@", "offset")), DEADLINE_S)
        expected = "sample.hip:7: error: use of undeclared identifier 'offset'"
        assert broken == Failure(Status.COMPILE_ERROR, expected)

    def test_an_impossible_kernel_is_a_compile_error(self, compiler: Compiler) -> None:
        greedy = SCALE.replace("staged[128]", "staged[50000]").replace("@ADDEND@", "staged[threadIdx.x * 390]")
        failure = compiler.compile(variant(greedy), DEADLINE_S)
        assert isinstance(failure, Failure)
        assert failure.status is Status.COMPILE_ERROR
        assert "local memory (200000) exceeds limit (163840)" in failure.detail

    def test_a_missing_symbol_is_a_compile_error_that_lists_what_is_there(self, compiler: Compiler) -> None:
        failure = compiler.compile(variant(SCALE.replace("@ADDEND@", "0"), "gemm"), DEADLINE_S)
        assert isinstance(failure, Failure)
        assert failure.status is Status.COMPILE_ERROR
        assert "no kernel gemm, found scale" in failure.detail

    def test_past_the_deadline_is_a_timeout(self, compiler: Compiler) -> None:
        failure = compiler.compile(variant(ENDLESS), 1.0)
        assert failure == Failure(Status.TIMEOUT, "sample.hip: still compiling after 1 s")

    def test_threads_may_share_it(self, compiler: Compiler) -> None:
        variants = [scale(addend) for addend in (1, 2, 3, 1)]
        built = list(compile_many(compiler, variants, DEADLINE_S, workers=4))
        assert sorted(item.source for item, _ in built) == sorted(item.source for item in variants)
        for item, outcome in built:
            alone = compiler.compile(item, DEADLINE_S)
            assert isinstance(outcome, CodeObject)
            assert isinstance(alone, CodeObject)
            assert outcome.data == alone.data

    def test_its_identity_is_one_line_that_names_no_folder(self, compiler: Compiler) -> None:
        assert compiler.identity
        assert not set(compiler.identity) & {"\n", "/"}


class TestHipCompilerWithZig(CompilerContract):
    @pytest.fixture
    def compiler(self, headers: HipKittens) -> Compiler:
        toolchain = find_zig()
        assert toolchain is not None, "pip install 'hktune[gfx950]'"
        return HipCompiler(toolchain, headers)


# A ROCm of the test's own: its hipcc answers to --version like ROCm 7's, and both its tools hand the work to zig's, so
# that the path is walked on a machine with no ROCm.
TOOL = """#!{python}
import subprocess, sys
if sys.argv[1:] == ["--version"]:
    print("HIP version: 7.0.51831-a3e329ad8")
    print("AMD clang version 20.0.0git (roc-7.0.0 25314)")
    print("InstalledDir: {bin}")
    sys.exit()
sys.exit(subprocess.run([*{argv!r}, *sys.argv[1:]]).returncode)
"""


class TestHipCompilerWithRocm(CompilerContract):
    @pytest.fixture
    def compiler(self, headers: HipKittens, tmp_path: Path) -> Compiler:
        zig = find_zig()
        assert zig is not None, "pip install 'hktune[gfx950]'"
        hipcc, lld = tmp_path / "rocm" / "bin" / "hipcc", tmp_path / "rocm" / "llvm" / "bin" / "ld.lld"
        for tool, argv in ((hipcc, [*zig.driver, *zig.flags, *zig.includes]), (lld, zig.linker[:-1])):
            tool.parent.mkdir(parents=True)
            tool.write_text(TOOL.format(python=sys.executable, bin=tool.parent, argv=list(argv)))
            tool.chmod(0o755)
        toolchain = find_rocm(Settings(tmp_path / "cache", rocm_path=tmp_path / "rocm"))
        assert toolchain is not None
        assert (toolchain.driver, toolchain.linker) == ((str(hipcc),), (str(lld), "-shared"))
        return HipCompiler(toolchain, headers)


class TestCachedCompiler(CompilerContract):
    @pytest.fixture
    def compiler(self, headers: HipKittens, tmp_path: Path) -> Compiler:
        toolchain = find_zig()
        assert toolchain is not None, "pip install 'hktune[gfx950]'"
        return CachedCompiler(HipCompiler(toolchain, headers), tmp_path)
