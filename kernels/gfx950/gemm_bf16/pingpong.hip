// The schedule pingpong.

#pragma once

#include "staging.hip"
#include "store.hip"

// Two groups of four warps, one warp of each on every SIMD, half a phase apart: between two barriers one group reads
// LDS and issues loads while the other one multiplies. Cluster c multiplies part c / 2 of A with part c % 2 of B.
//
// The parts of all tiles are one stream, B0 A0 B1 A1 B0' ...; a cluster fetches one of them, LEAD parts ahead.
// Refilled late, each part takes the place of the one of its kind that has just been read.
template<int split> struct pingpong : staging {
    static_assert(split == 2 && SLICES == 1 && NUM_WARPS == 2 * SIMDS && STAGES >= 2 && SPREAD == PARTS_PER_TILE);
    static_assert(VMCNT_TILES <= STAGES - 2);
    static_assert(VMCNT_TILES >= 1 || PREFETCH == STAGES || !READ_ACROSS || VMCNT_WAITS == Wait::cluster,
                  "a wait must come after the loads that it waits for");

    static constexpr int PARTS = PARTS_PER_TILE;
    static constexpr int LEAD = PREFETCH == STAGES ? PARTS * STAGES - 1 : PARTS * (STAGES - 1);
    static constexpr int SPARE = PARTS * (STAGES - 2 - VMCNT_TILES);  // parts that are waited for before they must be

    RT_A a;
    RT_B b[split];

    // Loads of the parts after `from` up to `to` of the stream.
    static constexpr int loads_between(int from, int to) {
        int loads = 0;
        for (int part = from + 1; part <= to; part++) loads += part % 2 == 0 ? LOADS_B : LOADS_A;
        return loads;
    }

    __device__ __forceinline__ bool second_group() const { return warp.row * WARPS_N + warp.col >= NUM_WARPS / 2; }

    template<typename F> __device__ __forceinline__ void prologue(F &&begin_sums) {
        source.prepare(staged(0));
        static_for<LEAD>([&]<int part>() __attribute__((always_inline)) {
            constexpr int tile = part / PARTS;
            if (tile == 0 || tile < k_tiles) source.template fetch_part<part % PARTS, tile == 0>(staged(tile), tile);
        });
        begin_sums(ct);
        constexpr int landed = VMCNT_WAITS == Wait::step ? PARTS - 1 : 1;
        k_tiles >= STAGES ? wait_loads<loads_between(landed, LEAD - 1)>() : wait_loads<0>();
        __builtin_amdgcn_s_barrier();
        if constexpr (READ_ACROSS) {
            read_part<0>(staged(0));
            wait_shared<0>();
        }
        if (second_group()) __builtin_amdgcn_s_barrier();
    }

    __device__ __forceinline__ void steady_state() {
        for (int tile = 0; tile + PREFETCH < k_tiles; tile++) step<PREFETCH>(tile);
    }

    __device__ __forceinline__ void drain() {
        static_for<PREFETCH>([&]<int drained>() __attribute__((always_inline)) {
            constexpr int behind = PREFETCH - 1 - drained;
            if (behind == 0 || behind < k_tiles) step<behind>(k_tiles - 1 - behind);
        });
        if (!second_group()) __builtin_amdgcn_s_barrier();
    }

    template<int behind> __device__ __forceinline__ void step(int tile) {
        static_for<PARTS>([&]<int c>() __attribute__((always_inline)) {
            read_cluster<c, behind>();
            fetch_ahead<c, behind>(tile);
            if constexpr (waits_for_loads(c)) wait_loads<loads_in_flight(c, behind)>();
            if constexpr (LGKMCNT_CLUSTERS == 0) wait_shared<0>();
            else if constexpr (c == 0 && !READ_ACROSS) wait_shared<READS_A>();  // B0 is refilled in the next cluster
            if constexpr (c == PARTS - 1) stage = next_stage(stage);
            __builtin_amdgcn_s_barrier();
            multiply<c>();
            __builtin_amdgcn_s_barrier();
            scheduling_fence();
        });
    }

    template<int part> __device__ __forceinline__ void read_part(staged_tile tile) {
        constexpr int h = part / 2;
        if constexpr (part % 2 == 0) read_fragment<0>(b[h], tile.b[h], warp.col);
        else read_fragment<0>(a, tile.a[h], warp.row);
    }

    // A cluster reads the one part that its MFMAs need and no earlier cluster has read; the first of a tile both,
    // unless the last cluster of the tile before, which needs none, has read across.
    template<int c, int behind> __device__ __forceinline__ void read_cluster() {
        if constexpr (c == 0 && !READ_ACROSS) read_part<0>(current());
        if constexpr (c < PARTS - 1) read_part<c + 1>(current());
        else if constexpr (READ_ACROSS && behind > 0) read_part<0>(next());
    }

    static constexpr int last_part(int behind) { return PARTS * (behind + 1) - 1; }

    template<int c, int behind> __device__ __forceinline__ void fetch_ahead(int tile) {
        constexpr int part = c + LEAD, tiles_on = part / PARTS;
        if constexpr (part <= last_part(behind)) {
            const staged_tile to = tiles_on == STAGES ? current() : previous();
            source.template fetch_part<part % PARTS, false>(to, tile + tiles_on);
        }
    }

    static constexpr bool waits_for_loads(int c) {
        if (VMCNT_WAITS == Wait::step) return c == PARTS - 1 - READ_ACROSS;
        return READ_ACROSS || c != PARTS - 2;  // the cluster after that one reads nothing
    }

    // What the wait of cluster c leaves: all but what the next cluster, or the next step, reads.
    static constexpr int loads_in_flight(int c, int behind) {
        const int last = last_part(behind), issued = c + LEAD < last ? c + LEAD : last;
        const int read = (VMCNT_WAITS == Wait::step ? 2 * PARTS - 1 : c + 2) + SPARE;
        return loads_between(read, issued);
    }

    template<int c> __device__ __forceinline__ void multiply() {
        constexpr int i = c / split, j = c % split;
        wait_shared<0>();
        arrived(a);
        arrived(b[j]);
        scheduling_fence();
        set_priority<Priority::cluster, 1>();
        constexpr bool in_blocks = SCALES == Scales::blocks;
        if constexpr (in_blocks) multiply_blocks(ct[i][j], b[j], a);
        static_for<in_blocks ? 0 : RT_Ct::height>([&]<int y>() __attribute__((always_inline)) {
            multiply_tiles<y>(ct[i][j], b[j], a);
        });
        set_priority<Priority::cluster, 0>();
        scheduling_fence();
    }
};

