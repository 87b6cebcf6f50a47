// Registers to global memory.

#pragma once

#include "activation.hip"
#include "block_target.hip"
#include "multiply.hip"
#include "quads.hip"

__device__ __forceinline__ void clear_block(RT_Ct (&ct)[SPLIT][SPLIT]) {
    #pragma unroll
    for (int i = 0; i < SPLIT; i++) {
        #pragma unroll
        for (int j = 0; j < SPLIT; j++) zero(ct[i][j]);
    }
}

// Has the accumulators in their registers here and now.
__device__ __forceinline__ void settle_block(RT_Ct (&ct)[SPLIT][SPLIT]) {
    using sums = float __attribute__((ext_vector_type(2 * RT_Ct::packed_per_base_tile)));
    #pragma unroll
    for (int part = 0; part < SPLIT * SPLIT; part++) {
        #pragma unroll
        for (int t = 0; t < RT_Ct::height * RT_Ct::width; t++) {
            auto &tile = ct[part / SPLIT][part % SPLIT].tiles[t / RT_Ct::width][t % RT_Ct::width];
            asm volatile("" : "+v"(*reinterpret_cast<sums *>(tile.data)));
        }
    }
}

// Clears them under the loads that are in flight. The compiler would put it off until these have landed.
__device__ __forceinline__ void clear_block_under_loads(RT_Ct (&ct)[SPLIT][SPLIT]) {
    __builtin_amdgcn_sched_barrier(0);
    clear_block(ct);
    settle_block(ct);
    __builtin_amdgcn_sched_barrier(0);
}

// Calls body(index, a lane's quad as two pairs) for all its accumulators.
template<typename F> __device__ __forceinline__ void for_each_quad(RT_Ct (&ct)[SPLIT][SPLIT], F &&body) {
    constexpr int pairs = RT_Ct::packed_per_base_tile, tiles = RT_Ct::height * RT_Ct::width;
    #pragma unroll
    for (int part = 0; part < SPLIT * SPLIT; part++) {
        #pragma unroll
        for (int t = 0; t < tiles; t++) {
            auto &data = ct[part / SPLIT][part % SPLIT].tiles[t / RT_Ct::width][t % RT_Ct::width].data;
            #pragma unroll
            for (int p = 0; p < pairs; p += QUAD_PAIRS) {
                body(((part * tiles + t) * pairs + p) / QUAD_PAIRS, data[p], data[p + 1]);
            }
        }
    }
}

// Sums of integers are kept as their bits.
__device__ __forceinline__ float2 added(float2 a, float2 b) {
    if constexpr (!INTEGER_SUMS) return {a.x + b.x, a.y + b.y};
    using i32x2 = int __attribute__((ext_vector_type(2)));
    return __builtin_bit_cast(float2, __builtin_bit_cast(i32x2, a) + __builtin_bit_cast(i32x2, b));
}

// Whether this warp comes last of the SPLIT_K that share its part of a block; then what the others stored can be read.
// The counter wraps to 0, ready for the next launch.
__device__ __forceinline__ bool arrives_last(uint32_t *counter) {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "agent");
    uint32_t earlier = 0;
    if (kittens::laneid() == 0) {
        earlier = __builtin_amdgcn_atomic_inc32(counter, SPLIT_K - 1, __ATOMIC_RELAXED, "agent");
    }
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "agent");
    return __builtin_amdgcn_readfirstlane(earlier) == SPLIT_K - 1;
}

