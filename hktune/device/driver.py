"""Which driver of the kernel a GPU of this machine runs by."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path

_MODULES = Path("/sys/module")
_MODULE_OF = {"cuda": "nvidia", "hip": "amdgpu"}


def driver_version(kind: str) -> str:
    """The version of the driver of `kind` devices: its own, or the kernel's that it came with. "" for the emulated."""
    if kind not in _MODULE_OF:
        return ""
    with contextlib.suppress(OSError):
        return (_MODULES / _MODULE_OF[kind] / "version").read_text(encoding="utf-8").strip()
    return platform.release()
