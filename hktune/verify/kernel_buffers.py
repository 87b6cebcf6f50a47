"""What the buffers of any kernel hold before it runs, and what is wrong with what they hold afterwards.

Buffers are arrays of bit patterns or of numpy's own numbers, in the form in which the kernel finds them in memory.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hktune.core.errors import InputError
from hktune.core.escaped import shown
from hktune.core.outside_file import FileKind
from hktune.device.device import HostArray
from hktune.verify.kernel_arguments import ELEMENT_BYTES, FLOATS, INTEGER_BYTES, Parameter, integer, number_of

Numbers = npt.NDArray[Any]

BUFFER_BYTES_MAX = 1 << 28  # of all buffers: more than the emulator gets through
ARRAY_FILE = FileKind("an array", BUFFER_BYTES_MAX, InputError, "write it with numpy.save")
_RANGE = re.compile(r"(-?[0-9]{1,19})\.\.(-?[0-9]{1,19})\Z")
_WORDS = {"zeros": 0, "ones": 1}
_FILLS = "zeros, ones, a number, arange, normal, uniform, LEAST..MOST (integers) or @FILE.npy"

# torch.testing.assert_close: the relative and the absolute difference that is allowed, by type.
_TOLERANCES = {"f16": (1e-3, 1e-5), "bf16": (1.6e-2, 1e-5), "f32": (1.3e-6, 1e-5), "f64": (1e-7, 1e-7)}
_SMALL_FLOAT_STEPS = 1  # of a format of 8 bits: half a step of rounding on either side


def filled_buffers(
    buffers: Mapping[str, Parameter], numbers: Mapping[str, int | float], seed: int, poison: int
) -> dict[str, HostArray]:
    """The first content of every buffer; what must be written holds a pattern of its own, another for each `poison`.
    Raises InputError."""
    random = np.random.default_rng(seed)
    arrays: dict[str, HostArray] = {}
    left = BUFFER_BYTES_MAX
    for name, parameter in buffers.items():
        if parameter.value.startswith("@"):
            arrays[name] = _from_file(parameter, _shape(parameter, numbers))
        else:
            shape = _shape(parameter, numbers)
            left -= math.prod(shape) * ELEMENT_BYTES[parameter.type]
            if left < 0:
                rule = f"buffers have at most {BUFFER_BYTES_MAX} bytes together"
                raise InputError(f"{parameter.where} has the sizes {list(shape)}: {rule}: make it smaller")
            arrays[name] = _content(parameter, shape, random, poison)
    return arrays


def unwritten_bits(kind: str, poison: int = 0) -> int:
    """The bits of an element that was never written: a NaN that nothing computes, where the type has one."""
    dtype = FLOATS.get(kind)
    if dtype and not poison:
        return dtype.poison_bits
    byte = 0xD5 if not poison else 0x2A
    return int.from_bytes([byte] * ELEMENT_BYTES[kind], "little")


def has_own_poison(kind: str) -> bool:
    """Whether a kernel never computes what `unwritten_bits` are."""
    return kind in ("f16", "bf16", "f32")


def unwritten(array: HostArray, kind: str, poison: int) -> npt.NDArray[np.bool_]:
    """Which elements of an output still hold what was there before."""
    bits = array.view(f"u{ELEMENT_BYTES[kind]}")
    found: npt.NDArray[np.bool_] = bits == bits.dtype.type(unwritten_bits(kind, poison))
    return found


def values_of(array: HostArray, kind: str) -> Numbers:
    """The numbers of a buffer: float32 or float64 of a format that numpy lacks, integers as they are."""
    if kind == "f64" or kind in INTEGER_BYTES:
        return array.view(f"{'f8' if kind == 'f64' else kind[0] + str(INTEGER_BYTES[kind])}")
    with np.errstate(invalid="ignore"):  # of NaNs that signal
        return FLOATS[kind].values(array.view(f"u{ELEMENT_BYTES[kind]}"))


def native(array: HostArray, kind: str) -> HostArray:
    """The buffer as numpy's own numbers, or as bits of a format that numpy lacks."""
    if kind in INTEGER_BYTES:
        return array.view(f"{kind[0]}{INTEGER_BYTES[kind]}")
    return array.view(f"f{ELEMENT_BYTES[kind]}") if kind in ("f16", "f32", "f64") else array


def stored(values: Numbers, kind: str) -> HostArray:
    """Numbers as a buffer of the type `kind` holds them: rounded, unless they are bits of its width already."""
    if kind in INTEGER_BYTES:
        return np.ascontiguousarray(values).astype(f"{kind[0]}{INTEGER_BYTES[kind]}")
    if kind == "f64":
        return np.ascontiguousarray(values, np.float64)
    is_bits = values.dtype.kind in "uV" and values.dtype.itemsize == ELEMENT_BYTES[kind]
    if is_bits:
        return np.ascontiguousarray(values).view(f"u{ELEMENT_BYTES[kind]}")
    return FLOATS[kind].bits(np.asarray(values, np.float32))


