"""What Triton keeps apart from a code object and a launch needs: NAME.json says it, next to NAME.hsaco in its cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from hktune.core.errors import InputError
from hktune.core.json_file import typed
from hktune.core.outside_file import FileKind

_METADATA_FILE = FileKind("Triton's metadata", 1 << 20, InputError, "move it away, and give --block and --lds")
_Bytes = Annotated[int, Meta(ge=0, lt=2**32)]


class TritonMetadata(Struct):
    """`shared` is the LDS of a launch in bytes; the sizes of scratch are of each workgroup."""

    triton_version: str
    num_warps: Annotated[int, Meta(ge=1, le=16)]
    shared: _Bytes
    warp_size: Annotated[int, Meta(ge=32, le=64)] = 64
    global_scratch_size: _Bytes = 0
    profile_scratch_size: _Bytes = 0

    @property
    def block(self) -> int:
        """Work-items of a workgroup."""
        return self.num_warps * self.warp_size

    @property
    def scratch_bytes(self) -> tuple[int, int]:
        return self.global_scratch_size, self.profile_scratch_size


def triton_metadata(path: Path) -> TritonMetadata | None:
    """What is said of the code object at `path`, where Triton made it and left that next to it."""
    beside = path.parent / f"{path.stem}.json"  # "." has no name whose suffix could be another
    if path.suffix != ".hsaco" or not beside.is_file():
        return None
    try:
        return typed(_METADATA_FILE.read(beside), TritonMetadata)
    except (ValueError, InputError):
        return None  # a file of another tool
