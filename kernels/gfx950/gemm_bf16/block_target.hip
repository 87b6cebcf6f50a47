// The block of C that a workgroup stores, and what is read for it: a bias, a residual, what C holds.

#pragma once

#include "scale.hip"

__device__ uint16_t raw_buffer_load_b16(i32x4 srsrc, uint32_t voffset, uint32_t soffset, uint32_t coherency)
    __asm("llvm.amdgcn.raw.buffer.load.i16");

// The block of C that a workgroup stores: `first` is its corner, `rows` and `cols` count from there to the ends of C.
struct block_target {
    output *first;
    const addend *bias;  // of the block's first column; or null
    int up;  // elements of the bias from a gate's to that of what it gates
    int row_stride, rows, cols;
    bool whole_vectors;  // whether no vector of columns straddles a row's end, or begins within another one's bytes
    const addend *residual = nullptr;  // what is added to C, from the same corner on
    int residual_stride = 0;

    // The block of C [m,n] that begins at (row, col).
    __device__ __forceinline__ block_target(output *c, const addend *bias, int row, int col, int m, int n, int row_stride)
        : first(c + int64_t(row) * row_stride + col), bias(bias ? bias + col * GATE_STRIDE : nullptr), up(INTERLEAVED ? 1 : n), row_stride(row_stride),
          rows(m - row), cols(n - col), whole_vectors(n % VECTOR_C == 0 && row_stride % VECTOR_C == 0) {}

    // Has a matrix added to C whose rows are `stride` apart.
    __device__ __forceinline__ void add(const addend *matrix, int row, int col, int stride) {
        residual = matrix + int64_t(row) * stride + col;
        residual_stride = stride;
        whole_vectors = whole_vectors && stride % VECTOR_C == 0;
    }

    // Beyond the block's last row nothing is stored; beyond its last column, nothing at OUTSIDE.
    __device__ __forceinline__ i32x4 descriptor() const { return block_of(first, row_stride); }
    __device__ __forceinline__ i32x4 residual_descriptor() const { return block_of(residual, residual_stride); }

    template<typename T> __device__ __forceinline__ i32x4 block_of(const T *corner, int stride) const {
        return make_srsrc(corner, ((min(rows, BLOCK_M) - 1) * stride + min(cols, BLOCK_COLS)) * sizeof(T));
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
static_assert(sizeof(addend) == sizeof(output) || (FLOAT8_OUTPUT && !HAS_RESIDUAL), "a residual comes as C goes");

// The float32 of a number that is added, or that C holds: `bits` has its own in the low ones.
__device__ __forceinline__ float widened(uint32_t bits) {
    using of_addend = element_of<DTYPE_ADDED>;
    if constexpr (DTYPE_ADDED == Dtype::bf16) return __builtin_bit_cast(float, bits << 16);
    else return __builtin_bit_cast(of_addend::scalar, static_cast<of_addend::bits>(bits));
}

__device__ __forceinline__ uint32_t load_bits(i32x4 srsrc, uint32_t at) {
    if constexpr (DTYPE_ADDED == Dtype::f32) return llvm_amdgcn_raw_buffer_load_b32(srsrc, at, 0, 0);
    else return raw_buffer_load_b16(srsrc, at, 0, 0);
}

// The bias of a quad's columns, 0 where C has none, and their scales. Nothing but the bias is decided at run time: a
// branch around all the accumulators would cost registers.
struct quad_bias { float2 pairs[QUAD_PAIRS], scales[QUAD_PAIRS]; };

// Of a row of biases that begins with that of the block's first column; or null.
__device__ __forceinline__ quad_bias bias_at(const block_target &c, const block_scales &scales, const addend *first,
                                             int col) {
    quad_bias bias{};
    if (first) {
        const int reach = (min(c.cols, BLOCK_COLS) - 1) * GATE_STRIDE + 1;
        const i32x4 srsrc = make_srsrc(first, reach * sizeof(addend));
        float columns[QUAD];
        #pragma unroll
        for (int e = 0; e < QUAD; e++) {
            columns[e] = widened(load_bits(srsrc, (col + e) * GATE_STRIDE * sizeof(addend)));
        }
        bias = {{{columns[0], columns[1]}, {columns[2], columns[3]}}};
    }
    if constexpr (SCALES == Scales::rows) {
        #pragma unroll
        for (int p = 0; p < QUAD_PAIRS; p++) {
            bias.scales[p] = {scales.of_column(col + 2 * p), scales.of_column(col + 2 * p + 1)};
        }
    }
    return bias;
}

// Of what is gated by a quad's columns.
static_assert(!GATED || SCALES == Scales::none, "what is gated would have scales of its own");
__device__ __forceinline__ quad_bias up_bias_at(const block_target &c, const block_scales &scales, int col) {
    return bias_at(c, scales, c.bias ? c.bias + c.up : nullptr, col);
}

constexpr int QUAD_WORDS = QUAD * sizeof(output) / sizeof(uint32_t);
constexpr int PAIR_WORDS = FLOAT8_OUTPUT ? 1 : QUAD_WORDS / QUAD_PAIRS;  // of float8 it has half of one

struct pair_words { uint32_t at[PAIR_WORDS]; };

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
