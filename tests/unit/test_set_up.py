"""scripts/setup around the choice of torch: what it says, in which order, what it leaves alone. Nothing is fetched."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import set_up

from hktune.core.torch_choice import Machine, Rocm, Torch

SETUP = Path(__file__).resolve().parents[2] / "scripts" / "setup"
MI355X = Machine((Rocm("7.2.0", "/opt/rocm/.info/version"),), ("gfx950",))
CPU_TORCH = Torch("2.13.0+cpu")


class Pip:
    """Stands for pip: fails for what `refuses` names, and leaves `torch` in the environment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, torch: Torch, refuses: str = "nothing") -> None:
        self.there: Torch | None = None
        self.installed: list[Sequence[str]] = []
        self._torch, self._refuses = torch, refuses
        monkeypatch.setattr(set_up, "run", self.run)
        monkeypatch.setattr(set_up, "find_torch", lambda python: self.there and (self.there, Path("/site")))

    def run(self, command: Sequence[str], what: str, *, must: bool = True) -> int:
        print(f"pip: {' '.join(command[4:])}")
        self.installed.append(command)
        if self._refuses in command:
            assert not must
            return 1
        self.there = self._torch
        return 0


def dry_run(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """What `pip install --dry-run --report` answers."""
    report = json.dumps({"install": [{"metadata": {"name": package}} for package in packages]})
    answer = subprocess.CompletedProcess([], 0, stdout=report)
    monkeypatch.setattr(subprocess, "run", lambda command, **options: answer)


@pytest.mark.parametrize(
    ("packages", "said", "silent"),
    [
        (("torch", "nvidia-cublas", "sympy"), "5.4 GB", "without CUDA"),
        (("torch", "sympy"), "without CUDA", "5.4 GB"),
        ((), "without CUDA", "5.4 GB"),
    ],
)
def test_what_comes_instead_of_the_small_build_is_said_before_it_is_fetched(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    packages: tuple[str, ...],
    said: str,
    silent: str,
) -> None:
    dry_run(monkeypatch, *packages)
    pip = Pip(monkeypatch, Torch("2.13.0"), refuses="torch==2.13.0+cpu")
    assert set_up.install_torch(Machine()) == Torch("2.13.0")
    printed = capsys.readouterr().out
    assert len(pip.installed) == 2
    assert silent not in printed
    assert printed.index("200 MB") < printed.index("2.13.0+cpu")
    assert printed.index("not to be had") < printed.index(said) < printed.rindex("pip: ")
    assert ("to avoid that" in printed) == (said == "5.4 GB")


def test_a_pip_that_cannot_tell_is_taken_to_bring_cuda(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = subprocess.CompletedProcess([], 2, stdout="no such option: --dry-run")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: answer)
    Pip(monkeypatch, Torch("2.13.0"), refuses="torch==2.13.0+cpu")
    set_up.install_torch(Machine())
    assert "5.4 GB" in capsys.readouterr().out


def test_a_torch_that_is_there_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pip = Pip(monkeypatch, Torch("2.11.0"))
    pip.there = CPU_TORCH
    assert set_up.install_torch(MI355X) == CPU_TORCH
    assert pip.installed == []
    printed = capsys.readouterr().out
    assert "stays, but it is built for the CPU only, and this machine is for an AMD GPU: " in printed
    assert ": .venv/bin/python -m pip install --force-reinstall torch --index-url https" in printed


def test_what_the_index_gave_is_looked_at(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Pip(monkeypatch, Torch("2.14.0+rocm7.2", hip="7.2.1", archs=("gfx942",)))
    set_up.install_torch(MI355X)
    assert "torch 2.14.0+rocm7.2 is in .venv, but it has kernels for gfx942, none for gfx950" in capsys.readouterr().out
    Pip(monkeypatch, Torch("2.14.0+rocm7.2", hip="7.2.1", archs=("gfx942", "gfx950")))
    set_up.install_torch(MI355X)
    assert capsys.readouterr().out.endswith("torch 2.14.0+rocm7.2 is in .venv\n")


def test_hktune_is_installed_with_the_torch_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = Pip(monkeypatch, CPU_TORCH)
    monkeypatch.setattr(set_up, "VENV", tmp_path)
    set_up.install_hktune("gfx950,cuda", CPU_TORCH)
    [command] = pip.installed
    assert f"{set_up.ROOT}[gfx950,cuda]" in command
    assert Path(command[command.index("--constraint") + 1]).read_text() == "torch==2.13.0+cpu\n"


def test_a_long_step_is_not_silent_and_a_failed_one_ends_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(set_up, "SAY_EVERY_S", 0.05)
    slow = "import sys, time; time.sleep(0.5); sys.exit('ERROR: No space left on device')"
    assert set_up.run([sys.executable, "-c", slow], "torch", must=False) == 1
    out, err = capfd.readouterr()
    assert out.count("setup: still installing torch, ") > 1
    assert err == "ERROR: No space left on device\n"
    with pytest.raises(SystemExit, match=r"^setup: installing torch failed .*: repair that, and run this again$"):
        set_up.run([sys.executable, "-c", "import sys; sys.exit(3)"], "torch")


def test_another_machine_is_set_up_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_up, "STAMPS", tmp_path / "stamps")
    marks = {set_up._fingerprint(machine) for machine in (MI355X, Machine(), Machine(nvidia=True))}
    assert len(marks) == 3
    assert not set_up._is_done("gfx950 1")
    (tmp_path / "stamps").write_text("gfx950 1\ngfx950,dev 12\n")
    assert set_up._is_done("gfx950 1")
    assert not set_up._is_done("gfx950,dev 1")


def test_the_torch_of_an_environment_that_runs_the_set_up_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in images whose torch for ROCm lies in a virtual environment: one made from that does not see its packages."""
    parent = tmp_path / "parent"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", parent], check=True)
    [site] = parent.glob("lib/python*/site-packages")
    (site / "torch").mkdir()
    (site / "torch" / "__init__.py").write_text(
        "from types import SimpleNamespace as Names\n"
        "__version__, version = '2.9.0a0', Names(hip='7.0.1', cuda=None)\n"
        "cuda, _C = Names(get_arch_list=list), Names(_cuda_getArchFlags=lambda: 'gfx942 gfx950')\n"
    )
    monkeypatch.setattr(set_up, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(set_up, "PYTHON", tmp_path / ".venv" / "bin" / "python")
    monkeypatch.setattr(sys, "executable", str(parent / "bin" / "python"))
    made = set_up._make_venv
    monkeypatch.setattr(set_up, "_make_venv", lambda options: made([*options, "--without-pip"]))
    monkeypatch.setattr(set_up, "_runs", lambda words: words[0] == "-m")
    found = set_up.find_torch(parent / "bin" / "python")
    assert found == (Torch("2.9.0a0", "7.0.1", None, ("gfx942", "gfx950")), site)
    set_up.make_environment(found)
    assert set_up.find_torch(set_up.PYTHON) == found


def test_a_python_that_cannot_make_an_environment_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_up.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"has no venv and no pip: sudo apt install python3-venv"):
        set_up._make_venv([])


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("echo Python 3.9.2; exit 1", "hktune needs Python 3.10 or newer, .* is Python 3.9.2: set PYTHON="),
        (None, "no .*/py "),
    ],
)
def test_a_python_that_is_absent_or_old_is_refused_in_one_line(tmp_path: Path, python: str | None, said: str) -> None:
    if python:
        (tmp_path / "py").write_text(f"#!/bin/sh\n{python}\n")
        (tmp_path / "py").chmod(0o755)
    environment = {"PYTHON": str(tmp_path / "py"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["sh", SETUP], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert re.search(said, line), line
