"""Sums and products as the hardware rounds them: exactly once, to nearest even or in the direction that MODE says.

Float32 and float16: a * b + c is made in float64 and rounded to odd there (Boldo and Melquiond, "Emulation of FMA and
correctly rounded sums", 2008). What is rounded to a narrower type after that, in any direction, is rounded once.
Float64: by the same authors' exact transformations where no step can overflow or lose bits, else by fractions.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from hktune.emulator.instructions.vector_integer import pack16
from hktune.emulator.machine.float_mode import DOWN, NEAREST, TOWARD_ZERO, UP, FloatMode
from hktune.emulator.machine.memory import Array

Operation = Callable[..., Array]

F64 = np.float64
Float: TypeAlias = type[np.floating]
_WIDTHS: dict[str, Float] = {"f16": np.float16, "f32": np.float32, "f64": np.float64}
_SPLIT = F64(2**27 + 1)
_SAFE_BELOW, _SAFE_ABOVE = 2.0**-400, 2.0**400
"""Magnitudes between which products of float64 have exact errors, and no step of a sum overflows."""


def to_odd(a: Array, b: Array, c: Array) -> Array:
    """a * b + c of float32 or float16 in float64, rounded to odd: what is inexact ends in a 1."""
    product, addend = np.multiply(a, b, dtype=F64), np.asarray(c, dtype=F64)
    return _odd_sum(product, addend)


def _odd_sum(a: Array, b: Array) -> Array:
    total = np.asarray(a + b)
    return _made_odd(total, _error_of_sum(a, b, total))


def _error_of_sum(a: Array, b: Array, total: Array) -> Array:
    """What `total`, the rounded sum, lacks."""
    back = total - a
    error: Array = (a - (total - back)) + (b - back)
    return error


def _made_odd(total: Array, error: Array) -> Array:
    bits = np.ascontiguousarray(total).view(np.int64)
    inexact = (error != 0) & np.isfinite(total) & (bits & 1 == 0)
    if not inexact.any():
        return total
    away = np.where((error > 0) == (total > 0), 1, -1)
    return np.where(inexact, bits + away, bits).view(F64)


def fused(a: Array, b: Array, c: Array) -> Array:
    """a * b + c in float32 or float16, to nearest even with one rounding."""
    return to_odd(a, b, c).astype(a.dtype)


def fused_double(a: Array, b: Array, c: Array) -> Array:
    """a * b + c in float64, to nearest even with one rounding."""
    a, b, c = np.broadcast_arrays(a, b, c)
    product = a * b
    error = _error_of_product(a, b, product)
    high = c + error
    low = _error_of_sum(c, error, high)
    total = product + high
    rest = _odd_sum(np.asarray(_error_of_sum(product, high, total)), low)
    result = np.asarray(total + rest)
    safe = np.logical_and.reduce([_is_safe(value) for value in (a, b, c, product)])
    result = np.where(safe, result, product + c)
    simple = (a == 0) | (b == 0) | (c == 0) | ~(np.isfinite(a) & np.isfinite(b) & np.isfinite(c))
    unsafe = ~safe & ~simple
    return _by_fractions(lambda x, y, z: x * y + z, result, unsafe, (a, b, c), NEAREST) if unsafe.any() else result


def _is_safe(value: Array) -> Array:
    magnitude = np.abs(value)
    safe: Array = (magnitude > _SAFE_BELOW) & (magnitude < _SAFE_ABOVE)
    return safe


def _error_of_product(a: Array, b: Array, product: Array) -> Array:
    """What `product`, the rounded product, lacks (Dekker)."""
    (a_high, a_low), (b_high, b_low) = _halved(a), _halved(b)
    error: Array = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return error


def _halved(value: Array) -> tuple[Array, Array]:
    scaled = _SPLIT * value
    high = scaled - (scaled - value)
    return high, value - high


def _by_fractions(
    exact: Callable[..., Fraction], nearest: Array, where: Array, values: tuple[Array, ...], rounding: int
) -> Array:
    """`nearest`, and where `where` says so `exact` of the finite `values`, rounded. An exact 0 stays as it is."""
    result = np.array(nearest)
    for at in zip(*np.nonzero(where), strict=True):
        number = exact(*(Fraction(float(value[at])) for value in values))
        if number:
            result[at] = _directed(number, rounding)
    return result


def _directed(number: Fraction, rounding: int) -> float:
    try:
        near = float(number)
    except OverflowError:
        near = np.inf if number > 0 else -np.inf
    over = near > number if abs(near) == np.inf else Fraction(near) > number
    under = near < number if abs(near) == np.inf else Fraction(near) < number
    toward = rounding if rounding != TOWARD_ZERO else DOWN if number > 0 else UP
    if toward == DOWN and over:
        return float(np.nextafter(near, -np.inf))
    if toward == UP and under:
        return float(np.nextafter(near, np.inf))
    return near or float(np.copysign(0.0, -1.0 if number < 0 else 1.0))


def narrowed(value: Array, dtype: Float, rounding: int, saturates: bool = False) -> Array:
    """float64 `value` (exact, or rounded to odd) in a narrower type; `saturates`: finite values stay finite."""
    near = np.asarray(value).astype(dtype)
    back = near.astype(F64)
    if rounding == UP:
        near = np.where(back < value, np.nextafter(near, near.dtype.type(np.inf)), near)
    elif rounding == DOWN:
        near = np.where(back > value, np.nextafter(near, near.dtype.type(-np.inf)), near)
    elif rounding == TOWARD_ZERO:
        near = np.where(np.abs(back) > np.abs(value), np.nextafter(near, near.dtype.type(0)), near)
    if saturates:
        largest = np.copysign(np.finfo(dtype).max, near)
        near = np.where(np.isinf(near) & np.isfinite(value), largest, near)
    return near


_ADDS: dict[str, Callable[..., tuple[Array, Array, Array]]] = {
    "add": lambda a, b: (a, a.dtype.type(1), b),
    "sub": lambda a, b: (a, a.dtype.type(1), -b),
    "subrev": lambda a, b: (b, b.dtype.type(1), -a),
    "mul": lambda a, b: (a, b, np.copysign(a.dtype.type(0), np.copysign(1, a) * np.copysign(1, b))),
    "fma": lambda a, b, c: (a, b, c),
}
"""Operations as a * b + c. A product's addend is the zero of its sign, which changes nothing."""
_CONVERSIONS: dict[str, Float] = {
    "v_cvt_f16_f32": np.float16,
    "v_cvt_f32_f64": np.float32,
    "v_cvt_f32_i32": np.float32,
    "v_cvt_f32_u32": np.float32,
    "v_cvt_f16_u16": np.float16,
    "v_cvt_f16_i16": np.float16,
}