// Adds up the sums of the workgroups that share a block, in the order of their K-tiles, whichever comes last: the bits
// of C do not depend on timing. The workspace holds a counter for each warp of each block, in bytes that the launch
// finds and leaves zero; from COUNTERS on, SPLIT_K slabs of float32 for each block.
__device__ __forceinline__ bool gather_block(RT_Ct (&ct)[SPLIT][SPLIT], float *workspace, int block, int share,
                                             int warp_id) {
    constexpr int slab = BLOCK_M * BLOCK_N, quads_at_once = 8;  // more would not fit next to all accumulators
    float *const slabs = workspace + COUNTERS + int64_t(block) * SPLIT_K * slab;
    const auto descriptor = [&](int s) { return make_srsrc(slabs + s * slab, slab * sizeof(float)); };
    const uint32_t lane_offset = threadIdx.x * sizeof(float4);
    const i32x4 own = descriptor(share);
    for_each_quad(ct, [&](int i, float2 &low, float2 &high) {
        const float4 sum{low.x, low.y, high.x, high.y};
        // In the vector offset: behind a wide store with a scalar one the hardware may still read the data registers.
        const uint32_t offset = lane_offset + i * NUM_THREADS * sizeof(float4);
        llvm_amdgcn_raw_buffer_store_b128(__builtin_bit_cast(__uint128_t, sum), own, offset, 0, 0);
    });
    if (!arrives_last(reinterpret_cast<uint32_t *>(workspace) + block * NUM_WARPS + warp_id)) return false;
    clear_block(ct);
    #pragma unroll 1
    for (int s = 0; s < SPLIT_K; s++) {
        const i32x4 shared = descriptor(s);
        for_each_quad(ct, [&](int i, float2 &low, float2 &high) {
            const uint32_t quad_offset = i * NUM_THREADS * sizeof(float4);
            const __uint128_t words = llvm_amdgcn_raw_buffer_load_b128(shared, lane_offset, quad_offset, 0);
            const auto sum = __builtin_bit_cast(float4, words);
            low = added(low, {sum.x, sum.y});
            high = added(high, {sum.z, sum.w});
            if (i % quads_at_once == quads_at_once - 1) __builtin_amdgcn_sched_barrier(0);
        });
    }
    return true;
}

__device__ __forceinline__ f32x2 biased(float2 sum, float2 bias) { return f32x2{sum.x + bias.x, sum.y + bias.y}; }

// A pair of quad q of part j of C in float32, before a residual is added; `of_row` is the scale of its row.
__device__ __forceinline__ f32x2 finished(RT_Ct (&ct)[SPLIT], int j, int t, int q, int pair, const quad_bias &bias,
                                          const quad_bias &up_bias, float of_row, const block_scales &scales) {
    const float2 sum = scales.times_alpha(scaled(quad_of(ct[j], t, q)[pair], of_row, bias.scales[pair]));
    if constexpr (DTYPE_C == Dtype::i32) return f32x2{sum.x, sum.y};
    const f32x2 value = activated(biased(sum, bias.pairs[pair]));
    if constexpr (!GATED) return value;
    constexpr int up_part = GATES == Gates::part ? 1 : 0, up_quad = GATES == Gates::part ? 0 : QUADS;
    return value * biased(scales.times_alpha(quad_of(ct[up_part], t, q + up_quad)[pair]), up_bias.pairs[pair]);
}

// A pair of a residual, or of C before it is rounded, as their factors have them.
__device__ __forceinline__ f32x2 times_beta(f32x2 residual, const block_scales &scales) {
    return HAS_BETA ? residual * scales.beta : residual;
}

__device__ __forceinline__ f32x2 times_scale_c(f32x2 value, const block_scales &scales) {
    return SCALES_C ? value * scales.c : value;
}

// Where a warp's accumulators belong in a block: row tile `it` of all parts, and quad q of part j.
__device__ __forceinline__ int row_of(warp_place warp, int it, int lane_row) {
    constexpr int row_tiles = RT_Ct::width;
    return it / row_tiles * PART_M + warp.row * REG_M + it % row_tiles * MFMA + lane_row;
}

__device__ __forceinline__ int column_of(warp_place warp, int j, int q) {
    return j * PART_N + warp.col * REG_COLS + q * QUAD_COLS;
}

