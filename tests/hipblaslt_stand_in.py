"""hipblaslt_stand_in.c compiled: a libhipblaslt in host memory whose solutions and version a test chooses."""

from __future__ import annotations

import ctypes
import functools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import host_library

LIBRARY = "libhipblaslt.so.1"
SOURCE = Path(__file__).with_suffix(".c")
LONG = "Cijk_Alik_Bljk_BBS_BH_Bias_HA_S_SAV_UserArgs_MT256x128x64_MI32x32x1_SN_LDSB1_AFC1_AFEM1"


@dataclass(frozen=True)
class Solution:
    """One of the stand-in's. `factor` is what it multiplies the right product by; `fits` whether it computes any."""

    index: int
    name: str
    workspace_bytes: int = 0
    factor: float = 1.0
    fits: bool = True


SOLUTIONS = (
    Solution(93702, LONG),
    Solution(41, "short"),
    Solution(1063, f"{LONG}_GSU3", workspace_bytes=4096),
    Solution(7, f"{LONG}_misfit", fits=False),
    Solution(-5, "negative"),
)


class _Record(ctypes.Structure):
    _fields_ = (
        ("index", ctypes.c_int),
        ("name", ctypes.c_char * 4096),
        ("workspace_bytes", ctypes.c_size_t),
        ("factor", ctypes.c_float),
        ("fits", ctypes.c_int),
    )


@functools.cache
def _built() -> tempfile.TemporaryDirectory[str]:
    """A folder that is there until the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="hipblaslt-stand-in-")
    host_library.built(SOURCE, Path(folder.name) / LIBRARY, "-O2", "-Wall", "-Wextra", "-Werror")
    return folder


class HipblasLtStandIn:
    """The library, loaded: there is one in a process, which a test sets up anew."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(str(Path(_built().name) / LIBRARY))
        self.set_up()

    def set_up(
        self, solutions: Sequence[Solution] = SOLUTIONS, version: int = 100202, revision: bytes = b"5b3f1cd"
    ) -> None:
        """Give it these solutions, in this order, and a version. What it names after that, it knows after that only."""
        records = (_Record * 8).in_dll(self.library, "stand_in_solutions")
        for place, each in enumerate(solutions):
            records[place] = _Record(each.index, each.name.encode(), each.workspace_bytes, each.factor, each.fits)
        (ctypes.c_char * 64).in_dll(self.library, "stand_in_revision").value = revision
        for name, value in (("count", len(solutions)), ("version", version), ("uses", 0)):
            self._number(name).value = value

    @property
    def used(self) -> list[int]:
        """The indices of the solutions that were launched."""
        uses = (ctypes.c_int * 4096).in_dll(self.library, "stand_in_used")
        return list(uses[: self._number("uses").value])

    @property
    def stream(self) -> int | None:
        """Of the last launch."""
        return ctypes.c_void_p.in_dll(self.library, "stand_in_stream").value

    @property
    def objects(self) -> int:
        """Handles, descriptors, layouts and preferences that are not destroyed."""
        return ctypes.c_long.in_dll(self.library, "stand_in_objects").value

    @property
    def allocated(self) -> int:
        """Vectors and strings that it answered and that were not deleted."""
        return ctypes.c_long.in_dll(self.library, "stand_in_allocated").value

    def _number(self, name: str) -> Any:
        return ctypes.c_int.in_dll(self.library, f"stand_in_{name}")
