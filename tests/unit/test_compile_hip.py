from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from hktune.compile import HipCompiler
from hktune.compile.hipkittens import HipKittens, find_hipkittens
from hktune.compile.precompiled import starts_with_prefix
from hktune.compile.process import run_to_end
from hktune.compile.toolchain import HIP_HEADERS, HipToolchain, find_zig
from hktune.core.config import Config
from hktune.core.errors import ToolchainError
from hktune.core.outcome import Failure, Status
from hktune.core.settings import Settings
from hktune.core.variant import CodeObject, Variant

DEADLINE_S = 300.0
TILES = """// A tile in, a tile out.
#include <hip/hip_runtime.h>
#include "kittens.cuh"
using namespace kittens;
using matrix = gl<bf16, 1, 1, -1, -1>;
extern "C" __global__ __launch_bounds__(512, 2) void copy_tile(const matrix a, const matrix c) {
    rt_bf<32, 32, row_l, rt_16x32_s> tile;
    load(tile, a, {0, 0, (int)blockIdx.x, kittens::warpid()});
    store(c, tile, {0, 0, (int)blockIdx.x, kittens::warpid()});
}
"""


def variant(source: str, symbol: str = "copy_tile") -> Variant:
    return Variant("gfx950/tiles", "0" * 64, "gfx950", "hip", symbol, source, Config({}))


@pytest.fixture(scope="session")
def zig() -> HipToolchain:
    toolchain = find_zig()
    assert toolchain is not None, "pip install 'hktune[gfx950]'"
    return toolchain


@pytest.fixture(scope="session")
def headers() -> HipKittens:
    return find_hipkittens(Settings.from_environment(os.environ))


def build(compiler: HipCompiler, source: str, symbol: str = "copy_tile") -> CodeObject:
    built = compiler.compile(variant(source, symbol), DEADLINE_S)
    assert isinstance(built, CodeObject), built
    return built


def test_the_same_bytes_come_out_of_any_folder(
    zig: HipToolchain, headers: HipKittens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = []
    for place in ("a", "b/deeper"):
        (tmp_path / place).mkdir(parents=True)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / place))
        (tmp_path / place / "HipKittens").symlink_to(headers.include)
        moved = dataclasses.replace(headers, include=tmp_path / place / "HipKittens")
        objects.append(build(HipCompiler(zig, moved), TILES))
    assert objects[0].data == objects[1].data
    for folder in (tmp_path, headers.include, Path(zig.driver[0]).parent, Path(__file__).parent.parent):
        assert str(folder).encode() not in objects[0].data


def test_headers_name_themselves_without_this_machine(zig: HipToolchain, headers: HipKittens, tmp_path: Path) -> None:
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "probe.h").write_text('extern "C" __device__ const char probe[] = __FILE__;\n')
    source = '#include <hip/hip_runtime.h>\n#include "probe.h"\n'
    source += 'extern "C" __global__ void copy_tile(char* out) { *out = probe[threadIdx.x]; }\n'
    built = [
        build(HipCompiler(zig, dataclasses.replace(headers, include=tmp_path / place)), source)
        for place in ("here", "there")
    ]
    assert built[0].data == built[1].data
    assert b"hipkittens/probe.h" in built[0].data


def test_precompiled_headers_change_nothing_but_the_time(
    zig: HipToolchain, headers: HipKittens, tmp_path: Path
) -> None:
    plain = build(HipCompiler(zig, headers), TILES)
    fast = HipCompiler(zig, headers, tmp_path)
    assert build(fast, TILES).data == plain.data
    kept = list((tmp_path / "precompiled").glob("*.pch"))
    assert len(kept) == 1, "the first compile leaves the precompiled headers behind, and they were usable"
    made = kept[0].stat().st_ino
    assert build(fast, TILES).data == plain.data
    assert kept[0].stat().st_ino == made


def test_damaged_precompiled_headers_are_replaced(zig: HipToolchain, headers: HipKittens, tmp_path: Path) -> None:
    compiler = HipCompiler(zig, headers, tmp_path)
    whole = build(compiler, TILES)
    (kept,) = (tmp_path / "precompiled").glob("*.pch")
    size = kept.stat().st_size
    kept.write_bytes(kept.read_bytes()[:1000])
    assert build(compiler, TILES).data == whole.data
    assert build(compiler, TILES).data == whole.data
    assert kept.stat().st_size == size


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (TILES, True),
        ('\n#include <hip/hip_runtime.h>\n#include "kittens.cuh"\n', True),
        ('#define KITTENS_DEBUG\n#include "kittens.cuh"\n', False),
        ('#include "own.h"\n#include "kittens.cuh"\n', False),
        ('/* why */ int x;\n#include "kittens.cuh"\n', False),
        ("#include <hip/hip_runtime.h>\n", False),
    ],
)
def test_only_sources_that_start_with_kittens_use_them(source: str, expected: bool) -> None:
    assert starts_with_prefix(source) is expected


