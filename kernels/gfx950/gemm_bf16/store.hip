// Registers to global memory.

#pragma once

#include "activation.hip"
#include "multiply.hip"
#include "scale.hip"

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

__device__ uint16_t raw_buffer_load_b16(i32x4 srsrc, uint32_t voffset, uint32_t soffset, uint32_t coherency)
    __asm("llvm.amdgcn.raw.buffer.load.i16");

// The block of C that a workgroup stores: `first` is its corner, `rows` and `cols` count from there to the ends of C.
struct block_target {
    output *first;
    const output *bias;  // of the block's first column; or null
    int row_stride, rows, cols;
    bool whole_vectors;  // whether no vector of columns straddles a row's end, or begins within another one's bytes

    // The block of C [m,n] that begins at (row, col).
    __device__ __forceinline__ block_target(output *c, const output *bias, int row, int col, int m, int n, int row_stride)
        : first(c + int64_t(row) * row_stride + col), bias(bias ? bias + col : nullptr), row_stride(row_stride),
          rows(m - row), cols(n - col), whole_vectors(n % VECTOR_C == 0 && row_stride % VECTOR_C == 0) {}

    // Beyond the block's last row nothing is stored; beyond its last column, nothing at OUTSIDE.
    __device__ __forceinline__ i32x4 descriptor() const {
        return make_srsrc(first, ((min(rows, BLOCK_M) - 1) * row_stride + min(cols, BLOCK_N)) * sizeof(output));
    }

    __device__ __forceinline__ uint32_t column_offset(int col) const {
        return col < cols ? col * sizeof(output) : OUTSIDE;
    }
};

__device__ __forceinline__ float2 *quad_of(RT_Ct &ct, int row_tile, int quad) {
    constexpr int quads_per_tile = MFMA / QUAD_COLS;
    return &ct.tiles[quad / quads_per_tile][row_tile].data[quad % quads_per_tile * QUAD_PAIRS];
}

using scalar = element_of<DTYPE_C>::scalar;

// The float32 of a number of C's format, whose bits are the low ones of `bits`.
__device__ __forceinline__ float widened(uint32_t bits) {
    if constexpr (DTYPE_C == Dtype::bf16) return __builtin_bit_cast(float, bits << 16);
    else return __builtin_bit_cast(scalar, static_cast<element_of<DTYPE_C>::bits>(bits));
}

__device__ __forceinline__ uint32_t load_bits(i32x4 srsrc, uint32_t at) {
    if constexpr (DTYPE_C == Dtype::f32) return llvm_amdgcn_raw_buffer_load_b32(srsrc, at, 0, 0);
    else return raw_buffer_load_b16(srsrc, at, 0, 0);
}

// The bias of a quad's columns, 0 where C has none, and their factors. Nothing but the bias is decided at run time: a
// branch around all the accumulators would cost registers.
struct quad_bias { float2 pairs[QUAD_PAIRS], factors[QUAD_PAIRS]; };

__device__ __forceinline__ quad_bias bias_at(const block_target &c, const block_factors &factors, int col) {
    quad_bias bias{};
    if (c.bias) {
        const i32x4 srsrc = make_srsrc(c.bias, min(c.cols, BLOCK_N) * sizeof(output));
        float columns[QUAD];
        #pragma unroll
        for (int e = 0; e < QUAD; e++) {
            columns[e] = widened(load_bits(srsrc, (col + e) * sizeof(output)));
        }
        bias = {{{columns[0], columns[1]}, {columns[2], columns[3]}}};
    }
    if constexpr (SCALES == Scales::rows) {
        #pragma unroll
        for (int p = 0; p < QUAD_PAIRS; p++) {
            bias.factors[p] = {factors.of_column(col + 2 * p), factors.of_column(col + 2 * p + 1)};
        }
    }
    return bias;
}

constexpr int QUAD_WORDS = QUAD * sizeof(output) / sizeof(uint32_t);
constexpr int PAIR_WORDS = QUAD_WORDS / QUAD_PAIRS;

struct pair_words { uint32_t at[PAIR_WORDS]; };

