DEVICE void consume(const Output& c, const Epilogue& epilogue, const Schedule& schedule, const Layout& layout) {
    const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0) - 1;  // uniform, as the compiler then knows
    const int first_row = PING_PONG ? 0 : warpgroup * FRAGMENTS * 64;
    const u32 staging = layout.staging + warpgroup * STORE_BUFFERS * CHUNK_BYTES;
    const Release release(schedule, layout);
    u32 chunks = 0, turn = 0;
    Ring ring;
    for (int tile = schedule.first_tile; tile < schedule.tiles; tile += schedule.tile_step, ++turn) {
        if (PING_PONG && turn % CONSUMERS != warpgroup) {
            ring.advance(schedule.k_steps);
            continue;
        }
        Accumulators accumulators;
        int row, column;
        schedule.locate(tile, row, column);
        if (PING_PONG && turn > 0) wait(layout.turns + 8 * warpgroup, (turn - 1) / 2 & 1);
        multiply_tile(
            accumulators, ring, schedule.k_steps, layout, release, first_row, layout.turns + 8 * (1 - warpgroup));
        if (SPLIT_K > 1) reduce_split(accumulators, schedule, layout);
        if (STORES_FROM_STAGES) warpgroup_sync(1, 128 * CONSUMERS);  // all have multiplied what lies there
#pragma unroll
        for (int fragment = 0; fragment < FRAGMENTS; ++fragment) {
            const int down = row + first_row + fragment * 64;
#if ${tma_store}
            store_fragment(c, accumulators[fragment], epilogue, schedule, staging, chunks, down, column);
#else
            store_fragment(c, accumulators[fragment], epilogue, schedule, down, column);
#endif
        }
    }
    // The buffers must outlive the copies out of them; the end of the kernel waits for the writes themselves.
    if (TMA_STORE) asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

extern "C" __global__
#if ${in_clusters}
__cluster_dims__(CLUSTER, 1, 1)
#endif
__launch_bounds__(THREADS, ${blocks_per_sm})
void hktune_gemm_bf16(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap bt,
                      const __grid_constant__ Output c, int m, int n, int k,
                      const u16* bias) {
    extern __shared__ char memory[];
    const Layout layout(static_cast<u32>(__cvta_generic_to_shared(memory)));
    const TensorMap &row_map = SWAPPED ? bt : a, &column_map = SWAPPED ? a : bt;
    const int rows = SWAPPED ? n : m, columns = SWAPPED ? m : n;
    if (threadIdx.x == 0) {
        prefetch(row_map);
        prefetch(column_map);
#if ${tma_store}
        prefetch(c);
#endif
        for (int stage = 0; stage < STAGES; ++stage) {
            initialise(layout.full + 8 * stage, 1);
            initialise(layout.empty + 8 * stage, RELEASES);
        }
        for (int consumer = 0; consumer < 2; ++consumer) initialise(layout.turns + 8 * consumer, 4);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    if (CLUSTER > 1) cluster_sync();
    else __syncthreads();
    const Schedule schedule(rows, columns, k);
    if (threadIdx.x < 128) {
#if ${consumer_registers}
        asm volatile("setmaxnreg.dec.sync.aligned.u32 ${producer_registers};");
#endif
        if (threadIdx.x == 0) produce(row_map, column_map, schedule, layout);
        __syncwarp();
        if (SPLIT_K > 1) cluster_sync();
    } else {
#if ${consumer_registers}
        asm volatile("setmaxnreg.inc.sync.aligned.u32 ${consumer_registers};");
#endif
        consume(c, {bias, rows, columns}, schedule, layout);
    }
    if (SPLIT_K > 1) cluster_sync();  // no block may leave while others read its sums
}