def round_to_bf16(value: Array, rounding: int = NEAREST) -> Array:
    """float32 to bf16 bits as uint16; a NaN stays a quiet NaN."""
    bits = np.asarray(value).view(np.uint32)
    if rounding == NEAREST:
        more = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    else:
        away = {UP: ~np.signbit(value), DOWN: np.signbit(value)}.get(rounding, np.False_)
        more = np.where(away, np.uint32(0xFFFF), np.uint32(0))
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.where(np.isnan(value), quiet, (bits + more) >> np.uint32(16)).astype(np.uint16)


def in_rounding(name: str, operation: Operation, mode: FloatMode) -> Operation:
    """What `operation`, that of instruction `name`, is in the mode's rounding."""
    if name in _CONVERSIONS:
        return _converted(_CONVERSIONS[name], operation, mode)
    if name == "v_cvt_pk_bf16_f32":
        rounding = mode.rounding_16_64
        return lambda a, b: pack16(round_to_bf16(a, rounding), round_to_bf16(b, rounding))
    if name == "v_cvt_pk_f16_f32":
        narrow = to_half(mode)
        return lambda a, b: pack16(narrow(a), narrow(b))
    kind, _, width = name.removeprefix("v_").removeprefix("pk_").rpartition("_")
    dtype = _WIDTHS.get(width)
    if dtype is None:
        return operation
    if kind == "ldexp":
        return _scaled(dtype, operation, mode)
    return _rounded_sum(_ADDS[kind], dtype, operation, mode) if kind in _ADDS else operation


def _is_plain(dtype: Float, mode: FloatMode) -> bool:
    return mode.rounding(dtype) == NEAREST and not (mode.fp16_overflow and dtype is np.float16)


def _converted(dtype: Float, operation: Operation, mode: FloatMode) -> Operation:
    if _is_plain(dtype, mode):
        return operation
    saturates = mode.fp16_overflow and dtype is np.float16
    return lambda value: narrowed(np.asarray(value).astype(F64), dtype, mode.rounding(dtype), saturates)


def to_half(mode: FloatMode) -> Operation:
    """float32 to float16."""
    return _converted(np.float16, lambda value: np.asarray(value).astype(np.float16), mode)


def in_fma(mode: FloatMode) -> Operation:
    """a * b + c of float32."""
    return in_rounding("v_fma_f32", fused, mode)


def _scaled(dtype: Float, operation: Operation, mode: FloatMode) -> Operation:
    """A product with a power of two."""
    if _is_plain(dtype, mode):
        return operation
    rounding = mode.rounding(dtype)
    if dtype is np.float64:

        def scaled(value: Array, power: Array) -> Array:
            value, power = np.broadcast_arrays(value, np.clip(power, -4200, 4200))
            where = np.isfinite(value) & (value != 0)
            factors = power.astype(F64)
            return _by_fractions(
                lambda x, p: x * Fraction(2) ** int(p), operation(value, power), where, (value, factors), rounding
            )

        return scaled
    return lambda value, power: narrowed(
        np.ldexp(np.asarray(value).astype(F64), np.clip(power, -500, 500)), dtype, rounding
    )


def _rounded_sum(
    parts: Callable[..., tuple[Array, Array, Array]], dtype: Float, nearest: Operation, mode: FloatMode
) -> Operation:
    """`nearest`, which computes a * b + c of what `parts` makes of its sources, in the mode's rounding."""
    if _is_plain(dtype, mode):
        return nearest
    rounding, saturates = mode.rounding(dtype), mode.fp16_overflow and dtype is np.float16

    def rounded(*sources: Array) -> Array:
        a, b, c = np.broadcast_arrays(*parts(*map(np.asarray, sources)))
        if dtype is np.float64:
            finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
            total = _by_fractions(lambda x, y, z: x * y + z, nearest(*sources), finite, (a, b, c), rounding)
        else:
            total = narrowed(to_odd(a, b, c), dtype, rounding, saturates)
        if rounding != DOWN:
            return total
        positive = ~np.signbit(c) & (np.signbit(a) == np.signbit(b))
        cancelled = (total == 0) & (a.astype(F64) * b == -c.astype(F64)) & ~positive
        return np.where(cancelled, -np.abs(total), total)

    return rounded
