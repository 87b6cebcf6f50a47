"""Which torch a machine needs, as one function of what is found there. scripts/setup runs it before anything is
installed: standard library only."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

OLDEST_TORCH = (2, 4)  # pyproject.toml's
OLDEST_ROCM = (7, 0)  # the first release that knows gfx950: MI350X and MI355X
TARGET = "gfx950"
# The indexes of ROCm 7 on download.pytorch.org. Wheels of 7.0 and later hold kernels for gfx950, those of 6.4 none
# (github.com/pytorch/pytorch/pull/167299).
ROCM_INDEXES = ((7, 0), (7, 1), (7, 2))
ROCM_PAGE = "https://rocm.docs.amd.com/projects/install-on-linux"
WHEELS = "https://download.pytorch.org/whl"
CPU_TORCH = "2.13.0"
CPU_MB, CUDA_GB = 200, 5.4  # installed, by torch 2.13.0 on x86-64
PIP = ".venv/bin/python -m pip"
REINSTALL = "pip install --force-reinstall torch"
NEWER_ROCM = f"install ROCm 7 or newer ({ROCM_PAGE})"
_TEXT_BYTES = 200


@dataclass(frozen=True)
class Rocm:
    """A ROCm that was found: what its `version` file, tool or package says of itself, and where that was read."""

    version: str
    place: str

    @property
    def release(self) -> tuple[int, int] | None:
        """Major and minor; None where the version cannot be read."""
        found = re.match(r"\s*(\d{1,4})\.(\d{1,4})", self.version)
        return (int(found[1]), int(found[2])) if found else None


@dataclass(frozen=True)
class Torch:
    """An installed torch. `hip` and `cuda` are the versions it was built for; `archs` what it has kernels for, empty
    where it does not say."""

    version: str
    hip: str | None = None
    cuda: str | None = None
    archs: tuple[str, ...] = ()

    @property
    def too_old(self) -> bool:
        found = re.match(r"(\d+)\.(\d+)", self.version)
        return found is not None and (int(found[1]), int(found[2])) < OLDEST_TORCH


@dataclass(frozen=True)
class Machine:
    """What matters here. `amd_gpus`: the targets of the GPUs that the kernel driver lists, such as gfx950; None where
    it is not loaded, empty where it does not say."""

    rocms: tuple[Rocm, ...] = ()
    amd_gpus: tuple[str, ...] | None = None
    nvidia: bool = False
    torch: Torch | None = None

    @property
    def rocm(self) -> Rocm | None:
        """The newest ROCm whose version can be read."""
        readable = [rocm for rocm in self.rocms if rocm.release]
        return max(readable, key=lambda rocm: rocm.release or (0, 0), default=None)

    @property
    def wants_rocm(self) -> bool:
        """Whether hktune's AMD device is here, or is what this machine is being set up for."""
        if self.amd_gpus:
            return TARGET in self.amd_gpus
        driver = self.amd_gpus is not None
        # Beside an NVIDIA GPU the driver alone says little: it is there for the GPU in many a desktop's processor too.
        return (driver and self.rocm is not None) if self.nvidia else (driver or self.rocm is not None)


@dataclass(frozen=True)
class Complaint:
    """Why a torch is not the one for its machine, and what to do: a `pip install` line, or what to install by hand."""

    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.why}: {self.remedy}"


@dataclass(frozen=True)
class Choice:
    """`arguments` for `pip install`, none where nothing is to be installed; `otherwise` those to try when they fail;
    `lines` to print before."""

    arguments: tuple[str, ...]
    lines: tuple[str, ...]
    otherwise: tuple[str, ...] = ()


def choose(machine: Machine) -> Choice:
    """The torch to install in .venv on `machine`."""
    torch = machine.torch
    if torch and not torch.too_old:
        kept = f"torch {torch.version} is there already and stays"
        wrong = complaint(machine, torch)
        return Choice((), (f"{kept}, but {in_venv(wrong)}" if wrong else kept,))
    old = (f"torch {torch.version} is too old (2.4 is needed): a newer one goes into .venv",) if torch else ()
    choice = _rocm(machine) if machine.wants_rocm else _cuda(machine) if machine.nvidia else _cpu(machine)
    return Choice(choice.arguments, (*old, *_oddities(machine), *choice.lines), choice.otherwise)


def complaint(machine: Machine, torch: Torch) -> Complaint | None:
    """What is wrong with `torch` on `machine`; None where it is the right one."""
    if machine.wants_rocm:
        wrong = _not_for_gfx950(torch)
        if wrong is None:
            return None
        if machine.rocm and (machine.rocm.release or OLDEST_ROCM) < OLDEST_ROCM:
            return Complaint(wrong, NEWER_ROCM)
        return Complaint(wrong, f"{REINSTALL} --index-url {_index(machine)}")
    if machine.nvidia and not torch.cuda:
        built = f"it is built for {'ROCm' if torch.hip else 'the CPU only'}, and an NVIDIA GPU is here"
        return Complaint(built, REINSTALL)
    return None


def in_venv(wrong: Complaint) -> str:
    """`wrong` for somebody who set up .venv and has not activated it."""
    if wrong.remedy == NEWER_ROCM:
        return f"{wrong}, then rm -r .venv and run this again"
    return str(wrong).replace(REINSTALL, f"{PIP} {REINSTALL.removeprefix('pip ')}")


