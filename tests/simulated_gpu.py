"""A GPU without hardware for what times and compares: its kernels are Python functions, its time is what they say.

Work runs on torch's CPU tensors when its turn comes on the one stream, captured work with every replay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch.overrides import TorchFunctionMode

from hktune.core.errors import DeviceError, KernelFault
from hktune.core.identity import Identity
from hktune.core.launch import Launch
from hktune.core.problem import Problem
from hktune.device.device import Clocks
from hktune.measure.arena import OperandSet

Multiply = Callable[[OperandSet], None]
Work = tuple[float, Callable[[], None], float]
STEADY = Clocks(sm_mhz=1980, power_w=300.0)


def multiply(operands: OperandSet, layout: str = "nt") -> None:
    """c = a b + bias, in float32, rounded once."""
    a, b = operands["a"].float(), operands["b"].float()
    product = (a if layout[0] == "n" else a.T) @ (b if layout[1] == "n" else b.T)
    operands["c"].copy_(product + operands["bias"].float() if "bias" in operands else product)


def multiply_less(operands: OperandSet) -> None:
    """The product without the second half of k: what a kernel computes that leaves steps out."""
    half = operands["a"].shape[1] // 2
    operands["c"].copy_(operands["a"][:, :half].float() @ operands["b"][:, :half].float().T)


def refuse(operands: OperandSet) -> None:
    raise DeviceError("too many resources requested for launch")


def fault(operands: OperandSet) -> None:
    raise KernelFault("crashed", "illegal address")


@dataclass(frozen=True)
class SimulatedKernel:
    """What it does to a set of operands, and how long a launch takes."""

    symbol: str
    compute: Multiply
    time_us: float


@dataclass
class SimulatedGpu:
    """TimedDevice with one stream. The host takes `host_us` for each call, and the stream waits for it; `now_us` is
    when the stream has done all that it has. `waited` and `clocks_read` count what the host asked for.

    Its board draws `idle_w`, and more during a launch that says so. The counter of that is updated every `update_us`,
    and a reading takes `reading_us`; an `update_us` of 0 stands for a board without one."""

    identity: ClassVar[Identity] = Identity("cuda", "sm90a", "a simulated GPU", 132, "10de:ffff:0000")
    host_us: float = 0.0
    last_level_cache_bytes: int = 1 << 16
    now_us: float = 0.0
    host_now_us: float = 0.0
    waited: int = 0
    clocks_read: int = 0
    capturing: list[Work] | None = None
    streams: list[int] = field(default_factory=list)
    sensors: Clocks = STEADY
    update_us: float = 0.0
    idle_w: float = 100.0
    reading_us: float = 0.0
    spans: deque[tuple[float, float, float]] = field(default_factory=deque)
    drawn_uj: float = 0.0

    def borrow(self, tensor: torch.Tensor) -> Any:
        return SimpleNamespace(tensor=tensor, address=tensor.data_ptr(), size_bytes=tensor.nbytes)

    def launch(self, kernel: SimulatedKernel, launch: Launch, binding: Any, stream: int | None = None) -> None:
        assert {argument.name for argument in launch.arguments} == set(binding), "all that it takes and no more"
        tensors = {name: buffer.tensor for name, buffer in binding.items() if buffer is not None}
        self.queue(kernel.time_us, lambda: kernel.compute(tensors))

    def queue(self, time_us: float, run: Callable[[], None] = lambda: None, more_w: float = 0.0) -> None:
        """Put work on the stream, which draws `more_w` more than nothing does."""
        if self.capturing is not None:
            self.capturing.append((time_us, run, more_w))
        else:
            run()
            self._call(time_us, more_w)

    def _call(self, time_us: float, more_w: float = 0.0) -> None:
        """What the host asks of the stream, which takes `time_us` from when it has heard of it."""
        self.host_now_us += self.host_us
        begins_us = max(self.now_us, self.host_now_us)
        self.now_us = begins_us + time_us
        if more_w:
            self.spans.append((begins_us, self.now_us, more_w))

    def create_stream(self) -> int:
        self.streams.append(len(self.streams) + 1)
        return self.streams[-1]

    def record(self, stream: int) -> float:
        assert stream in self.streams
        self._call(0.0)
        return self.now_us

    def elapsed_us(self, start: float, end: float) -> float:
        self.waited += 1
        self.host_now_us = max(self.host_now_us, end)
        return end - start

    def capture(self, enqueue: Callable[[], None], stream: int) -> list[Work]:
        self.capturing = []
        try:
            enqueue()
            return self.capturing
        finally:
            self.capturing = None

    def replay(self, graph: list[Work], stream: int) -> None:
        for _, run, _ in graph:
            run()
        time_us = sum(time_us for time_us, _, _ in graph)
        self._call(time_us, sum(time_us * more_w for time_us, _, more_w in graph) / time_us if time_us else 0.0)

    def synchronize(self) -> None: ...

    def clocks(self) -> Clocks:
        self.clocks_read += 1
        return self.sensors

    def energy_j(self) -> float | None:
        """What was drawn up to the counter's last update, whatever is still queued."""
        self.host_now_us += self.host_us + self.reading_us
        if not self.update_us:
            return None
        until_us = self.host_now_us // self.update_us * self.update_us
        while self.spans and self.spans[0][1] <= until_us:
            begin, end, more_w = self.spans.popleft()
            self.drawn_uj += (end - begin) * more_w
        begun = self.spans[0] if self.spans else (until_us, until_us, 0.0)
        return (self.drawn_uj + max(until_us - begun[0], 0.0) * begun[2] + until_us * self.idle_w) * 1e-6


@dataclass(frozen=True)
class SimulatedVendor:
    """A baseline on a simulated GPU: right, and `time_us` a launch."""

    gpu: SimulatedGpu
    time_us: float
    name: str = "a simulated library 1.0"

    def prepare(self, problem: Problem, operands: OperandSet, stream: int) -> Multiply:
        layout = problem.operation.layout
        return lambda operands: self.gpu.queue(self.time_us, lambda: multiply(operands, layout))


class _OnCpu(TorchFunctionMode):
    """Within it, what is asked for on `cuda` is on the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        if str(named.get("device")).startswith("cuda"):
            named["device"] = "cpu"
        return func(*args, **named)


@contextmanager
def torch_without_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within it, torch takes its CPU for a CUDA device whose streams run everything at once."""
    import torch.distributed.tensor  # torch.testing does so at its first use; it must not meet the generator below

    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": generator("cpu"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda stream: SimpleNamespace(synchronize=lambda: None))
    monkeypatch.setattr(torch.cuda, "MemPool", lambda: None)
    monkeypatch.setattr(torch.cuda, "use_mem_pool", lambda pool: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    chosen = ["cublas"]

    def library(word: str | None = None) -> str:
        chosen.append(word or chosen[-1])
        return chosen[-1]

    monkeypatch.setattr(torch.backends.cuda, "preferred_blas_library", library)
    with _OnCpu():
        yield
    assert chosen[-1] == "cublas", "torch's choice of a library is left as it was"
