// Several products in one launch, each with a matrix of C of its own: which of their tiles a block works on, and where
// these are.
//
// C is a stack of matrices. Of a batched operation A and B are stacks too, or one matrix that all products have. A tensor
// map of a stack has the matrices as its third dimension. So it knows where each ends, and these may be anywhere.
//
// With RAGGED_K products divide the K of one A and one B, as the gradients of a model's experts do: `ends` has where the
// K of each is over. All have equally many tiles, so the number of a tile says whose it is.
#pragma once
#include "constants.cu"
#include "element.cu"
#include "geometry.cu"
#include "spot.cu"

// A tile, the product that it is of, and of a divided K what is that product's.
struct Work {
    int tile, product, k_begin, k_end;
};

// What a launch is given: sizes of one product, how many there are, where they end, and whether all have one A or one B.
struct Products {
    int m, n, k, count;
    const int* ends;
    bool one_a, one_b;
};

struct Schedule {
    static_assert(SPLIT_K == 1, "a tile's K is one block's");
    static constexpr int k_first = 0, k_steps = 1;  // what a split K asks for

    const Products products;
    int clusters_down, clusters_across, tiles_of_each, tiles, first_tile, tile_step, rank, rank_row, rank_column;

    DEVICE explicit Schedule(const Products& products) : products(products) {
        rank = blockIdx.x % CLUSTER;  // clusters extend along x
        rank_row = rank % CLUSTER_ROWS;
        rank_column = rank / CLUSTER_ROWS;
        first_tile = blockIdx.x / CLUSTER;
        tile_step = gridDim.x / CLUSTER;
        const int rows = SWAPPED ? products.n : products.m, columns = SWAPPED ? products.m : products.n;
        clusters_down = (rows + TILE_ROWS * CLUSTER_ROWS - 1) / (TILE_ROWS * CLUSTER_ROWS);
        clusters_across = (columns + TILE_COLUMNS * CLUSTER_COLUMNS - 1) / (TILE_COLUMNS * CLUSTER_COLUMNS);
        tiles_of_each = clusters_down * clusters_across;
        tiles = tiles_of_each * products.count;
    }

    DEVICE Work first() const { return work_of(first_tile); }

    DEVICE bool has(const Work& work) const { return work.tile < tiles; }

    DEVICE void next(Work& work) const { work = work_of(work.tile + tile_step); }

    DEVICE int steps(const Work& work) const { return (work.k_end - work.k_begin + K_STEP - 1) / K_STEP; }

    // Elements of K in a tile's last step, of which there may be none.
    DEVICE int last_depth(const Work& work) const {
        return work.k_end - work.k_begin - (steps(work) - 1) * K_STEP;
    }

    DEVICE Spot locate(const Work& work) const {
        int row, column;
        locate_in(clusters_down, clusters_across, work.tile - work.product * tiles_of_each, row, column);
        row = (row + rank_row) * TILE_ROWS;
        column = (column + rank_column) * TILE_COLUMNS;
        const int in_a = products.one_a ? 0 : work.product, in_b = products.one_b ? 0 : work.product;
        const int in_wgmma_a = SWAPPED ? in_b : in_a, in_wgmma_b = SWAPPED ? in_a : in_b;
        return {row, column, row, column, 0, 0, work.k_begin, work.product, in_wgmma_a, in_wgmma_b};
    }

  private:
    DEVICE Work work_of(int tile) const {
        const int product = tile / tiles_of_each;
        if (!RAGGED_K) return {tile, product, 0, products.k};
        if (tile >= tiles) return {tile, product, 0, 0};
        const int begin = product == 0 ? 0 : end_of(product - 1);
        return {tile, product, begin, max(end_of(product), begin)};
    }

    // No end is beyond K; ends that are out of order make products without any.
    DEVICE int end_of(int product) const { return min(max(__ldg(products.ends + product), 0), products.k); }
};
