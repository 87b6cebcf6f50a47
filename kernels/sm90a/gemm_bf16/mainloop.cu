// A consumer's multiplies.
#pragma once
#include "constants.cu"
#include "copy.cu"
#include "element.cu"
#include "geometry.cu"
#include "multiply.cu"
#include "schedule.cu"

using Accumulators = Sum[FRAGMENTS][ACCUMULATORS];

// Tells every block that sends to this one that its stage may be refilled: one arrival a warp, by lane `rank` of it.
struct Release {
    u32 empty;
    bool arrives;

    DEVICE Release(const Schedule& schedule, const Layout& layout) {
        const int rank = threadIdx.x % WARP;  // of the block to tell
        const bool sends_a = rank % CLUSTER_ROWS == schedule.rank_row;
        const bool sends_b = rank / CLUSTER_ROWS == schedule.rank_column;
        arrives = MULTICAST == 1 ? rank == 0 : rank < MULTICAST && (sends_a || sends_b);
        empty = MULTICAST == 1 || !arrives ? layout.empty : address_in(layout.empty, rank);
    }

    DEVICE void operator()(u32 stage) const {
        if (!arrives) return;
        if (MULTICAST == 1) arrive(barrier_at(empty, stage));
        else arrive_in_cluster(barrier_at(empty, stage));
    }
};

#if RAGGED_K
DEVICE void clear(Accumulators& accumulators) {
#pragma unroll
    for (int fragment = 0; fragment < FRAGMENTS; ++fragment)
#pragma unroll
        for (int i = 0; i < ACCUMULATORS; ++i) accumulators[fragment][i] = 0;
}

// Zeros what a stage has of an operand behind `depth` elements of K: the end of each piece, as its rows are elements of K.
template <class Operand>
DEVICE void clear_operand(u32 operand, int depth, int thread, int threads) {
    static_assert(Operand::BY_LINES, "a row of a piece is an element of K");
#pragma unroll
    for (int piece = 0; piece < Operand::PIECES; ++piece)
        for (int at = depth * Operand::ROW_BYTES + thread * 16; at < Operand::PIECE_BYTES; at += threads * 16)
            asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(operand + piece * Operand::PIECE_BYTES + at),
                         "r"(0) : "memory");
}

// The same of both operands, by all threads that multiply the stage: what is there is the next product's, NaN perhaps.
DEVICE void clear_behind(u32 stage, int depth) {
    constexpr int THREADS_OF_A_TILE = WARPGROUP * CONSUMERS_OF_A_TILE;
    const int thread = (threadIdx.x - WARPGROUP) % THREADS_OF_A_TILE;
    clear_operand<WgmmaA>(stage, depth, thread, THREADS_OF_A_TILE);
    clear_operand<WgmmaB>(stage + WgmmaA::BYTES, depth, thread, THREADS_OF_A_TILE);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    if (CONSUMERS_OF_A_TILE > 1) consumers_sync();
    else consumer_sync(threadIdx.x / WARPGROUP - 1);
}
#endif

// Lets the next consumer begin its tile. What comes through the ring behind the K-steps of this one must be there: copies
// end in any order, and one that waits for a stage's next round could mistake the round before the last for it.
DEVICE void give_turn(Ring ring, const Layout& layout, u32 next_turn) {
    for (int step = 0; step < RESIDUAL_STEPS; ++step, ring.next())
        wait(barrier_at(layout.full, ring.stage), ring.parity);
    if (threadIdx.x % WARP == 0) arrive(next_turn);
}

// accumulators = this block's part of K. One K-step of multiplies stays in flight, so a stage is released a step late.
// `next_turn` is completed when the last stage is in use: the next consumer, if it waited for its own stages sooner,
// would mistake a round of the ring for another of the same parity. Of the last step `last_depth` elements of K count.
DEVICE void multiply_tile(
    Accumulators& accumulators, Ring& ring, int k_steps, const Layout& layout, const Release& release, int first_row,
    u32 next_turn, int last_depth = K_STEP) {
    u32 last = 0;
#if RAGGED_K
    if (k_steps == 0) clear(accumulators);
#endif
    for (int step = 0; step < k_steps; ++step, ring.next()) {
        const u32 from = layout.stages + ring.stage * STAGE_BYTES;
        wait(barrier_at(layout.full, ring.stage), ring.parity);
        if (BY_THREADS) see_what_threads_wrote();
#if RAGGED_K
        if (step == k_steps - 1 && last_depth < K_STEP) clear_behind(from, last_depth);
#endif
        multiply_fence();
        const u64 wgmma_a = descriptor<WgmmaA>(from + WgmmaA::line_at(first_row));
        const u64 wgmma_b = descriptor<WgmmaB>(from + WgmmaA::BYTES);
#pragma unroll
        for (int slice = 0; slice < K_STEP / WGMMA_K; ++slice) {
            const u64 b_here = wgmma_b + descriptor_units(WgmmaB::slice_at(slice));
#pragma unroll
            for (int fragment = 0; fragment < FRAGMENTS; ++fragment) {
                const int in_a = WgmmaA::line_at(fragment * WGMMA_M) + WgmmaA::slice_at(slice);
                const u64 a_here = wgmma_a + descriptor_units(in_a);
                multiply(accumulators[fragment], a_here, b_here, step + slice);
            }
        }
        multiply_commit();
        multiply_wait<1>();
        if (step > 0) release(last);
        last = ring.stage;
    }
    if (PING_PONG) give_turn(ring, layout, next_turn);
    multiply_wait<0>();
    if (k_steps > 0) release(last);
}
