// A consumer's multiplies where float32 takes sums over from the tensor cores: these keep some 14 bits of a sum of
// float8 products. (DeepSeek-V3 Technical Report, section 3.3.2; hktune/core/sums.py has what that allows.)
#pragma once
#include "constants.cu"
#include "copy.cu"
#include "geometry.cu"
#include "mainloop.cu"
#include "multiply.cu"
#include "scale.cu"
#include "schedule.cu"

constexpr int RUN_K = K_STEP < SCALE_BLOCK ? K_STEP : SCALE_BLOCK;  // elements of K that the tensor cores add alone

// Waits for the multiplies of a fragment, of which all have been committed one after another.
DEVICE void wait_for(int fragment) {
    if (fragment == FRAGMENTS - 1) multiply_wait<0>();
    else if (fragment == FRAGMENTS - 2) multiply_wait<1>();
    else multiply_wait<2>();
}

// As `multiply_tile`: sums = this block's part of K, of the tile at (row, column).
DEVICE void promote_tile(
    Accumulators& sums, Ring& ring, const Schedule& schedule, const Layout& layout, const Release& release,
    const Factors& factors, int first_row, int row, int column, u32 next_turn) {
#pragma unroll
    for (int i = 0; i < FRAGMENTS * ACCUMULATORS; ++i) sums[i / ACCUMULATORS][i % ACCUMULATORS] = 0;
    for (int step = 0; step < schedule.k_steps; ++step, ring.next()) {
        const u32 from = layout.stages + ring.stage * STAGE_BYTES;
        wait(barrier_at(layout.full, ring.stage), ring.parity);
        const u64 wgmma_a = descriptor<WgmmaA>(from + WgmmaA::line_at(first_row));
        const u64 wgmma_b = descriptor<WgmmaB>(from + WgmmaA::BYTES);
#pragma unroll
        for (int k = 0; k < K_STEP; k += RUN_K) {
            Accumulators run;
            multiply_fence();
#pragma unroll
            for (int fragment = 0; fragment < FRAGMENTS; ++fragment) {
#pragma unroll
                for (int slice = k / WGMMA_K; slice < (k + RUN_K) / WGMMA_K; ++slice) {
                    const int in_a = WgmmaA::line_at(fragment * WGMMA_M) + WgmmaA::slice_at(slice);
                    const u64 a_here = wgmma_a + descriptor_units(in_a);
                    const u64 b_here = wgmma_b + descriptor_units(WgmmaB::slice_at(slice));
                    multiply(run[fragment], a_here, b_here, slice > k / WGMMA_K);
                }
                multiply_commit();
            }
            const int k_block = ((schedule.k_first + step) * K_STEP + k) / SCALE_BLOCK;
#pragma unroll
            for (int fragment = 0; fragment < FRAGMENTS; ++fragment) {
                const int down = row + first_row + fragment * WGMMA_M;
                if constexpr (IN_BLOCKS) {
                    const BlockFactors of_run(factors, down, column, k_block);  // they arrive while it multiplies
                    wait_for(fragment);
#pragma unroll
                    for (int i = 0; i < ACCUMULATORS; ++i) sums[fragment][i] += run[fragment][i] * of_run[i];
                } else {
                    wait_for(fragment);
#pragma unroll
                    for (int i = 0; i < ACCUMULATORS; ++i) sums[fragment][i] += run[fragment][i];
                }
            }
        }
        release(ring.stage);
    }
    if (PING_PONG && threadIdx.x % WARP == 0) arrive(next_turn);
}
