// Quads of C among the lanes of a row: to and from memory as vectors.

#pragma once

#include "activation.hip"
#include "block_target.hip"
#include "float8.hip"

// Two sums as they are stored, rounded to nearest even; what is beyond the largest number becomes infinite. The
// conversion is the compiler's, which puts wait states between an MFMA and what reads its result; before HipKittens'
// own convertor, an assembly statement, it would put none.
template<Dtype form = DTYPE_C> __device__ __forceinline__ pair_words rounded(f32x2 values) {
    if constexpr (form == Dtype::i32) {  // whose bits they are
        pair_words words;
        __builtin_memcpy(&words, &values, sizeof(words));
        return words;
    }
    if constexpr (FLOAT8_OUTPUT) {
        return {{float8_pair(values, 0, false)}};
    } else {
        using scalar_x2 = element_of<form>::scalar __attribute__((ext_vector_type(2)));
        return __builtin_bit_cast(pair_words, __builtin_convertvector(values, scalar_x2));
    }
}

// The float32 of a pair whose words are these.
__device__ __forceinline__ f32x2 widened_pair(const uint32_t *words) {
    if constexpr (PAIR_WORDS == 2) return f32x2{widened(words[0]), widened(words[1])};
    return f32x2{widened(words[0] & 0xffff), widened(words[0] >> 16)};
}

// Trades halves of two quads with the neighbouring lane of the row, so that each lane ends up with a vector of columns.
__device__ __forceinline__ void pair_up(uint32_t &left, uint32_t &right) {
    MFMA == 16 ? trade_rows(left, right) : trade_halves(left, right);
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
// float32 one. (Of float8 it is four, and a lane stores one, or half or a quarter of one.) Vectors are lined up where a row of the warp's part is as long as a line of memory: then each store is
// of whole lines.
constexpr int HALF_ROWS = 8;
constexpr int VECTOR_QUADS = VECTOR_C / QUAD;
constexpr int LINE_QUADS = 2 * VECTOR_QUADS;
constexpr bool LINES_UP = MFMA == 16 && !FLOAT8_OUTPUT && QUADS % LINE_QUADS == 0;
constexpr int QUADS_AT_ONCE = LINES_UP ? LINE_QUADS : QUADS % VECTOR_QUADS == 0 ? VECTOR_QUADS
                              : FLOAT8_OUTPUT && QUADS % 2 == 0 ? 2 : 1;

template<int quads> __device__ __forceinline__ int lane_row() {
    return kittens::laneid() % (quads == LINE_QUADS ? HALF_ROWS : MFMA);
}

template<int quads> __device__ __forceinline__ int lane_column() {
    const int lane = kittens::laneid() / MFMA;
    if constexpr (FLOAT8_OUTPUT) return float8_column<quads>(lane);
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
template<int quads> struct quad_words {
    uint32_t at[quads * QUAD_WORDS];

    __device__ __forceinline__ void put(int pair, f32x2 values) {
        if constexpr (FLOAT8_OUTPUT) {
            at[pair / QUAD_PAIRS] = float8_pair(values, at[pair / QUAD_PAIRS], pair % QUAD_PAIRS);
            return;
        }
        const pair_words both = rounded(values);
        for (int i = 0; i < PAIR_WORDS; i++) at[pair * PAIR_WORDS + i] = both.at[i];
    }
};

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
    if constexpr (FLOAT8_OUTPUT) {
        trade_float8<quads>(words.at);
        if constexpr (quads == 1) return llvm_amdgcn_raw_buffer_store_b32(words.at[0], srsrc, at, 0, 0);
    }
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
        if constexpr (FLOAT8_OUTPUT) {
            llvm_amdgcn_raw_buffer_store_b8(pair.at[0] >> 8 * (e % 2), srsrc, row + columns[e], 0, 0);
            continue;
        }
        const uint32_t bits = PAIR_WORDS == 2 ? pair.at[e % PAIR_WORDS] : e % 2 ? pair.at[0] >> 16 : pair.at[0];
        if constexpr (PAIR_WORDS == 2) llvm_amdgcn_raw_buffer_store_b32(bits, srsrc, row + columns[e], 0, 0);
        else llvm_amdgcn_raw_buffer_store_b16(bits, srsrc, row + columns[e], 0, 0);
    }
}
