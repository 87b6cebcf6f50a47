"""Scalar arithmetic: SOP1, SOP2, SOPC and SOPK (AMD CDNA4 ISA guide, sections 12.1 to 12.4).

Every operation works on (n,) arrays, one entry per wave, typed as its operands are.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np

from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.operand_access import (
    Read,
    Step,
    Write,
    scalar_destination,
    scalar_source,
    unimplemented,
)
from hktune.emulator.machine.memory import Array
from hktune.emulator.machine.waves import EXEC, Lanes, Waves

Operation = Callable[..., Array]
WithScc = Callable[..., tuple[Array, Array]]
"""Gives the result, and what SCC becomes."""

_COMPARISONS: dict[str, Operation] = {
    "eq": operator.eq,
    "lg": operator.ne,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}


def _bits_of(value: Array) -> int:
    return int(value.dtype.itemsize) * 8


def _unsigned(value: Array) -> Array:
    return value.view(f"u{value.dtype.itemsize}")


def _shift(amount: Array, value: Array) -> Array:
    """A shift count as the hardware takes it: modulo the width, in the value's type."""
    return (amount & np.uint32(_bits_of(value) - 1)).astype(value.dtype)


def _field(value: Array, control: Array) -> Array:
    """s_bfe: `control` holds the offset in its low bits and the width from bit 16; signed values are sign-extended."""
    bits = _bits_of(value)
    control = control.astype(np.uint32)
    offset = (control & np.uint32(bits - 1)).astype(value.dtype)
    width = np.minimum((control >> np.uint32(16)) & np.uint32(0x7F), np.uint32(bits))
    room = np.minimum(np.uint32(bits) - width, np.uint32(bits - 1)).astype(value.dtype)
    taken = ((value >> offset) << room) >> room
    field: Array = np.where(width == 0, value.dtype.type(0), taken)
    return field


def _mask(width: Array, offset: Array, dtype: type[np.uint32 | np.uint64]) -> Array:
    one: Array = np.array(1, dtype)
    top = np.uint32(_bits_of(one) - 1)
    mask: Array = ((one << (width & top).astype(dtype)) - one) << (offset & top).astype(dtype)
    return mask


def _reverse(value: Array) -> Array:
    octets = np.ascontiguousarray(value).reshape(-1, 1).view(np.uint8)
    turned = np.packbits(np.unpackbits(octets, axis=1)[:, ::-1], axis=1, bitorder="big")
    return np.ascontiguousarray(turned).view(value.dtype).reshape(value.shape)


def first_one(value: Array) -> Array:
    """Number of the lowest set bit as int32, -1 for zero."""
    bits = _unsigned(value)
    lowest = bits & (~bits + bits.dtype.type(1))
    return np.where(bits == 0, np.int32(-1), popcount(lowest - bits.dtype.type(1)).astype(np.int32))


def leading_zeros(value: Array) -> Array:
    """Zeros above the highest set bit as int32, -1 for zero."""
    bits = _unsigned(value).copy()
    width = _bits_of(bits)
    zero = bits == 0
    step = 1
    while step < width:
        bits |= bits >> bits.dtype.type(step)
        step *= 2
    return np.where(zero, np.int32(-1), (width - popcount(bits).astype(np.int32)).astype(np.int32))


def leading_signs(value: Array) -> Array:
    """s_flbit_i32: bits above the first one that differs from the sign; -1 when all are equal."""
    signed = value.view(f"i{value.dtype.itemsize}")
    return leading_zeros(_unsigned(np.where(signed < 0, ~signed, signed)))


def popcount(value: Array) -> Array:
    """Set bits of each element, as uint32."""
    bits = np.asarray(_unsigned(value))
    octets = np.ascontiguousarray(bits)[..., None].view(np.uint8)
    ones: Array = np.unpackbits(octets, axis=-1).sum(axis=-1, dtype=np.uint32)
    return ones


def _high(a: Array, b: Array, wide: type[np.int64 | np.uint64]) -> Array:
    product: Array = a.astype(wide) * b.astype(wide)
    return (product >> wide(32)).astype(a.dtype)


def _pack16(low: Array, high: Array) -> Array:
    return low.astype(np.uint32) | high.astype(np.uint32) << np.uint32(16)


