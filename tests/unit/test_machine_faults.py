"""What the machine lacks while something is compiled is no source's fault: MachineError, and never a Failure."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hktune.compile import HipCompiler, hip_compiler
from hktune.compile.hipkittens import HipKittens, find_hipkittens
from hktune.compile.toolchain import HipToolchain, find_zig
from hktune.core.config import Config
from hktune.core.errors import MachineError, ToolchainError
from hktune.core.outcome import Failure
from hktune.core.settings import Settings
from hktune.core.variant import CodeObject, Variant

VARIANT = Variant("gfx950/toy", "0" * 64, "gfx950", "hip", "toy", '#include "kittens.cuh"\n', Config({}))
KERNEL = '#include "kittens.cuh"\nextern "C" __global__ void toy(int* x) { *x = 1; }\n'


@pytest.fixture
def headers() -> HipKittens:
    return find_hipkittens(Settings.from_environment(os.environ))


def toolchain(folder: Path, script: str) -> HipToolchain:
    """One whose driver is a shell script."""
    driver = folder / "driver"
    driver.write_text(f"#!/bin/sh\n{script}\n")
    driver.chmod(0o755)
    return HipToolchain("script", "script 1", (str(driver),), (), (), (str(driver),))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo \"error: unable to open output file 'k.o': 'No space left on device'\" >&2; exit 1", "free the disk"),
        ("echo 'LLVM ERROR: out of memory' >&2; kill -ABRT $$", "free memory"),
        ("echo \"toy.hip:1:10: fatal error: 'kittens.cuh' file not found\" >&2; exit 1", "run `hktune doctor`"),
        ("kill -KILL $$", "ended by signal 9, twice"),
        ("kill -TERM $$", "ended by signal 15, twice"),
        ("kill -BUS $$", "ended by signal 7, twice"),
    ],
)
def test_a_fault_of_the_machine_is_raised(headers: HipKittens, tmp_path: Path, script: str, said: str) -> None:
    with pytest.raises(MachineError, match=said):
        HipCompiler(toolchain(tmp_path, script), headers).compile(VARIANT, 30)


@pytest.mark.parametrize("script", ["kill -SEGV $$", "exit 1", "echo 'toy.hip:1:1: error: no' >&2; exit 1"])
def test_what_a_source_brings_about_is_its_failure(headers: HipKittens, tmp_path: Path, script: str) -> None:
    assert isinstance(HipCompiler(toolchain(tmp_path, script), headers).compile(VARIANT, 30), Failure)


def test_a_compiler_ended_once_from_outside_is_run_again(headers: HipKittens, tmp_path: Path) -> None:
    once = (
        f"test -e {tmp_path}/met || {{ touch {tmp_path}/met; kill -KILL $$; }}; echo 'a.hip:1:1: error: no' >&2; exit 1"
    )
    outcome = HipCompiler(toolchain(tmp_path, once), headers).compile(VARIANT, 30)
    assert isinstance(outcome, Failure)
    assert outcome.detail == "a.hip:1: error: no"


def test_no_folder_to_compile_in_is_one_line(
    headers: HipKittens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: [str(tmp_path / "gone")])
    with pytest.raises(MachineError, match=r"^no temporary folder in .*: (free the disk, or )?set TMPDIR$"):
        HipCompiler(toolchain(tmp_path, "exit 0"), headers).compile(VARIANT, 30)


def test_a_temporary_folder_that_goes_away_is_chosen_anew(
    headers: HipKittens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    outcome = HipCompiler(toolchain(tmp_path, "echo 'a.hip:1:1: error: no' >&2; exit 1"), headers).compile(VARIANT, 30)
    assert isinstance(outcome, Failure)


def test_headers_that_go_away_are_fetched_again(headers: HipKittens, tmp_path: Path) -> None:
    zig = find_zig()
    assert zig is not None
    shutil.copytree(headers.include, tmp_path / "first")
    gone = replace(headers, include=tmp_path / "first")
    compiler = HipCompiler(zig, gone, None, lambda: headers)
    shutil.rmtree(tmp_path / "first")
    built = compiler.compile(replace(VARIANT, source=KERNEL), 300)
    assert isinstance(built, CodeObject), built


def test_headers_that_stay_away_stop_the_run(headers: HipKittens, tmp_path: Path) -> None:
    zig = find_zig()
    assert zig is not None
    compiler = HipCompiler(zig, replace(headers, include=tmp_path))
    with pytest.raises(ToolchainError, match=r"^toy.hip cannot be compiled here: 'kittens.cuh' file not found: run"):
        compiler.compile(replace(VARIANT, source=KERNEL), 300)


@pytest.mark.parametrize("how", ["HKTUNE_CACHE", "build -o"])
def test_relative_folders_compile(
    headers: HipKittens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Where the compiler runs, a relative path leads elsewhere."""
    shutil.copytree(headers.include, tmp_path / "relative" / "hipkittens" / headers.include.name)
    monkeypatch.chdir(tmp_path)
    if how == "HKTUNE_CACHE":
        settings = Settings.from_environment({"HKTUNE_CACHE": "relative"})
    else:
        settings = replace(Settings.from_environment(os.environ), cache_dir=Path("relative"))
    compiler = hip_compiler(settings)
    built = compiler.compile(replace(VARIANT, source="// none is precompiled\n#define SOME 1\n" + KERNEL), 300)
    assert isinstance(built, CodeObject), built
    assert compiler.trouble is None
    assert list((tmp_path / "relative" / "objects").glob("*/*.entry"))
