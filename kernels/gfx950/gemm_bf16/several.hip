// Several products in one launch: which of them a workgroup works on, and where its operands begin.
//
// All tiles are numbered, one product's behind the other's. Those of a batched operation are of one size. Groups are the
// experts of a model: of the rows of A and C, each with a B of its own, or of K, each with a C of its own. `ends` has
// where each ends. Only the device knows that, so of rows a launch has as many workgroups as there may be tiles, and those
// that are left over leave at once.

#pragma once

#include "geometry.hip"

#define GROUPS_OF_ROWS (GROUPED && !GROUPS_OF_K)

// What is a stack of matrices: the kernel has an argument for the elements from one to the next. Their scales are rows
// of a matrix.
#define STACK_OF_A (SEVERAL && !GROUPED)
#define STACK_OF_B (SEVERAL && !GROUPS_OF_K)
#define STACK_OF_C (SEVERAL && !GROUPS_OF_ROWS)

// The product, from where on and how much it has of what groups divide, rows or K, and a tile among its own. A batched
// one has all rows. Behind the last group of rows there are none.
struct product {
    int number;
    int64_t first;
    int size, tile;
};

__device__ __forceinline__ int blocks_of_rows(int rows) { return (rows + BLOCK_M - 1) / BLOCK_M; }

// Tiles of all products, wherever groups end: each that has rows may have one that is not full.
__device__ __forceinline__ int most_blocks(int m, int blocks_n, int groups) {
    return (GROUPS_OF_ROWS ? m / BLOCK_M + min(m, groups) : groups * blocks_of_rows(m)) * blocks_n;
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

// Where a group ends of `size` elements. Ends that are out of order, or beyond the last element, make no group of less
// than none, and none beyond the last.
__device__ __forceinline__ int end_of(int group, int groups, int size, const int *ends) {
    return min(max(ends[min(group, groups - 1)], 0), size);
}

// The group of rows that `tile` of all is of. A wave looks at as many groups at once as it has lanes.
__device__ __forceinline__ product group_of_rows(int tile, int m, int blocks_n, int groups, const int *ends) {
    int before = 0;  // tiles of the groups before
    for (int first = 0; first < groups; first += kittens::WARP_THREADS) {
        const int group = first + kittens::laneid();
        const int begin = group == 0 ? 0 : end_of(group - 1, groups, m, ends);
        const int rows = max(end_of(group, groups, m, ends) - begin, 0);
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

__device__ __forceinline__ product product_of(int tile, int m, int k, int blocks_n, int groups, const int *ends) {
    if constexpr (GROUPS_OF_ROWS) return group_of_rows(tile, m, blocks_n, groups, ends);
    const int tiles = blocks_of_rows(m) * blocks_n, number = tile / tiles;
    product own{number, 0, m, tile - number * tiles};
    if constexpr (GROUPS_OF_K) {
        const int begin = number == 0 ? 0 : end_of(number - 1, groups, k, ends);
        own.first = begin, own.size = max(end_of(number, groups, k, ends) - begin, 0);
    }
    return own;
}
