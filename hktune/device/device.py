"""The Device protocol: what the tuner and the runtime ask of any device, real or emulated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from hktune.core.identity import Identity
from hktune.core.launch import Launch

if TYPE_CHECKING:
    import torch

HostArray = npt.NDArray[np.generic]
"""What is copied to a device and from it: numbers of any format, whose bytes it takes."""


class Buffer(Protocol):
    """Device memory. `address` is what a kernel sees; the memory lives as long as the Buffer."""

    @property
    def address(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...


class Kernel(Protocol):
    """A loaded kernel of one code object; unloaded when the last reference goes."""

    @property
    def symbol(self) -> str: ...


Binding = Mapping[str, "Buffer | int | float | None"]
"""What fills a launch's arguments, by `Argument.name`; None is a null pointer. A missing or unused name is an error."""


PreparedLaunch: TypeAlias = Callable[..., None]
"""A launch that lacks only tensors, of torch: called with them in the order that `Device.prepare` was given, and then
with the stream. The caller answers for them: contiguous or as the bound numbers say, on the device, which is the
thread's current one, and aligned. One that the launch does not take, or takes as a null pointer, is None. Keeps its
kernel loaded."""

CALL_OPERANDS = ("a", "b", "c", "bias", "workspace")
"""The tensors of a call of a linear layer, as prepared launches take them."""
SCALED_OPERANDS = ("a", "b", "c", "bias", "scale_a", "scale_b", "workspace")
"""Those of a product with scales."""
SEVERAL_OPERANDS = ("a", "b", "c", "bias", "offsets", "workspace")
"""Those of several products."""
END_OPERANDS = ("residual", "alpha", "beta", "scale_c")
"""What of these an operation has follows them."""


class Device(Protocol):
    """One device. Calls may come from several threads; none of them changes an argument.

    Every method raises DeviceError (one line: the rule, the value, the next step) when the device refuses or faults.
    `stream` is the native stream handle (hipStream_t, cuStream_t), None the default; the emulated device ignores it
    and launches synchronously.
    """

    @property
    def identity(self) -> Identity: ...

    def allocate(self, size_bytes: int) -> Buffer: ...

    def write(self, buffer: Buffer, data: HostArray) -> None:
        """Copy host bytes to the start of `buffer`."""

    def read(self, buffer: Buffer, out: HostArray) -> None:
        """Copy the start of `buffer` into `out`; waits for launches before it."""

    def borrow(self, tensor: torch.Tensor) -> Buffer:
        """A torch tensor's own memory from its first element to its last, whatever its strides, as a Buffer without a
        copy; valid while the tensor lives. What is where in it is the launch's to say. Refused are tensors of other
        devices and empty ones."""

    def load(self, data: bytes, symbol: str) -> Kernel:
        """Load a code object. Raises DeviceError when it is for another architecture or lacks `symbol`."""

    def launch(self, kernel: Kernel, launch: Launch, binding: Binding, stream: int | None = None) -> None: ...

    def prepare(
        self,
        kernel: Kernel,
        launch: Launch,
        numbers: Mapping[str, int],
        operands: Sequence[str] = CALL_OPERANDS,
    ) -> PreparedLaunch:
        """`launch` for many calls that differ in their tensors only, which are given in the order of `operands`, their
        names. `numbers` and `operands` may hold more than it takes."""

    def synchronize(self) -> None: ...


@dataclass(frozen=True)
class Clocks:
    """What a GPU's sensors read at one moment; None or empty where it does not tell.

    `throttled` names why its clock is held below what was asked for (power cap, thermal, ...); an idle GPU that saves
    power is not throttled.
    """

    sm_mhz: int | None = None
    memory_mhz: int | None = None
    power_w: float | None = None
    temperature_c: int | None = None
    throttled: tuple[str, ...] = ()


class Event(Protocol):
    """A moment on a stream, once the work before it is done; destroyed with the last reference."""


class Graph(Protocol):
    """Captured work, ready to be launched again and again; destroyed with the last reference."""


class GraphLife(Protocol):
    """How long a captured graph lives."""

    @property
    def is_over(self) -> bool:
        """Whether the graph is destroyed, with every executable one that was made of it."""


@dataclass(frozen=True)
class Capture:
    """What a stream is being captured into. No other capture of the process has this `number`. `life` may be called
    until the capture ends; it raises DeviceError where the driver refuses."""

    number: int
    life: Callable[[], GraphLife]


@runtime_checkable
class CapturedDevice(Device, Protocol):
    """A device that says which graph a launch is captured into."""

    def captured_by(self, stream: int) -> Capture | None:
        """What `stream` is being captured into, or None."""


@runtime_checkable
class TimedDevice(Device, Protocol):
    """A real device, which a stopwatch can time on. Streams are native handles, as for `Device.launch`.

    Capture, record and replay are for one thread at a time. All raise DeviceError or KernelFault as Device does.
    """

    @property
    def last_level_cache_bytes(self) -> int:
        """The largest cache between compute units and memory: what `cold` operands must exceed."""

    def create_stream(self) -> int:
        """A stream that waits for no other one, not even the default; lives as long as the device."""

    def record(self, stream: int) -> Event:
        """A new event on `stream`, behind the work queued there so far. Does not wait."""

    def elapsed_us(self, start: Event, end: Event) -> float:
        """Device time from `start` to `end`, two events of one stream. Waits for `end`."""

    def capture(self, enqueue: Callable[[], None], stream: int) -> Graph:
        """Call `enqueue` once, and keep what it puts on `stream` instead of running it.

        The graph keeps no buffer or kernel alive: the caller that replays it does.
        """

    def replay(self, graph: Graph, stream: int) -> None:
        """Queue the whole graph on `stream`. Does not wait."""

    def clocks(self) -> Clocks:
        """The sensors now (NVML, AMD SMI); an empty Clocks where they cannot be read."""

    def energy_j(self) -> float | None:
        """What the whole board has drawn since some moment of the past, in joules, as its counter (NVML's, AMD SMI's)
        was last updated: it never falls, and stands still between updates. None where it has none."""
