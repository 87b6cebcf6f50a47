"""What the environment may say, read once at the edge and passed down from there."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from hktune.core.errors import InputError

_HOMELESS = "hktune-of-"


@dataclass(frozen=True)
class Settings:
    """One field per environment variable; a command-line flag of the same meaning wins over it. All paths are from the
    root, however they are given: compilers run in folders of their own."""

    cache_dir: Path
    """HKTUNE_CACHE: compiled objects, proofs, unpacked headers. Default: hktune in XDG_CACHE_HOME, else in ~/.cache; of
    a user without a home, among the machine's other temporary files."""

    hipkittens_root: Path | None = None
    """HIPKITTENS_ROOT: a checkout of HipKittens, or a folder laid out like one. Default: the pinned wheel's headers."""

    rocm_path: Path | None = None
    """ROCM_PATH: where ROCm is installed. Default: /opt/rocm, then PATH."""

    aiter_dir: Path | None = None
    """HKTUNE_AITER: a checkout of AITER, or a folder laid out like one, whose code objects can be launched too.
    Default: what the installed package amd-aiter has."""

    rivals: tuple[str, ...] | None = None
    """HKTUNE_RIVALS: whose kernels a run races, of those that are here; none is none. Default: all."""

    def __post_init__(self) -> None:
        for field in fields(self):
            path = getattr(self, field.name)
            if isinstance(path, Path):
                object.__setattr__(self, field.name, absolute(path))

    @property
    def note(self) -> str | None:
        """What a user without a home should know."""
        if self.cache_dir.parent.name != f"{_HOMELESS}{os.getuid()}":
            return None
        return f"this user has no home, so compiled objects are in {self.cache_dir}: set HKTUNE_CACHE to keep them"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read `environment` (usually os.environ); an empty variable counts as absent. Raises InputError."""
        return cls(
            cache_dir=_path(environment, "HKTUNE_CACHE") or _caches(environment) / "hktune",
            hipkittens_root=_path(environment, "HIPKITTENS_ROOT"),
            rocm_path=_path(environment, "ROCM_PATH"),
            aiter_dir=_path(environment, "HKTUNE_AITER"),
            rivals=_words(environment, "HKTUNE_RIVALS"),
        )


def settings_here(aiter: Path | None = None) -> Settings:
    """What the environment of this process says, with the checkout `aiter` in its place where one is given. Raises
    InputError."""
    settings = Settings.from_environment(os.environ)
    if aiter:
        settings = replace(settings, aiter_dir=aiter)
    if settings.aiter_dir and not settings.aiter_dir.is_dir():
        raise InputError(f"{settings.aiter_dir}: no such folder: name a checkout of AITER, or leave it out")
    return settings


def absolute(path: Path | str, name: str = "path") -> Path:
    """`path` from the root, with ~ and ~user filled in. Raises InputError for a user that there is not; `name` is what
    the path was given as."""
    try:
        return Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow links
    except RuntimeError:
        raise InputError(f"{name}={path}: there is no such home: give the path from the root") from None


def _words(environment: Mapping[str, str], name: str) -> tuple[str, ...] | None:
    text = environment.get(name, "")
    return tuple(word for word in text.split(",") if word not in ("", "none")) if text else None


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    text = environment.get(name, "")
    return absolute(text, name) if text else None


def _caches(environment: Mapping[str, str]) -> Path:
    chosen = _path(environment, "XDG_CACHE_HOME")
    if chosen:
        return chosen
    try:
        return Path.home() / ".cache"
    except RuntimeError:  # no HOME, and no entry in passwd: usual in containers
        return _temporary_caches()


def _temporary_caches() -> Path:
    """A folder of this user's own among the machine's temporary files: what is compiled there is believed later on."""
    folder = Path(tempfile.gettempdir()) / f"{_HOMELESS}{os.getuid()}"
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except OSError as error:
        raise InputError(f"no home, and {folder} cannot be made ({error.strerror}): set HKTUNE_CACHE") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise InputError(f"no home, and {folder} is not this user's own: set HKTUNE_CACHE")
    return folder
