"""The argument struct of any kernel, made of what describes its arguments and of where their buffers are.

Structs are laid out as C++ does on AMD GPUs (Itanium C++ ABI): each field at a multiple of its alignment, and the whole
a multiple of the largest.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hktune.core.errors import InputError
from hktune.objects.code_object import ArgumentSlot, KernelImage
from hktune.objects.demangled import kernel_name
from hktune.verify.kernel_arguments import Parameter, number_bytes

_POINTER_BYTES = 8
_KINDS = {True: ("global_buffer",), False: ("by_value",)}  # a struct of one pointer is either: compilers flatten it
_SCRATCH_POINTERS_MAX = 2  # Triton's global scratch and profile scratch, the last arguments of its kernels


@dataclass(frozen=True)
class Values:
    """What the arguments are filled with: addresses and sizes of buffers by name, and the numbers that were given."""

    addresses: Mapping[str, int]
    shapes: Mapping[str, Sequence[int]]
    numbers: Mapping[str, int | float]


@dataclass(frozen=True)
class Packed:
    """One argument as bytes, and its alignment."""

    data: bytes
    align: int


def packed(parameter: Parameter, values: Values) -> Packed:
    """`parameter` as the kernel sees it. Raises InputError."""
    if parameter.kind == "struct":
        return _joined([packed(each, values) for each in parameter.fields])
    if parameter.kind == "bytes":
        return Packed(bytes.fromhex(parameter.value), 1)
    if parameter.kind == "gl":
        return _global_layout(parameter, values)
    if parameter.kind == "number":
        data = number_bytes(parameter, values.numbers)
    else:
        data = struct.pack("<Q", 0 if parameter.kind == "null" else values.addresses[parameter.name])
    return Packed(data, len(data))


def _joined(fields: Sequence[Packed]) -> Packed:
    data, align = b"", max(each.align for each in fields)
    for each in fields:
        data = data.ljust(-(-len(data) // each.align) * each.align, b"\0") + each.data
    return Packed(data.ljust(-(-len(data) // align) * align, b"\0"), align)


def _global_layout(parameter: Parameter, values: Values) -> Packed:
    """kittens::gl: the pointer, batch, depth, rows and columns as size_t, and an empty dictionary of descriptors. A
    size that is a template argument is an empty struct."""
    sizes, compiled = list(values.shapes[parameter.name]), list(parameter.compiled)
    missing = 4 - len(sizes)
    compiled = [bool(compiled) and all(compiled)] * missing + (compiled or [False] * len(sizes))
    one_byte = Packed(b"\0", 1)
    fields = [Packed(struct.pack("<Q", values.addresses[parameter.name]), _POINTER_BYTES)]
    for size, fixed in zip([1] * missing + sizes, compiled, strict=True):
        fields.append(one_byte if fixed else Packed(struct.pack("<Q", size), _POINTER_BYTES))
    return _joined([*fields, one_byte])


def argument_struct(
    image: KernelImage, parameters: Sequence[Parameter], values: Values, scratch: Sequence[int] = ()
) -> bytes:
    """The kernel's argument struct; what no argument fills is zero. `scratch` are addresses for the pointers that
    Triton adds to a kernel's arguments, where the kernel has such and they are not given. Raises InputError where the
    arguments do not fit the kernel."""
    parts = [packed(parameter, values) for parameter in parameters]
    slots = [slot for slot in image.explicit if not slot.hidden]
    spare = spare_pointers(image, parameters)
    if any(parameter.offset_bytes is not None for parameter in parameters):
        places = _given_places(image, parameters, parts)
    elif slots:
        places = _slots_of(image, slots[: len(slots) - spare], parameters, parts)
    else:
        places = _in_order(image, parts)
    data = bytearray(image.kernarg_bytes)
    for at, part in zip(places, parts, strict=True):
        data[at : at + len(part.data)] = part.data
    for slot, address in zip(slots[len(slots) - spare :], scratch, strict=False):
        struct.pack_into("<Q", data, slot.offset_bytes, address)
    return bytes(data)


def spare_pointers(image: KernelImage, parameters: Sequence[Parameter]) -> int:
    """How many pointers at the end of a kernel's arguments are Triton's own: those beyond the given ones. Triton gives
    its arguments no names."""
    slots = [slot for slot in image.explicit if not slot.hidden]
    spare = len(slots) - len(parameters)
    ours = slots[len(parameters) :]
    nameless = all(_is_pointer(slot) and not slot.name for slot in ours)
    return spare if 0 < spare <= _SCRATCH_POINTERS_MAX and nameless else 0


def _is_pointer(slot: ArgumentSlot) -> bool:
    return slot.value_kind == "global_buffer" and slot.size_bytes == _POINTER_BYTES


def _kind(parameter: Parameter) -> str:
    """What an argument is, in a message."""
    if parameter.kind in ("buffer", "null"):
        return "pointer"
    return parameter.type if parameter.kind == "number" else parameter.kind


def _slots_of(
    image: KernelImage, slots: Sequence[ArgumentSlot], parameters: Sequence[Parameter], parts: Sequence[Packed]
) -> list[int]:
    """The places that the code object's metadata name, in order."""
    if len(slots) != len(parts):
        raise InputError(
            f"{kernel_name(image.symbol)} takes {len(slots)} arguments, the launch gives {len(parts)}: correct --args"
        )
    for slot, parameter, part in zip(slots, parameters, parts, strict=True):
        _check_slot(image, slot, parameter, part)
    return [slot.offset_bytes for slot in slots]


def _check_slot(image: KernelImage, slot: ArgumentSlot, parameter: Parameter, part: Packed) -> None:
    pointer = parameter.kind in ("buffer", "null")
    kinds = ("global_buffer", "by_value") if parameter.kind in ("struct", "gl", "bytes") else _KINDS[pointer]
    if slot.size_bytes != len(part.data) or slot.value_kind not in kinds:
        size = "" if pointer or parameter.kind == "number" else f" of {len(part.data)} bytes"
        name = kernel_name(image.symbol)
        raise InputError(
            f"{name} takes {slot.value_kind} of {slot.size_bytes} bytes at offset {slot.offset_bytes}, "
            f"the launch gives {parameter.name} ({_kind(parameter)}{size}): correct --args"
        )


def _given_places(image: KernelImage, parameters: Sequence[Parameter], parts: Sequence[Packed]) -> list[int]:
    places = [parameter.offset_bytes for parameter in parameters]
    end = 0
    for at, parameter, part in sorted(zip(places, parameters, parts, strict=True), key=lambda each: each[0] or 0):
        if at is None:
            raise InputError(f"argument {parameter.name} has no @OFFSET: give one to all arguments, or to none")
        if at < end or at + len(part.data) > image.kernarg_bytes:
            rule = (
                f"arguments must not overlap, and {kernel_name(image.symbol)} has {image.kernarg_bytes} bytes of them"
            )
            raise InputError(f"argument {parameter.name}@{at} has {len(part.data)} bytes: {rule}: correct --args")
        end = at + len(part.data)
    return [at for at in places if at is not None]


def _in_order(image: KernelImage, parts: Sequence[Packed]) -> list[int]:
    """One after another, of a kernel whose metadata do not say what it takes."""
    places, end = [], 0
    for part in parts:
        at = -(-end // part.align) * part.align
        places.append(at)
        end = at + len(part.data)
    if end > image.kernarg_bytes:
        raise InputError(
            f"{kernel_name(image.symbol)} has {image.kernarg_bytes} bytes of arguments, not {end}: correct --args"
        )
    return places
