// ---- consumers

using Accumulators = float[FRAGMENTS][REGISTERS];

// Tells every block that sends to this one that its stage may be refilled: one arrival a warp, by lane `rank` of it.
struct Release {
    u32 empty;
    bool arrives;

    DEVICE Release(const Schedule& schedule, const Layout& layout) {
        const int lane = threadIdx.x % 32;
        const bool sends_rows = lane % CLUSTER_ROWS == schedule.rank_row;
        const bool sends_columns = lane / CLUSTER_ROWS == schedule.rank_column;
        arrives = MULTICAST == 1 ? lane == 0 : lane < MULTICAST && (sends_rows || sends_columns);
        empty = MULTICAST == 1 || !arrives ? layout.empty : address_in(layout.empty, lane);
    }

    DEVICE void operator()(u32 stage) const {
        if (!arrives) return;
        if (MULTICAST == 1) arrive(empty + 8 * stage);
        else arrive_in_cluster(empty + 8 * stage);
    }
};

// accumulators = this block's part of K. One K-step of multiplies stays in flight, so a stage is released a step late.
// `next_turn` hears when the last stage is in use: a consumer that waited for its own sooner would mistake a round of
// the ring for another of the same parity.
DEVICE void multiply_tile(
    Accumulators& accumulators, Ring& ring, int k_steps, const Layout& layout, const Release& release, int first_row,
    u32 next_turn) {
    u32 last = 0;
    for (int step = 0; step < k_steps; ++step, ring.next()) {
        const u32 from = layout.stages + ring.stage * STAGE_BYTES;
        wait(layout.full + 8 * ring.stage, ring.parity);
        multiply_fence();
        const u64 rows = descriptor(from + first_row * 128), columns = descriptor(from + ROW_BYTES);
#pragma unroll
        for (int slice = 0; slice < K_STEP / 16; ++slice) {
            const int atom = slice * 16 / ATOM, within = slice * 16 % ATOM * 2;
            const u64 columns_here = columns + ((atom * COLUMNS * 128 + within) >> 4);
#pragma unroll
            for (int fragment = 0; fragment < FRAGMENTS; ++fragment) {
                const u64 rows_here = rows + (((atom * ROWS + fragment * 64) * 128 + within) >> 4);
                multiply(accumulators[fragment], rows_here, columns_here, step + slice);
            }
        }
        multiply_commit();
        multiply_wait<1>();
        if (step > 0) release(last);
        last = ring.stage;
    }
    if (PING_PONG && threadIdx.x % 32 == 0) arrive(next_turn);
    multiply_wait<0>();
    if (k_steps > 0) release(last);
}