def test_a_macro_before_kittens_is_honoured(zig: HipToolchain, headers: HipKittens, tmp_path: Path) -> None:
    failure = HipCompiler(zig, headers, tmp_path).compile(variant("#define zero 0+\n" + TILES), DEADLINE_S)
    assert isinstance(failure, Failure)
    assert failure.status is Status.COMPILE_ERROR


def test_an_error_inside_the_headers_names_them_and_the_line_that_led_there(
    zig: HipToolchain, headers: HipKittens
) -> None:
    failure = HipCompiler(zig, headers).compile(variant(TILES.replace("rt_bf<32, 32", "rt_bf<17, 32")), DEADLINE_S)
    assert isinstance(failure, Failure)
    assert failure.detail.startswith("cdna4/types/register/rt.cuh:")
    assert "Rows must be divisible by the tile size" in failure.detail
    assert failure.detail.endswith("(from tiles.hip:7)")


def test_spills_are_data_and_not_a_failure(zig: HipToolchain, headers: HipKittens) -> None:
    values = 150
    source = f"""#include <hip/hip_runtime.h>
extern "C" __global__ __launch_bounds__(1024) void copy_tile(float* x) {{
    float kept[{values}];
    #pragma unroll
    for (int i = 0; i < {values}; i++) kept[i] = x[i * 1024 + threadIdx.x];
    __syncthreads();
    #pragma unroll
    for (int i = 0; i < {values}; i++) x[i * 1024 + threadIdx.x] = kept[{values - 1} - i] * kept[(i * 7) % {values}];
}}
"""
    resources = build(HipCompiler(zig, headers), source).resources
    assert resources.vgpr_spills > 0
    assert resources.scratch_bytes >= 4 * resources.vgpr_spills
    assert resources.max_workgroup_size == 1024


def test_the_identity_follows_compiler_headers_and_flags(zig: HipToolchain, headers: HipKittens) -> None:
    identities = {
        HipCompiler(zig, headers).identity,
        HipCompiler(dataclasses.replace(zig, identity="another clang"), headers).identity,
        HipCompiler(dataclasses.replace(zig, flags=(*zig.flags, "-O1")), headers).identity,
        HipCompiler(zig, dataclasses.replace(headers, sha256="f" * 64)).identity,
    }
    assert len(identities) == 4
    moved = dataclasses.replace(zig, driver=("/elsewhere/zig", "clang"))
    assert HipCompiler(moved, headers).identity in identities


def test_a_compiler_that_cannot_be_started_is_no_failure_of_the_variant(zig: HipToolchain, headers: HipKittens) -> None:
    gone = HipCompiler(dataclasses.replace(zig, driver=("/no/such/zig",)), headers)
    with pytest.raises(ToolchainError, match="cannot run /no/such/zig"):
        gone.compile(variant(TILES), DEADLINE_S)


def test_no_header_of_this_machine_is_read(zig: HipToolchain, headers: HipKittens, tmp_path: Path) -> None:
    (tmp_path / "probe.hip").write_text(TILES)
    argv = [*zig.driver, *zig.flags, "--offload-arch=gfx950", *zig.includes, "-I", str(headers.include)]
    listed = run_to_end([*argv, "-fsyntax-only", "-H", "probe.hip"], tmp_path, DEADLINE_S)
    assert listed is not None
    read = [Path(line.split(" ", 1)[1]) for line in listed.stderr.splitlines() if line.startswith(".")]
    ours = (headers.include, HIP_HEADERS, Path(zig.driver[0]).parent)
    assert len(read) > 100
    assert [path for path in read if not any(path.is_relative_to(root) for root in ours)] == []


def test_headers_that_only_this_machine_has_are_out_of_reach(zig: HipToolchain, headers: HipKittens) -> None:
    """execinfo.h is glibc's own: the C headers that come with the compiler have none."""
    source = '#if __has_include(<execinfo.h>)\n#error "glibc is within reach"\n#endif\n'
    source += 'extern "C" __attribute__((global)) void copy_tile() {}\n'
    build(HipCompiler(zig, headers), source)
