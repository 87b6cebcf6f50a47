"""Which kind of device a run is on, and over which space."""

from __future__ import annotations

import contextlib
from pathlib import Path

from hktune.core.errors import DeviceError, InputError
from hktune.core.settings import Settings
from hktune.core.shipped import SPACE_OF
from hktune.device.opening import open_device
from hktune.space import load_space


def choose_device(device: str, space: Path | None, settings: Settings) -> tuple[str, Path]:
    """The kind of device to tune for, and the space: what was asked for, else what was found here.

    `auto` is the GPU found here whose architecture is that of `space` (if that is None: of a space that hktune
    brings), else the emulated gfx950. Raises InputError or DeviceError when what was asked for does not go together.
    """
    if device == "emulated":
        return device, _fitting(space, "gfx950", device)
    if device != "auto":
        return device, _fitting(space, open_device(device, settings=settings).identity.arch, device)
    for kind in ("hip", "cuda"):
        with contextlib.suppress(DeviceError):
            arch = open_device(kind, settings=settings).identity.arch
            if (space is None and arch in SPACE_OF) or (space is not None and load_space(space).arch.name == arch):
                return kind, _fitting(space, arch, kind)
    return "emulated", _fitting(space, "gfx950", "emulated")


def _fitting(space: Path | None, arch: str, device: str) -> Path:
    if space is None:
        if arch not in SPACE_OF:
            raise InputError(f"no search space for {arch} comes with hktune: pass --space")
        return SPACE_OF[arch]
    wanted = load_space(space).arch.name
    if wanted != arch:
        raise InputError(f"{space} is for {wanted}, the {device} device is {arch}: pass another --space or --device")
    return space
