// Scales of whole sums: what they are multiplied by, in float32, before anything is added to them. And single numbers:
// alpha, after them; beta, of a residual; and what C is multiplied by before it is rounded to float8.

#pragma once

#include "multiply.hip"

constexpr bool SUMS_HAVE_SCALES = SCALES == Scales::tensor || SCALES == Scales::rows;

// Of a block of C: a scale for each of its rows and columns, or one for everything.
struct block_scales {
    const float *a, *b;  // of the block's first row and column; or of everything
    int rows, cols;      // from there to the ends of C
    float alpha = 1, beta = 1, c = 1;

    __device__ __forceinline__ block_scales(const float *scale_a, const float *scale_b, int row, int col, int m, int n)
        : a(scale_a + (SCALES == Scales::rows ? row : 0)), b(scale_b + (SCALES == Scales::rows ? col : 0)),
          rows(m - row), cols(n - col) {}

    // Beyond the last row or column it is 0, and nothing is stored.
    __device__ __forceinline__ float of_row(int row) const {
        if constexpr (SCALES == Scales::tensor) return *a * *b;
        else return load(a, rows, row);
    }

    __device__ __forceinline__ float of_column(int column) const {
        if constexpr (SCALES == Scales::rows) return load(b, cols, column);
        else return 1;
    }

    __device__ __forceinline__ float2 times_alpha(float2 sum) const {
        return HAS_ALPHA ? float2{sum.x * alpha, sum.y * alpha} : sum;
    }

    __device__ __forceinline__ static float load(const float *first, int count, int at) {
        const i32x4 srsrc = make_srsrc(first, count * sizeof(float));
        return __builtin_bit_cast(float, llvm_amdgcn_raw_buffer_load_b32(srsrc, at * sizeof(float), 0, 0));
    }
};

// A number that all lanes read, by a scalar load.
__device__ __forceinline__ float single(const float *number) {
    return *(const __attribute__((address_space(4))) float *)number;
}

// Two sums in float32, as their row and columns have it.
__device__ __forceinline__ float2 scaled(float2 sum, float of_row, float2 of_columns) {
    if constexpr (DTYPE_C == Dtype::i32) return sum;
    if constexpr (INTEGER_SUMS) {
        sum = {float(__builtin_bit_cast(int, sum.x)), float(__builtin_bit_cast(int, sum.y))};
    }
    if constexpr (!SUMS_HAVE_SCALES) return sum;
    if constexpr (SCALES == Scales::tensor) return {sum.x * of_row, sum.y * of_row};
    return {sum.x * (of_row * of_columns.x), sum.y * (of_row * of_columns.y)};
}