def _not_for_gfx950(torch: Torch) -> str | None:
    if torch.hip is None:
        return f"it is built for {'CUDA' if torch.cuda else 'the CPU only'}, and this machine is for an AMD GPU"
    release = Rocm(torch.hip, "torch").release
    if release and release < OLDEST_ROCM:
        return f"it is built for ROCm {release[0]}.{release[1]}, which knows no {TARGET}"
    if torch.archs and not any(arch.partition(":")[0] == TARGET for arch in torch.archs):
        return f"it has kernels for {' '.join(torch.archs)}, none for {TARGET}"
    return None


def _rocm(machine: Machine) -> Choice:
    found = machine.rocm
    if found is not None and (found.release or OLDEST_ROCM) < OLDEST_ROCM:
        rule = f"ROCm {found.version.strip()} ({found.place}) knows no {TARGET}"
        line = f"{rule}: {NEWER_ROCM}, then rm -r .venv and run this again"
        other = _cuda(machine) if machine.nvidia else _cpu(machine)
        return Choice(other.arguments, (line, "until then without it:", *other.lines), other.otherwise)
    index = _index(machine)
    major, minor = _indexed(machine)
    if found is None:
        why = f"an AMD GPU, and no ROCm whose version can be read: torch for ROCm {major}.{minor}, which brings its own"
    elif found.release == (major, minor):
        why = f"ROCm {found.version.strip()} ({found.place}): torch for it"
    else:
        known = f"ROCm {major}.{minor}, the nearest that PyTorch's wheels are known for"
        why = f"ROCm {found.version.strip()} ({found.place}): torch for {known}"
    lines = [f"{why}, from {index}; several GB"]
    if machine.nvidia:
        lines.append(f"for the NVIDIA GPU here instead: rm -r .venv, python3 -m venv .venv, {PIP} install torch")
    return Choice(("torch", "--index-url", index), tuple(lines))


def _cuda(machine: Machine) -> Choice:
    del machine
    return Choice(("torch",), (f"an NVIDIA GPU: torch with CUDA's libraries, {CUDA_GB} GB installed",))


def _cpu(machine: Machine) -> Choice:
    del machine
    line = f"the CPU build of torch, {CPU_MB} MB"
    wheel = (f"torch=={CPU_TORCH}+cpu", "--index-url", f"{WHEELS}/cpu", "--retries", "0", "--timeout", "20")
    return Choice(wheel, (line,), (f"torch=={CPU_TORCH}",))


def _indexed(machine: Machine) -> tuple[int, int]:
    """The newest index that is not newer than the ROCm here; the newest of all where its version is unknown."""
    release = machine.rocm.release if machine.rocm else None
    return max(index for index in ROCM_INDEXES if release is None or index <= max(release, OLDEST_ROCM))


def _index(machine: Machine) -> str:
    major, minor = _indexed(machine)
    return f"{WHEELS}/rocm{major}.{minor}"


def _oddities(machine: Machine) -> Iterator[str]:
    """What was found and is of no use."""
    for rocm in machine.rocms:
        if rocm.release is None:
            yield f"{rocm.place} says {rocm.version[:40]!r}, which is no version of ROCm"
    if machine.amd_gpus and TARGET not in machine.amd_gpus:
        yield f"the AMD GPU here is {' '.join(sorted(set(machine.amd_gpus)))}; hktune's kernels are for {TARGET}"


def find_machine(root: Path = Path("/")) -> Machine:
    """This machine, but for its torch. `root` is where its files are looked for."""
    rocms = list(dict.fromkeys((*_rocm_files(root), *_rocm_packages())))
    if not any(rocm.release for rocm in rocms):
        rocms += _rocm_tool()
    nvidia = shutil.which("nvidia-smi") is not None or (root / "proc/driver/nvidia/version").exists()
    return Machine(tuple(rocms), _amd_gpus(root), nvidia)


def _rocm_files(root: Path) -> Iterator[Rocm]:
    """/opt/rocm up to ROCm 7.2, /opt/rocm/core-10.0 after it, or the folder that ROCM_PATH names."""
    homes = [root / "opt/rocm", *sorted((root / "opt/rocm").glob("core*")), *sorted((root / "opt").glob("rocm-*"))]
    if os.environ.get("ROCM_PATH"):
        homes.insert(0, Path(os.environ["ROCM_PATH"]))
    seen = set()
    for home in homes:
        file = home / ".info/version"
        if file.is_file() and file.resolve() not in seen:
            seen.add(file.resolve())
            yield Rocm(_text(file), str(file))


def _rocm_packages() -> Iterator[Rocm]:
    """ROCm from PyPI-like indexes, as seen by the Python that runs this."""
    for package in ("rocm", "rocm-sdk-core"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            yield Rocm(metadata.version(package), f"the Python package {package}")


def _rocm_tool() -> list[Rocm]:
    tool = shutil.which("hipconfig")
    if tool is None:
        return []
    try:
        done = subprocess.run([tool, "--version"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return []
    return [Rocm(done.stdout[:_TEXT_BYTES].decode(errors="replace").strip(), tool)]


def _amd_gpus(root: Path) -> tuple[str, ...] | None:
    if not (root / "dev/kfd").exists():
        return None
    nodes = sorted(root.glob("sys/class/kfd/kfd/topology/nodes/*/properties"))
    found = [re.search(r"^gfx_target_version (\d{5,6})$", _text(node, 1 << 16), re.MULTILINE) for node in nodes]
    return tuple(_target(int(each[1])) for each in found if each)


def _target(version: int) -> str:
    """90500 is gfx950, 90010 is gfx90a."""
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"


def _text(file: Path, most: int = _TEXT_BYTES) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(most).decode(errors="replace").strip()
    except OSError as error:
        return f"nothing ({error.strerror})"
