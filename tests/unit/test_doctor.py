from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hip_stand_in import StandIn

from hktune.cli import main
from hktune.compile import toolchain
from hktune.compile.process import run_to_end
from hktune.core.errors import DeviceError, ToolchainError
from hktune.core.needs import PACKAGES, require_packages
from hktune.core.settings import Settings
from hktune.core.torch_choice import Machine, Rocm, Torch
from hktune.report import machine as doctor
from hktune.report.machine import Finding, examine

MI355X = Machine((Rocm("7.2.0", "/opt/rocm/.info/version"),), ("gfx950",))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A machine whose HipKittens is a folder, so that nothing is fetched."""
    (tmp_path / "kittens" / "cdna4").mkdir(parents=True)
    for name in ("kittens.cuh", "cdna4/includes.cuh"):
        (tmp_path / "kittens" / name).touch()
    return Settings(tmp_path / "cache", hipkittens_root=tmp_path / "kittens")


def found_by_name(settings: Settings) -> dict[str, Finding]:
    findings = examine(settings).findings
    assert len({finding.name for finding in findings}) == len(findings)
    return {finding.name: finding for finding in findings}


def test_this_machine_has_what_the_tests_need() -> None:
    assert examine(Settings.from_environment(os.environ)).lacking == ()


def test_what_is_found_is_said_exactly(settings: Settings, tmp_path: Path) -> None:
    found = found_by_name(settings)
    assert found["Python"].found == f"{'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})"
    assert str(found["torch"].found).startswith(importlib.metadata.version("torch"))
    for package in ("optuna", "msgspec"):
        assert f"{package} {importlib.metadata.version(package)}" in str(found["packages"].found)
    assert "zig-clang 22.1.8 ziglang=0.17.1" in str(found["ziglang compiler"].found)
    assert str(found["HipKittens headers"].found).startswith(f"{tmp_path / 'kittens'} (per-architecture layout")
    assert found["emulated GPU"].found == (
        "gfx950, 256 CUs, modelled time of MI355X (2.4 GHz, 1400 W); --board mi350x: MI350X (2.2 GHz, 1000 W)"
    )
    assert str(found["cache"].found).startswith(str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("machine", "torch", "found", "fix"),
    [
        (Machine(), Torch("2.9.1+cpu"), "2.9.1+cpu (CPU)", None),
        (Machine(), Torch("2.9.1", cuda="13.0"), "2.9.1 (CUDA)", None),
        (MI355X, Torch("2.11.0+rocm7.2", hip="7.2.1", archs=("gfx950",)), "2.11.0+rocm7.2 (ROCm)", None),
        (
            MI355X,
            Torch("2.9.1+rocm6.4", hip="6.4.4"),
            "2.9.1+rocm6.4 (ROCm)",
            "knows no gfx950: pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/rocm7.2",
        ),
        (
            MI355X,
            Torch("2.11.0+rocm7.2", hip="7.2.1", archs=("gfx942",)),
            "2.11.0+rocm7.2 (ROCm)",
            "none for gfx950: pip install",
        ),
        (MI355X, Torch("2.9.1+cpu"), "2.9.1+cpu (CPU)", "rocm7.2"),
        (Machine(nvidia=True), Torch("2.9.1+cpu"), "2.9.1+cpu (CPU)", "pip install --force-reinstall torch"),
    ],
)
def test_torch_says_what_it_was_built_for_and_whether_that_fits(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    machine: Machine,
    torch: Torch,
    found: str,
    fix: str | None,
) -> None:
    monkeypatch.setattr(doctor, "find_machine", lambda: machine)
    monkeypatch.setattr(doctor, "_imported_torch", lambda: torch)
    finding = found_by_name(settings)["torch"]
    assert finding.found == found
    assert (fix is None) == (finding.fix is None)
    assert fix is None or fix in str(finding.fix)
    assert not finding.needed


def test_a_torch_that_does_not_import_keeps_the_main_job_from_running(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise OSError("libgomp.so.1: cannot open\nshared object file")

    monkeypatch.setattr(doctor, "_imported_torch", broken)
    assert examine(settings).lacking == ("torch",)
    fix = "import torch says: libgomp.so.1: cannot open shared object file: pip install --force-reinstall torch"
    assert found_by_name(settings)["torch"] == Finding("torch", None, fix, needed=True)


def test_rocm_is_asked_for_where_its_gpu_is(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Machine((Rocm("6.4.1", "/opt/rocm/.info/version"),), ("gfx950",))
    new = Machine((Rocm("7.2.0", "/opt/rocm/.info/version"),), ("gfx950",))
    for machine, fixed in ((old, True), (Machine((), ("gfx950",)), True), (new, False), (Machine(), False)):
        monkeypatch.setattr(doctor, "find_machine", lambda machine=machine: machine)
        fix = found_by_name(settings)["ROCm"].fix
        assert (fix is not None) == fixed
        assert fix is None or fix.startswith("install ROCm 7 or newer (https://")


def test_an_extra_that_is_absent_comes_with_the_line_to_type(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_version", {}.get)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor, "find_zig", lambda: None)
    monkeypatch.setattr(doctor, "find_rocm", lambda settings: None)
    found = found_by_name(settings)
    for name in ("CUDA bindings", "NVML"):
        assert found[name] == Finding(name, None, "pip install 'hktune[cuda]'")
    assert found["NVRTC compiler"] == Finding(
        "NVRTC compiler", None, "no compiler for CUDA: pip install 'hktune[cuda]'"
    )
    assert found["cryptography"] == Finding("cryptography", None, "pip install 'hktune[sign]'")
    assert found["git"] == Finding("git", None, "sudo apt install git")
    assert examine(settings).lacking == ("ziglang compiler",)


def test_a_library_that_does_not_load_is_not_taken_for_a_compiler(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_loaded() -> None:
        raise RuntimeError("libnvrtc.so.13: not found")

    monkeypatch.setattr(doctor, "_device", lambda settings: "emulated")
    monkeypatch.setattr(doctor, "nvrtc_version", lambda: "13.5.37")
    bindings = SimpleNamespace(nvrtcVersion=not_loaded)
    monkeypatch.setattr(doctor.importlib, "import_module", lambda name: bindings)
    nvrtc = found_by_name(settings)["NVRTC compiler"]
    assert nvrtc.found is None
    assert nvrtc.fix == "nvrtc 13.5.37 does not load: pip install --force-reinstall 'hktune[cuda]'"
    bindings.nvrtcVersion = tuple
    assert found_by_name(settings)["NVRTC compiler"] == Finding("NVRTC compiler", "13.5.37")


def test_doctor_ends_with_1_where_the_main_job_cannot_run(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HKTUNE_CACHE", "HIPKITTENS_ROOT"):
        value = settings.cache_dir if name == "HKTUNE_CACHE" else settings.hipkittens_root
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("COLUMNS", "80")
    assert main(("doctor",)) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("hktune tune can run here, on the ")
    settings.cache_dir.rename(settings.cache_dir.with_name("moved"))
    settings.cache_dir.write_text("in the way")
    assert main(("doctor",)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "hktune tune cannot run here yet; needed: cache"
    assert lines[-2].strip() == "needed: export HKTUNE_CACHE=<a folder that you can write>"


def test_the_packages_asked_for_are_pyprojects(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    listed = text.partition("\ndependencies = [")[2].partition("\n]")[0]
    assert sorted(PACKAGES.values()) == sorted(re.findall(r'^  "([a-z]+)>', listed, re.MULTILINE))
    require_packages()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("yaml", "rich") else name)
    message = r"^not installed here: pyyaml rich: pip install pyyaml rich, or scripts/setup in a checkout$"
    with pytest.raises(ToolchainError, match=message):
        require_packages()


def test_one_compiler_of_two_is_enough(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_zig", lambda: None)
    monkeypatch.setattr(toolchain, "ROCM_HOME", tmp_path / "rocm")
    monkeypatch.setenv("PATH", str(tmp_path))
    neither = found_by_name(settings)
    assert neither["ROCm compiler"] == Finding("ROCm compiler", None)
    assert neither["ziglang compiler"] == Finding("ziglang compiler", None, "pip install 'hktune[gfx950]'", needed=True)
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
    assert headers.needed
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
    gpu = "AMD Instinct MI350X, board mi350x, gfx950:sramecc+:xnack-, 256 CUs, 1002:75a0:0ee9, SPX/NPS1"
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
