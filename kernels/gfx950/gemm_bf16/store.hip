// Registers to global memory.

#pragma once

#include "activation.hip"
#include "block_target.hip"
#include "multiply.hip"

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

// Two sums as they are stored, rounded to nearest even; what is beyond the largest number becomes infinite. The
// conversion is the compiler's, which puts wait states between an MFMA and what reads its result; before HipKittens'
// own convertor, an assembly statement, it would put none.
__device__ __forceinline__ pair_words rounded(f32x2 values) {
    if constexpr (DTYPE_C == Dtype::i32) {  // whose bits they are
        pair_words words;
        __builtin_memcpy(&words, &values, sizeof(words));
        return words;
    }
    using scalar_x2 = scalar __attribute__((ext_vector_type(2)));
    return __builtin_bit_cast(pair_words, __builtin_convertvector(values, scalar_x2));
}

__device__ __forceinline__ f32x2 biased(float2 sum, float2 bias) { return f32x2{sum.x + bias.x, sum.y + bias.y}; }

// A pair of quad q of part j of C in float32, before a residual is added; `of_row` is the scale of its row.
__device__ __forceinline__ f32x2 finished(RT_Ct (&ct)[SPLIT], int j, int t, int q, int pair, const quad_bias &bias,
                                          const quad_bias &up_bias, float of_row) {
    const float2 sum = scaled(quad_of(ct[j], t, q)[pair], of_row, bias.scales[pair]);
    if constexpr (DTYPE_C == Dtype::i32) return f32x2{sum.x, sum.y};
    const f32x2 value = activated(biased(sum, bias.pairs[pair]));
    if constexpr (!GATED) return value;
    constexpr int up_part = GATES == Gates::part ? 1 : 0, up_quad = GATES == Gates::part ? 0 : QUADS;
    return value * biased(quad_of(ct[up_part], t, q + up_quad)[pair], up_bias.pairs[pair]);
}

// The float32 of a pair whose words are these.
__device__ __forceinline__ f32x2 widened_pair(const uint32_t *words) {
    if constexpr (PAIR_WORDS == 2) return f32x2{widened(words[0]), widened(words[1])};
    return f32x2{widened(words[0] & 0xffff), widened(words[0] >> 16)};
}

// Trades halves of two quads with the neighbouring lane of the row, so that each lane ends up with a vector of columns.
__device__ __forceinline__ void pair_up(uint32_t &left, uint32_t &right) {
    const auto swapped = MFMA == 16 ? __builtin_amdgcn_permlane16_swap(left, right, false, false)
                                    : __builtin_amdgcn_permlane32_swap(left, right, false, false);
    left = swapped[0];
    right = swapped[1];
}

// Trades the lower half of `left` for the upper half of `right`, of the 16 rows that their lanes are: `left` ends up
// with the columns of both in the upper rows, `right` in the lower ones.
__device__ __forceinline__ void line_up(uint32_t &left, uint32_t &right) {
    constexpr int rotate_by_8 = 0x128, all_rows = 0xf, banks_0_to_7 = 0x3, banks_8_to_15 = 0xc;
    const uint32_t upper = __builtin_amdgcn_update_dpp(left, right, rotate_by_8, all_rows, banks_8_to_15, false);
    right = __builtin_amdgcn_update_dpp(right, left, rotate_by_8, all_rows, banks_0_to_7, false);
    left = upper;
}

// A lane stores half a vector, a vector, or two vectors, one of them HALF_ROWS rows below. A vector is two quads, or of
// float32 one. Vectors are lined up where a row of the warp's part is as long as a line of memory: then each store is
// of whole lines.
constexpr int HALF_ROWS = 8;
constexpr int VECTOR_QUADS = VECTOR_C / QUAD;
constexpr int LINE_QUADS = 2 * VECTOR_QUADS;
constexpr bool LINES_UP = MFMA == 16 && QUADS % LINE_QUADS == 0;
constexpr int QUADS_AT_ONCE = LINES_UP ? LINE_QUADS : QUADS % VECTOR_QUADS == 0 ? VECTOR_QUADS : 1;

template<int quads> __device__ __forceinline__ int lane_row() {
    return kittens::laneid() % (quads == LINE_QUADS ? HALF_ROWS : MFMA);
}

template<int quads> __device__ __forceinline__ int lane_column() {
    const int lane = kittens::laneid() / MFMA;
    const int column = quads == 1 || VECTOR_QUADS == 1 ? lane * QUAD : lane % 2 * QUAD_COLS + lane / 2 * VECTOR_C;
    if constexpr (quads < LINE_QUADS) return column;
    return column + kittens::laneid() / HALF_ROWS % 2 * VECTOR_QUADS * QUAD_COLS;
}

