// Global memory to LDS.

#pragma once

#include "geometry.hip"

struct staged_tile {
    ST_A (&a)[SPLIT];
    ST_B (&b)[SPLIT];
};

// The rows of A, or of Bt, that a workgroup multiplies: `first` is the first one's beginning, `rows` counts from there
// to the last of the matrix, `offsets` say where each load of this thread begins in a part.
template<typename ST, int LOADS> struct operand {
    const element *first;
    int row_stride, rows;
    uint32_t offsets[LOADS];

    __device__ __forceinline__ void prepare(ST &part) {
        G::prefill_swizzled_offsets(part, row_layout{nullptr, row_stride}, offsets);
    }

    // Rows past the matrix's last are outside the descriptor's range, and read as 0.
    __device__ __forceinline__ i32x4 descriptor(int h, int k) const {
        const int present = min(rows - h * ST::rows, ST::rows);
        const uint32_t elements = present > 0 ? (present - 1) * row_stride + min(K_STEP, row_stride) : 0;
        return make_srsrc(first + int64_t(h * ST::rows) * row_stride + k, elements * sizeof(element));
    }

    // Part h of a K-tile of which only the first `k_left` columns are there, if it is `masked`. A load is of one row,
    // and K is a multiple of its VECTOR elements.
    template<bool masked> __device__ __forceinline__ void fetch(ST &part, int h, int k, int k_left) const {
        uint32_t columns[LOADS];
        if constexpr (masked) G::prefill_swizzled_offsets(part, row_layout{nullptr, 0}, columns);
        const i32x4 srsrc = descriptor(h, k);
        const uint32_t share = kittens::warpid() * BYTES_PER_LOAD / NUM_WARPS;
        const uint32_t to = reinterpret_cast<uintptr_t>(&part.data[0]) + share;
        #pragma unroll
        for (int i = 0; i < LOADS; i++) {
            const uint32_t at = !masked || columns[i] < uint32_t(k_left) * sizeof(element) ? offsets[i] : OUTSIDE;
            llvm_amdgcn_raw_buffer_load_lds(srsrc, (as3_uint32_ptr)uintptr_t(to + i * BYTES_PER_LOAD), VECTOR_BYTES,
                                            at, 0, 0, static_cast<int>(coherency::cache_all));
            if constexpr (masked) __builtin_amdgcn_sched_barrier(0);  // not all masked offsets are to be alive at once
        }
    }
};

// The K-tiles of a workgroup. It begins with its last one, which may be only partly there: the steady state then
// fetches whole tiles alone, and masks nothing.
struct block_source {
    operand<ST_A, LOADS_A> a;
    operand<ST_B, LOADS_B> b;
    int k, first_tile, last_tile;

    __device__ __forceinline__ void prepare(staged_tile tile) {
        a.prepare(tile.a[0]);
        b.prepare(tile.b[0]);
    }

    // Tile `number` of the order in which they are multiplied: 0 is the last one.
    template<int part, bool masked> __device__ __forceinline__ void fetch_part(staged_tile tile, int number) const {
        constexpr int h = part / 2;
        const int at = (masked ? last_tile : first_tile + number - 1) * K_STEP;
        if constexpr (part % 2 == 0) b.template fetch<masked>(tile.b[h], h, at, k - at);
        else a.template fetch<masked>(tile.a[h], h, at, k - at);
    }

    template<int first, int last, bool masked = false>
    __device__ __forceinline__ void fetch(staged_tile tile, int number) const {
        static_for<last - first>([&]<int i>() __attribute__((always_inline)) {
            fetch_part<first + i, masked>(tile, number);
        });
    }
};

