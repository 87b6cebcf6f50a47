// Fragments to MFMA: which instruction multiplies which formats.

#pragma once

#include "geometry.hip"

using i32x8 = int __attribute__((ext_vector_type(8)));
template<typename T, int count> using vector_of = T __attribute__((ext_vector_type(count)));
constexpr int SUMS = 2 * RT_Ct::packed_per_base_tile;  // of a lane in a base tile of Ct: 4 of 16x16, 16 of 32x32

// How v_mfma_f32_*_f8f6f4 calls a format.
constexpr int small_format(Dtype dtype) {
    if (dtype == Dtype::mxfp6) return 2;
    if (dtype == Dtype::mxbf6) return 3;
    return dtype == Dtype::mxfp4 ? 4 : dtype == Dtype::e5m2 || dtype == Dtype::mxbf8;
}
constexpr int FORMAT_A = small_format(DTYPE_A), FORMAT_B = small_format(DTYPE_B);

// b times a transposed, and the sums added; of floats each times its scales, one byte a lane, if it has any.
__device__ __forceinline__ vector_of<int, 4> multiplied(i32x4 b, i32x4 a, vector_of<int, 4> sums) {
    return __builtin_amdgcn_mfma_i32_16x16x64_i8(b, a, sums, 0, 0, 0);
}

__device__ __forceinline__ vector_of<int, 16> multiplied(i32x4 b, i32x4 a, vector_of<int, 16> sums) {
    return __builtin_amdgcn_mfma_i32_32x32x32_i8(b, a, sums, 0, 0, 0);
}

__device__ __forceinline__ vector_of<float, 4> multiplied(i32x8 b, i32x8 a, vector_of<float, 4> sums,
                                                          int of_b = 0, int of_a = 0) {
    return __builtin_amdgcn_mfma_scale_f32_16x16x128_f8f6f4(b, a, sums, FORMAT_B, FORMAT_A, 0, of_b, 0, of_a);
}

__device__ __forceinline__ vector_of<float, 16> multiplied(i32x8 b, i32x8 a, vector_of<float, 16> sums,
                                                           int of_b = 0, int of_a = 0) {
    return __builtin_amdgcn_mfma_scale_f32_32x32x64_f8f6f4(b, a, sums, FORMAT_B, FORMAT_A, 0, of_b, 0, of_a);
}

// What an MFMA takes of a fragment from base tile (row, k) on.
template<typename RT> __device__ __forceinline__ i32x4 words_of(const RT &fragment, int row, int k) {
    return *reinterpret_cast<const i32x4 *>(fragment.tiles[row][k].data);
}

template<typename RT> __device__ __forceinline__ i32x8 floats_of(const RT &fragment, int row, int k) {
    const i32x4 first = words_of(fragment, row, k);
    if constexpr (MFMA_TILES == 1) return __builtin_shufflevector(first, first, 0, 1, 2, 3, -1, -1, -1, -1);
    else return __builtin_shufflevector(first, words_of(fragment, row, k + 1), 0, 1, 2, 3, 4, 5, 6, 7);
}

// The same of 6 bits for each of the two MFMAs of three base tiles: six words.
template<int mfma, typename RT> __device__ __forceinline__ i32x8 six_bits_of(const RT &fragment, int row, int k) {
    const i32x4 one = words_of(fragment, row, k + mfma), next = words_of(fragment, row, k + mfma + 1);
    if constexpr (mfma == 0) return __builtin_shufflevector(one, next, 0, 1, 2, 3, 4, 5, -1, -1);
    else return __builtin_shufflevector(one, next, 2, 3, 4, 5, 6, 7, -1, -1);
}

// The sums of a block of K by themselves, and what adds them, times their scales, to those of base tile (y, x) of Ct.
template<typename B, typename A>
__device__ __forceinline__ vector_of<float, SUMS> block_sums(const B &b, int y, const A &a, int x, int k) {
    vector_of<float, SUMS> block(0.f);
    #pragma unroll
    for (int i = 0; i < GROUP_TILES; i += MFMA_TILES) {
        block = multiplied(floats_of(b, y, k + i), floats_of(a, x, k + i), block);
    }
    return block;
}

template<typename SUM, typename B, typename A>
__device__ __forceinline__ void add_scaled(SUM &tile, vector_of<float, SUMS> block, const B &b, int y, const A &a, int x,
                                           int k) {
    const float of_b = __builtin_bit_cast(float, b.scales[y][k / GROUP_TILES]);
    const float of_a = __builtin_bit_cast(float, a.scales[x][k / GROUP_TILES]);
    auto &sums = *reinterpret_cast<vector_of<float, SUMS> *>(tile.data);
    sums += block * (of_b * of_a);
    asm volatile("" : "+v"(sums));  // here: the compiler would put off those of the last step until C is stored
}

// Adds the product of GROUP_TILES base tiles of b and of a transposed, from k on, to the sums of base tile (y, x) of Ct.
template<typename SUM, typename B, typename A>
__device__ __forceinline__ void multiply_add(SUM &tile, const B &b, int y, const A &a, int x, int k) {
    if constexpr (INTEGER_SUMS) {
        auto &sums = *reinterpret_cast<vector_of<int, SUMS> *>(tile.data);
        sums = multiplied(words_of(b, y, k), words_of(a, x, k), sums);
    } else if constexpr (SMALL_FLOATS) {
        auto &sums = *reinterpret_cast<vector_of<float, SUMS> *>(tile.data);
        const int scale = k / GROUP_TILES * GROUP_SCALES;
        if constexpr (SIX_BITS) {
            static_for<GROUP_SCALES>([&]<int i>() __attribute__((always_inline)) {
                sums = multiplied(six_bits_of<i>(b, y, k), six_bits_of<i>(a, x, k), sums, b.scales[y][scale + i],
                                  a.scales[x][scale + i]);
            });
        } else if constexpr (SCALES == Scales::mx) {
            sums = multiplied(floats_of(b, y, k), floats_of(a, x, k), sums, b.scales[y][scale], a.scales[x][scale]);
        } else if constexpr (SCALES == Scales::blocks) {
            add_scaled(tile, block_sums(b, y, a, x, k), b, y, a, x, k);
        } else {
            sums = multiplied(floats_of(b, y, k), floats_of(a, x, k), sums);
        }
    } else {
        mma_ABt_base(tile, b.tiles[y][k], a.tiles[x][k], tile);
    }
}
