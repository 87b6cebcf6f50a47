"""environment.json: what a run's numbers were made with, and whether a later run may go on from them."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import msgspec

from hktune.core.bounded_text import Text
from hktune.core.errors import StoreError
from hktune.core.identity import Identity
from hktune.core.json_file import decoded
from hktune.core.outside_file import FileKind
from hktune.core.publish import publish
from hktune.core.remedy import with_remedy
from hktune.core.shipped import CHECKOUT
from hktune.core.version import __version__

FILE_NAME = "environment.json"
ENVIRONMENT_FILE = FileKind("an environment", 1 << 20, StoreError, "delete it, or pass another DIR")
_DRIVERS = {
    "cuda": ("proc/driver/nvidia/version", re.compile(r"Kernel Module(?: for \S+)?\s+([0-9][0-9.]+)")),
    "hip": ("sys/module/amdgpu/version", re.compile(r"\A([0-9][\w.+-]*)")),
}
"""Where a driver says its version. One that came with the kernel has none of its own."""
PACKAGES = ("torch", "numpy", "optuna", "ziglang")


@dataclass(frozen=True)
class Environment:
    """Everything that makes two runs' trials comparable, or not. `commit` is absent outside a git checkout, and ends
    in -dirty when its tree was changed. `versions` holds python, the platform, the packages that are installed, and a
    GPU's driver. `judge` names what proved and modelled where nothing was measured (`verify.record.judge_sha256`)."""

    identity: Identity
    compiler: Text
    judge: Text | None
    command: tuple[str, ...]
    seed: int
    started_at: Text
    commit: Text | None
    versions: dict[Text, Text]


@dataclass(frozen=True)
class Mismatch:
    """One field in which two environments differ. hard: their times must not be compared; soft: worth saying."""

    level: Literal["hard", "soft"]
    field: str
    saved: str
    current: str

    def __str__(self) -> str:
        return f"{self.field}: saved={self.saved} current={self.current}"


def capture_environment(
    identity: Identity, compiler: str, judge: str | None, command: Sequence[str], seed: int, started_at: str
) -> Environment:
    """The environment of this process. `compiler` is `Compiler.identity`; `started_at` is ISO 8601."""
    versions = {"hktune": __version__, "python": platform.python_version()}
    versions["platform"] = f"{platform.system()}-{platform.machine()}"
    installed = {package: _version(package) for package in PACKAGES}
    versions |= {package: version for package, version in installed.items() if version}
    driver = driver_version(identity.kind)
    versions |= {"driver": driver} if driver else {}
    words = tuple(word.encode("utf-8", "backslashreplace").decode() for word in command)  # paths may be any bytes
    return Environment(identity, compiler, judge, words, seed, started_at, _commit(), versions)


def write_environment(environment: Environment, directory: Path) -> None:
    """Publish environment.json into `directory`. Raises StoreError when it cannot be written."""
    text = msgspec.json.format(msgspec.json.encode(environment), indent=2) + b"\n"
    try:
        publish(directory / FILE_NAME, text)
    except OSError as error:
        raise StoreError(
            with_remedy(f"{directory / FILE_NAME}: cannot be written", error, "pass another DIR")
        ) from None


def read_environment(directory: Path) -> Environment | None:
    """The saved environment of `directory`, or None when it has none. Raises StoreError for a malformed one."""
    data = ENVIRONMENT_FILE.read_if_there(directory, FILE_NAME)
    try:
        return None if data is None else decoded(data, Environment)
    except ValueError as wrong:
        raise ENVIRONMENT_FILE.broken(directory / FILE_NAME, f"not an environment of hktune ({wrong})") from None


def judge_environment(saved: Environment, current: Environment) -> list[Mismatch]:
    """How `current` differs from `saved`, hard differences first; empty when one may go on from the other.

    Device, compiler and judge decide what a time means, so they are hard. Package versions, platform and commit are
    soft. Command, seed and start differ between runs by design and are not judged.
    """
    hard = _differences("hard", _hard_fields(saved), _hard_fields(current))
    return hard + _differences("soft", _soft_fields(saved), _soft_fields(current))


def _hard_fields(environment: Environment) -> dict[str, object]:
    identity = asdict(environment.identity.comparable)
    return {**identity, "compiler": environment.compiler, "judge": environment.judge}


def _soft_fields(environment: Environment) -> dict[str, object]:
    return {**environment.versions, "commit": environment.commit}


def _differences(
    level: Literal["hard", "soft"], saved: Mapping[str, object], current: Mapping[str, object]
) -> list[Mismatch]:
    names = sorted(saved.keys() | current.keys())
    pairs = [(name, saved.get(name), current.get(name)) for name in names]
    return [Mismatch(level, name, str(old), str(new)) for name, old, new in pairs if old != new]


def driver_version(kind: str, root: Path = Path("/")) -> str | None:
    """The version of the driver of a device of this kind, as Linux' files below `root` say it; None where there is no
    driver, or it does not say."""
    path, version = _DRIVERS.get(kind, (None, None))
    if path is None or version is None:
        return None
    try:
        found = version.search((root / path).read_text(encoding="utf-8", errors="replace")[:4096])
    except OSError:
        return None
    return found[1] if found else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of hktune's own checkout; None when it is installed elsewhere, even inside another repository."""
    if CHECKOUT is None:
        return None
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
