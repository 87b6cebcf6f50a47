"""Finds the HipKittens headers that kernels include, or fetches the pinned ones."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hktune.compile.toolchain import tree_sha256
from hktune.core.errors import StoreError, ToolchainError
from hktune.core.lock_file import lock_file
from hktune.core.publish import scratch_folder
from hktune.core.remedy import disk_error_in, with_remedy
from hktune.core.settings import Settings

# The wheel that carries HipKittens' headers (MIT) under hk/include. It is tagged for one Python and one platform, but
# the headers are all that is taken from it. Both hashes were computed from the file on PyPI, 2026-11-22.
WHEEL = "hk-dsl==0.8.0"
WHEEL_TAGS = ("--python-version", "3.12", "--platform", "manylinux_2_35_x86_64")
WHEEL_SHA256 = "c0530440a450b0bbebbd0a827e32b7d2778de0fb8e0b261bc168d20d5ec6ef4c"
HEADERS_SHA256 = "09cb56fb2fda875415745e65a2940c0de53d88a8c2c3b6405a60ef886c212405"
_INSIDE_WHEEL = PurePosixPath("hk/include")
_DOWNLOAD_TIMEOUT_S = 600.0

ENTRY = "kittens.cuh"
# What a CDNA4 kernel needs besides the entry header: a folder per architecture, or the parts with no such folder.
LAYOUTS = {"per-architecture": ("cdna4/includes.cuh",), "flat": ("common/common.cuh", "types/types.cuh", "ops/ops.cuh")}


@dataclass(frozen=True)
class HipKittens:
    """A usable tree of HipKittens headers. `include` holds kittens.cuh; `sha256` is of the whole tree's content."""

    include: Path
    layout: str
    sha256: str
    origin: str


def find_hipkittens(settings: Settings, root: Path | None = None) -> HipKittens:
    """The headers to compile with: below `root` (a flag), else HIPKITTENS_ROOT, else the pinned wheel's, fetched once
    into the cache. Raises ToolchainError."""
    if root is not None:
        return open_hipkittens(root, f"{root}")
    if settings.hipkittens_root is not None:
        return open_hipkittens(settings.hipkittens_root, f"HIPKITTENS_ROOT={settings.hipkittens_root}")
    return fetch_hipkittens(settings.cache_dir)


def open_hipkittens(root: Path, origin: str) -> HipKittens:
    """The headers of a checkout, an include folder or an unpacked wheel at `root`. Raises ToolchainError."""
    for include in (root, root / "include", root / _INSIDE_WHEEL):
        if not (include / ENTRY).is_file():
            continue
        for layout, parts in LAYOUTS.items():
            if all((include / part).is_file() for part in parts):
                return HipKittens(include.resolve(), layout, tree_sha256(include), origin)
        wanted = " or ".join(parts[0] for parts in LAYOUTS.values())
        raise ToolchainError(f"{origin}: {include} has {ENTRY} but no CDNA4 headers ({wanted}): update the checkout")
    raise ToolchainError(
        f"{origin}: no {ENTRY} in it, in include/ or in {_INSIDE_WHEEL}/: "
        "give a checkout of github.com/HazyResearch/HipKittens, or leave it out to use the pinned headers"
    )


def fetch_hipkittens(cache_dir: Path) -> HipKittens:
    """The pinned wheel's headers, downloaded by pip and unpacked into `cache_dir` the first time.

    Any number of processes may call this at once. Raises ToolchainError when the download fails or is not the file
    that was pinned.
    """
    folder = cache_dir / "hipkittens" / WHEEL.replace("==", "-")
    if not _intact(folder):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with lock_file(folder.parent, f"{folder.name}.lock", -1, StoreError):
                if not _intact(folder):
                    _install(folder)
        except OSError as error:
            raise ToolchainError(with_remedy(f"cannot write {folder}", error, "set HKTUNE_CACHE")) from error
    return HipKittens(folder, "per-architecture", HEADERS_SHA256, WHEEL)


def _intact(folder: Path) -> bool:
    return (folder / ENTRY).is_file() and tree_sha256(folder) == HEADERS_SHA256


def _install(folder: Path) -> None:
    """Download, check and unpack next to `folder`, then rename into place."""
    with scratch_folder(folder.parent) as scratch:
        unpack_headers(download_wheel(scratch), scratch / "include")
        shutil.rmtree(folder, ignore_errors=True)
        (scratch / "include").rename(folder)


def download_wheel(into: Path) -> Path:
    """Have pip fetch the pinned wheel, from whichever index it is configured for. Raises ToolchainError, and OSError
    where there is no room for it or `into` is read-only."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += [*WHEEL_TAGS, "--dest", str(into), WHEEL]
    way_out = "fetch it by hand into a folder and set HIPKITTENS_ROOT, or check the network"
    try:
        pip = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_DOWNLOAD_TIMEOUT_S,
            check=False,
            env=os.environ | {"TMPDIR": str(into), "LC_ALL": "C"},  # so that one place is short of room, if any
        )
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(f"pip download {WHEEL} took over {_DOWNLOAD_TIMEOUT_S:.0f} s: {way_out}") from error
    wheels = list(into.glob("*.whl"))
    if pip.returncode != 0 and (disk := disk_error_in(pip.stderr)):
        raise disk
    if pip.returncode != 0 or len(wheels) != 1:
        said = (pip.stderr.strip().splitlines() or ["no wheel came back"])[-1].removeprefix("ERROR: ")
        raise ToolchainError(f"pip download {WHEEL} failed ({said}): {way_out}")
    return wheels[0]


def unpack_headers(wheel: Path, into: Path) -> None:
    """Unpack the headers of `wheel`, and nothing else, so that `into` holds kittens.cuh.

    Raises ToolchainError unless `wheel` is byte for byte the pinned one.
    """
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if sha256 != WHEEL_SHA256:
        raise ToolchainError(
            f"{wheel.name}: sha256 is {sha256}, pinned is {WHEEL_SHA256}: the index serves another file, do not use it"
        )
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            member = PurePosixPath(name)
            if member.suffix == ".cuh" and member.is_relative_to(_INSIDE_WHEEL):
                target = into / member.relative_to(_INSIDE_WHEEL)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
