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
#include "residual.cu"
#include "schedule.cu"
#include "store.cu"
#if SHARED
#include "share.cu"
#endif

DEVICE void consume(
    const Output& c, const Epilogue& epilogue, const Schedule& schedule, const Layout& layout, u32* workspace) {
    const int consumer = __shfl_sync(~0u, threadIdx.x / WARPGROUP, 0) - 1;  // uniform, as the compiler then knows
    const int part = PING_PONG ? 0 : consumer;  // of a tile
    const int first_row = part * FRAGMENTS * WGMMA_M, first_out = first_row * OUT_FRAGMENTS / FRAGMENTS;
    const u32 staging = layout.staging + consumer * STORE_BUFFERS * CHUNK_BYTES;
    const Release release(schedule, layout);
    u32 chunks = 0, turn = 0;
#if PROMOTED
    const Turn run_turn(consumer);
#endif
    Ring ring;
    const Boxes boxes{ring, layout, release, part};
    for (Work work = schedule.first(); schedule.has(work); schedule.next(work), ++turn) {
        if (PING_PONG && turn % CONSUMERS != consumer) {
            ring.advance(schedule.steps(work) + RESIDUAL_STEPS);
            continue;
        }
        Accumulators accumulators;
        const Spot spot = schedule.locate(work);
        if (PING_PONG && turn > 0) wait(barrier_at(layout.turns, consumer), (turn - 1) / 2 & 1);
        const u32 next_turn = barrier_at(layout.turns, 1 - consumer);
        Epilogue finish = epilogue;
        if constexpr (OF_LINES) {
            if (!TMA_STORE && PERSISTENT) consumer_sync(consumer);  // all have stored the last tile
            const u32 here = layout.factors + consumer * Factors::STAGED_BYTES;
#if SEVERAL
            const Factors factors = epilogue.factors.of_product(work.product);
#else
            const Factors& factors = epilogue.factors;
#endif
            finish.factors = factors.coming(here, spot.row + first_out, spot.column);
        }
#if PROMOTED
        promote_tile(
            accumulators, ring, schedule, layout, release, epilogue.factors, run_turn, first_row, spot.row, spot.column);
        if (PING_PONG) give_turn(ring, layout, next_turn);
#else
#if RAGGED_K
        const int last_depth = schedule.last_depth(work);
#else
        constexpr int last_depth = K_STEP;
#endif
        multiply_tile(accumulators, ring, schedule.steps(work), layout, release, first_row, next_turn, last_depth);
#endif
        allow_kernel_behind();
        if constexpr (OF_LINES) finish.factors.have_come(consumer);
#if SEVERAL
        finish = finish.within(work);
#endif
        if (SPLIT_K > 1) reduce_split(accumulators, schedule, layout);
        if (STORES_FROM_STAGES && !RESIDUAL_IN_STAGES) consumers_sync();  // all have multiplied what is there
#if SHARED
        const Share share(schedule, work.tile, consumer, workspace);
        share.store(accumulators, layout, c, staging, finish, spot.row + first_row, spot.column);
#else
#pragma unroll
        for (int fragment = 0; fragment < OUT_FRAGMENTS; ++fragment) {
            const int down = spot.row + first_out + fragment * WGMMA_M;
#if SUMS_ARE_INTEGERS
            constexpr bool APART = OUT_FRAGMENTS < FRAGMENTS;  // gates, and what they gate
            Fragment values, gated;
#pragma unroll
            for (int i = 0; i < ACCUMULATORS; ++i) {
                values[i] = stored(accumulators[fragment][i]);
                if (APART) gated[i] = stored(accumulators[fragment + FRAGMENTS - OUT_FRAGMENTS][i]);
            }
            Fragment& ups = APART ? gated : values;
#else
            Fragment &values = accumulators[fragment], &ups = accumulators[fragment + FRAGMENTS - OUT_FRAGMENTS];
#endif
#if TMA_STORE
            store_fragment(c, values, ups, finish, schedule, staging, chunks, boxes, fragment, down, spot.column);
#elif ROW_STORE
            store_rows(c, values, ups, finish, staging, chunks, down, spot.column);
#else
            store_fragment(c, values, ups, finish, schedule, down, spot.column);
#endif
        }
#endif
    }
#if PROMOTED
    run_turn.end();
#endif
    // The buffers must outlive the copies out of them; the end of the kernel waits for the writes themselves.
    if (TMA_STORE) asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

// The first where `FIRST` holds, else the second; they may be of different types.
template <bool FIRST, class One, class Other>
DEVICE const auto& either(const One& one, const Other& other) {
    if constexpr (FIRST) return one;
    else return other;
}

// One thread makes all barriers ready before any other thread, or block of the cluster, arrives at one. It is not of the
// warp that sends the first copies, which works out meanwhile where these begin.
DEVICE void initialise_barriers(const Layout& layout) {
    for (int stage = 0; stage < STAGES; ++stage) {
        initialise(barrier_at(layout.full, stage), FILLS);
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
void hktune_gemm_bf16(const __grid_constant__ GivenA a, const __grid_constant__ GivenB b,
                      const __grid_constant__ Output c, int m, int n, int k,
                      const BitsAdded* bias, int accumulate, u32* workspace
#if SCALED
                      , const float* scale_a, const float* scale_b
#endif
#if IN_BLOCKS
                      , int ldscale_a, int incscale_a
#endif
#if RESIDUAL
                      , const __grid_constant__ Residual residual
#endif
#if HAS_ALPHA
                      , const float* alpha
#endif
#if HAS_BETA
                      , const float* beta
#endif
#if SCALES_C
                      , const float* scale_c
#endif
#if SEVERAL
                      , int groups
#endif
#if GROUPED
                      , const int* offsets
#endif
#if BATCHED
                      , u64 stride_a, u64 stride_b
#endif
) {
    extern __shared__ char memory[];
    const Layout layout(static_cast<u32>(__cvta_generic_to_shared(memory)));
    const auto& wgmma_a = either<SWAPPED>(b, a);
    const auto& wgmma_b = either<SWAPPED>(a, b);
    const int rows = SWAPPED ? n : m, columns = SWAPPED ? m : n;
#if !RESIDUAL
    constexpr Residual residual = nullptr;
#endif
#if !HAS_ALPHA
    constexpr const float* alpha = nullptr;
#endif
#if !HAS_BETA
    constexpr const float* beta = nullptr;
#endif
#if !SCALES_C
    constexpr const float* scale_c = nullptr;
#endif
    if (threadIdx.x == 0) {
        prefetch(wgmma_a);
        prefetch(wgmma_b);
#if TMA_STORE
        prefetch(c);
#endif
    }
    if (threadIdx.x == WARP) initialise_barriers(layout);
    if (CLUSTER > 1) cluster_arrive();
#if BATCHED
    const Schedule schedule(Products{m, n, k, groups, nullptr, stride_a == 0, stride_b == 0});
    bias = nullptr;
#elif RAGGED_K
    const Schedule schedule(Products{m, n, k, groups, offsets, true, true});
    bias = nullptr;
#elif SEVERAL
    const Schedule schedule(Products{m, n, k, groups, offsets});
#else
    const Schedule schedule(rows, columns, k, WHOLE_TILES && !accumulate && k >= LONG_K);
    schedule.settle();
#endif
    if (CLUSTER > 1) cluster_wait();
    else __syncthreads();
    if (threadIdx.x < WARPGROUP) {
        if constexpr (CONSUMER_REGISTERS > 0)
            asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(PRODUCER_REGISTERS));
        if (BY_THREADS || threadIdx.x == 0)
            produce(wgmma_a, wgmma_b, Extents{rows, columns, k}, schedule, layout, n, [&](Ring& ring, const Spot& spot) {
                send_residual(residual, ring, layout, spot);
            });
        __syncwarp();
        if (SPLIT_K > 1) cluster_sync();
    } else {
        if constexpr (CONSUMER_REGISTERS > 0)
            asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(CONSUMER_REGISTERS));
        wait_for_kernel_before();
#if IN_BLOCKS
        const int k_blocks = (k + SCALE_BLOCK - 1) / SCALE_BLOCK;
        const Factors factors = {scale_a, scale_b, rows, columns, k_blocks, {ldscale_a, incscale_a}, {k_blocks, 1}};
#elif SCALED
        const Factors factors = {scale_a, scale_b, rows, columns};
#else
        const Factors factors = {};
#endif
        const Epilogue epilogue = {bias, rows, columns, accumulate != 0, factors, residual_of_threads(residual),
                                   alpha, beta, scale_c};
        consume(c, epilogue, schedule, layout, workspace);
    }
    if (SPLIT_K > 1) cluster_sync();  // no block may leave while others read its sums
}
