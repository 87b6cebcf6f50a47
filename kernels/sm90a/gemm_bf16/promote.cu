// A consumer's multiplies where float32 takes sums over from the tensor cores: these keep some 14 bits of a sum of
// float8 products. (DeepSeek-V3 Technical Report, section 3.3.2; hktune/core/sums.py has what that allows.)
//
// A run is what the tensor cores add alone. Where registers suffice, the next one is under way while one is taken over.
// Where not, a run is of one fragment. Consumers that share a tile then take turns to start one: while one takes its run
// over, the tensor cores are at the other's.
#pragma once
#include "constants.cu"
#include "copy.cu"
#include "geometry.cu"
#include "mainloop.cu"
#include "multiply.cu"
#include "scale.cu"
#include "schedule.cu"

constexpr int RUN_K = K_STEP < SCALE_BLOCK ? K_STEP : SCALE_BLOCK;  // elements of K
constexpr int RUNS = K_STEP / RUN_K;                                // of a stage
static_assert(RUNS <= 2, "an even run begins a stage");
constexpr int RUN_FRAGMENTS = RUN_BUFFERS == 1 ? 1 : FRAGMENTS;
using Run = Sum[RUN_FRAGMENTS][ACCUMULATORS];
constexpr bool IN_TURN = RUN_BUFFERS == 1 && CONSUMERS_OF_A_TILE > 1;

// Consumers that share a tile start their runs in turn.
struct Turn {
    int consumer;

    DEVICE explicit Turn(int consumer) : consumer(consumer) {
        if (IN_TURN && consumer == CONSUMERS - 1) give();  // to the first
    }
    DEVICE void take() const {
        if (IN_TURN) barrier_sync(TURN_BARRIER + consumer, CONSUMER_THREADS);
    }
    DEVICE void give() const {
        if (IN_TURN) barrier_arrive(TURN_BARRIER + 1 - consumer, CONSUMER_THREADS);
    }
    // What the last one gave is taken: as often as it was given.
    DEVICE void end() const {
        if (IN_TURN && consumer == 0) take();
    }
};

// Puts run `part` of the stage at `from` under way.
DEVICE void start_run(Run& run, u32 from, int part, int first_row) {
    const u32 within = part * WgmmaA::slice_at(RUN_K / WGMMA_K), within_b = part * WgmmaB::slice_at(RUN_K / WGMMA_K);
    const u64 wgmma_a = descriptor<WgmmaA>(from + WgmmaA::line_at(first_row) + within);
    const u64 wgmma_b = descriptor<WgmmaB>(from + WgmmaA::BYTES + within_b);
    multiply_fence();
#pragma unroll
    for (int slice = 0; slice < RUN_K / WGMMA_K; ++slice) {
        const u64 b_here = wgmma_b + descriptor_units(WgmmaB::slice_at(slice));
#pragma unroll
        for (int fragment = 0; fragment < RUN_FRAGMENTS; ++fragment) {
            const int in_a = WgmmaA::line_at(fragment * WGMMA_M) + WgmmaA::slice_at(slice);
            multiply(run[fragment], wgmma_a + descriptor_units(in_a), b_here, slice > 0);
        }
    }
    multiply_commit();
}

// What a run is multiplied by, where factors are of blocks. It is read while the run is under way.
struct RunFactors {
#if IN_BLOCKS
    BlockFactors of[RUN_FRAGMENTS];

    DEVICE void load(const Factors& factors, int row, int column, int k) {
#pragma unroll
        for (int fragment = 0; fragment < RUN_FRAGMENTS; ++fragment)
            of[fragment].load(factors, row + fragment * WGMMA_M, column, k / SCALE_BLOCK);
    }
#else
    DEVICE void load(const Factors&, int, int, int) {}
#endif
};

// Adds a run to the sums, those of fragment `first` and behind it, once no more than IN_FLIGHT later ones are under way.
template <int IN_FLIGHT>
DEVICE void take_over(Accumulators& sums, int first, Run& run, const RunFactors& factors) {
    multiply_wait<IN_FLIGHT>();
#pragma unroll
    for (int fragment = 0; fragment < RUN_FRAGMENTS; ++fragment)
#pragma unroll
        for (int i = 0; i < ACCUMULATORS; ++i) {
#if IN_BLOCKS
            sums[first + fragment][i] += run[fragment][i] * factors.of[fragment][i];
#else
            sums[first + fragment][i] += run[fragment][i];
#endif
        }
}

// As `multiply_tile`: sums = this block's part of K, of the tile at (row, column). All branches between a run's start and
// its end are of constants: where ptxas cannot follow the registers of a run, it waits after every multiply (C7514).
DEVICE void promote_tile(
    Accumulators& sums, Ring& ring, const Schedule& schedule, const Layout& layout, const Release& release,
    const Factors& factors, const Turn& turn, int first_row, int row, int column) {
    constexpr int SECOND = RUNS - 1;  // the part of a stage that an odd run is
    const int runs = schedule.k_steps * RUNS, down = row + first_row;
    int k = schedule.k_first * K_STEP;
    u32 from = 0, last = 0;
    const auto start = [&](Run& run, RunFactors& of_run, int part, int fragment = 0) {
        if (part == 0 && fragment == 0) {
            wait(barrier_at(layout.full, ring.stage), ring.parity);
            from = layout.stages + ring.stage * STAGE_BYTES;
            last = ring.stage;
            ring.next();
        }
        turn.take();
        start_run(run, from, part, first_row + fragment * WGMMA_M);
        turn.give();
        of_run.load(factors, down + fragment * WGMMA_M, column, k);
    };
#pragma unroll
    for (int i = 0; i < FRAGMENTS * ACCUMULATORS; ++i) sums[i / ACCUMULATORS][i % ACCUMULATORS] = 0;
    if (runs == 0) return;
#if RUN_BUFFERS == 1
    Run run;
    RunFactors of_run;
    for (int step = 0; step < schedule.k_steps; ++step) {
#pragma unroll
        for (int part = 0; part < RUNS; ++part, k += RUN_K) {
#pragma unroll
            for (int fragment = 0; fragment < FRAGMENTS; ++fragment) {
                start(run, of_run, part, fragment);
                take_over<0>(sums, fragment, run, of_run);
            }
        }
        release(last);
    }
#else
    // Starts a run, and takes over the one before, which was another part of its stage or the end of the last one.
    const auto follow = [&](Run& run, RunFactors& of_run, int part, Run& before, const RunFactors& of_before) {
        const u32 stage_before = last;
        k += RUN_K;
        start(run, of_run, part);
        take_over<1>(sums, 0, before, of_before);
        if (part == 0) release(stage_before);
    };
    Run even, odd;
    RunFactors of_even, of_odd;
    start(even, of_even, 0);
    int number = 1;
    for (; number + 1 < runs; number += 2) {
        follow(odd, of_odd, SECOND, even, of_even);
        follow(even, of_even, 0, odd, of_odd);
    }
    if (number < runs) {
        follow(odd, of_odd, SECOND, even, of_even);
        take_over<0>(sums, 0, odd, of_odd);
    } else {
        take_over<0>(sums, 0, even, of_even);
    }
    release(last);
#endif
}
