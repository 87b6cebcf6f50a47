"""What every device checks of the host's side of a copy, and of a tensor that it borrows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hktune.core.errors import DeviceError
from hktune.device.device import Buffer, HostArray

if TYPE_CHECKING:
    import torch


def source_of(data: HostArray, buffer: Buffer) -> HostArray:
    """`data` in one piece, to be copied to `buffer`. Raises DeviceError when it does not fit."""
    source = np.ascontiguousarray(data)
    if source.nbytes > buffer.size_bytes:
        raise DeviceError(
            f"cannot write {source.nbytes} bytes into a buffer of {buffer.size_bytes}: allocate a larger one"
        )
    return source


def check_target(out: HostArray, buffer: Buffer) -> None:
    """Raises DeviceError when `out` cannot take a copy from the start of `buffer`."""
    if out.nbytes > buffer.size_bytes:
        raise DeviceError(f"cannot read {out.nbytes} bytes from a buffer of {buffer.size_bytes}: pass a smaller array")
    if not out.flags.c_contiguous:
        raise DeviceError("cannot read into an array that is not contiguous: pass a contiguous one")


def span_elements(tensor: torch.Tensor) -> int:
    """How many elements are between a torch tensor's first and last one, both counted, whatever its strides."""
    return 1 + sum((int(size) - 1) * int(stride) for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
