"""What the integer and bit operations of the vector ALU compute (AMD CDNA4 ISA guide, sections 12.7 to 12.11).

Each takes (n, 64)-broadcastable arrays in its operands' types and returns the result in the destination's width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hktune.emulator.instructions.scalar import first_one, leading_signs, leading_zeros, popcount
from hktune.emulator.machine.memory import Array, NumberType

Operation = Callable[..., Array]

U32 = np.uint32
_MASK24 = U32(0xFFFFFF)


def _count(amount: Array, value: Array) -> Array:
    """A shift count as the hardware takes it: modulo the width, in the value's type."""
    count: Array = amount & amount.dtype.type(value.dtype.itemsize * 8 - 1)
    return count.astype(value.dtype)


def _signed24(value: Array) -> Array:
    return (value.view(np.int32) << np.int32(8)) >> np.int32(8)


def _product(a: Array, b: Array, wide: type[np.int64 | np.uint64], shift: int) -> Array:
    product: Array = a.astype(wide) * b.astype(wide)
    return (product >> wide(shift)).astype(a.dtype)


def _unsigned_field(value: Array, offset: Array, width: Array) -> Array:
    """v_bfe_u32 keeps bits that are inside the register: the offset and width may run past bit 31."""
    width = width & U32(31)
    field: Array = (value >> (offset & U32(31))) & ((U32(1) << width) - U32(1))
    return field


def _signed_field(value: Array, offset: Array, width: Array) -> Array:
    moved = value.view(np.int32) >> (offset.view(np.int32) & np.int32(31))
    width = width.view(U32) & U32(31)
    room = (U32(32) - np.maximum(width, U32(1))).astype(np.int32)
    return np.where(width == 0, np.int32(0), (moved << room) >> room)


def _align(high: Array, low: Array, bits: Array) -> Array:
    wide = (high.astype(np.uint64) << np.uint64(32)) | low
    return (wide >> bits.astype(np.uint64)).astype(U32)


def _permute_bytes(a: Array, b: Array, selector: Array) -> Array:
    """v_perm_b32: each selector byte picks a byte of {a, b}, a sign, 0x00 (12) or 0xff (13 and more)."""
    wide = (a.astype(np.uint64) << np.uint64(32)) | b
    result = np.zeros(np.broadcast(wide, selector).shape, U32)
    for i in range(4):
        pick = (selector >> U32(8 * i)) & U32(0xFF)
        plain = (wide >> ((pick & U32(7)).astype(np.uint64) * np.uint64(8))) & np.uint64(0xFF)
        sign_at = (pick - U32(8)) * U32(16) + U32(15)
        sign = (wide >> (sign_at & U32(63)).astype(np.uint64)) & np.uint64(1)
        value = np.where(pick < 8, plain, np.where(pick < 12, sign * np.uint64(0xFF), np.where(pick == 12, 0, 0xFF)))
        result |= value.astype(U32) << U32(8 * i)
    return result


def _shifted_add(value: Array, amount: Array, addend: Array) -> Array:
    """v_lshl_add_u64 shifts by 0 to 4; by 5 to 7 it does not shift."""
    amount = amount & U32(7)
    return (value << np.where(amount > U32(4), U32(0), amount).astype(np.uint64)) + addend


def _reverse32(value: Array) -> Array:
    value = ((value >> U32(1)) & U32(0x55555555)) | ((value & U32(0x55555555)) << U32(1))
    value = ((value >> U32(2)) & U32(0x33333333)) | ((value & U32(0x33333333)) << U32(2))
    value = ((value >> U32(4)) & U32(0x0F0F0F0F)) | ((value & U32(0x0F0F0F0F)) << U32(4))
    return np.asarray(value).byteswap()


def _mbcnt(half: int) -> Operation:
    """Set bits of the mask below this lane: the low half counts lanes 0-31, the high half lanes 32-63."""
    lanes = np.arange(64)
    below = np.clip(lanes - 32 * half, 0, 32).astype(np.uint64)
    mask = ((np.uint64(1) << below) - np.uint64(1)).astype(U32)
    return lambda bits, base: popcount(bits & mask) + base


def _median(a: Array, b: Array, c: Array) -> Array:
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


def _saturate(value: Array, dtype: type[np.integer]) -> Array:
    limits = np.iinfo(dtype)
    return np.clip(value, limits.min, limits.max).astype(dtype)


def pack16(low: Array, high: Array) -> Array:
    """Two 16-bit values in one register."""
    return low.view(np.uint16).astype(U32) | (high.view(np.uint16).astype(U32) << U32(16))


