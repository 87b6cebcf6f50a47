"""A launch made ready for many calls that differ in their tensors only: what production pays for each is the call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hktune.core.errors import DeviceError
from hktune.core.launch import Argument, Launch
from hktune.device.device import CALL_OPERANDS, Buffer, Device, Kernel


class BoundLaunch:
    """A prepared launch on any device: the numbers stay bound, the tensors are borrowed for each call."""

    def __init__(
        self,
        device: Device,
        kernel: Kernel,
        launch: Launch,
        numbers: Mapping[str, int],
        operands: Sequence[str] = CALL_OPERANDS,
    ) -> None:
        self._device = device
        self._kernel = kernel
        self._launch = launch
        self._numbers = {name: value for name, value in numbers.items() if launch.takes(name)}
        pointers = [argument for argument in launch.bound_arguments if argument.kind == "pointer"]
        self._places = {argument.name: place_among(operands, argument) for argument in pointers}

    def __call__(self, *tensors_and_stream: Any) -> None:
        binding: dict[str, Buffer | int | float | None] = {**self._numbers}
        for name, place in self._places.items():
            tensor = tensors_and_stream[place]
            binding[name] = None if tensor is None else self._device.borrow(tensor)
        self._device.launch(self._kernel, self._launch, binding, tensors_and_stream[-1])


def place_among(operands: Sequence[str], argument: Argument) -> int:
    """The place of a pointer's tensor in the calls of a prepared launch. Raises DeviceError where it does not."""
    if argument.name not in operands:
        raise DeviceError(f"argument {argument.name} is no operand of a prepared launch: these are {tuple(operands)}")
    return operands.index(argument.name)
