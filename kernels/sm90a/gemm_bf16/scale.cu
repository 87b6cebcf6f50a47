// Float32 factors of A and of B: one of all, one of each row and column of C, or one of each block along K.
#pragma once
#include "constants.cu"
#include "element.cu"
#include "fragment.cu"
#include "geometry.cu"

// `rows` and `columns` are D's; K has `k_blocks` blocks.
struct Factors {
    const float *of_a, *of_b;
    int rows, columns, k_blocks;
};

constexpr bool IN_BLOCKS = SCALES == Scales::blocks;

// `step` apart: gates, and what they gate, may be columns of B in turn.
DEVICE float factor_at(const float* factors, int index, int size, int step = 1) {
    return index < size ? factors[index * step] : 0.0f;
}

// Multiplies `count` values of a fragment at (row, column) by what a whole sum has in common: those from `first` on, each
// `on` further. Their columns of B are `behind` C's.
DEVICE void scale(
    float (&values)[ACCUMULATORS], int first, int count, const Factors& factors, int row, int column, int on = 0,
    int behind = 0) {
    if constexpr (SCALES == Scales::tensor) {
        const float factor = *factors.of_a * *factors.of_b;
#pragma unroll
        for (int i = first; i < first + count; ++i) values[i + on] *= factor;
    } else if constexpr (SCALES == Scales::rows) {
        const Place place(row, column);
        constexpr int STEP = INTERLEAVED ? 2 : 1, STEP_DOWN = SWAPPED ? STEP : 1, STEP_ACROSS = SWAPPED ? 1 : STEP;
        const float* const of_b = factors.of_b + behind;
        const float *of_rows = SWAPPED ? of_b : factors.of_a, *of_columns = SWAPPED ? factors.of_a : of_b;
        const float of_row[] = {factor_at(of_rows, place.row(0), factors.rows, STEP_DOWN),
                                factor_at(of_rows, place.row(2), factors.rows, STEP_DOWN)};
#pragma unroll
        for (int i = first; i < first + count; ++i) {
            if (count > 2 && i / 2 % 2) continue;  // done with the value of the same column two before
            const float of_column = factor_at(of_columns, place.column(i), factors.columns, STEP_ACROSS);
            values[i + on] *= of_row[i / 2 % 2] * of_column;
            if (count > 2) values[i + on + 2] *= of_row[1] * of_column;
        }
    }
}

// ---- blocks of SCALE_BLOCK elements of K: of one row of A each, of SCALE_BLOCK columns of B each

constexpr int SCALE_BLOCK = 128;
// Blocks of B that a tile's columns may be of.
constexpr int COLUMN_BLOCKS =
    TILE_COLUMNS % SCALE_BLOCK == 0 ? TILE_COLUMNS / SCALE_BLOCK
    : SCALE_BLOCK % TILE_COLUMNS == 0 ? 1 : TILE_COLUMNS / SCALE_BLOCK + 2;

// The factors of a fragment at (row, column), for one block of K. Those of B come row by row of [n / 128, k / 128], those
// of A of [m, k / 128].
struct BlockFactors {
    static constexpr int OF_ROWS = SWAPPED ? 1 : 2;  // a thread has two rows, both in one block of B
    static constexpr int OF_COLUMNS = SWAPPED ? ACCUMULATORS / 2 : COLUMN_BLOCKS;
    float of_rows[OF_ROWS], of_columns[OF_COLUMNS];
    int first_column;

    DEVICE BlockFactors(const Factors& factors, int row, int column, int k_block)
        : first_column(column) {
        const Place place(row, column);
#pragma unroll
        for (int i = 0; i < OF_ROWS; ++i) {
            const int at = SWAPPED ? row / SCALE_BLOCK : place.row(2 * i);
            const float* of = SWAPPED ? factors.of_b : factors.of_a;
            const bool inside = SWAPPED ? row < factors.rows : at < factors.rows;
            of_rows[i] = inside ? of[static_cast<u64>(at) * factors.k_blocks + k_block] : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < OF_COLUMNS; ++i) {
            const int at = SWAPPED ? place.column(i / 2 * OCTET_VALUES + i % 2) : column / SCALE_BLOCK + i;
            const float* of = SWAPPED ? factors.of_a : factors.of_b;
            const bool inside = SWAPPED ? at < factors.columns : at * SCALE_BLOCK < factors.columns;
            of_columns[i] = inside ? of[static_cast<u64>(at) * factors.k_blocks + k_block] : 0.0f;
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
