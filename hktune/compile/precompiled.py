"""kittens.cuh parsed once: reading the C++ standard library under it costs over three times what a GEMM kernel does."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

from filelock import Timeout

from hktune.compile.process import run_to_end
from hktune.compile.toolchain import HIP_HEADERS
from hktune.core.errors import MachineError, StoreError
from hktune.core.lock_file import lock_file
from hktune.core.publish import scratch_folder

PREFIX = HIP_HEADERS / "kittens_prefix.h"  # must stay where it was when precompiled: clang looks for it again


def starts_with_prefix(source: str) -> bool:
    """Whether `source` includes kittens.cuh before anything that could change its meaning: then the precompiled form
    says the same. Blank lines, // comments and system headers may come first."""
    for line in source.splitlines():
        text = line.strip()
        if text.startswith('#include "kittens.cuh"'):
            return True
        if text and not text.startswith(("//", "#include <")):
            return False
    return False


class PrecompiledHeader:
    """The precompiled form of PREFIX for one argument list, kept in `folder` for every process of this machine.

    `argv` is the command of a compile without what it emits, its input and its output; `emit` is what makes it emit a
    precompiled header that ignores timestamps. `contents` names what the headers hold, to notice when that changes.
    """

    def __init__(self, argv: Sequence[str], emit: Sequence[str], contents: str, folder: Path) -> None:
        self._argv = [*argv, *emit]
        key = hashlib.sha256("\0".join([*self._argv, contents]).encode()).hexdigest()[:16]
        self._path = folder / f"kittens-{key}.pch"

    def flags(self, timeout_s: float) -> list[str]:
        """What makes a compile use it, building it if need be; empty when it cannot be built, or not in `timeout_s`."""
        try:
            if not self._path.is_file():
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with lock_file(self._path.parent, f"{self._path.name}.lock", max(timeout_s, 0.0), StoreError):
                    if not self._path.is_file():
                        self._build(timeout_s)
        except (OSError, Timeout, MachineError, StoreError):
            return []
        return ["-Xclang", "-include-pch", "-Xclang", str(self._path)] if self._path.is_file() else []

    def discard(self) -> None:
        """Forget a damaged file; the next compile builds it anew."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _build(self, timeout_s: float) -> None:
        with scratch_folder(self._path.parent) as folder:
            built = folder / "kittens.pch"
            finished = run_to_end([*self._argv, "-o", str(built), str(PREFIX)], built.parent, timeout_s)
            if finished is not None and finished.status == 0 and built.is_file():
                built.rename(self._path)
