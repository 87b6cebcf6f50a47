// ---- the schedule

// Position in the ring of stages; `parity` flips each time round.
struct Ring {
    u32 stage = 0, parity = 0;

    DEVICE void advance(u32 steps) {
        stage += steps;
        parity ^= (stage / STAGES) & 1;
        stage %= STAGES;
    }

    DEVICE void next() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

struct Layout {
    u32 stages, staging, full, empty, turns;

    DEVICE explicit Layout(u32 base) {
        stages = (base + 1023) & ~1023u;
        full = stages + STAGES * STAGE_BYTES + STORE_BYTES;
        staging = STORES_FROM_STAGES ? stages : full - STORE_BYTES;
        empty = full + 8 * STAGES;
        turns = empty + 8 * STAGES;
    }
};

// What this block works on: tiles of its cluster, which lie in groups of GROUP cluster rows so that neighbours in time
// share operands in the L2, and its part of K.
struct Schedule {
    int clusters_down, clusters_across, first_tile, tile_step, tiles, k_first, k_steps;
    int rank, rank_row, rank_column;

    DEVICE Schedule(int rows, int columns, int k) {
        rank = blockIdx.x % CLUSTER;  // clusters lie along x
        rank_row = SPLIT_K == 1 ? rank % CLUSTER_ROWS : 0;
        rank_column = SPLIT_K == 1 ? rank / CLUSTER_ROWS : 0;
        clusters_down = (rows + ROWS * CLUSTER_ROWS - 1) / (ROWS * CLUSTER_ROWS);
        clusters_across = (columns + COLUMNS * CLUSTER_COLUMNS - 1) / (COLUMNS * CLUSTER_COLUMNS);
        tiles = clusters_down * clusters_across;
        first_tile = blockIdx.x / CLUSTER;
        tile_step = gridDim.x / CLUSTER;
        const int whole = (k + K_STEP - 1) / K_STEP, part = SPLIT_K == 1 ? 0 : rank;
        k_first = whole * part / SPLIT_K;
        k_steps = whole * (part + 1) / SPLIT_K - k_first;
    }

    // The first row and column of this block's part of cluster tile `tile`.
    DEVICE void locate(int tile, int& row, int& column) const {
        const int group = tile / (GROUP * clusters_across), within = tile % (GROUP * clusters_across);
        const int height = min(GROUP, clusters_down - group * GROUP);
        row = ((group * GROUP + within % height) * CLUSTER_ROWS + rank_row) * ROWS;
        column = (within / height * CLUSTER_COLUMNS + rank_column) * COLUMNS;
    }
};

// ---- producer: one thread

DEVICE void produce(const TensorMap& rows, const TensorMap& columns, const Schedule& schedule, const Layout& layout) {
    // A block's rows go to all blocks of its cluster that share them, and so for columns.
    u32 row_receivers = 0, column_receivers = 0;
    const int rank_row = schedule.rank_row, rank_column = schedule.rank_column;
    for (int other = 0; other < CLUSTER_COLUMNS; ++other) row_receivers |= 1u << (rank_row + other * CLUSTER_ROWS);
    for (int other = 0; other < CLUSTER_ROWS; ++other) column_receivers |= 1u << (rank_column * CLUSTER_ROWS + other);
    Ring ring;
    for (int tile = schedule.first_tile; tile < schedule.tiles; tile += schedule.tile_step) {
        int row, column;
        schedule.locate(tile, row, column);
        row += rank_column * ROWS_SENT;
        column += rank_row * COLUMNS_SENT;
        for (int step = 0; step < schedule.k_steps; ++step, ring.next()) {
            const u32 full = layout.full + 8 * ring.stage;
            const u32 to = layout.stages + ring.stage * STAGE_BYTES;
            wait(layout.empty + 8 * ring.stage, ring.parity ^ 1);
            expect(full, STAGE_BYTES);
#pragma unroll
            for (int atom = 0; atom < K_STEP / ATOM; ++atom) {
                const int k = (schedule.k_first + step) * K_STEP + atom * ATOM;
                const u32 to_rows = to + (atom * ROWS + rank_column * ROWS_SENT) * 128;
                const u32 to_columns = to + ROW_BYTES + (atom * COLUMNS + rank_row * COLUMNS_SENT) * 128;
                load<CLUSTER_COLUMNS>(to_rows, rows, k, row, full, row_receivers);
                load<CLUSTER_ROWS>(to_columns, columns, k, column, full, column_receivers);
            }
        }
    }
    // No block may leave while others still arrive at its barriers: all stages must have been released once more.
    for (int stage = 0; MULTICAST > 1 && stage < STAGES; ++stage, ring.next())
        wait(layout.empty + 8 * ring.stage, ring.parity ^ 1);
}
