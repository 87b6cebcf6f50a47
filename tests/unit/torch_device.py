"""Stand-ins of devices whose kernels are torch on the host: of the emulated one, a thousand times as fast, and what
tests make their own of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hktune.core.launch import Launch
from hktune.core.operand import operands_of
from hktune.device.device import Binding, Kernel
from hktune.device.emulated import EmulatedBuffer, EmulatedDevice


class TorchDevice(EmulatedDevice):
    """Loads and checks kernels as the emulated device does. What is launched is the product in float32, times `factor`,
    rounded once: a right kernel's, or with another factor than 1 a wrong one's. Row strides must be given."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.launched: list[str] = []
        """The operation of each launch."""

    def launch(self, kernel: Kernel, launch: Launch, binding: Binding, stream: int | None = None) -> None:
        del kernel, stream
        operation = launch.operation
        self.launched.append(str(operation))
        sizes = {"m": launch.grid[1], "n": int(_number(binding, "n")), "k": int(_number(binding, "k"))}
        tensors: dict[str, Tensor] = {}
        for name, operand in operands_of(operation).items():
            held = binding[name]
            assert isinstance(held, EmulatedBuffer)
            shape = operand.shape(sizes)
            stride = binding.get(operand.row_stride) or shape[-1]
            flat = torch.frombuffer(memoryview(held.data), dtype=getattr(torch, operand.dtype.torch_name))
            tensors[name] = flat.as_strided(shape, (int(_given(stride)), 1)[-len(shape) :])
        a = tensors["a"] if operation.layout[0] == "n" else tensors["a"].t()
        b = tensors["b"] if operation.layout[1] == "n" else tensors["b"].t()
        out = self.factor * (a.float() @ b.float())
        if operation.has_bias:
            out += tensors["bias"].float()
        if operation.accumulates:
            out += tensors["c"].float()
        tensors["c"].copy_(out)


def _number(binding: Binding, name: str) -> int:
    return _given(binding[name])


def _given(value: object) -> int:
    assert isinstance(value, int)
    return value


class TorchMemory:
    """The buffers of a device, for either judge: bytes of torch's on the host. Work is done when it is asked for."""

    def allocate(self, size_bytes: int) -> Any:
        return SimpleNamespace(memory=torch.zeros(size_bytes, dtype=torch.uint8), address=0)

    def borrow(self, tensor: Tensor) -> Any:
        return SimpleNamespace(memory=tensor.reshape(-1).view(torch.uint8), address=0)

    def write(self, buffer: Any, data: np.ndarray) -> None:
        buffer.memory[:] = torch.from_numpy(data.reshape(-1).view(np.uint8).copy())

    def read(self, buffer: Any, out: np.ndarray) -> None:
        out.view(np.uint8)[:] = buffer.memory.numpy()

    def synchronize(self) -> None: ...
