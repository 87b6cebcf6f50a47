"""Kernel arguments as the bytes that a launch hands over: the same on every device."""

from __future__ import annotations

import struct

from hktune.device.device import Buffer
from hktune.errors import DeviceError
from hktune.model import Argument

_PACK = {"u32": "<I", "i32": "<i", "u64": "<Q", "f32": "<f", "pointer": "<Q"}


def pack_argument(argument: Argument, value: Buffer | int | float) -> bytes:
    """`value` as the kernel sees it, a Buffer as its address. Raises DeviceError when it does not fit the argument."""
    pointer = argument.kind == "pointer"
    if isinstance(value, (int, float)) == pointer:
        raise DeviceError(f"argument {argument.name} is a {argument.kind}: {type(value).__name__} does not fit")
    try:
        return struct.pack(_PACK[argument.kind], value.address if not isinstance(value, (int, float)) else value)
    except struct.error as error:
        raise DeviceError(f"argument {argument.name} is a {argument.kind}: {value} does not fit ({error})") from error