__device__ __forceinline__ void store_words(i32x4 srsrc, uint32_t at, const uint32_t *words) {
    __uint128_t vector;
    __builtin_memcpy(&vector, words, sizeof(vector));
    llvm_amdgcn_raw_buffer_store_b128(vector, srsrc, at, 0, 0);
}

constexpr int VECTOR_WORDS = VECTOR_BYTES / sizeof(uint32_t);

// The words of `quads` neighbouring quads of a row of C.
template<int quads> struct quad_words { uint32_t at[quads * QUAD_WORDS]; };

template<int quads> __device__ __forceinline__ void pair_up_all(quad_words<quads> &words) {
    if constexpr (quads >= VECTOR_QUADS && VECTOR_QUADS == 2) {
        #pragma unroll
        for (int w = 0; w < quads * QUAD_WORDS; w += VECTOR_WORDS) {
            pair_up(words.at[w], words.at[w + 2]);
            pair_up(words.at[w + 1], words.at[w + 3]);
        }
    }
}

template<int quads> __device__ __forceinline__ void line_up_all(quad_words<quads> &words) {
    if constexpr (quads == LINE_QUADS) {
        #pragma unroll
        for (int w = 0; w < VECTOR_WORDS; w++) line_up(words.at[w], words.at[VECTOR_WORDS + w]);
    }
}

// Stores `quads` neighbouring quads: up to a vector with one instruction, two vectors with two, `half_rows` apart.
template<int quads>
__device__ __forceinline__ void store_quads(i32x4 srsrc, uint32_t at, uint32_t half_rows, quad_words<quads> &words) {
    if constexpr (quads < VECTOR_QUADS) {
        llvm_amdgcn_raw_buffer_store_b64(uint64_t(words.at[1]) << 32 | words.at[0], srsrc, at, 0, 0);
        return;
    }
    pair_up_all(words);
    line_up_all(words);
    if constexpr (quads == LINE_QUADS) store_words(srsrc, at + half_rows, words.at + VECTOR_WORDS);
    store_words(srsrc, at, words.at);
}

// What `store_quads` would have stored there.
template<int quads>
__device__ __forceinline__ quad_words<quads> load_quads(i32x4 srsrc, uint32_t at, uint32_t half_rows) {
    quad_words<quads> words;
    if constexpr (quads < VECTOR_QUADS) {
        const uint64_t both = llvm_amdgcn_raw_buffer_load_b64(srsrc, at, 0, 0);
        words = {{uint32_t(both), uint32_t(both >> 32)}};
    } else {
        #pragma unroll
        for (int v = 0; v < quads / VECTOR_QUADS; v++) {
            const __uint128_t vector = llvm_amdgcn_raw_buffer_load_b128(srsrc, at + v * half_rows, 0, 0);
            __builtin_memcpy(words.at + v * VECTOR_WORDS, &vector, sizeof(vector));
        }
    }
    return words;
}

// In the lanes of C's sums: each trade undoes itself.
template<int quads> __device__ __forceinline__ void back_to_lanes(quad_words<quads> &words) {
    line_up_all(words);
    pair_up_all(words);
}

// For rows of C that begin, or end, anywhere: element by element of a quad, whose pairs are values(0) and values(1).
template<typename F>
__device__ __forceinline__ void store_elements(i32x4 srsrc, uint32_t row, const uint32_t (&columns)[QUAD], F &&values) {
    #pragma unroll
    for (int e = 0; e < QUAD; e++) {
        const pair_words pair = rounded(values(e / 2));
        const uint32_t bits = PAIR_WORDS == 2 ? pair.at[e % PAIR_WORDS] : e % 2 ? pair.at[0] >> 16 : pair.at[0];
        if constexpr (PAIR_WORDS == 2) llvm_amdgcn_raw_buffer_store_b32(bits, srsrc, row + columns[e], 0, 0);
        else llvm_amdgcn_raw_buffer_store_b16(bits, srsrc, row + columns[e], 0, 0);
    }
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
            for (int w = 0; w < quads * QUAD_WORDS; w += PAIR_WORDS) {
                const int quad = w / QUAD_WORDS, pair = w % QUAD_WORDS / PAIR_WORDS;
                f32x2 value = finished(ct[part], j, t, q + quad, pair, bias[quad], up_bias[quad], of_rows[it]);
                if constexpr (HAS_RESIDUAL) value += widened_pair(added.at + w);
                const pair_words both = rounded(value);
                for (int i = 0; i < PAIR_WORDS; i++) words.at[w + i] = both.at[i];
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
                const f32x2 value = finished(ct[part], j, t, q, pair, bias, up_bias, of_rows[it]);
                return HAS_RESIDUAL ? value + f32x2{added[pair].x, added[pair].y} : value;
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
