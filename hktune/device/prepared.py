"""A launch made ready for many calls that differ in their tensors only: what production pays for each is the call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hktune.core.launch import Launch
from hktune.device.device import Buffer, Device, Kernel

if TYPE_CHECKING:
    from torch import Tensor


class BoundLaunch:
    """A prepared launch on any device: the numbers stay bound, the tensors are borrowed for each call."""

    def __init__(self, device: Device, kernel: Kernel, launch: Launch, numbers: Mapping[str, int]) -> None:
        self._device = device
        self._kernel = kernel
        self._launch = launch
        self._numbers = {name: value for name, value in numbers.items() if launch.takes(name)}
        self._optional = [name for name in ("bias", "workspace") if launch.takes(name)]

    def __call__(
        self,
        a: Tensor,
        b: Tensor,
        c: Tensor,
        bias: Tensor | None,
        workspace: Tensor | None,
        stream: int | None,
    ) -> None:
        borrow = self._device.borrow
        binding: dict[str, Buffer | int | float | None] = {**self._numbers}
        binding["a"], binding["b"], binding["c"] = borrow(a), borrow(b), borrow(c)
        for name in self._optional:
            tensor = bias if name == "bias" else workspace
            binding[name] = None if tensor is None else borrow(tensor)
        self._device.launch(self._kernel, self._launch, binding, stream)