def _overflow_add(a: Array, b: Array) -> tuple[Array, Array]:
    total = a + b
    return total, ((a ^ total) & (b ^ total)) < 0


def _overflow_sub(a: Array, b: Array) -> tuple[Array, Array]:
    total = a - b
    return total, ((a ^ b) & (a ^ total)) < 0


def _chosen(pick: Operation) -> WithScc:
    """min and max tell in SCC whether the first source was chosen."""

    def operation(a: Array, b: Array) -> tuple[Array, Array]:
        first = pick(a, b)
        return np.where(first, a, b), first

    return operation


def _shifted_add(amount: int) -> WithScc:
    def operation(a: Array, b: Array) -> tuple[Array, Array]:
        wide = (a.astype(np.uint64) << np.uint64(amount)) + b
        return wide.astype(np.uint32), wide > 0xFFFFFFFF

    return operation


def _nonzero(operation: Operation) -> WithScc:
    def with_scc(*sources: Array) -> tuple[Array, Array]:
        result = operation(*sources)
        return result, result != 0

    return with_scc


def _quads(spread: bool) -> Operation:
    """Whether each four bits have one set: a bit each, or `spread` over the four."""

    def quads(bits: Array) -> Array:
        found = np.zeros_like(bits)
        for at in range(8 * bits.dtype.itemsize // 4):
            present = (bits >> bits.dtype.type(4 * at) & bits.dtype.type(15)) != 0
            found |= present.astype(bits.dtype) * bits.dtype.type(15 << 4 * at if spread else 1 << at)
        return found

    return quads


def _each_bit_twice(bits: Array) -> Array:
    places = np.arange(32, dtype=np.uint64)
    each = np.asarray(bits).astype(np.uint64)[..., None] >> places & np.uint64(1)
    return np.asarray((each * (np.uint64(3) << np.uint64(2) * places)).sum(axis=-1, dtype=np.uint64))


_LOGIC: dict[str, Operation] = {
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "andn2": lambda a, b: a & ~b,
    "orn2": lambda a, b: a | ~b,
    "nand": lambda a, b: ~(a & b),
    "nor": lambda a, b: ~(a | b),
    "xnor": lambda a, b: ~(a ^ b),
    "andn1": lambda a, b: ~a & b,
    "orn1": lambda a, b: ~a | b,
}

WITH_SCC: dict[str, WithScc] = {
    "s_add_u32": lambda a, b: (a + b, (a + b) < a),
    "s_sub_u32": lambda a, b: (a - b, b > a),
    "s_add_i32": _overflow_add,
    "s_sub_i32": _overflow_sub,
    "s_min_i32": _chosen(operator.lt),
    "s_min_u32": _chosen(operator.lt),
    "s_max_i32": _chosen(operator.gt),
    "s_max_u32": _chosen(operator.gt),
    "s_abs_i32": _nonzero(np.abs),
    "s_absdiff_i32": _nonzero(lambda a, b: np.abs(a - b)),
    "s_ashr_i32": _nonzero(lambda a, b: a >> _shift(b, a)),
    "s_ashr_i64": _nonzero(lambda a, b: a >> _shift(b, a)),
    "s_addk_i32": _overflow_add,
}
for _width in ("32", "64"):
    for _name, _operation in _LOGIC.items():
        WITH_SCC[f"s_{_name}_b{_width}"] = _nonzero(_operation)
    WITH_SCC[f"s_lshl_b{_width}"] = _nonzero(lambda a, b: a << _shift(b, a))
    WITH_SCC[f"s_lshr_b{_width}"] = _nonzero(lambda a, b: a >> _shift(b, a))
    WITH_SCC[f"s_not_b{_width}"] = _nonzero(lambda a: ~a)
    WITH_SCC[f"s_bfe_u{_width}"] = _nonzero(_field)
    WITH_SCC[f"s_bfe_i{_width}"] = _nonzero(_field)
    WITH_SCC[f"s_bcnt1_i32_b{_width}"] = _nonzero(lambda a: popcount(a).astype(np.int32))
    WITH_SCC[f"s_quadmask_b{_width}"] = _nonzero(_quads(spread=False))
    WITH_SCC[f"s_wqm_b{_width}"] = _nonzero(_quads(spread=True))
    WITH_SCC[f"s_bcnt0_i32_b{_width}"] = _nonzero(lambda a: popcount(~a).astype(np.int32))
for _amount in (1, 2, 3, 4):
    WITH_SCC[f"s_lshl{_amount}_add_u32"] = _shifted_add(_amount)

PLAIN: dict[str, Operation] = {
    "s_mov_b32": lambda a: a,
    "s_mov_b64": lambda a: a,
    "s_movk_i32": lambda a: a,
    "s_brev_b32": _reverse,
    "s_brev_b64": _reverse,
    "s_bitreplicate_b64_b32": _each_bit_twice,
    "s_ff1_i32_b32": first_one,
    "s_ff1_i32_b64": first_one,
    "s_ff0_i32_b32": lambda a: first_one(~a),
    "s_ff0_i32_b64": lambda a: first_one(~a),
    "s_flbit_i32_b32": leading_zeros,
    "s_flbit_i32_b64": leading_zeros,
    "s_flbit_i32": leading_signs,
    "s_flbit_i32_i64": leading_signs,
    "s_sext_i32_i8": lambda a: a.astype(np.int8).astype(np.int32),
    "s_sext_i32_i16": lambda a: a.astype(np.int16).astype(np.int32),
    "s_bfm_b32": lambda a, b: _mask(a, b, np.uint32),
    "s_bfm_b64": lambda a, b: _mask(a, b, np.uint64),
    "s_mul_i32": lambda a, b: a * b,
    "s_mulk_i32": lambda a, b: a * b,
    "s_mul_hi_u32": lambda a, b: _high(a, b, np.uint64),
    "s_mul_hi_i32": lambda a, b: _high(a, b, np.int64),
    "s_pack_ll_b32_b16": _pack16,
    "s_pack_lh_b32_b16": lambda a, b: _pack16(a, b >> np.uint32(16)),
    "s_pack_hh_b32_b16": lambda a, b: _pack16(a >> np.uint32(16), b >> np.uint32(16)),
}


def build_scalar(instruction: Instruction) -> Step:
    """The function that executes a SOP1, SOP2, SOPC or SOPK instruction. Raises KernelFault if there is none."""
    name = instruction.mnemonic
    if instruction.format == "SOPC" or name.startswith("s_cmpk_"):
        return _compare(instruction)
    if "saveexec" in name or "wrexec" in name:
        return _exec_logic(instruction)
    if name in _SPECIAL:
        return _SPECIAL[name](instruction)
    sources = _sources(instruction)
    if name in WITH_SCC:
        return _with_scc(WITH_SCC[name], sources, scalar_destination(instruction))
    if name in PLAIN:
        return _plain(PLAIN[name], sources, scalar_destination(instruction))
    raise unimplemented(instruction)


def _sources(instruction: Instruction) -> list[Read]:
    if instruction.format != "SOPK":
        return [scalar_source(instruction, name) for name in ("ssrc0", "ssrc1") if name in instruction.fields]
    immediate = _immediate(instruction)
    sources: list[Read] = [lambda _m, _w: immediate]
    if instruction.mnemonic in ("s_addk_i32", "s_mulk_i32"):
        register = instruction.fields["sdst"]
        sources.insert(0, lambda m, w: m.scalars[register, w].view(np.int32))
    return sources


def _immediate(instruction: Instruction) -> Array:
    return np.array(instruction.fields["simm16"], np.uint16).view(np.int16).astype(np.int32)[()]


def _plain(operation: Operation, sources: list[Read], write: Write) -> Step:
    if len(sources) == 1:
        (read,) = sources
        return lambda m, w: write(m, w, operation(read(m, w)))
    first, second = sources
    return lambda m, w: write(m, w, operation(first(m, w), second(m, w)))


def _with_scc(operation: WithScc, sources: list[Read], write: Write) -> Step:
    def step(m: Waves, w: Lanes) -> None:
        result, scc = operation(*(read(m, w) for read in sources))
        m.scc[w] = scc
        write(m, w, result)

    return step


def _compare(instruction: Instruction) -> Step:
    name = instruction.mnemonic
    if name.startswith("s_bitcmp"):
        return _bit_compare(instruction)
    kind, _, form = name.removeprefix("s_cmpk_").removeprefix("s_cmp_").partition("_")
    if kind not in _COMPARISONS:
        raise unimplemented(instruction)
    test = _COMPARISONS[kind]
    if name.startswith("s_cmpk_"):
        register, dtype = instruction.fields["sdst"], np.int32 if form == "i32" else np.uint32
        literal = instruction.fields["simm16"] if form == "u32" else int(_immediate(instruction))
        against = np.array(literal, np.int64).astype(dtype)[()]

        def step(m: Waves, w: Lanes) -> None:
            m.scc[w] = test(m.scalars[register, w].view(dtype), against)

        return step
    first, second = scalar_source(instruction, "ssrc0"), scalar_source(instruction, "ssrc1")

    def compare(m: Waves, w: Lanes) -> None:
        m.scc[w] = test(first(m, w), second(m, w))

    return compare


def _bit_compare(instruction: Instruction) -> Step:
    expected = int(instruction.mnemonic[len("s_bitcmp")])
    value, position = scalar_source(instruction, "ssrc0"), scalar_source(instruction, "ssrc1")

    def step(m: Waves, w: Lanes) -> None:
        bits = _unsigned(value(m, w))
        m.scc[w] = (bits >> _shift(position(m, w), bits)) & bits.dtype.type(1) == expected

    return step


def _exec_logic(instruction: Instruction) -> Step:
    """s_*_saveexec_b64 keeps the old EXEC in its destination; s_*_wrexec_b64 keeps the new one."""
    kind = instruction.mnemonic.removeprefix("s_").partition("_")[0]
    operation = _LOGIC[kind]
    saves = "saveexec" in instruction.mnemonic
    source, write = scalar_source(instruction, "ssrc0"), scalar_destination(instruction)

    def step(m: Waves, w: Lanes) -> None:
        old = (m.scalars[EXEC, w] | m.scalars[EXEC + 1, w].astype(np.uint64) << np.uint64(32)).astype(np.uint64)
        new = operation(source(m, w), old)
        write(m, w, old if saves else new)
        m.scalars[EXEC, w] = new.astype(np.uint32)
        m.scalars[EXEC + 1, w] = (new >> np.uint64(32)).astype(np.uint32)
        m.refresh_exec(w)
        m.scc[w] = new != 0

    return step


def _select(instruction: Instruction) -> Step:
    first, second = scalar_source(instruction, "ssrc0"), scalar_source(instruction, "ssrc1")
    write = scalar_destination(instruction)
    return lambda m, w: write(m, w, np.where(m.scc[w], first(m, w), second(m, w)))


def _conditional_move(instruction: Instruction) -> Step:
    new, old = _sources(instruction)[0], scalar_source(instruction, "sdst")
    write = scalar_destination(instruction)
    return lambda m, w: write(m, w, np.where(m.scc[w], new(m, w), old(m, w)))


def _carry(instruction: Instruction) -> Step:
    first, second = scalar_source(instruction, "ssrc0"), scalar_source(instruction, "ssrc1")
    write, subtracts = scalar_destination(instruction), instruction.mnemonic == "s_subb_u32"

    def step(m: Waves, w: Lanes) -> None:
        a, b, carry = first(m, w).astype(np.int64), second(m, w).astype(np.int64), m.scc[w].astype(np.int64)
        total = a - b - carry if subtracts else a + b + carry
        m.scc[w] = (total < 0) | (total > 0xFFFFFFFF)
        write(m, w, total.astype(np.uint32))

    return step


def _bit_set(instruction: Instruction) -> Step:
    position, old = scalar_source(instruction, "ssrc0"), scalar_source(instruction, "sdst")
    write, sets = scalar_destination(instruction), instruction.mnemonic.startswith("s_bitset1")

    def step(m: Waves, w: Lanes) -> None:
        bits = _unsigned(old(m, w))
        bit = bits.dtype.type(1) << _shift(position(m, w), bits)
        write(m, w, bits | bit if sets else bits & ~bit)

    return step


_SPECIAL: dict[str, Callable[[Instruction], Step]] = {
    "s_cselect_b32": _select,
    "s_cselect_b64": _select,
    "s_cmov_b32": _conditional_move,
    "s_cmov_b64": _conditional_move,
    "s_cmovk_i32": _conditional_move,
    "s_addc_u32": _carry,
    "s_subb_u32": _carry,
    "s_bitset0_b32": _bit_set,
    "s_bitset1_b32": _bit_set,
    "s_bitset0_b64": _bit_set,
    "s_bitset1_b64": _bit_set,
}