template<bool whole_vectors>
__device__ __forceinline__ void load_sums(const block_target &c, RT_Ct (&ct)[SPLIT][SPLIT], warp_place warp) {
    constexpr int row_tiles = RT_Ct::width;
    const i32x4 srsrc = c.descriptor();
    const uint32_t row_bytes = c.row_stride * sizeof(output);
    static_for<SPLIT * QUADS>([&]<int jq>() __attribute__((always_inline)) {
        constexpr int j = jq / QUADS, q = jq % QUADS;
        uint32_t columns[QUAD];
        for (int e = 0; e < QUAD; e++) columns[e] = c.column_offset(column_of(warp, j, q) + lane_column<1>() + e);
        static_for<SPLIT * row_tiles>([&]<int it>() __attribute__((always_inline)) {
            const uint32_t row = row_of(warp, it, lane_row<1>()) * row_bytes;
            load_quad<whole_vectors>(srsrc, row, columns, quad_of(ct[it / row_tiles][j], it % row_tiles, q));
        });
        __builtin_amdgcn_sched_barrier(0);
    });
}

// Begins the sums with what C holds.
__device__ __forceinline__ void load_block(const block_target &c, RT_Ct (&ct)[SPLIT][SPLIT], warp_place warp) {
    __builtin_amdgcn_sched_barrier(0);
    c.whole_vectors ? load_sums<true>(c, ct, warp) : load_sums<false>(c, ct, warp);
    settle_block(ct);
    __builtin_amdgcn_sched_barrier(0);
}

constexpr int ROW_TILES = SPLIT * RT_Ct::width;

// What is added to C, on its way: of the row tiles of all columns of a warp, in the order in which these are stored.
template<int quads> struct residual_ahead {
    static constexpr int steps = PARTS_COLS * QUADS / quads * ROW_TILES;
    static constexpr int fit = 32 / (quads * QUAD_WORDS);  // into registers that the main loop's fragments leave
    static constexpr int ahead = fit < 1 ? 1 : fit < steps ? fit : steps;

    const block_target &c;
    warp_place warp;
    quad_words<quads> words[ahead];

    __device__ __forceinline__ void begin() {
        static_for<ahead>([&]<int step>() __attribute__((always_inline)) { fetch<step>(); });
    }

    template<int step> __device__ __forceinline__ void fetch() {
        constexpr int v = step / ROW_TILES, j = v * quads / QUADS, q = v * quads % QUADS;
        const uint32_t row_bytes = c.residual_stride * sizeof(output);
        const uint32_t at = row_of(warp, step % ROW_TILES, lane_row<quads>()) * row_bytes
                          + c.column_offset(column_of(warp, j, q) + lane_column<quads>());
        words[step % ahead] = load_quads<quads>(c.residual_descriptor(), at, HALF_ROWS * row_bytes);
    }

    // Of one step, in the lanes of the sums. The one that takes its place sets out.
    template<int step> __device__ __forceinline__ quad_words<quads> take() {
        quad_words<quads> taken = words[step % ahead];
        back_to_lanes(taken);
        if constexpr (step + ahead < steps) fetch<step + ahead>();
        __builtin_amdgcn_sched_barrier(0);
        return taken;
    }
};

