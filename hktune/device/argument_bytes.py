"""Kernel arguments as the bytes that a launch hands over: the same on every device."""

from __future__ import annotations

import struct

from hktune.core.errors import DeviceError
from hktune.core.launch import Argument
from hktune.device.device import Buffer

_PACK = {"u32": "<I", "i32": "<i", "u64": "<Q", "f32": "<f", "pointer": "<Q"}


def pack_argument(argument: Argument, value: Buffer | int | float | None) -> bytes:
    """`value` as the kernel sees it: a Buffer as its address, None as the null pointer, a number scaled.

    Raises DeviceError when it does not fit the argument.
    """
    number = argument.constant
    if number is None:
        if isinstance(value, (int, float)) == (argument.kind == "pointer"):
            raise DeviceError(f"argument {argument.name} is a {argument.kind}: {type(value).__name__} does not fit")
        number = value * argument.scale if isinstance(value, (int, float)) else 0 if value is None else value.address
    try:
        return struct.pack(_PACK[argument.kind], number)
    except (struct.error, OverflowError) as error:
        raise DeviceError(f"argument {argument.name} is a {argument.kind}: {number} does not fit ({error})") from error
