"""What the environment may say, read once at the edge and passed down from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """One field per environment variable; a command-line flag of the same meaning wins over it."""

    cache_dir: Path
    """HKTUNE_CACHE: compiled objects, proofs, unpacked headers. Default: hktune in XDG_CACHE_HOME, else in ~/.cache."""

    hipkittens_root: Path | None = None
    """HIPKITTENS_ROOT: a checkout of HipKittens, or a folder laid out like one. Default: the pinned wheel's headers."""

    rocm_path: Path | None = None
    """ROCM_PATH: where ROCm is installed. Default: /opt/rocm, then PATH."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read `environment` (usually os.environ); an empty variable counts as absent."""
        caches = _path(environment, "XDG_CACHE_HOME") or Path.home() / ".cache"
        return cls(
            cache_dir=_path(environment, "HKTUNE_CACHE") or caches / "hktune",
            hipkittens_root=_path(environment, "HIPKITTENS_ROOT"),
            rocm_path=_path(environment, "ROCM_PATH"),
        )


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    text = environment.get(name, "")
    return Path(text).expanduser() if text else None