// Whole vectors of columns, `quads` of a lane at once.
template<int quads>
__device__ __forceinline__ void store_vectors(const block_target &c, const block_scales &scales,
                                              const float (&of_rows)[ROW_TILES], i32x4 srsrc, uint32_t row_bytes,
                                              RT_Ct (&ct)[SPLIT][SPLIT], warp_place warp) {
    residual_ahead<quads> residual{c, warp};
    if constexpr (HAS_RESIDUAL) residual.begin();
    static_for<PARTS_COLS * QUADS / quads>([&]<int v>() __attribute__((always_inline)) {
        constexpr int j = v * quads / QUADS, q = v * quads % QUADS;
        const uint32_t column = c.column_offset(column_of(warp, j, q) + lane_column<quads>());
        quad_bias bias[quads], up_bias[quads] = {};
        for (int i = 0; i < quads; i++) {
            const int first = column_of(warp, j, q + i) + lane_column<1>();
            bias[i] = bias_at(c, scales, c.bias, first);
            if constexpr (GATED) up_bias[i] = up_bias_at(c, scales, first);
        }
        static_for<ROW_TILES>([&]<int it>() __attribute__((always_inline)) {
            constexpr int part = it / RT_Ct::width, t = it % RT_Ct::width;
            const uint32_t at = row_of(warp, it, lane_row<quads>()) * row_bytes + column;
            quad_words<quads> added, words;
            if constexpr (HAS_RESIDUAL) added = residual.template take<v * ROW_TILES + it>();
            #pragma unroll
            for (int p = 0; p < quads * QUAD_PAIRS; p++) {
                const int quad = p / QUAD_PAIRS, pair = p % QUAD_PAIRS;
                f32x2 value = finished(ct[part], j, t, q + quad, pair, bias[quad], up_bias[quad], of_rows[it], scales);
                if constexpr (HAS_RESIDUAL) value += times_beta(widened_pair(added.at + p * PAIR_WORDS), scales);
                words.put(p, times_scale_c(value, scales));
            }
            store_quads<quads>(srsrc, at, HALF_ROWS * row_bytes, words);
        });
        __builtin_amdgcn_sched_barrier(0);
    });
}

__device__ __forceinline__ void store_one_by_one(const block_target &c, const block_scales &scales,
                                                 const float (&of_rows)[ROW_TILES], i32x4 srsrc, uint32_t row_bytes,
                                                 RT_Ct (&ct)[SPLIT][SPLIT], warp_place warp) {
    static_for<PARTS_COLS * QUADS>([&]<int jq>() __attribute__((always_inline)) {
        constexpr int j = jq / QUADS, q = jq % QUADS;
        const int column = column_of(warp, j, q) + lane_column<1>();
        const quad_bias bias = bias_at(c, scales, c.bias, column);
        const quad_bias up_bias = GATED ? up_bias_at(c, scales, column) : quad_bias{};
        uint32_t columns[QUAD];
        for (int e = 0; e < QUAD; e++) columns[e] = c.column_offset(column + e);
        static_for<ROW_TILES>([&]<int it>() __attribute__((always_inline)) {
            constexpr int part = it / RT_Ct::width, t = it % RT_Ct::width;
            const int row = row_of(warp, it, lane_row<1>());
            float2 added[QUAD_PAIRS] = {};
            if constexpr (HAS_RESIDUAL) {
                const uint32_t from = row * c.residual_stride * sizeof(output);
                load_quad<false>(c.residual_descriptor(), from, columns, added);
            }
            store_elements(srsrc, row * row_bytes, columns, [&](int pair) __attribute__((always_inline)) {
                const f32x2 value = finished(ct[part], j, t, q, pair, bias, up_bias, of_rows[it], scales);
                const f32x2 residual = times_beta(f32x2{added[pair].x, added[pair].y}, scales);
                return times_scale_c(HAS_RESIDUAL ? value + residual : value, scales);
            });
        });
        __builtin_amdgcn_sched_barrier(0);
    });
}

__device__ __forceinline__ void store_block(const block_target &c, const block_scales &scales,
                                            RT_Ct (&ct)[SPLIT][SPLIT], warp_place warp) {
    float of_rows[ROW_TILES];
    #pragma unroll
    for (int it = 0; it < ROW_TILES; it++) {
        if constexpr (SUMS_HAVE_SCALES) of_rows[it] = scales.of_row(row_of(warp, it, lane_row<1>()));
    }
    const i32x4 srsrc = c.descriptor();
    const uint32_t row_bytes = c.row_stride * sizeof(output);
    if (c.whole_vectors) store_vectors<QUADS_AT_ONCE>(c, scales, of_rows, srsrc, row_bytes, ct, warp);
    else store_one_by_one(c, scales, of_rows, srsrc, row_bytes, ct, warp);
}
