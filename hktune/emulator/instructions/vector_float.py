"""What the floating-point operations of the vector ALU compute (AMD CDNA4 ISA guide, sections 12.7 to 12.11).

Rounding is to nearest even; other modes have operations of their own (rounding.py). Subnormals are kept: a mode that
flushes them does so before and after the operation (vector_operands.py). Transcendentals (rcp, rsq, sqrt, exp, log) are
the correctly rounded value where the hardware promises 1 ulp; in float32 they flush subnormals, in every mode.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from hktune.emulator.instructions.rounding import fused, fused_double, round_to_bf16
from hktune.emulator.instructions.vector_integer import pack16
from hktune.emulator.machine.float_mode import flushed
from hktune.emulator.machine.memory import Array

Operation = Callable[..., Array]

F32, F64, U32 = np.float32, np.float64, np.uint32


def toward_zero_f16(value: Array) -> Array:
    """float32 to float16, towards zero; values too large for float16 become its largest."""
    near = np.asarray(value).astype(np.float16)
    past = np.abs(near.astype(F32)) > np.abs(value)
    return np.where(past, (near.view(np.uint16) - np.uint16(1)).view(np.float16), near)


def _to_integer(dtype: type[np.integer]) -> Operation:
    """Truncates, clamps to the range and turns NaN into 0."""
    limits = np.iinfo(dtype)

    def convert(value: Array) -> Array:
        whole = np.nan_to_num(np.trunc(value.astype(F64)), nan=0.0, posinf=limits.max, neginf=limits.min)
        within: Array = np.clip(whole, limits.min, limits.max)
        return within.astype(dtype)

    return convert


def _rounded_to_integer(rounding: Operation) -> Operation:
    return lambda value: _to_integer(np.int32)(rounding(value.astype(F64)))


def _byte(number: int) -> Operation:
    return lambda value: ((value.view(U32) >> U32(8 * number)) & U32(0xFF)).astype(F32)


def _transcendental(operation: Operation) -> Operation:
    """A float32 transcendental by way of float64; subnormal sources and results count as zeros of their sign."""
    return lambda value: flushed(operation(flushed(value).astype(F64)).astype(F32))


def _below(a: Array, b: Array) -> Array:
    below: Array = (a < b) | ((a == b) & np.signbit(a))
    return below


def _above(a: Array, b: Array) -> Array:
    above: Array = (a > b) | ((a == b) & ~np.signbit(a))
    return above


def quiet_bit(value: Array) -> tuple[Array, Array]:
    """The bits of `value` and the one that tells a quiet NaN from a signalling one, in its width."""
    bits = np.asarray(value).view(f"u{value.dtype.itemsize}")
    return bits, bits.dtype.type(1 << (np.finfo(value.dtype).nmant - 1))


def _signals(value: Array) -> Array:
    bits, quiet = quiet_bit(value)
    signals: Array = np.isnan(value) & (bits & quiet == 0)
    return signals


def _quieted(value: Array) -> Array:
    bits, quiet = quiet_bit(value)
    return (bits | quiet).view(value.dtype)


def _number_of(first_wins: Operation, ieee: bool = True) -> Operation:
    """v_min and v_max: a number beats a quiet NaN, -0 lies below +0; in IEEE mode a signalling NaN comes out, quiet."""

    def choose(a: Array, b: Array) -> Array:
        number = np.where(np.isnan(a), b, np.where(np.isnan(b) | first_wins(a, b), a, b))
        if not ieee:
            return number
        return np.where(_signals(a), _quieted(a), np.where(_signals(b), _quieted(b), number))

    return choose


def _nan_or(first_wins: Operation) -> Operation:
    """v_minimum and v_maximum: any NaN comes out, quiet; -0 lies below +0 (IEEE 754-2019, minimum and maximum)."""

    def choose(a: Array, b: Array) -> Array:
        number = np.where(first_wins(a, b), a, b)
        return np.where(np.isnan(a), _quieted(a), np.where(np.isnan(b), _quieted(b), number))

    return choose


def _of_three(choose: Operation) -> Operation:
    return lambda a, b, c: choose(choose(a, b), c)


smallest_of_three, largest_of_three = _of_three(_nan_or(_below)), _of_three(_nan_or(_above))
"""Any NaN comes out."""
least, greatest = _number_of(_below), _number_of(_above)
loosely_least, loosely_greatest = _number_of(_below, ieee=False), _number_of(_above, ieee=False)
"""The same without IEEE mode."""


def _median(least: Operation, greatest: Operation) -> Operation:
    """v_med3: the greater of what is left when the first greatest is taken away; with a NaN, v_min3."""

    def choose(a: Array, b: Array, c: Array) -> Array:
        top = _of_three(greatest)(a, b, c)
        middle = np.where(top == a, greatest(b, c), np.where(top == b, greatest(a, c), greatest(a, b)))
        return np.where(np.isnan(a) | np.isnan(b) | np.isnan(c), _of_three(least)(a, b, c), middle)

    return choose


def _choices(least: Operation, greatest: Operation) -> dict[str, Operation]:
    return {
        "min": least,
        "max": greatest,
        "min3": _of_three(least),
        "max3": _of_three(greatest),
        "med3": _median(least, greatest),
    }


def _exponent(value: Array) -> Array:
    return np.where(np.isfinite(value), np.frexp(value)[1], 0).astype(np.int32)


def _mantissa(value: Array) -> Array:
    return np.where(np.isfinite(value), np.frexp(value)[0], value)


def _fraction(value: Array) -> Array:
    """x - floor(x), kept below one."""
    kind = value.dtype.type
    fraction: Array = np.minimum(value - np.floor(value), np.nextafter(kind(1), kind(0)))
    return fraction


def _biased_exponent(value: Array) -> Array:
    """Of float32 or float64, as an integer of its width."""
    bits, fraction = np.asarray(value).view(f"i{value.dtype.itemsize}"), np.finfo(value.dtype).nmant
    exponent: Array = (bits >> fraction) & bits.dtype.type(0xFF if value.dtype.itemsize == 4 else 0x7FF)
    return exponent


_TINY_QUOTIENT = {"float32": -150, "float64": -1075}
"""Below this difference of exponents a quotient is 0. Of float16, whose quotient comes of float32, there is none."""


def _fix_division(quotient: Array, denominator: Array, numerator: Array) -> Array:
    """v_div_fixup: the special cases of numerator / denominator, else the quotient with the right sign.

    Of finite operands only an overflow leaves a NaN in the quotient's refinement (infinity minus infinity).
    """
    kind = quotient.dtype.type
    quotient = np.where(np.isnan(quotient), kind(np.inf), quotient)
    special = ~np.isfinite(denominator) | ~np.isfinite(numerator) | (denominator == 0) | (numerator == 0)
    least = _TINY_QUOTIENT.get(quotient.dtype.name)
    if least is not None:
        quotient = np.where(_biased_exponent(numerator) - _biased_exponent(denominator) < least, kind(0), quotient)
    negative = np.signbit(denominator) ^ np.signbit(numerator)
    signed = np.where(negative, -np.abs(quotient), np.abs(quotient))
    return np.where(special, np.divide(numerator, denominator), signed)


def _of_half(operation: Operation) -> Operation:
    """A float16 transcendental, correctly rounded: AMD promises 1 ulp. Subnormals are kept."""
    return lambda value: operation(value.astype(F64)).astype(np.float16)


def _of_turns(operation: Operation, astray: float) -> Operation:
    """v_sin and v_cos take turns, not radians, up to 256 either way; `astray` is the result beyond. Halves, quarters
    and whole turns are exact. A NaN and an infinity give NaN."""

    def wave(value: Array) -> Array:
        turns = value.astype(F64)
        part = turns - np.floor(turns)
        quarter = np.rint(4 * part)
        exact = operation(quarter.astype(np.int64) % 4 * (np.pi / 2))
        found = np.where(4 * part == quarter, np.rint(exact), operation(2 * np.pi * part))
        found = np.where(np.abs(turns) > 256, astray, found)
        return np.where(np.isfinite(turns), found, np.nan).astype(value.dtype)

    return wave


@lru_cache
def _two_over_pi() -> int:
    """The first 1201 bits of the fraction 2/pi, by Machin's formula for pi in integers."""
    bits = 1300
    one = 1 << bits

    def arctangent(inverse: int) -> int:
        term, total, n = one // inverse, 0, 1
        while term:
            total += (term // n) * (1 if n % 4 == 1 else -1)
            term, n = term // (inverse * inverse), n + 2
        return total

    pi = 4 * (4 * arctangent(5) - arctangent(239))
    return (2 << (2 * bits)) // pi >> (bits - 1201)


def _trig_segment(value: Array, select: Array) -> Array:
    """v_trig_preop_f64: 53 bits of 2/pi from bit 53 * select on, later for large values, as a number of their place."""
    value, select = np.broadcast_arrays(value, select)
    exponent = _biased_exponent(value)
    out = np.empty(value.shape, F64)
    for at in np.ndindex(value.shape):
        shift = 53 * int(select[at] & U32(31)) + max(int(exponent[at]) - 1077, 0)
        segment = (_two_over_pi() << shift & (1 << 1201) - 1) >> 1148
        scale = -53 - shift + (128 if exponent[at] >= 1968 else 0)
        out[at] = np.ldexp(float(segment), scale)
    return out


def _bf16_value(value: Array) -> Array:
    return (value.astype(U32) << U32(16)).view(F32)


_ARITHMETIC: dict[str, Operation] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "subrev": lambda a, b: b - a,
    "mul": lambda a, b: a * b,
    **_choices(least, greatest),
    "trunc": np.trunc,
    "ceil": np.ceil,
    "floor": np.floor,
    "rndne": np.rint,
    "fract": _fraction,
    "frexp_mant": _mantissa,
}

