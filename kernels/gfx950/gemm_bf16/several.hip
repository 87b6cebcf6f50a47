// Several products in one launch: which of them a workgroup works on, and where its operands begin.
//
// All tiles are numbered, one product's behind the other's. Of a batched operation each product has M rows; of a grouped
// one, such as a model's experts, it has the rows of A up to its end in `ends`. Only the device knows those, so a launch
// has as many workgroups as there may be tiles, and those that are left over leave at once.

#pragma once

#include "geometry.hip"

// Rows from `first_row` on, of all products', and a tile among its own. Behind the last product there are no rows.
struct product {
    int number;
    int64_t first_row;
    int rows, tile;

    // In elements from the first product's.
    __device__ __forceinline__ int64_t begin_of_a(int k, int row_stride) const {
        return (ALONG_A == Along::k ? first_row : int64_t(number) * k) * row_stride;
    }
    __device__ __forceinline__ int64_t begin_of_b(int n, int k, int row_stride) const {
        const int lines = GATED ? 2 * n : n;
        return int64_t(number) * (ALONG_B == Along::k ? lines : k) * row_stride;
    }
};

__device__ __forceinline__ int blocks_of_rows(int rows) { return (rows + BLOCK_M - 1) / BLOCK_M; }

// Tiles of all products, wherever groups end: each that has rows may have one that is not full.
__device__ __forceinline__ int most_blocks(int m, int blocks_n, int groups) {
    return (GROUPED ? m / BLOCK_M + min(m, groups) : groups * blocks_of_rows(m)) * blocks_n;
}

// The sum of `value` over the lanes up to this one: within rows of 16, and then of the rows before.
__device__ __forceinline__ int sum_up_to_lane(int value) {
    constexpr int shift_right = 0x110, last_of_row_to_next = 0x142, lane_31_to_upper_half = 0x143, all = 0xf;
    value += __builtin_amdgcn_update_dpp(0, value, shift_right + 1, all, all, true);
    value += __builtin_amdgcn_update_dpp(0, value, shift_right + 2, all, all, true);
    value += __builtin_amdgcn_update_dpp(0, value, shift_right + 4, all, all, true);
    value += __builtin_amdgcn_update_dpp(0, value, shift_right + 8, all, all, true);
    value += __builtin_amdgcn_update_dpp(0, value, last_of_row_to_next, 0xa, all, false);
    value += __builtin_amdgcn_update_dpp(0, value, lane_31_to_upper_half, 0xc, all, false);
    return value;
}

// The group that `tile` of all is of. A wave looks at as many groups at once as it has lanes. Ends that are out of order,
// or beyond C, make no group of less than 0 rows, and none beyond C.
__device__ __forceinline__ product group_of(int tile, int m, int blocks_n, int groups, const int *ends) {
    int before = 0;  // tiles of the groups before
    for (int first = 0; first < groups; first += kittens::WARP_THREADS) {
        const int group = first + kittens::laneid();
        const auto end_of = [&](int i) { return min(max(ends[min(i, groups - 1)], 0), m); };
        const int begin = group == 0 ? 0 : end_of(group - 1), rows = max(end_of(group) - begin, 0);
        const int tiles = blocks_of_rows(rows) * blocks_n, behind = before + sum_up_to_lane(tiles);
        const uint64_t later = __ballot(behind > tile);
        if (later != 0) {
            const int lane = __builtin_ctzll(later);
            const auto of_lane = [&](int value) { return __builtin_amdgcn_readlane(value, lane); };
            return {first + lane, of_lane(begin), of_lane(rows), tile - of_lane(behind - tiles)};
        }
        before = __builtin_amdgcn_readlane(behind, kittens::WARP_THREADS - 1);
    }
    return {groups, 0, 0, 0};
}

__device__ __forceinline__ product product_of(int tile, int m, int blocks_n, int groups, const int *ends) {
    if constexpr (GROUPED) return group_of(tile, m, blocks_n, groups, ends);
    if constexpr (!SEVERAL) return {0, 0, m, tile};
    const int tiles = blocks_of_rows(m) * blocks_n, number = tile / tiles;
    return {number, int64_t(number) * m, m, tile - number * tiles};
}
