// Where tiles are.
#pragma once
#include "constants.cu"
#include "element.cu"
#include "geometry.cu"

// Where a tile begins: in D, and in the operands of wgmma, by line and by K-step. `k`: elements of K that are before the
// first step. Of stacks, which of their matrices it is in, of C and of the operands.
struct Spot {
    int row, column, a_line, b_line, a_step, b_step, k = 0, matrix = 0, a_matrix = 0, b_matrix = 0;
};

// The first row and column of blocks of a cluster whose tile is number `tile` of so many down and across. They come in groups of GROUP
// cluster rows, so that neighbours in time share operands in the L2.
DEVICE void locate_in(u32 clusters_down, u32 clusters_across, u32 tile, int& row, int& column) {
    const u32 group = tile / (GROUP * clusters_across), within = tile % (GROUP * clusters_across);
    const u32 height = min(u32(GROUP), clusters_down - group * GROUP);
    row = (group * GROUP + within % height) * CLUSTER_ROWS;
    column = within / height * CLUSTER_COLUMNS;
}
