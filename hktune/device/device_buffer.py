"""The Buffer of the real devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hktune.core.errors import DeviceError
from hktune.device.host_copies import span_elements

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class DeviceBuffer:
    """Device memory; given back with its last reference if it was allocated here. `owner` keeps borrowed memory."""

    address: int
    size_bytes: int
    owner: object = None


def borrowed(tensor: torch.Tensor, ordinal: int) -> DeviceBuffer:
    """The memory of a torch tensor on GPU `ordinal`, as `Device.borrow` has it. Raises DeviceError."""
    # A ROCm build of torch calls its devices cuda too.
    here = tensor.device.type == "cuda" and tensor.device.index == ordinal
    if not here or not tensor.numel():
        raise DeviceError(
            f"cannot borrow a tensor of shape {tuple(tensor.shape)} on {tensor.device}: it must be on cuda:{ordinal} "
            "and not empty"
        )
    return DeviceBuffer(tensor.data_ptr(), span_elements(tensor) * tensor.element_size(), tensor)
