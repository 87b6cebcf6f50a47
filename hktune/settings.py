"""What the environment may say, read once at the edge and passed down from there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from hktune.errors import InputError


@dataclass(frozen=True)
class Settings:
    """One field per environment variable; a command-line flag of the same meaning wins over it. All paths are from the
    root, however they are given: compilers run in folders of their own."""

    cache_dir: Path
    """HKTUNE_CACHE: compiled objects, proofs, unpacked headers. Default: hktune in XDG_CACHE_HOME, else in ~/.cache; of
    a user without a home, beside the machine's other temporary files."""

    hipkittens_root: Path | None = None
    """HIPKITTENS_ROOT: a checkout of HipKittens, or a folder laid out like one. Default: the pinned wheel's headers."""

    rocm_path: Path | None = None
    """ROCM_PATH: where ROCm is installed. Default: /opt/rocm, then PATH."""

    def __post_init__(self) -> None:
        for field in fields(self):
            path = getattr(self, field.name)
            if path is not None:
                object.__setattr__(self, field.name, absolute(path))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read `environment` (usually os.environ); an empty variable counts as absent. Raises InputError."""
        return cls(
            cache_dir=_path(environment, "HKTUNE_CACHE") or _caches(environment) / "hktune",
            hipkittens_root=_path(environment, "HIPKITTENS_ROOT"),
            rocm_path=_path(environment, "ROCM_PATH"),
        )


def absolute(path: Path | str, name: str = "path") -> Path:
    """`path` from the root, with ~ and ~user filled in. Raises InputError for a user that there is not; `name` is what
    the path was given as."""
    try:
        return Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow links
    except RuntimeError:
        raise InputError(f"{name}={path}: there is no such home: give the path from the root") from None


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
        return Path(tempfile.gettempdir()) / f"hktune-of-{os.getuid()}"
