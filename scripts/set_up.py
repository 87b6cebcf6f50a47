"""Makes .venv with everything hktune needs. scripts/setup runs it with the Python to use: standard library only."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hktune.core.torch_choice import (  # noqa: E402, as hktune is not installed yet
    CPU_MB,
    CUDA_GB,
    PIP,
    Choice,
    Machine,
    Torch,
    choose,
    complaint,
    find_machine,
    in_venv,
)

VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMPS = VENV / "stamps"
SAY_EVERY_S = 15.0
LEAVE_TIME_S = 10  # to press Ctrl-C before gigabytes are fetched
PROBE = """
import json, torch
archs = torch.cuda.get_arch_list() or (getattr(torch._C, "_cuda_getArchFlags", str)() or "").split()
version, hip, cuda = torch.__version__, torch.version.hip, torch.version.cuda
print(json.dumps([version, hip, cuda, archs, torch.__path__[0]]))
"""


def main(extras: str) -> None:
    """Set up for `extras` of pyproject.toml. Ends with a line and exit code 1 where it cannot."""
    machine = find_machine()
    stamp = f"{extras} {_fingerprint(machine)}"
    if _is_done(stamp):
        return
    with _alone():
        if _is_done(stamp):
            return
        say(f"setting up .venv for hktune[{extras}], once")
        system = find_torch(Path(sys.executable))
        make_environment(system)
        install_hktune(extras, install_torch(machine))
        with STAMPS.open("a") as stamps:
            stamps.write(f"{stamp}\n")
        say("set up")


def say(line: str) -> None:
    """Print at once, also into a pipe."""
    print(f"setup: {line}", flush=True)


def _fingerprint(machine: Machine) -> str:
    """Of all that a set-up depends on: it is done again when the machine, the checkout's place or its needs change."""
    files = [ROOT / "pyproject.toml", Path(__file__), Path(sys.modules[Choice.__module__].__file__ or "")]
    digest = hashlib.sha256(repr((str(ROOT), machine)).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _is_done(stamp: str) -> bool:
    return STAMPS.is_file() and stamp in STAMPS.read_text().splitlines()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One set-up of a checkout at a time."""
    with (ROOT / ".setup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this checkout")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def find_torch(python: Path) -> tuple[Torch, Path] | None:
    """The torch that `python` imports and the folder that has it; None where it imports none."""
    done = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=False)
    try:
        version, hip, cuda, archs, place = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return None
    return Torch(version, hip, cuda, tuple(archs)), Path(place).parent


def make_environment(system: tuple[Torch, Path] | None) -> None:
    """A .venv with pip in it, which also sees the torch of `system`, unless that is too old."""
    if not _runs(["-c", ""]):
        _make_venv(["--system-site-packages"] if system and not system[0].too_old else [])
    if not _runs(["-m", "pip", "--version"]):
        say("fetching pip: this Python comes without it")
        run([sys.executable, "-m", "pip", "install", "--quiet", "--target", _site_packages(), "pip"], "pip")
    if system and not system[0].too_old and find_torch(PYTHON) is None:
        # The Python that runs this is itself in an environment, which a .venv of its does not see.
        Path(_site_packages(), "torch-of-the-parent.pth").write_text(f"{system[1]}\n", encoding="utf-8")


def _site_packages() -> str:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _make_venv(options: Sequence[str]) -> None:
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if "venv" in missing or ("ensurepip" in missing and importlib.util.find_spec("pip") is None):
        rule = f"{sys.executable} has no {missing[0]} and no pip"
        raise SystemExit(f"setup: {rule}: sudo apt install python3-venv, or set PYTHON=/path/to/python3")
    say(f"making .venv with Python {sys.version.split()[0]}")
    without = ["--without-pip"] if missing else []
    run([sys.executable, "-m", "venv", "--clear", *options, *without, str(VENV)], "the environment")


def _runs(words: Sequence[str]) -> bool:
    if not PYTHON.exists():
        return False
    return subprocess.run([PYTHON, *words], capture_output=True, check=False).returncode == 0


def install_torch(machine: Machine) -> Torch:
    """The torch that `machine` needs, unless one is there; says what it does and what is left to type."""
    there = find_torch(PYTHON)
    machine = Machine(machine.rocms, machine.amd_gpus, machine.nvidia, there[0] if there else None)
    choice = choose(machine)
    for line in choice.lines:
        say(line)
    if there and not choice.arguments:
        return there[0]
    if pip(["--upgrade", *choice.arguments], "torch", must=not choice.otherwise) != 0:
        _warn_of_size(choice)
        pip(["--upgrade", *choice.otherwise], "torch")
    there = find_torch(PYTHON)
    if there is None:
        raise SystemExit(f"setup: torch was installed, but does not import: {PYTHON} -c 'import torch' says why")
    wrong = complaint(machine, there[0])
    say(f"torch {there[0].version} is in .venv" + (f", but {in_venv(wrong)}" if wrong else ""))
    return there[0]


def _warn_of_size(choice: Choice) -> None:
    """Says what comes instead of the CPU build before it is fetched, and how to avoid it."""
    say(f"the CPU build of torch, {CPU_MB} MB, is not to be had there (pip says why above)")
    report = subprocess.run(
        [PYTHON, "-m", "pip", "install", "--quiet", "--dry-run", "--report", "-", *choice.otherwise],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    with contextlib.suppress(ValueError, KeyError, TypeError):
        if not any(each["metadata"]["name"].startswith("nvidia-") for each in json.loads(report.stdout)["install"]):
            say(f"instead: {choice.otherwise[0]} from pip's own index, without CUDA's libraries")
            return
    say(f"instead: {choice.otherwise[0]} from pip's own index, with CUDA's libraries: {CUDA_GB} GB installed")
    say(f"to avoid that: Ctrl-C, {PIP} install torch --index-url URL_OF_A_MIRROR (or a CPU wheel's path), and again")
    if sys.stdout.isatty():
        say(f"going on in {LEAVE_TIME_S} s")
        time.sleep(LEAVE_TIME_S)


def install_hktune(extras: str, torch: Torch) -> None:
    """hktune itself, editable, with the packages it needs, and torch as it is."""
    constraints = VENV / "constraints.txt"
    constraints.write_text(f"torch=={torch.version}\n")
    say("installing hktune and what it needs")
    pip(["--editable", f"{ROOT}[{extras}]", "--constraint", str(constraints)], "hktune's packages")


def pip(arguments: Sequence[str], what: str, *, must: bool = True) -> int:
    """`pip install` into .venv; pip's own errors are shown. Returns its status, or ends where it `must` succeed."""
    words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return run([str(PYTHON), *words, *arguments], what, must=must)


def run(command: Sequence[str], what: str, *, must: bool = True) -> int:
    """Run `command`, with a line every 15 s while it is at work."""
    started = time.monotonic()
    # setuptools warns, over many lines, that an editable install is one.
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(command, env=environment) as process:
        while True:
            try:
                status = process.wait(SAY_EVERY_S)
                break
            except subprocess.TimeoutExpired:
                say(f"still installing {what}, {time.monotonic() - started:.0f} s")
    if status and must:
        raise SystemExit(f"setup: installing {what} failed (pip says why above): repair that, and run this again")
    return status


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        say("interrupted; run it again to go on")
        sys.exit(130)
    except OSError as error:
        sys.exit(f"setup: {error}: repair that, and run this again")
