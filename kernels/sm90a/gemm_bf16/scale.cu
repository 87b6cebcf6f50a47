// Float32 factors of A and of B: one of all, one of each row and column of C, or one of each block along K.
#pragma once
#include "constants.cu"
#include "copy.cu"
#include "element.cu"
#include "fragment.cu"
#include "geometry.cu"

constexpr bool OF_LINES = SCALES == Scales::tensor || SCALES == Scales::rows;

DEVICE float factor_at(u32 address) {
    float factor;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(factor) : "r"(address));
    return factor;
}

// How far apart the factors of two lines are, and those of two blocks along K.
struct FactorStrides {
    int line, block;

    DEVICE u64 at(int line_block, int k_block) const { return u64(line_block) * line + u64(k_block) * block; }
};

// `rows` and `columns` are D's; `k_blocks`, along K, and the strides are of factors of blocks. Factors of lines are copied to shared memory while a consumer
// multiplies: at `here` are those of the rows from `first_row` on, behind them those of the columns from `first_column`
// on, as many as its tile has. Of one factor each, there are just these two.
struct Factors {
    static constexpr int OF_ROWS = SCALES == Scales::rows ? FRAGMENTS * WGMMA_M : 1;
    static constexpr int OF_COLUMNS = SCALES == Scales::rows ? TILE_COLUMNS : 1;
    static constexpr int STAGED_BYTES = (OF_ROWS + OF_COLUMNS) * sizeof(float);

    const float *of_a, *of_b;
    int rows, columns, k_blocks;
    FactorStrides strides_a, strides_b;
    int first_row, first_column;
    u32 here;

    // Those of one of several products, each with factors of its own B.
    DEVICE Factors of_product(int product) const {
        const int of_each = (SWAPPED ? rows : columns) * (GATED ? 2 : 1);
        return {of_a, of_b + u64(product) * of_each, rows, columns, k_blocks, strides_a, strides_b};
    }

    // Begins to copy those of a tile that makes C from (row, column) on to `to`. All threads of a consumer take part;
    // none of them reads the last tile's any more.
    DEVICE Factors coming(u32 to, int row, int column) const {
        const float *of_rows = SWAPPED ? of_b : of_a, *of_columns = SWAPPED ? of_a : of_b;
#pragma unroll
        for (int first = 0; first < OF_ROWS + OF_COLUMNS; first += WARPGROUP) {
            const int i = first + threadIdx.x % WARPGROUP, line = i < OF_ROWS ? i : i - OF_ROWS;
            if (i >= OF_ROWS + OF_COLUMNS) continue;
            const bool of_row = i < OF_ROWS, of_gates = GATED && of_row == SWAPPED;
            const int run = of_row ? OUT_FRAGMENTS * WGMMA_M : OUT_COLUMNS, gates = of_row ? rows : columns;
            const bool gated = of_gates && line >= run;
            const int index = SCALES == Scales::rows ? line - (gated ? run : 0) + (of_row ? row : column) : 0;
            const bool inside = SCALES == Scales::tensor || index < gates;
            const int at = !of_gates || SCALES == Scales::tensor ? index
                           : INTERLEAVED                         ? 2 * index + gated
                                                                 : index + (gated ? gates : 0);
            const float* from = (of_row ? of_rows : of_columns) + (inside ? at : 0);
            asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to + i * u32(sizeof(float))), "l"(from),
                         "r"(inside ? 4 : 0) : "memory");
        }
        return {of_a, of_b, rows, columns, k_blocks, strides_a, strides_b, row, column, to};
    }

    DEVICE void have_come(int consumer) const {
        asm volatile("cp.async.wait_all;" ::: "memory");
        consumer_sync(consumer);
    }

    DEVICE float of_row(int row) const { return factor_at(here + (row - first_row) * u32(sizeof(float))); }
    DEVICE float of_column(int column) const {
        return factor_at(here + (OF_ROWS + column - first_column) * u32(sizeof(float)));
    }
};