def difference(got: HostArray, want: Numbers, kind: str, tolerance: tuple[float, float] | None) -> str | None:
    """What is wrong with a buffer that should hold `want`, or None. `tolerance` is relative and absolute; without one
    it is that of torch.testing.assert_close for the type."""
    found, wanted = values_of(got, kind).reshape(-1), np.asarray(want).reshape(-1)
    if found.shape != wanted.shape:
        return f"has {found.size} elements, and {wanted.size} are expected"
    if found.dtype.kind in "iu" and wanted.dtype.kind in "iub" and tolerance is None:
        wrong, off = found != wanted, None
    else:
        a, b = found.astype(np.float64), wanted.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            off = np.abs(a - b)
            near = np.isfinite(off) & (off <= _allowed(b, kind, tolerance))
            wrong = ~((a == b) | near | (np.isnan(a) & np.isnan(b)))
    if not wrong.any():
        return None
    at = int(np.flatnonzero(wrong)[0])
    first = [int(i) for i in np.unravel_index(at, np.shape(want) or (1,))]
    line = f"{int(wrong.sum())} of {wrong.size} elements wrong, first {first}: {found[at]:.6g} instead of "
    line += f"{wanted[at]:.6g}"
    if off is not None and np.isfinite(off[wrong]).any():
        line += f"; the largest difference is {np.nanmax(np.where(wrong & np.isfinite(off), off, 0)):.3g}"
    return line


def _allowed(want: Numbers, kind: str, tolerance: tuple[float, float] | None) -> Numbers:
    dtype = FLOATS.get(kind)
    if tolerance is None and dtype is not None and kind not in _TOLERANCES:  # one step of a format of 8 bits
        step = 2.0 ** (1 - dtype.significand_bits)
        least: Numbers = np.maximum(np.abs(want), 2.0**dtype.exponent_min) * step * _SMALL_FLOAT_STEPS
        return least
    relative, absolute = tolerance or _TOLERANCES.get(kind, (0.0, 0.0))
    allowed: Numbers = absolute + relative * np.abs(want)
    return allowed


def read_array(path: Path) -> Numbers:
    """The array of a .npy file. Raises InputError."""
    data = ARRAY_FILE.read(path)
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = header[version](file)
        count = math.prod(shape)
    except Exception:  # numpy reads the header as Python text, which may be wrong in any way
        raise ARRAY_FILE.broken(path, "not a .npy file of numbers") from None
    if dtype.hasobject or dtype.itemsize == 0 or count * dtype.itemsize != len(data) - file.tell():
        raise ARRAY_FILE.broken(path, f"{len(data)} bytes do not hold {list(shape)} of {dtype}")
    shaped: Numbers = np.frombuffer(data, dtype, count, file.tell()).reshape(shape, order="F" if fortran else "C")
    return shaped


def _from_file(parameter: Parameter, shape: tuple[int, ...]) -> HostArray:
    path = Path(parameter.value.removeprefix("@"))
    values = read_array(path)
    if values.dtype.kind not in "iufbV" or (values.dtype.kind == "V" and values.dtype.fields):
        raise InputError(f"{parameter.where}: {path} holds {values.dtype}: give integers, floats or bits")
    if shape and shape != values.shape:
        raise InputError(f"{parameter.where} has the sizes {list(shape)}, and {path} {list(values.shape)}: correct one")
    return stored(values, parameter.type)


def _shape(parameter: Parameter, numbers: Mapping[str, int | float]) -> tuple[int, ...]:
    """The sizes of a buffer as it is stored: two neighbours of mxfp4 are one."""
    sizes = [integer(size, numbers, 1, BUFFER_BYTES_MAX) for size in parameter.dimensions]
    packed = FLOATS[parameter.type].packed if parameter.type in FLOATS else 1
    if sizes and sizes[-1] % packed:
        rule = f"{packed} elements of {parameter.type} share a byte"
        raise InputError(f"{parameter.where} has the sizes {sizes}: {rule}: the last must be a multiple of {packed}")
    return (*sizes[:-1], sizes[-1] // packed) if sizes else ()


def _content(parameter: Parameter, shape: tuple[int, ...], random: np.random.Generator, poison: int) -> HostArray:
    kind, size = parameter.type, ELEMENT_BYTES[parameter.type]
    if parameter.way == "out" and not parameter.value:
        return np.full(shape, unwritten_bits(kind, poison), f"u{size}")
    if FLOATS.get(kind) and FLOATS[kind].packed > 1:
        if parameter.value:
            raise InputError(f"{parameter.where}: {kind} is random, or comes from a file of its bytes")
        return random.integers(0, 256, shape).astype(np.uint8)
    return stored(_numbers(parameter, shape, random), kind)


def _numbers(parameter: Parameter, shape: tuple[int, ...], random: np.random.Generator) -> Numbers:
    """What `parameter.value` says, or standard normal numbers, or small integers."""
    text, whole = parameter.value, parameter.type in INTEGER_BYTES
    number = _WORDS[text] if text in _WORDS else number_of(text)
    if number is not None:
        return np.full(shape, number)
    if text == "arange":
        return np.arange(math.prod(shape)).reshape(shape)
    if text == "uniform" and not whole:
        return random.random(shape, np.float32)
    span = _RANGE.match(text) or (_RANGE.match("0..99") if whole and not text else None)
    if span is not None and int(span[1]) <= int(span[2]) < 2**63 and int(span[1]) >= -(2**63):
        return random.integers(int(span[1]), int(span[2]), shape, endpoint=True)
    if whole or text not in ("", "normal"):
        raise InputError(f"{parameter.where}={shown(text)}: a buffer holds {_FILLS}")
    return random.standard_normal(shape, np.float32)