// Two sums as they are stored, rounded to nearest even; what is beyond the largest number becomes infinite. The
// conversion is the compiler's, which puts wait states between an MFMA and what reads its result; before HipKittens'
// own convertor, an assembly statement, it would put none.
__device__ __forceinline__ pair_words rounded(float2 sum, float2 bias) {
    if constexpr (DTYPE_C == Dtype::i32) {  // whose bits they are
        pair_words words;
        __builtin_memcpy(&words, &sum, sizeof(words));
        return words;
    }
    using scalar_x2 = scalar __attribute__((ext_vector_type(2)));
    const f32x2 values = activated(f32x2{sum.x + bias.x, sum.y + bias.y});
    return __builtin_bit_cast(pair_words, __builtin_convertvector(values, scalar_x2));
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

// Stores `quads` neighbouring quads: up to a vector with one instruction, two vectors with two, `half_rows` apart.
template<int quads> __device__ __forceinline__ void store_quads(i32x4 srsrc, uint32_t at, uint32_t half_rows, RT_Ct &ct,
                                                                int t, int q, const quad_bias (&bias)[quads],
                                                                float of_row) {
    constexpr int vector_words = VECTOR_BYTES / sizeof(uint32_t);
    uint32_t words[quads * QUAD_WORDS];
    #pragma unroll
    for (int w = 0; w < quads * QUAD_WORDS; w++) {
        const int quad = w / QUAD_WORDS, pair = w % QUAD_WORDS / PAIR_WORDS;
        const float2 sums = scaled(quad_of(ct, t, q + quad)[pair], of_row, bias[quad].factors[pair]);
        words[w] = rounded(sums, bias[quad].pairs[pair]).at[w % PAIR_WORDS];
    }
    if constexpr (quads < VECTOR_QUADS) {
        llvm_amdgcn_raw_buffer_store_b64(uint64_t(words[1]) << 32 | words[0], srsrc, at, 0, 0);
        return;
    }
    if constexpr (VECTOR_QUADS == 2) {
        #pragma unroll
        for (int w = 0; w < quads * QUAD_WORDS; w += vector_words) {
            pair_up(words[w], words[w + 2]);
            pair_up(words[w + 1], words[w + 3]);
        }
    }
    if constexpr (quads == LINE_QUADS) {
        #pragma unroll
        for (int w = 0; w < vector_words; w++) line_up(words[w], words[vector_words + w]);
        store_words(srsrc, at + half_rows, words + vector_words);
    }
    store_words(srsrc, at, words);
}

// For rows of C that begin, or end, anywhere: element by element.
__device__ __forceinline__ void store_elements(i32x4 srsrc, uint32_t row, const uint32_t (&columns)[QUAD], RT_Ct &ct,
                                               int t, int q, const quad_bias &bias, float of_row) {
    #pragma unroll
    for (int e = 0; e < QUAD; e++) {
        const pair_words pair = rounded(scaled(quad_of(ct, t, q)[e / 2], of_row, bias.factors[e / 2]), bias.pairs[e / 2]);
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
    return j * PART_N + warp.col * REG_N + q * QUAD_COLS;
}

// A quad of C, and 0 where C has none. `columns` are the offsets of its elements.
template<bool whole_vectors>
__device__ __forceinline__ void load_quad(i32x4 srsrc, uint32_t row, const uint32_t (&columns)[QUAD], float2 *quad) {
    float sums[QUAD];
    if constexpr (!whole_vectors) {
        #pragma unroll
        for (int e = 0; e < QUAD; e++) sums[e] = widened(load_bits(srsrc, row + columns[e]));
    } else if constexpr (QUAD_WORDS == 4) {
        const __uint128_t words = llvm_amdgcn_raw_buffer_load_b128(srsrc, row + columns[0], 0, 0);
        __builtin_memcpy(sums, &words, sizeof(sums));
    } else {
        const uint64_t words = llvm_amdgcn_raw_buffer_load_b64(srsrc, row + columns[0], 0, 0);
        #pragma unroll
        for (int e = 0; e < QUAD; e++) sums[e] = widened(uint16_t(words >> 16 * e));
    }
    quad[0] = {sums[0], sums[1]};
    quad[1] = {sums[2], sums[3]};
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

__device__ __forceinline__ void store_block(const block_target &c, const block_factors &factors,
                                            RT_Ct (&ct)[SPLIT][SPLIT], warp_place warp) {
    constexpr int quads = QUADS_AT_ONCE, row_tiles = RT_Ct::width;
    float of_rows[SPLIT * row_tiles];
    #pragma unroll
    for (int it = 0; it < SPLIT * row_tiles; it++) {
        if constexpr (SUMS_HAVE_FACTORS) of_rows[it] = factors.of_row(row_of(warp, it, lane_row<1>()));
    }
    const i32x4 srsrc = c.descriptor();
    const uint32_t row_bytes = c.row_stride * sizeof(output);
    const auto row_offset = [&](int it, int lane_row) __attribute__((always_inline)) {
        return row_of(warp, it, lane_row) * row_bytes;
    };
    if (c.whole_vectors) {
        static_for<SPLIT * QUADS / quads>([&]<int v>() __attribute__((always_inline)) {
            constexpr int j = v * quads / QUADS, q = v * quads % QUADS;
            const uint32_t column = c.column_offset(column_of(warp, j, q) + lane_column<quads>());
            quad_bias bias[quads];
            for (int i = 0; i < quads; i++) {
                bias[i] = bias_at(c, factors, column_of(warp, j, q + i) + lane_column<1>());
            }
            static_for<SPLIT * row_tiles>([&]<int it>() __attribute__((always_inline)) {
                const uint32_t at = row_offset(it, lane_row<quads>()) + column;
                store_quads<quads>(srsrc, at, HALF_ROWS * row_bytes, ct[it / row_tiles][j], it % row_tiles, q, bias,
                                   of_rows[it]);
            });
            __builtin_amdgcn_sched_barrier(0);
        });
    } else {
        static_for<SPLIT * QUADS>([&]<int jq>() __attribute__((always_inline)) {
            constexpr int j = jq / QUADS, q = jq % QUADS;
            const quad_bias bias = bias_at(c, factors, column_of(warp, j, q) + lane_column<1>());
            uint32_t columns[QUAD];
            for (int e = 0; e < QUAD; e++) columns[e] = c.column_offset(column_of(warp, j, q) + lane_column<1>() + e);
            static_for<SPLIT * row_tiles>([&]<int it>() __attribute__((always_inline)) {
                const uint32_t row = row_offset(it, lane_row<1>());
                store_elements(srsrc, row, columns, ct[it / row_tiles][j], it % row_tiles, q, bias, of_rows[it]);
            });
            __builtin_amdgcn_sched_barrier(0);
        });
    }
}

