// One step of K: LDS to registers to MFMA.

#pragma once

#include "fragment.hip"
#include "load.hip"
#include "mfma.hip"

struct warp_place { int row, col; };

struct fragments {
    RT_A a[SLICES][SPLIT];
    RT_B b[SLICES][SPLIT];
};

// Cluster c multiplies part c % SPLIT of A in slice c / SPLIT. The first cluster of a slice reads the slice of B, too.
constexpr int slice_of(int c) { return c / SPLIT; }
constexpr int part_of(int c) { return c % SPLIT; }

constexpr int reads_of(int c) { return (part_of(c) == 0 ? SPLIT * READS_B : 0) + READS_A; }
constexpr int tiles_b_of(int c) { return part_of(c) == 0 ? SPLIT * TILES_B : 0; }
constexpr int tiles_of(int c) { return tiles_b_of(c) + TILES_A; }

// With `next_follows`, the first clusters of the next tile come after the last ones of this. Interleaved reads have not
// set out yet when their cluster is waited for.
constexpr int reads_in_flight_under(int c, bool next_follows) {
    if (SCHEDULE == Schedule::interleave) return 0;
    int reads = 0;
    for (int later = c + 1; later <= c + LGKMCNT_CLUSTERS; later++) {
        if (later < CLUSTERS || next_follows) reads += reads_of(later % CLUSTERS);
    }
    return reads;
}

template<int c> __device__ __forceinline__ void read_cluster(fragments &f, const staged_tile &tile, warp_place warp) {
    constexpr int slice = slice_of(c), part = part_of(c);
    if constexpr (part == 0) {
        #pragma unroll
        for (int h = 0; h < SPLIT; h++) {
            read_fragment<slice>(f.b[slice][h], tile.b[h], warp.col);
        }
    }
    read_fragment<slice>(f.a[slice][part], tile.a[part], warp.row);
}

template<int c, bool next_follows> __device__ __forceinline__ void await_cluster(fragments &f) {
    constexpr int slice = slice_of(c), part = part_of(c);
    wait_shared<reads_in_flight_under(c, next_follows)>();
    if constexpr (part == 0) {
        #pragma unroll
        for (int h = 0; h < SPLIT; h++) arrived(f.b[slice][h]);
    }
    arrived(f.a[slice][part]);
}

// Base tile `i` of cluster c, in the order of read_cluster.
template<int c, int i>
__device__ __forceinline__ void read_one(fragments &f, const staged_tile &tile, warp_place warp) {
    constexpr int slice = slice_of(c), part = part_of(c), tiles_b = tiles_b_of(c);
    if constexpr (i < tiles_b) {
        constexpr int h = i / TILES_B, y = i / RT_B::width % RT_B::height, x = i % RT_B::width;
        read_base_tile<y, x, slice>(f.b[slice][h], tile.b[h], warp.col);
    } else {
        constexpr int y = (i - tiles_b) / RT_A::width, x = (i - tiles_b) % RT_A::width;
        read_base_tile<y, x, slice>(f.a[slice][part], tile.a[part], warp.row);
    }
}

// Row y of base tiles of b a^T, added to Ct. HipKittens' mma_ABt, of all rows, takes no half with float32 sums.
template<int y> __device__ __forceinline__ void multiply_tiles(RT_Ct &ct, const RT_B &b, const RT_A &a) {
    #pragma unroll
    for (int x = 0; x < RT_Ct::width; x++) {
        auto &sum = ct.tiles[y][x];
        #pragma unroll
        for (int k = 0; k < RT_A::width; k += GROUP_TILES) multiply_add(sum, b, y, a, x, k);
    }
}

// The same of all rows, where sums of blocks are scaled before they are added: AT_ONCE of them while the MFMAs of the next
// ones run. More would take more registers.
template<typename B, typename A> __device__ __forceinline__ void multiply_blocks(RT_Ct &ct, const B &b, const A &a) {
    constexpr int AT_ONCE = MFMA == 16 && RT_Ct::width % 2 == 0 ? 2 : 1;
    constexpr int width = RT_Ct::width, chunks = RT_A::width / GROUP_TILES * RT_Ct::height * width / AT_ONCE;
    vector_of<float, SUMS> blocks[2][AT_ONCE];
    static_for<chunks + 1>([&]<int chunk>() __attribute__((always_inline)) {
        const auto each = [&](int number, auto &&body) __attribute__((always_inline)) {
            #pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                const int at = number * AT_ONCE + i, row = at / width;
                body(blocks[number % 2][i], row % RT_Ct::height, at % width, row / RT_Ct::height * GROUP_TILES);
            }
        };
        if constexpr (chunk < chunks) {
            each(chunk, [&](auto &block, int y, int x, int k) { block = block_sums(b, y, a, x, k); });
        }
        __builtin_amdgcn_sched_barrier(0);
        if constexpr (chunk > 0) {
            each(chunk - 1, [&](auto &block, int y, int x, int k) { add_scaled(ct.tiles[y][x], block, b, y, a, x, k); });
        }
        __builtin_amdgcn_sched_barrier(0);
    });
}

constexpr int MFMA_ROWS = SPLIT * RT_Ct::height;  // of a cluster: what runs between two pieces of other work

template<int c, int row>
__device__ __forceinline__ void multiply_row(RT_Ct (&ct)[SPLIT][SPLIT], const fragments &f) {
    constexpr int slice = slice_of(c), part = part_of(c), h = row / RT_Ct::height;
    multiply_tiles<row % RT_Ct::height>(ct[part][h], f.b[slice][h], f.a[slice][part]);
}

// The MFMAs of a cluster, with `between.operator()<row>()` after each of its rows.
template<int c, typename F>
__device__ __forceinline__ void multiply_cluster(RT_Ct (&ct)[SPLIT][SPLIT], const fragments &f, F &&between) {
    scheduling_fence();
    set_priority<Priority::cluster, 1>();
    constexpr bool in_blocks = SCALES == Scales::blocks && SCHEDULE != Schedule::interleave;
    static_for<in_blocks ? SPLIT : 0>([&]<int h>() __attribute__((always_inline)) {
        multiply_blocks(ct[part_of(c)][h], f.b[slice_of(c)][h], f.a[slice_of(c)][part_of(c)]);
    });
    static_for<in_blocks ? 0 : MFMA_ROWS>([&]<int row>() __attribute__((always_inline)) {
        multiply_row<c, row>(ct, f);
        if constexpr (SCHEDULE == Schedule::interleave) {
            scheduling_fence();
            between.template operator()<row>();
            scheduling_fence();
        }
    });
    set_priority<Priority::cluster, 0>();
    scheduling_fence();
}

__device__ __forceinline__ void read_ahead(fragments &f, const staged_tile &tile, warp_place warp) {
    static_for<LGKMCNT_CLUSTERS>([&]<int c>() __attribute__((always_inline)) { read_cluster<c>(f, tile, warp); });
}

