"""scripts/setup's choice of torch, on machines that are made up."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from hktune.core import torch_choice
from hktune.core.torch_choice import Choice, Machine, Rocm, Torch, choose, complaint, find_machine

INDEX = "https://download.pytorch.org/whl/"
GFX950 = ("gfx950",) * 8
CPU = ("torch==2.13.0+cpu", "--index-url", f"{INDEX}cpu", "--retries", "0", "--timeout", "20")


def rocm(version: str) -> tuple[Rocm, ...]:
    return (Rocm(version, "/opt/rocm/.info/version"),)


def said(choice: Choice) -> str:
    assert all("\n" not in line for line in choice.lines)
    return "\n".join(choice.lines)


@pytest.mark.parametrize(
    ("version", "index"),
    [
        ("7.0.0", "rocm7.0"),
        ("7.0.2-56", "rocm7.0"),
        ("7.1.1", "rocm7.1"),
        ("7.2.4-93\n", "rocm7.2"),
        ("7.2.26015-fc0010cf6a", "rocm7.2"),  # hipconfig --version
        ("7.3.0", "rocm7.2"),
        ("7.14.0rc1", "rocm7.2"),
        ("10.0.0", "rocm7.2"),
        ("10.1", "rocm7.2"),
    ],
)
@pytest.mark.parametrize("gpus", [GFX950, (), None])
def test_the_index_is_that_of_the_rocm_found(version: str, index: str, gpus: tuple[str, ...] | None) -> None:
    choice = choose(Machine(rocm(version), gpus))
    assert choice.arguments == ("torch", "--index-url", INDEX + index)
    assert choice.otherwise == ()
    assert f"ROCm {version.strip()} (/opt/rocm/.info/version)" in said(choice)
    assert ("nearest" in said(choice)) == (not version.startswith(index.removeprefix("rocm")))


@pytest.mark.parametrize("version", ["6.4.3", "6.4", "5.7.1-99", "6.10.2"])
@pytest.mark.parametrize("gpus", [GFX950, (), None])
def test_an_older_rocm_has_no_gfx950(version: str, gpus: tuple[str, ...] | None) -> None:
    choice = choose(Machine(rocm(version), gpus))
    assert choice.arguments == CPU
    assert f"ROCm {version} (/opt/rocm/.info/version) knows no gfx950: install ROCm 7 or newer" in choice.lines[0]


def test_of_several_rocms_the_newest_counts() -> None:
    both = (*rocm("6.4.1"), Rocm("7.1.0", "the Python package rocm"), Rocm("7.0.2", "/opt/rocm-7.0.2"))
    choice = choose(Machine(both, GFX950))
    assert choice.arguments[-1] == INDEX + "rocm7.1"
    assert "the Python package rocm" in said(choice)


@pytest.mark.parametrize("version", ["", "garbage", "\x00\xff", "7", "v7.2", "99999999999.1"])
def test_a_version_that_is_none_is_said_and_left_aside(version: str) -> None:
    assert choose(Machine(rocm(version))).arguments == CPU
    choice = choose(Machine(rocm(version), GFX950))
    assert choice.arguments == ("torch", "--index-url", INDEX + "rocm7.2")
    assert "no version of ROCm" in choice.lines[0]
    assert choose(Machine((*rocm(version), *rocm("7.0.1")), GFX950)).arguments[-1] == INDEX + "rocm7.0"


def test_a_driver_without_rocm_takes_the_newest_which_brings_its_own() -> None:
    for gpus in (GFX950, ()):
        choice = choose(Machine((), gpus))
        assert choice.arguments == ("torch", "--index-url", INDEX + "rocm7.2")
        assert "brings its own" in said(choice)


def test_an_amd_gpu_that_hktune_has_no_kernels_for_needs_no_rocm() -> None:
    choice = choose(Machine(rocm("7.2.0"), ("gfx942", "gfx942")))
    assert choice.arguments == CPU
    assert "the AMD GPU here is gfx942; hktune's kernels are for gfx950" in said(choice)
    assert choose(Machine((), ("gfx1036",), nvidia=True)).arguments == ("torch",)


def test_neither_gpu_takes_the_small_build_and_says_how_small() -> None:
    choice = choose(Machine())
    assert choice == Choice(CPU, choice.lines, ("torch==2.13.0",))
    assert "200 MB" in said(choice)


def test_an_nvidia_gpu_takes_pypis_build_and_says_how_large() -> None:
    for machine in (Machine(nvidia=True), Machine(rocm("7.2.0"), nvidia=True), Machine((), (), nvidia=True)):
        choice = choose(machine)
        assert choice.arguments == ("torch",)
        assert "5.4 GB" in said(choice)


def test_of_both_gpus_amds_comes_first() -> None:
    for machine in (Machine(rocm("7.1.0"), GFX950, nvidia=True), Machine(rocm("7.1.0"), (), nvidia=True)):
        choice = choose(machine)
        assert choice.arguments[-1] == INDEX + "rocm7.1"
        assert "for the NVIDIA GPU here instead" in said(choice)
    old = choose(Machine(rocm("6.4.0"), GFX950, nvidia=True))
    assert old.arguments == ("torch",)
    assert "install ROCm 7" in old.lines[0]


ROCM_TORCH = Torch("2.11.0+rocm7.2", hip="7.2.53211", archs=("gfx90a", "gfx942", "gfx950"))
FIT = [
    (Machine(rocm("7.2.0"), GFX950), ROCM_TORCH),
    (Machine(rocm("7.2.0"), GFX950), Torch("2.9.0a0+git1c2d", hip="7.0.51831", archs=("gfx950:sramecc+:xnack-",))),
    (Machine(rocm("7.0.0"), GFX950), Torch("2.10.0+rocm7.1", hip="7.1.1")),  # one that names no architectures
    (Machine(nvidia=True), Torch("2.13.0+cu130", cuda="13.0", archs=("sm_90",))),
    (Machine(), Torch("2.13.0+cpu")),
    (Machine(), ROCM_TORCH),
    (Machine((), ("gfx1036",)), Torch("2.4.0")),
]
UNFIT = [
    (Machine(rocm("7.2.0"), GFX950), Torch("2.13.0+cpu"), "the CPU only", f"torch --index-url {INDEX}rocm7.2"),
    (Machine(rocm("7.0.0"), GFX950), Torch("2.13.0+cu130", cuda="13.0"), "CUDA", f"{INDEX}rocm7.0"),
    (Machine(rocm("7.1.0"), ()), Torch("2.9.1+rocm6.4", hip="6.4.43484"), "ROCm 6.4", f"{INDEX}rocm7.1"),
    (
        Machine(rocm("10.0.0"), GFX950),
        Torch("2.9.1+rocm7.0", hip="7.0.1", archs=("gfx90a", "gfx942")),
        "kernels for gfx90a gfx942, none for gfx950",
        f"{INDEX}rocm7.2",
    ),
    (Machine((), GFX950), Torch("2.13.0"), "the CPU only", f"{INDEX}rocm7.2"),
    (Machine(rocm("6.4.3"), GFX950), Torch("2.13.0"), "the CPU only", "install ROCm 7 or newer"),
    (Machine(nvidia=True), Torch("2.13.0+cpu"), "the CPU only", "install --force-reinstall torch"),
    (Machine(nvidia=True), ROCM_TORCH, "ROCm", "install --force-reinstall torch"),
]


@pytest.mark.parametrize(("machine", "torch"), FIT)
def test_a_torch_that_fits_stays_without_more_words(machine: Machine, torch: Torch) -> None:
    choice = choose(Machine(machine.rocms, machine.amd_gpus, machine.nvidia, torch))
    assert choice == Choice((), (f"torch {torch.version} is there already and stays",))


@pytest.mark.parametrize(("machine", "torch", "why", "remedy"), UNFIT)
def test_a_torch_that_does_not_fit_stays_too_with_the_line_to_type(
    machine: Machine, torch: Torch, why: str, remedy: str
) -> None:
    choice = choose(Machine(machine.rocms, machine.amd_gpus, machine.nvidia, torch))
    assert choice.arguments == ()
    [line] = choice.lines
    assert line.startswith(f"torch {torch.version} is there already and stays, but it ")
    assert why in line
    assert remedy in line
    assert complaint(machine, torch).why in line


def test_a_torch_older_than_hktune_takes_gets_a_newer_one_beside_it() -> None:
    choice = choose(Machine(rocm("7.0.0"), GFX950, torch=Torch("2.3.1+rocm6.0", hip="6.0")))
    assert choice.arguments[-1] == INDEX + "rocm7.0"
    assert "torch 2.3.1+rocm6.0 is too old" in choice.lines[0]
    assert choose(Machine(torch=Torch("2.10.0"))).arguments == ()


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a machine with nothing on it."""
    monkeypatch.delenv("ROCM_PATH", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(torch_choice.metadata, "version", absent)
    return tmp_path


def write(path: Path, text: str | bytes, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def test_what_is_on_a_machine_is_found(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_machine(bare) == Machine()
    file = write(bare / "opt/rocm-6.4.1/.info/version", "6.4.1-83\n")
    core = write(bare / "opt/rocm/core-10.0/.info/version", "10.0.0\n")
    found = find_machine(bare)
    assert found.rocms == (Rocm("10.0.0", str(core)), Rocm("6.4.1-83", str(file)))
    assert found.rocm == found.rocms[0]
    elsewhere = write(bare / "home/rocm/.info/version", b"\xff\xfe" * 1_000_000)
    monkeypatch.setenv("ROCM_PATH", str(elsewhere.parents[1]))
    assert find_machine(bare).rocms[0].release is None
    assert len(find_machine(bare).rocms[0].version) <= 200
    assert find_machine(bare).rocm == found.rocm


def test_rocm_is_found_through_pip_and_through_hipconfig(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(bare / "hipconfig", "#!/bin/sh\necho 7.1.25424-4179531dcd\n", 0o755)
    assert find_machine(bare).rocms == (Rocm("7.1.25424-4179531dcd", str(bare / "hipconfig")),)
    packages = {"rocm": "7.10.0a1", "rocm-sdk-core": "7.10.0a1"}
    monkeypatch.setattr(torch_choice.metadata, "version", packages.__getitem__)
    assert find_machine(bare).rocm == Rocm("7.10.0a1", "the Python package rocm")
    assert choose(find_machine(bare)).arguments[-1] == INDEX + "rocm7.2"


@pytest.mark.parametrize("script", ["exit 1", "echo nonsense", "kill -9 $$"])
def test_a_hipconfig_that_fails_is_no_rocm(bare: Path, script: str) -> None:
    write(bare / "hipconfig", f"#!/bin/sh\n{script}\n", 0o755)
    assert find_machine(bare).rocm is None
    assert choose(find_machine(bare)).arguments == CPU


def test_gpus_are_read_from_the_drivers(bare: Path) -> None:
    write(bare / "dev/kfd", "")
    assert find_machine(bare).amd_gpus == ()
    nodes = bare / "sys/class/kfd/kfd/topology/nodes"
    versions = {0: "0", 1: "90500", 2: "90402", 3: "90010", 4: "100306", 5: "x", 6: "120001"}
    for number, version in versions.items():
        write(nodes / str(number) / "properties", f"cpu_cores_count 0\ngfx_target_version {version}\nmax 1\n")
    assert find_machine(bare).amd_gpus == ("gfx950", "gfx942", "gfx90a", "gfx1036", "gfx1201")
    assert not find_machine(bare).nvidia
    write(bare / "proc/driver/nvidia/version", "NVRM")
    assert find_machine(bare).nvidia


def test_an_unreadable_version_file_is_said(bare: Path) -> None:
    (bare / "opt/rocm/.info/version").mkdir(parents=True)
    assert find_machine(bare) == Machine()
    write(bare / "opt/rocm-7/.info/version", "")
    assert "no version of ROCm" in said(choose(find_machine(bare)))