FLOAT: dict[str, Operation] = {
    "v_fma_f32": fused,
    "v_fma_f64": fused_double,
    "v_ldexp_f32": lambda a, b: np.ldexp(a, b).astype(F32),
    "v_ldexp_f64": lambda a, b: np.ldexp(a, b),
    "v_frexp_exp_i32_f32": _exponent,
    "v_frexp_exp_i32_f64": _exponent,
    "v_rcp_f32": _transcendental(lambda x: 1.0 / x),
    "v_rcp_iflag_f32": _transcendental(lambda x: 1.0 / x),
    "v_rcp_f64": lambda x: 1.0 / x,
    "v_rsq_f32": _transcendental(lambda x: 1.0 / np.sqrt(x)),
    "v_sqrt_f32": _transcendental(np.sqrt),
    "v_sqrt_f64": np.sqrt,
    "v_exp_f32": _transcendental(np.exp2),
    "v_log_f32": _transcendental(np.log2),
    "v_rsq_f64": lambda x: 1.0 / np.sqrt(x),
    "v_sin_f32": lambda x: flushed(_of_turns(np.sin, 0.0)(flushed(x))),
    "v_cos_f32": lambda x: flushed(_of_turns(np.cos, 1.0)(flushed(x))),
    "v_trig_preop_f64": _trig_segment,
    "v_div_fixup_f32": _fix_division,
    "v_div_fixup_f64": _fix_division,
    "v_div_fixup_f16": _fix_division,
    "v_minimum3_f32": smallest_of_three,
    "v_maximum3_f32": largest_of_three,
    "v_cvt_f32_i32": lambda a: a.astype(F32),
    "v_cvt_f32_u32": lambda a: a.astype(F32),
    "v_cvt_f64_i32": lambda a: a.astype(F64),
    "v_cvt_f64_u32": lambda a: a.astype(F64),
    "v_cvt_f64_f32": lambda a: a.astype(F64),
    "v_cvt_f32_f64": lambda a: a.astype(F32),
    "v_cvt_f16_f32": lambda a: a.astype(np.float16),
    "v_cvt_f32_f16": lambda a: a.astype(F32),
    "v_cvt_f32_bf16": _bf16_value,
    "v_cvt_off_f32_i4": lambda a: (((a & 15) ^ 8) - 8).astype(F32) / F32(16),
    "v_mul_legacy_f32": lambda a, b: np.where((a == 0) | (b == 0), F32(0), a * b),
    "v_cvt_i32_f32": _to_integer(np.int32),
    "v_cvt_u32_f32": _to_integer(np.uint32),
    "v_cvt_i32_f64": _to_integer(np.int32),
    "v_cvt_u32_f64": _to_integer(np.uint32),
    "v_cvt_rpi_i32_f32": _rounded_to_integer(lambda x: np.floor(x + 0.5)),
    "v_cvt_flr_i32_f32": _rounded_to_integer(np.floor),
    "v_cvt_f16_u16": lambda a: a.astype(np.float16),
    "v_cvt_f16_i16": lambda a: a.astype(np.float16),
    "v_cvt_u16_f16": _to_integer(np.uint16),
    "v_cvt_i16_f16": _to_integer(np.int16),
    "v_cvt_pk_bf16_f32": lambda a, b: pack16(round_to_bf16(a), round_to_bf16(b)),
    "v_cvt_pk_f16_f32": lambda a, b: pack16(a.astype(np.float16), b.astype(np.float16)),
    "v_cvt_pkrtz_f16_f32": lambda a, b: pack16(toward_zero_f16(a), toward_zero_f16(b)),
    "v_fma_f16": fused,
    "v_rcp_f16": _of_half(lambda x: 1.0 / x),
    "v_rsq_f16": _of_half(lambda x: 1.0 / np.sqrt(x)),
    "v_sqrt_f16": _of_half(np.sqrt),
    "v_exp_f16": _of_half(np.exp2),
    "v_log_f16": _of_half(np.log2),
    "v_sin_f16": _of_turns(np.sin, 0.0),
    "v_cos_f16": _of_turns(np.cos, 1.0),
    "v_ldexp_f16": lambda a, b: np.ldexp(a, b.view(np.int16).astype(np.int32)).astype(np.float16),
    "v_frexp_exp_i16_f16": lambda a: _exponent(a).astype(np.int16),
}
for _name, _operation in _ARITHMETIC.items():
    for _type in ("f16", "f32", "f64"):
        FLOAT[f"v_{_name}_{_type}"] = _operation
for _number in range(4):
    FLOAT[f"v_cvt_f32_ubyte{_number}"] = _byte(_number)
NOT_IEEE: dict[str, Operation] = {
    f"v_{_name}_{_type}": _operation
    for _name, _operation in _choices(loosely_least, loosely_greatest).items()
    for _type in ("f16", "f32", "f64")
}
"""What differs when IEEE mode is off."""
