from __future__ import annotations

import importlib.metadata
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hip_stand_in import StandIn

from hktune import doctor
from hktune.compile import toolchain
from hktune.compile.process import run_to_end
from hktune.doctor import Finding, examine
from hktune.errors import DeviceError
from hktune.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A machine whose HipKittens is a folder, so that nothing is fetched."""
    (tmp_path / "kittens" / "cdna4").mkdir(parents=True)
    for name in ("kittens.cuh", "cdna4/includes.cuh"):
        (tmp_path / "kittens" / name).touch()
    return Settings(tmp_path / "cache", hipkittens_root=tmp_path / "kittens")


def found_by_name(settings: Settings) -> dict[str, Finding]:
    findings = examine(settings)
    assert len({finding.name for finding in findings}) == len(findings)
    return {finding.name: finding for finding in findings}


def test_this_machine_has_what_the_tests_need() -> None:
    findings = examine(Settings.from_environment(os.environ))
    assert [finding for finding in findings if not finding.ok and finding.name != "AMD GPU"] == []


def test_what_is_found_is_said_exactly(settings: Settings, tmp_path: Path) -> None:
    found = found_by_name(settings)
    assert found["Python"].found == f"{'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})"
    assert str(found["torch"].found).startswith(importlib.metadata.version("torch"))
    assert found["optuna"].found == importlib.metadata.version("optuna")
    assert "zig-clang 22.1.8 ziglang=0.17.1" in str(found["ziglang compiler"].found)
    assert str(found["HipKittens headers"].found).startswith(f"{tmp_path / 'kittens'} (per-architecture layout")
    assert found["emulated GPU"].found == "gfx950, 256 CUs, modelled time"
    assert str(found["cache"].found).startswith(str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("version", "build"),
    [("2.9.1+cpu", "CPU"), ("2.9.1+rocm7.0", "ROCm"), ("2.9.1+cu130", "CUDA"), ("2.9.1", "CPU")],
)
def test_torch_says_what_it_was_built_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, version: str, build: str
) -> None:
    monkeypatch.setattr(doctor, "_version", {"torch": version}.get)
    assert found_by_name(settings)["torch"].found == f"{version} ({build})"


def test_a_missing_package_comes_with_the_line_to_type(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", {}.get)
    found = found_by_name(settings)
    assert found["optuna"] == Finding("optuna", None, "pip install optuna")
    assert found["torch"].fix == "pip install torch --index-url https://download.pytorch.org/whl/cpu"


def test_one_compiler_of_two_is_enough(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_zig", lambda: None)
    monkeypatch.setattr(toolchain, "ROCM_HOME", tmp_path / "rocm")
    monkeypatch.setenv("PATH", str(tmp_path))
    neither = found_by_name(settings)
    assert neither["ROCm compiler"] == Finding("ROCm compiler", None)
    assert neither["ziglang compiler"] == Finding("ziglang compiler", None, "pip install 'hktune[gfx950]'")
    for tool in ("bin/hipcc", "llvm/bin/ld.lld"):
        path = tmp_path / "rocm" / tool
        path.parent.mkdir(parents=True)
        path.write_text("#!/bin/sh\necho 'HIP version: 7.0.1'\necho 'clang version 20.0.0'\n")
        path.chmod(0o755)
    rocm = found_by_name(settings)
    assert str(rocm["ROCm compiler"].found).startswith(f"{tmp_path}/rocm/bin/hipcc: hipcc 20.0.0 ")
    assert rocm["ziglang compiler"] == Finding("ziglang compiler", None)


def test_headers_that_are_not_there_are_a_finding(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "kittens" / "kittens.cuh").unlink()
    headers = found_by_name(settings)["HipKittens headers"]
    assert headers.found is None
    assert "give a checkout of github.com/HazyResearch/HipKittens" in str(headers.fix)


def test_a_cache_that_cannot_be_written_is_a_finding(settings: Settings) -> None:
    settings.cache_dir.write_text("in the way")
    cache = found_by_name(settings)["cache"]
    assert str(cache.found).startswith(f"{settings.cache_dir}: ")
    assert cache.fix == "export HKTUNE_CACHE=<a folder that you can write>"


# A driver library of the test's own, which reports three devices.
DRIVER = """
int cuInit(unsigned flags) { return flags == 0 ? 0 : 1; }
int cuDeviceGetCount(int* count) { *count = 3; return 0; }
"""


def test_nvidia_gpus_are_counted_by_the_driver(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zig = toolchain.find_zig()
    assert zig is not None
    (tmp_path / "driver.c").write_text(DRIVER)
    compile_argv = [*zig.driver, "-fPIC", "-c", "driver.c", "-o", "driver.o"]
    for argv in (compile_argv, [*zig.linker, "driver.o", "-o", "libcuda.so.1"]):
        finished = run_to_end(argv, tmp_path, 120)
        assert finished is not None
        assert finished.status == 0, finished.stderr
    real = doctor.CDLL
    monkeypatch.setattr(doctor, "CDLL", lambda name: real(str(tmp_path / name)))
    assert found_by_name(settings)["NVIDIA GPU"] == Finding("NVIDIA GPU", "3 by libcuda")


def test_amd_gpus_are_told_apart_to_the_sku(settings: Settings, stand_in: StandIn) -> None:
    found = found_by_name(replace(settings, rocm_path=stand_in.rocm_path))["AMD GPU"]
    gpu = "AMD Instinct MI350X, gfx950:sramecc+:xnack-, 256 CUs, 1002:75a0:0ee9, SPX/NPS1"
    library = stand_in.rocm_path / "lib" / "libamdhip64.so"
    assert found == Finding("AMD GPU", f"0: {gpu}; 1: {gpu}; HIP 7.0.51831 in {library}")


@pytest.mark.parametrize("allowed", [True, False])
def test_a_gpu_that_no_runtime_sees_is_pointed_out(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    absent = "no HIP runtime: install ROCm 7"

    def no_runtime(path: Path | None) -> None:
        raise DeviceError(absent)

    monkeypatch.setattr(doctor, "hip_library", no_runtime)
    monkeypatch.setattr(doctor, "_KFD", tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: allowed)
    fix = absent if allowed else "sudo usermod -aG render,video $USER"
    assert found_by_name(settings)["AMD GPU"] == Finding("AMD GPU", f"{tmp_path}, but {absent}", fix)
    monkeypatch.setattr(doctor, "_KFD", tmp_path / "absent")
    assert found_by_name(settings)["AMD GPU"] == Finding("AMD GPU", None)
