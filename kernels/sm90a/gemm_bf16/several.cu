// Products that divide the rows of one A and of C, in one launch: which of their tiles a block works on, and where these
// are.
//
// A product, such as one of a model's experts, has the rows up to its end in `ends`, and a B of its own. Only the device
// knows the ends: all tiles are numbered, one product's behind the other's, and a block walks along the products while it
// takes every so many-th tile.
//
//                    rows of A, along K         B, along K           along lines
//     its lines      begin, begin + 1, ...      product * N + ...    those of one matrix
//     its K          0, 1, ...                  0, 1, ...            product * K + ...
//
// Gates are half of a B's lines, so of these there are 2N. Where gates take turns with what they gate, lines are counted
// in pairs, and there are N.
//
// So a tile may load rows of the next product, or a part of its B, and they make sums that are not stored. Along lines K
// is whole steps, or the next product's elements would be among the sums.
#pragma once
#include "constants.cu"
#include "element.cu"
#include "geometry.cu"
#include "spot.cu"

// A tile, the product that it is of, the number of tiles of products before that, and the rows of C that the product
// has: `begin`, and behind the last `end`.
struct Work {
    int tile, product, before, begin, end;
};

// What a launch is given: sizes of one product, how many there are, and where grouped ones end.
struct Products {
    int m, n, k, count;
    const int* ends;
};

struct Schedule {
    static constexpr int DOWN = OUT_ROWS * CLUSTER_ROWS, ACROSS = OUT_COLUMNS * CLUSTER_COLUMNS;  // of C, a cluster's
    static constexpr int ROWS_OF_C = SWAPPED ? ACROSS : DOWN, COLUMNS_OF_C = SWAPPED ? DOWN : ACROSS;
    static constexpr bool A_ALONG_K = (SWAPPED ? WGMMA_B_ALONG : WGMMA_A_ALONG) == Along::k;
    static constexpr bool B_ALONG_K = (SWAPPED ? WGMMA_A_ALONG : WGMMA_B_ALONG) == Along::k;
    static_assert(SPLIT_K == 1, "a tile's K is one block's");
    static constexpr int k_first = 0;

    const Products products;
    int first_tile, tile_step, k_steps, clusters_along_n, rank, rank_row, rank_column;

    DEVICE explicit Schedule(const Products& products) : products(products) {
        rank = blockIdx.x % CLUSTER;  // clusters extend along x
        rank_row = rank % CLUSTER_ROWS;
        rank_column = rank / CLUSTER_ROWS;
        first_tile = blockIdx.x / CLUSTER;
        tile_step = gridDim.x / CLUSTER;
        k_steps = (products.k + K_STEP - 1) / K_STEP;
        clusters_along_n = (products.n + COLUMNS_OF_C - 1) / COLUMNS_OF_C;
    }

    DEVICE Work first() const {
        Work work = {first_tile, 0, 0, 0, end_of(0, 0)};
        find_product(work);
        return work;
    }

    DEVICE bool has(const Work& work) const { return work.product < products.count; }

    DEVICE void next(Work& work) const {
        work.tile += tile_step;
        find_product(work);
    }

    DEVICE int steps(const Work&) const { return k_steps; }

    DEVICE Spot locate(const Work& work) const {
        const int clusters_along_m = clusters_of(work), tile = work.tile - work.before, product = work.product;
        int row, column;
        if (SWAPPED) locate_in(clusters_along_n, clusters_along_m, tile, row, column);
        else locate_in(clusters_along_m, clusters_along_n, tile, row, column);
        row = (row + rank_row) * OUT_ROWS;
        column = (column + rank_column) * OUT_COLUMNS;
        const int row_of_c = SWAPPED ? column : row, column_of_c = SWAPPED ? row : column;
        const int lines_before = product * products.n * (GATED && !INTERLEAVED ? 2 : 1);
        const int a_line = row_of_c + (A_ALONG_K ? work.begin : 0), b_line = column_of_c + (B_ALONG_K ? lines_before : 0);
        const int a_step = A_ALONG_K ? 0 : product * k_steps, b_step = B_ALONG_K ? 0 : product * k_steps;
        if (SWAPPED) return {row, work.begin + column, b_line, a_line, b_step, a_step};
        return {work.begin + row, column, a_line, b_line, a_step, b_step};
    }

  private:
    static constexpr int WINDOW = 8;  // products whose ends are read together

    DEVICE static int clusters_of(int rows) { return (rows + ROWS_OF_C - 1) / ROWS_OF_C; }

    DEVICE static int clusters_of(const Work& work) { return clusters_of(work.end - work.begin); }

    // Ends that are out of order, or beyond C, make no group of less than 0 rows, and none beyond C.
    DEVICE int end_of(int product, int begin) const {
        return product < products.count ? min(max(__ldg(products.ends + product), begin), products.m) : begin;
    }

    // Goes on to the product that the tile is of, or behind the last: over whole windows of products first, since each
    // end that is read alone is waited for.
    DEVICE void find_product(Work& work) const {
        while (work.product + WINDOW < products.count) {
            int clusters = clusters_of(work), begin = work.end;
#pragma unroll
            for (int i = 1; i < WINDOW; ++i) {
                const int end = end_of(work.product + i, begin);
                clusters += clusters_of(end - begin);
                begin = end;
            }
            const int behind = work.before + clusters * clusters_along_n;
            if (work.tile < behind) break;
            work.product += WINDOW;
            work.before = behind;
            work.begin = begin;
            work.end = end_of(work.product, begin);
        }
        while (has(work)) {
            const int behind = work.before + clusters_of(work) * clusters_along_n;
            if (work.tile < behind) return;
            work.before = behind;
            work.begin = work.end;
            work.end = end_of(++work.product, work.begin);
        }
    }
};
