// C[m,n] = A[m,k] @ B[k,n] (+ bias[n], or + C), either operand stored transposed or not, row-major, float32
// accumulation, for sm_90a.
//
// One producer warpgroup sends K-steps of both operands into a ring of shared memory stages by TMA; one or two consumer
// warpgroups multiply them with wgmma and store their tile.
#include "constants.cu"
#include "copy.cu"
#include "element.cu"
#include "geometry.cu"
#include "mainloop.cu"
#include "promote.cu"
#include "schedule.cu"
#include "store.cu"
#if SHARED
#include "share.cu"
#endif

DEVICE void consume(
    const Output& c, const Epilogue& epilogue, const Schedule& schedule, const Layout& layout, u32* workspace) {
    const int consumer = __shfl_sync(~0u, threadIdx.x / WARPGROUP, 0) - 1;  // uniform, as the compiler then knows
    const int first_row = PING_PONG ? 0 : consumer * FRAGMENTS * WGMMA_M;
    const Release release(schedule, layout);
    Target target(c, layout, consumer);
    u32 turn = 0;
    Ring ring;
    for (int tile = schedule.first_tile; tile < schedule.tiles; tile += schedule.tile_step, ++turn) {
        if (PING_PONG && turn % CONSUMERS != consumer) {
            ring.advance(schedule.k_steps);
            continue;
        }
        Accumulators accumulators;
        int row, column;
        schedule.locate(tile, row, column);
        if (PING_PONG && turn > 0) wait(barrier_at(layout.turns, consumer), (turn - 1) / 2 & 1);
        const u32 next_turn = barrier_at(layout.turns, 1 - consumer);
#if PROMOTED
        promote_tile(accumulators, ring, schedule, layout, release, epilogue.factors, first_row, row, column);
        if (PING_PONG && threadIdx.x % WARP == 0) arrive(next_turn);
#else
        multiply_tile(accumulators, ring, schedule.k_steps, layout, release, first_row, next_turn);
#endif
        if (SPLIT_K > 1) reduce_split(accumulators, schedule, layout);
        if (STORES_FROM_STAGES) consumers_sync();  // all have multiplied what is there
#if SHARED
        const Share share(schedule, tile, consumer, workspace);
        share.store(accumulators, layout, target, epilogue, row + first_row, column);
#else
#pragma unroll
        for (int fragment = 0; fragment < FRAGMENTS; ++fragment) {
#if SUMS_ARE_INTEGERS
            float values[ACCUMULATORS];
#pragma unroll
            for (int i = 0; i < ACCUMULATORS; ++i) values[i] = stored(accumulators[fragment][i]);
#else
            float(&values)[ACCUMULATORS] = accumulators[fragment];
#endif
            store_fragment(target, values, epilogue, schedule, row + first_row + fragment * WGMMA_M, column);
        }
#endif
    }
    // The buffers must outlive the copies out of them; the end of the kernel waits for the writes themselves.
    if (TMA_STORE) asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

// One thread makes all barriers ready before any other thread, or block of the cluster, arrives at one.
DEVICE void initialise_barriers(const Layout& layout) {
    for (int stage = 0; stage < STAGES; ++stage) {
        initialise(barrier_at(layout.full, stage), 1);
        initialise(barrier_at(layout.empty, stage), RELEASES);
    }
    for (int consumer = 0; consumer < 2; ++consumer) initialise(barrier_at(layout.turns, consumer), WARPS);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

extern "C" __global__
#if IN_CLUSTERS
__cluster_dims__(CLUSTER, 1, 1)
#endif
__launch_bounds__(THREADS, BLOCKS_PER_SM)
void hktune_gemm_bf16(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,
                      const __grid_constant__ Output c, int m, int n, int k,
                      const BitsOfC* bias, int accumulate, u32* workspace
#if SCALED
                      , const float* scale_a, const float* scale_b
#endif
) {
    extern __shared__ char memory[];
    const Layout layout(static_cast<u32>(__cvta_generic_to_shared(memory)));
    const TensorMap &wgmma_a = SWAPPED ? b : a, &wgmma_b = SWAPPED ? a : b;
    const int rows = SWAPPED ? n : m, columns = SWAPPED ? m : n;
    if (threadIdx.x == 0) {
        prefetch(wgmma_a);
        prefetch(wgmma_b);
#if TMA_STORE
        prefetch(c);
#endif
        initialise_barriers(layout);
    }
    if (CLUSTER > 1) cluster_sync();
    else __syncthreads();
    const Schedule schedule(rows, columns, k);
    if (threadIdx.x < WARPGROUP) {
        if constexpr (CONSUMER_REGISTERS > 0)
            asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(PRODUCER_REGISTERS));
        if (threadIdx.x == 0) produce(wgmma_a, wgmma_b, schedule, layout);
        __syncwarp();
        if (SPLIT_K > 1) cluster_sync();
    } else {
        if constexpr (CONSUMER_REGISTERS > 0)
            asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(CONSUMER_REGISTERS));
#if SCALED
        const Factors factors = {scale_a, scale_b, rows, columns, (k + SCALE_BLOCK - 1) / SCALE_BLOCK};
#else
        const Factors factors = {};
#endif
        consume(c, {bias, rows, columns, accumulate != 0, factors}, schedule, layout, workspace);
    }
    if (SPLIT_K > 1) cluster_sync();  // no block may leave while others read its sums
}
