// C in e4m3: its one rounding, and how the lanes of a row trade quads, which are a word each, for longer runs of columns.

#pragma once

#include "activation.hip"

constexpr float FLOAT8_MAX = 448;

// `word` with two numbers in its lower or upper half, rounded to nearest even. Beyond the largest number is that one; a
// NaN stays one.
__device__ __forceinline__ uint32_t float8_pair(f32x2 values, uint32_t word, bool upper) {
    values = __builtin_elementwise_maximum(values, f32x2(-FLOAT8_MAX));
    values = __builtin_elementwise_minimum(values, f32x2(FLOAT8_MAX));
    return upper ? __builtin_amdgcn_cvt_pk_fp8_f32(values.x, values.y, word, true)
                 : __builtin_amdgcn_cvt_pk_fp8_f32(values.x, values.y, word, false);
}

// The first column that a lane, number `lane` of its row, stores of `quads` neighbouring quads after the trades.
template<int quads> __device__ __forceinline__ int float8_column(int lane) {
    if constexpr (quads == 2) return lane % 2 * QUAD_COLS + lane / 2 * 2 * QUAD;
    return lane * quads * QUAD;
}

__device__ __forceinline__ void trade_rows(uint32_t &left, uint32_t &right) {
    const auto swapped = __builtin_amdgcn_permlane16_swap(left, right, false, false);
    left = swapped[0];
    right = swapped[1];
}

__device__ __forceinline__ void trade_halves(uint32_t &left, uint32_t &right) {
    const auto swapped = __builtin_amdgcn_permlane32_swap(left, right, false, false);
    left = swapped[0];
    right = swapped[1];
}

// `words` are one lane's of 1, 2 or 4 neighbouring quads, and then the same number of neighbouring words of the row.
template<int quads> __device__ __forceinline__ void trade_float8(uint32_t *words) {
    if constexpr (MFMA == 16) {  // four lanes to a row
        if constexpr (quads >= 2) trade_rows(words[0], words[1]);
        if constexpr (quads == 4) {
            trade_rows(words[2], words[3]);
            trade_halves(words[0], words[2]);
            trade_halves(words[1], words[3]);
        }
    } else if constexpr (quads == 2) {
        trade_halves(words[0], words[1]);
    } else if constexpr (quads == 4) {
        trade_halves(words[0], words[2]);
        trade_halves(words[1], words[3]);
        const uint32_t second = words[2];
        words[2] = words[1];
        words[1] = second;
    }
}
