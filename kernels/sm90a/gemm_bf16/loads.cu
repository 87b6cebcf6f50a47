// Operands whose rows TMA cannot address, as they are no multiples of 16 bytes: all threads of the producer's warpgroup
// load them, into the layout that TMA makes.
//
// Threads go over a piece of a stage in rounds of an atom's bytes, so what is swizzled for one round is so for all: a
// thread knows the place of what it copies from the first, and has but an addition to make for the next row. Rows of
// multiples of 8 bytes are copied by 8 bytes, others by 4, of two rows that are side by side: of rows of an odd number of
// elements one begins at a multiple of 4 bytes, from where it is copied, and the other between two. Of that one threads
// read elements and write pairs of them.
#pragma once
#include "copy.cu"
#include "element.cu"
#include "geometry.cu"

// Copies BYTES, or zeros where `inside` does not hold.
template <int BYTES>
DEVICE void copy(u32 target, const char* source, bool inside) {
    asm volatile("{\n.reg .pred p;\nsetp.eq.u32 p, %3, 0;\ncp.async.ca.shared.global [%0], [%1], %2, p;\n}" ::"r"(target),
                 "l"(source), "n"(BYTES), "r"(u32(inside)) : "memory");
}

// Counts this thread among those that `barrier` waits for, once all that it copied has come.
DEVICE void arrive_behind_copies(u32 barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// Threads write shared memory by the generic proxy, copies of theirs as well, and wgmma reads it by the async proxy. A
// fence between the proxies counts wherever it is on the way from a write to a read (PTX ISA, "Proxy-preserved base
// causality order"): here it is behind the wait for a stage. There it is of a few threads' own time, while a multiply is
// at work, and none of the producer's has to wait for its copies before it goes on.
DEVICE void see_what_threads_wrote() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

DEVICE u32 element_at(const char* source) {
    u16 bits;
    asm volatile("ld.global.u16 %0, [%1];" : "=h"(bits) : "l"(source));
    return bits;
}

DEVICE void write(u32 target, u32 pair) { asm volatile("st.shared.u32 [%0], %1;" ::"r"(target), "r"(pair) : "memory"); }

// Fills an operand's part of a stage: from `line` on, and from `k` on, of a matrix of `lines` and `depth` elements of K.
template <class Operand>
DEVICE void fill(u32 to, const u16* matrix, int line, int k, int lines, int depth) {
    constexpr bool BY_LINES = Operand::BY_LINES, IN_ROW = Operand::LOAD_BYTES == 8, IN_HALVES = Operand::LOAD_BYTES == 2;
    constexpr int WIDE = IN_ROW ? 8 : 4, SIDE_BY_SIDE = IN_ROW ? 1 : 2;  // bytes of a row, and rows, of a thread in a round
    constexpr int ROW_BYTES = Operand::ROW_BYTES, LANES = ROW_BYTES / WIDE, ROUND_ROWS = WARPGROUP / LANES * SIDE_BY_SIDE;
    constexpr int ROUNDS = Operand::PIECE_BYTES / ATOM_BYTES, BATCH = 32;
    static_assert(ROUND_ROWS * ROW_BYTES == ATOM_BYTES && Operand::PIECE_BYTES % ATOM_BYTES == 0, "rounds are whole");
    const int thread = threadIdx.x, down = thread / LANES * SIDE_BY_SIDE, across = thread % LANES * WIDE;
    const int row = (BY_LINES ? k : line) + down, rows_left = (BY_LINES ? depth : lines) - row;
    const int columns = BY_LINES ? lines : depth;
    const u64 row_bytes = u64(columns) * ELEMENT_BYTES;
    constexpr u32 SWIZZLED = ROW_BYTES - SWIZZLE_UNIT_BYTES;
    const u32 first = down * ROW_BYTES + across, second = first + ROW_BYTES;
    const u32 here = to + (first ^ (first >> 3 & SWIZZLED)), next = to + (second ^ (second >> 3 & SWIZZLED));
    int column = (BY_LINES ? line : k) + across / ELEMENT_BYTES;
    const char* piece_source = reinterpret_cast<const char*>(matrix) + row * row_bytes + u64(column) * ELEMENT_BYTES;
#pragma unroll 1
    for (int piece = 0; piece < Operand::PIECES; ++piece) {
        // Of two elements the last row may have but one: that is read and written, not copied.
        const bool has_any = column < columns, has_both = !IN_HALVES || column + 1 < columns;
        const bool whole = has_any && has_both, half = has_any && !has_both;
        const u32 in_piece = piece * Operand::PIECE_BYTES;
        const char* source = piece_source;
#pragma unroll
        for (int batch = 0; batch < ROUNDS; batch += BATCH) {
            u32 low[BATCH], high[BATCH];
#pragma unroll
            for (int i = 0; i < BATCH && batch + i < ROUNDS; ++i) {
                const int round = batch + i;
                const u32 target = here + in_piece + round * ATOM_BYTES;
                if (!half) copy<WIDE>(target, source, whole && round * ROUND_ROWS < rows_left);
                if constexpr (!IN_ROW) {
                    const bool has_next = round * ROUND_ROWS + 1 < rows_left;
                    const char* source_of_next = source + row_bytes;
                    if constexpr (IN_HALVES) {
                        low[i] = has_next && has_any ? element_at(source_of_next) : 0;
                        high[i] = has_next && whole ? element_at(source_of_next + ELEMENT_BYTES) : 0;
                    } else {
                        copy<WIDE>(next + in_piece + round * ATOM_BYTES, source_of_next, whole && has_next);
                    }
                }
                source += ROUND_ROWS * row_bytes;
            }
            if constexpr (IN_HALVES) {
#pragma unroll
                for (int i = 0; i < BATCH && batch + i < ROUNDS; ++i)
                    write(next + in_piece + (batch + i) * ATOM_BYTES, low[i] | high[i] << 16);
            }
        }
        if (IN_HALVES && half) {
            source = piece_source;
#pragma unroll 1
            for (int round = 0; round < ROUNDS; ++round, source += ROUND_ROWS * row_bytes)
                write(here + in_piece + round * ATOM_BYTES, round * ROUND_ROWS < rows_left ? element_at(source) : 0);
        }
        column += Operand::COLUMNS;
        piece_source += Operand::COLUMNS * ELEMENT_BYTES;
    }
}

// What TMA brings.
template <class Operand>
DEVICE void fill(u32, const TensorMap&, int, int, int, int) {}
