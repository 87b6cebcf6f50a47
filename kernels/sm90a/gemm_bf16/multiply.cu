// Warpgroup multiplies: wgmma and the descriptors of its operands.
#pragma once
#include "accumulators.cu"
#include "constants.cu"
#include "element.cu"
#include "geometry.cu"

#define JOINED_OF(x, y) x##y
#define JOINED(x, y) JOINED_OF(x, y)
#define EACH_ACCUMULATOR JOINED(EACH_, ACCUMULATORS)

#define WGMMA                                                                                              \
    "wgmma.mma_async.sync.aligned.m64n" TEXT(TILE_COLUMNS) "k" TEXT(WGMMA_DEPTH) "." TEXT(SUM_DTYPE) "." \
    TEXT(WGMMA_A_DTYPE) "." TEXT(WGMMA_B_DTYPE)
#define OPERAND(x) "%" TEXT(x)
#define NEXT_NAME(i) ",%" #i
#define NEXT_VALUE(i) , "+" REGISTER(d[i])

// What follows the predicate that says whether to accumulate: neither float is negated; which of the operands of 16 bits
// are transposed, which is to say along lines.
#if SUMS_ARE_INTEGERS
#define REGISTER "r"
#define MODIFIERS ""
#else
#define REGISTER "f"
#if WGMMA_DEPTH == 16
#define MODIFIERS ", 1, 1, " TEXT(WGMMA_A_TRANSPOSED) ", " TEXT(WGMMA_B_TRANSPOSED)
#else
#define MODIFIERS ", 1, 1"
#endif
#endif

// d += A (WGMMA_M x WGMMA_K) * B (WGMMA_K x TILE_COLUMNS), both in shared memory; d = that product when `accumulate` is
// 0.
DEVICE void multiply(Sum (&d)[ACCUMULATORS], u64 wgmma_a, u64 wgmma_b, int accumulate) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, " OPERAND(ACCUMULATE_OPERAND) ", 0;\n"
        WGMMA " {%0" EACH_ACCUMULATOR(NEXT_NAME) "}, "
        OPERAND(WGMMA_A_OPERAND) ", " OPERAND(WGMMA_B_OPERAND) ", p" MODIFIERS ";\n}"
        : "+" REGISTER(d[0]) EACH_ACCUMULATOR(NEXT_VALUE) : "l"(wgmma_a), "l"(wgmma_b), "r"(accumulate));
}

DEVICE void multiply_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

DEVICE void multiply_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int IN_FLIGHT>
DEVICE void multiply_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(IN_FLIGHT) : "memory");
}

// Fields of a matrix descriptor are in units of 16 bytes.
DEVICE constexpr u64 descriptor_units(u32 bytes) { return bytes >> 4; }

// The matrix descriptor of an operand. Rows come in eights, over which the swizzle repeats; its number is of the row's
// length. Of rows along K the next eight lines are a stride away. Of rows along lines the next eight elements of K are,
// and the next piece of lines is at the leading offset; without a swizzle it is the other way round (PTX ISA 8.0,
// "Matrix descriptor format" and "Strides" of wgmma).
template <class Operand>
DEVICE u64 descriptor(u32 address) {
    constexpr int ROW_BYTES = Operand::ROW_BYTES;
    constexpr u64 SWIZZLE = ROW_BYTES == 128 ? 1 : ROW_BYTES == 64 ? 2 : ROW_BYTES == 32 ? 3 : 0;
    constexpr u64 EIGHT_ROWS = descriptor_units(ATOM_LINES * ROW_BYTES), PIECE = descriptor_units(Operand::PIECE_BYTES);
    constexpr u64 LEADING = !Operand::BY_LINES ? 1 : SWIZZLE ? PIECE : EIGHT_ROWS;
    constexpr u64 STRIDE = Operand::BY_LINES && !SWIZZLE ? PIECE : EIGHT_ROWS;
    return SWIZZLE << 62 | STRIDE << 32 | LEADING << 16 | descriptor_units(address & 0x3FFFF);
}
