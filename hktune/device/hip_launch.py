"""How arguments reach the HIP runtime, and a launch made ready: packed once, of which a call fills in the pointers."""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from ctypes import c_size_t, c_void_p
from typing import Any

from hktune.core.launch import Launch
from hktune.device.amd_launch import explicit_bytes
from hktune.device.prepared import place_among
from hktune.objects.code_object import KernelImage

# The markers of hipModuleLaunchKernel's `extra`, in the one order that it takes; CUDA's end marker is 0, HIP's is not.
_BUFFER_POINTER, _BUFFER_SIZE, _END = 1, 2, 3
_pack_pointer = struct.Struct("<Q").pack_into


class KernelArguments:
    """The kernarg segment of one launch, and `extra`, which points to it. The runtime copies the bytes when it is
    called, also into a graph."""

    def __init__(self, image: KernelImage, segment: bytes) -> None:
        buffer = ctypes.create_string_buffer(segment, len(segment) or 1)
        # The runtime fills in the hidden arguments, and refuses a kernel without arguments any bytes of them.
        ends = (slot.offset_bytes + slot.size_bytes for slot in image.arguments if not slot.hidden)
        self._size = c_size_t(max(ends, default=0))
        self.values = memoryview(buffer).cast("B")  # keeps the buffer
        self.extra = (c_void_p * 5)(
            _BUFFER_POINTER, ctypes.addressof(buffer), _BUFFER_SIZE, ctypes.addressof(self._size), _END
        )
        self.extra_address = c_void_p(ctypes.addressof(self.extra))


class PreparedHipLaunch:
    """A `PreparedLaunch`. `start` launches on a stream with the `extra` at an address; the device must be the thread's
    current one, as it is while torch works on it."""

    def __init__(
        self,
        start: Callable[[c_void_p, c_void_p], None],
        image: KernelImage,
        launch: Launch,
        numbers: Mapping[str, int],
        operands: Sequence[str],
    ) -> None:
        self._start = start
        self._streams: dict[int | None, c_void_p] = {}
        binding = {
            argument.name: None if argument.kind == "pointer" else numbers.get(argument.name)
            for argument in launch.bound_arguments
        }
        self._arguments = _EachThreads(image, explicit_bytes(image, launch.arguments, binding))
        self._pointers = [
            (place_among(operands, argument), slot.offset_bytes)
            for slot, argument in image.filled(launch.arguments)
            if argument.kind == "pointer" and argument.is_bound
        ]

    def __call__(self, *tensors_and_stream: Any) -> None:
        arguments = self._arguments
        for place, offset in self._pointers:
            tensor = tensors_and_stream[place]
            _pack_pointer(arguments.values, offset, 0 if tensor is None else tensor.data_ptr())
        stream = tensors_and_stream[-1]
        handle = self._streams.get(stream)
        if handle is None:
            handle = self._streams.setdefault(stream, c_void_p(stream))
        self._start(handle, arguments.extra_address)


class _EachThreads(threading.local, KernelArguments):
    """Arguments of which every thread has its own copy."""