def _differences(bits: int, masked: bool = False) -> Operation:
    """v_sad: the sum of what packed unsigned numbers differ by, added to the third source; `masked` leaves out places
    where the second source is 0."""
    mask = U32((1 << bits) - 1)

    def total(a: Array, b: Array, c: Array) -> Array:
        for at in range(32 // bits):
            x, y = (a >> U32(bits * at)) & mask, (b >> U32(bits * at)) & mask
            apart = np.where(x > y, x - y, y - x)
            c = c + (np.where(y == 0, U32(0), apart) if masked else apart)
        return c

    return total


def _differences_of_four(masked: bool) -> Operation:
    """v_qsad: v_sad_u8 of the four bytes from each of the first four bytes on, added to 16 bits of the third source."""
    sad = _differences(8, masked)

    def total(a: Array, b: Array, c: Array) -> Array:
        result = np.zeros(np.broadcast(a, b, c).shape, np.uint64)
        for at in range(4):
            window = (a >> np.uint64(8 * at)).astype(U32)
            start = (c >> np.uint64(16 * at) & np.uint64(0xFFFF)).astype(U32)
            sums = sad(window, b, start) & U32(0xFFFF)
            result |= sums.astype(np.uint64) << np.uint64(16 * at)
        return result

    return total


def _average_bytes(a: Array, b: Array, c: Array) -> Array:
    """v_lerp_u8: the mean of each two bytes, rounded up where the third source's byte is odd."""
    result = np.zeros(np.broadcast(a, b, c).shape, U32)
    for at in range(4):
        shift = U32(8 * at)
        x, y, up = ((value >> shift) & U32(0xFF) for value in (a, b, c))
        result |= ((x + y + (up & U32(1))) >> U32(1)) << shift
    return result


def _pack_bytes(low: Array, high: Array, dtype: type[np.integer]) -> Array:
    """Two numbers, bounded to a byte each, in the low half of a register."""
    first, second = (_saturate(value, dtype).view(np.uint8).astype(np.uint16) for value in (low, high))
    return first | second << np.uint16(8)


def _saturated_pair(word: Array) -> Array:
    low, high = ((word >> U32(16 * at)).astype(np.uint16).view(np.int16) for at in range(2))
    return _pack_bytes(low, high, np.uint8)


def _shifted_pair(dtype: type[np.integer]) -> Operation:
    """v_ashr_pk: two sources, shifted and bounded to bytes."""

    def packed(a: Array, b: Array, c: Array) -> Array:
        amount = (c & U32(31)).astype(np.int32)
        return _pack_bytes(a >> amount, b >> amount, dtype)

    return packed


def next_random(value: Array) -> Array:
    """v_prng_b32: one step of a shift register with feedback."""
    return (value << U32(1)) ^ np.where(value >> U32(31), U32(197), U32(0))


INTEGER: dict[str, Operation] = {
    "v_mov_b32": lambda a: a,
    "v_mov_b64": lambda a: a,
    "v_not_b32": lambda a: ~a,
    "v_bfrev_b32": _reverse32,
    "v_prng_b32": next_random,
    "v_ffbh_u32": leading_zeros,
    "v_ffbh_i32": leading_signs,
    "v_ffbl_b32": first_one,
    "v_bcnt_u32_b32": lambda a, b: popcount(a) + b,
    "v_mbcnt_lo_u32_b32": _mbcnt(0),
    "v_mbcnt_hi_u32_b32": _mbcnt(1),
    "v_and_b32": lambda a, b: a & b,
    "v_or_b32": lambda a, b: a | b,
    "v_xor_b32": lambda a, b: a ^ b,
    "v_xnor_b32": lambda a, b: ~(a ^ b),
    "v_or3_b32": lambda a, b, c: a | b | c,
    "v_and_or_b32": lambda a, b, c: (a & b) | c,
    "v_bfi_b32": lambda a, b, c: (a & b) | (~a & c),
    "v_bfm_b32": lambda a, b: ((U32(1) << (a & U32(31))) - U32(1)) << (b & U32(31)),
    "v_perm_b32": _permute_bytes,
    "v_alignbit_b32": lambda a, b, c: _align(a, b, c & U32(31)),
    "v_alignbyte_b32": lambda a, b, c: _align(a, b, (c & U32(3)) * U32(8)),
    "v_bfe_u32": _unsigned_field,
    "v_bfe_i32": _signed_field,
    "v_add3_u32": lambda a, b, c: a + b + c,
    "v_lshl_add_u32": lambda a, b, c: (a << (b & U32(31))) + c,
    "v_lshl_add_u64": _shifted_add,
    "v_add_lshl_u32": lambda a, b, c: (a + b) << (c & U32(31)),
    "v_lshl_or_b32": lambda a, b, c: (a << (b & U32(31))) | c,
    "v_xad_u32": lambda a, b, c: (a ^ b) + c,
    "v_sad_u32": lambda a, b, c: np.where(a > b, a - b, b - a) + c,
    "v_mul_lo_u32": lambda a, b: a * b,
    "v_mul_hi_u32": lambda a, b: _product(a, b, np.uint64, 32),
    "v_mul_hi_i32": lambda a, b: _product(a, b, np.int64, 32),
    "v_mul_u32_u24": lambda a, b: (a & _MASK24) * (b & _MASK24),
    "v_mul_hi_u32_u24": lambda a, b: _product(a & _MASK24, b & _MASK24, np.uint64, 32),
    "v_mul_i32_i24": lambda a, b: _signed24(a) * _signed24(b),
    "v_mul_hi_i32_i24": lambda a, b: _product(_signed24(a), _signed24(b), np.int64, 32),
    "v_mad_u32_u24": lambda a, b, c: (a & _MASK24) * (b & _MASK24) + c,
    "v_mad_i32_i24": lambda a, b, c: _signed24(a) * _signed24(b) + c,
    "v_mad_u32_u16": lambda a, b, c: a.astype(U32) * b.astype(U32) + c,
    "v_mad_i32_i16": lambda a, b, c: a.astype(np.int32) * b.astype(np.int32) + c,
    "v_mul_lo_u16": lambda a, b: a * b,
    "v_mad_u16": lambda a, b, c: a * b + c,
    "v_mad_legacy_u16": lambda a, b, c: a * b + c,
    "v_cvt_pk_u16_u32": lambda a, b: pack16(_saturate(a, np.uint16), _saturate(b, np.uint16)),
    "v_cvt_pk_i16_i32": lambda a, b: pack16(_saturate(a, np.int16), _saturate(b, np.int16)),
    "v_pack_b32_f16": pack16,
    "v_sad_u8": _differences(8),
    "v_sad_hi_u8": lambda a, b, c: (_differences(8)(a, b, U32(0)) << U32(16)) + c,
    "v_sad_u16": _differences(16),
    "v_msad_u8": _differences(8, masked=True),
    "v_qsad_pk_u16_u8": _differences_of_four(masked=False),
    "v_mqsad_pk_u16_u8": _differences_of_four(masked=True),
    "v_lerp_u8": _average_bytes,
    "v_sat_pk_u8_i16": _saturated_pair,
    "v_ashr_pk_i8_i32": _shifted_pair(np.int8),
    "v_ashr_pk_u8_i32": _shifted_pair(np.uint8),
    "v_add_i16": lambda a, b: a + b,
    "v_sub_i16": lambda a, b: a - b,
    "v_mad_i16": lambda a, b, c: a * b + c,
}
for _type in ("u32", "i32", "u16"):
    INTEGER[f"v_add_{_type}"] = lambda a, b: a + b
    INTEGER[f"v_sub_{_type}"] = lambda a, b: a - b
    INTEGER[f"v_subrev_{_type}"] = lambda a, b: b - a
for _type in ("u32", "i32", "u16", "i16"):
    INTEGER[f"v_min_{_type}"] = np.minimum
    INTEGER[f"v_max_{_type}"] = np.maximum
    INTEGER[f"v_min3_{_type}"] = lambda a, b, c: np.minimum(np.minimum(a, b), c)
    INTEGER[f"v_max3_{_type}"] = lambda a, b, c: np.maximum(np.maximum(a, b), c)
    INTEGER[f"v_med3_{_type}"] = _median
for _name in ("v_lshlrev_b16", "v_lshlrev_b32", "v_lshlrev_b64"):
    INTEGER[_name] = lambda a, b: b << _count(a, b)
for _name in ("v_lshrrev_b16", "v_lshrrev_b32", "v_lshrrev_b64", "v_ashrrev_i16", "v_ashrrev_i32", "v_ashrrev_i64"):
    INTEGER[_name] = lambda a, b: b >> _count(a, b)

SATURATING: dict[str, Operation] = {
    "v_mad_u32_u24": lambda a, b, c: (a & 0xFFFFFF) * (b & 0xFFFFFF) + c,
    "v_mad_i32_i24": lambda a, b, c: _sign_extended24(a) * _sign_extended24(b) + c,
    "v_mad_u16": lambda a, b, c: a * b + c,
    "v_mad_i16": lambda a, b, c: a * b + c,
    "v_sad_u32": lambda a, b, c: np.abs(a - b) + c,
}
"""Operations that a clamp can bound to their type, in int64: nothing wraps there."""
for _type in ("u32", "i32", "u16", "i16"):
    SATURATING[f"v_add_{_type}"] = lambda a, b: a + b
    SATURATING[f"v_sub_{_type}"] = lambda a, b: a - b
    SATURATING[f"v_subrev_{_type}"] = lambda a, b: b - a


def _sign_extended24(value: Array) -> Array:
    return ((value & 0xFFFFFF) ^ 0x800000) - 0x800000


def saturating(operation: Operation, dtype: NumberType) -> Operation:
    """One of SATURATING with its sources widened and its result bounded to `dtype`."""
    limits = np.iinfo(np.dtype(dtype).name)
    return lambda *sources: np.clip(
        operation(*(np.asarray(source).astype(np.int64) for source in sources)), limits.min, limits.max
    ).astype(dtype)