// Multiplies `count` values from `first` on of a fragment at (row, column), `on` further, by what a whole sum has in
// common.
DEVICE void scale(
    float (&values)[ACCUMULATORS], int first, int count, const Factors& factors, int row, int column, int on = 0) {
    if constexpr (SCALES == Scales::tensor) {
        const float factor = factors.of_row(factors.first_row) * factors.of_column(factors.first_column);
#pragma unroll
        for (int i = first; i < first + count; ++i) values[i + on] *= factor;
    } else if constexpr (SCALES == Scales::rows) {
        const Place place(row, column);
        if (count == 1) {
            values[first + on] *= factors.of_row(place.row(first)) * factors.of_column(place.column(first));
            return;
        }
        const float of_row[] = {factors.of_row(place.row(0)), factors.of_row(place.row(2))};
#pragma unroll
        for (int i = first; i < first + count; ++i) {
            if (i / 2 % 2) continue;  // done with the value of the same column two before
            const float of_column = factors.of_column(place.column(i));
            values[i + on] *= of_row[0] * of_column;
            values[i + on + 2] *= of_row[1] * of_column;
        }
    }
}

// ---- blocks of SCALE_BLOCK elements of K: of one row of A each, of SCALE_BLOCK columns of B each

constexpr int SCALE_BLOCK = 128;
// Blocks of B that a tile's columns may be of.
constexpr int COLUMN_BLOCKS =
    TILE_COLUMNS % SCALE_BLOCK == 0 ? TILE_COLUMNS / SCALE_BLOCK
    : SCALE_BLOCK % TILE_COLUMNS == 0 ? 1 : TILE_COLUMNS / SCALE_BLOCK + 2;

// The factors of a fragment at (row, column), for one block of K. Those of B are stored as [n / 128, k / 128], those of A
// as [m, k / 128], row by row or column by column.
struct BlockFactors {
    static constexpr int OF_ROWS = SWAPPED ? 1 : 2;  // a thread has two rows, both in one block of B
    static constexpr int OF_COLUMNS = SWAPPED ? ACCUMULATORS / 2 : COLUMN_BLOCKS;
    float of_rows[OF_ROWS], of_columns[OF_COLUMNS];
    int first_column;

    // Begins to read them.
    DEVICE void load(const Factors& factors, int row, int column, int k_block) {
        first_column = column;
        const Place place(row, column);
        const bool has_k = k_block < factors.k_blocks;  // a K-step may end behind K
#pragma unroll
        for (int i = 0; i < OF_ROWS; ++i) {
            const int at = SWAPPED ? row / SCALE_BLOCK : place.row(2 * i);
            const float* of = SWAPPED ? factors.of_b : factors.of_a;
            const FactorStrides& strides = SWAPPED ? factors.strides_b : factors.strides_a;
            const bool inside = SWAPPED ? row < factors.rows : at < factors.rows;
            of_rows[i] = inside && has_k ? of[strides.at(at, k_block)] : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < OF_COLUMNS; ++i) {
            const int at = SWAPPED ? place.column(i / 2 * OCTET_VALUES + i % 2) : column / SCALE_BLOCK + i;
            const float* of = SWAPPED ? factors.of_a : factors.of_b;
            const FactorStrides& strides = SWAPPED ? factors.strides_a : factors.strides_b;
            const bool inside = SWAPPED ? at < factors.columns : at * SCALE_BLOCK < factors.columns;
            of_columns[i] = inside && has_k ? of[strides.at(at, k_block)] : 0.0f;
        }
    }

    // That of value `i`.
    DEVICE float operator[](int i) const {
        if (SWAPPED) return of_rows[0] * of_columns[i / OCTET_VALUES * 2 + i % 2];
        const int octet = (TILE_COLUMNS % SCALE_BLOCK ? first_column % SCALE_BLOCK : 0) + i / OCTET_VALUES * OCTET;
        float factor = of_columns[0];
#pragma unroll
        for (int block = 1; block < COLUMN_BLOCKS; ++block)
            if (octet >= block * SCALE_BLOCK) factor = of_columns[block];
        return of_rows[i / 2 % 2] * factor;
    }
};
