// Where a thread's values are in a fragment of the accumulators: 8x8 matrices, octets of rows by octets of columns (PTX
// ISA, wgmma's D). Of each octet of columns a thread holds OCTET_VALUES: two side by side in a row, and two in the same
// row of the next octet.
#pragma once
#include "element.cu"
#include "geometry.cu"

using Fragment = float[ACCUMULATORS];  // a thread's values of one, on their way to C

// Value `i` of a fragment at (row, column).
struct Place {
    int lane, first_row, first_column;

    DEVICE Place(int row, int column)
        : lane(threadIdx.x % WARP), first_row(row + threadIdx.x % WARPGROUP / WARP * (2 * OCTET) + lane / 4),
          first_column(column) {}

    DEVICE int row(int i) const { return first_row + i / 2 % 2 * OCTET; }
    DEVICE int column(int i) const { return first_column + i / OCTET_VALUES * OCTET + lane % 4 * 2 + i % 2; }
};
