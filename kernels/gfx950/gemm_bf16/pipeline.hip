// The schedules pipeline and interleave.

#pragma once

#include "staging.hip"
#include "store.hip"

// Every step fetches one tile and multiplies another. With PREFETCH == STAGES (refilling late) the one that is fetched
// takes the place of the one being multiplied, once every warp has read that. With SPREAD > 1 a tile is fetched in
// portions of its parts, one a cluster; of a late refill only the first portion in that step, the rest in the next.
template<int clusters> struct pipeline : staging {
    static_assert(VMCNT_TILES < PREFETCH - READ_ACROSS, "a step must wait for the tile it reads");
    static_assert(LGKMCNT_CLUSTERS < clusters, "a step must wait for every fragment it multiplies");
    static_assert(!READ_ACROSS || PREFETCH == STAGES);
    static_assert(!READ_ACROSS || (LGKMCNT_CLUSTERS >= 1 && LGKMCNT_CLUSTERS <= clusters - SPLIT));
    static_assert(SCHEDULE != Schedule::interleave || (READ_ACROSS && LGKMCNT_CLUSTERS == 1));

    static constexpr bool late = PREFETCH == STAGES;
    static constexpr int PORTION = PARTS_PER_TILE / SPREAD;
    static_assert(SPREAD <= (READ_ACROSS ? clusters - LGKMCNT_CLUSTERS + 1 : clusters));
    static_assert(!late || READ_ACROSS || SPREAD == 1 || VMCNT_TILES < PREFETCH - 1);

    fragments f;

    // Fetches the first PREFETCH tiles, but for what the first step fetches of them. `begin_sums(ct)` runs meanwhile.
    template<typename F> __device__ __forceinline__ void prologue(F &&begin_sums) {
        source.prepare(staged(0));
        static_for<PREFETCH>([&]<int tile>() __attribute__((always_inline)) {
            constexpr int parts = late && tile == PREFETCH - 1 ? PORTION : PARTS_PER_TILE;
            if (tile == 0 || tile < k_tiles) source.fetch<0, parts, tile == 0>(staged(tile), tile);
        });
        begin_sums(ct);
        if constexpr (READ_ACROSS) {
            VMCNT_TILES == 0 || k_tiles > VMCNT_TILES ? await_tile<VMCNT_TILES>() : await_tile<0>();
            read_ahead(f, staged(0), warp);
        }
    }

    __device__ __forceinline__ void steady_state() {
        for (int tile = 0; tile + PREFETCH < k_tiles; tile++) step<PREFETCH>(tile);
    }

    // The last tiles, with ever fewer behind them.
    __device__ __forceinline__ void drain() {
        static_for<PREFETCH>([&]<int drained>() __attribute__((always_inline)) {
            constexpr int behind = PREFETCH - 1 - drained;
            if (behind == 0 || behind < k_tiles) step<behind>(k_tiles - 1 - behind);
        });
    }

    // Multiplies `tile`, which is in `stage`, with `behind` tiles after it; with PREFETCH of them there may be more.
    template<int behind> __device__ __forceinline__ void step(int tile) {
        if constexpr (!READ_ACROSS) {
            await_tile<behind < VMCNT_TILES ? behind : VMCNT_TILES>();
            fetch_portion<0, behind>(tile);
            read_ahead(f, current(), warp);
        }
        set_priority<Priority::phase, 1>();
        static_for<clusters>([&]<int c>() __attribute__((always_inline)) {
            if constexpr (SCHEDULE == Schedule::interleave) interleaved_cluster<c, behind>(tile);
            else pipelined_cluster<c, behind>(tile);
        });
        set_priority<Priority::phase, 0>();
        stage = next_stage(stage);
    }

    template<int c, int behind> __device__ __forceinline__ void pipelined_cluster(int tile) {
        constexpr bool next_follows = READ_ACROSS && behind > 0;
        constexpr int ahead = c + LGKMCNT_CLUSTERS;
        if constexpr (c > 0 || READ_ACROSS) fetch_portion<c, behind>(tile);
        if constexpr (ahead < clusters) {
            read_cluster<ahead>(f, current(), warp);
        } else if constexpr (next_follows) {
            if constexpr (ahead == clusters) await_next<behind>();
            read_cluster<ahead - clusters>(f, next(), warp);
        }
        await_cluster<c, next_follows>(f);
        if constexpr (late && c == clusters - 1 && behind == PREFETCH) {
            __builtin_amdgcn_s_barrier();
            source.fetch<0, PORTION>(current(), tile + PREFETCH);
        }
        multiply_cluster<c>(ct, f, [] {});
    }

    // Loads are issued between the rows of MFMAs, and in the first half of them the reads of the next cluster. The
    // barrier of the last cluster says both that the next tile has landed and that this one has been read.
    template<int c, int behind> __device__ __forceinline__ void interleaved_cluster(int tile) {
        constexpr bool last = c == clusters - 1;
        constexpr int reads = last && behind == 0 ? 0 : tiles_of((c + 1) % clusters);
        await_cluster<c, false>(f);
        if constexpr (last && behind > 0) await_next<behind>();
        const staged_tile read_from = last ? next() : current();
        multiply_cluster<c>(ct, f, [&]<int row>() __attribute__((always_inline)) {
            constexpr int first = reads_before(row, reads), end = reads_before(row + 1, reads);
            static_for<end - first>([&]<int i>() __attribute__((always_inline)) {
                read_one<(c + 1) % clusters, first + i>(f, read_from, warp);
            });
            constexpr int part = row * PORTION / MFMA_ROWS, part_end = (row + 1) * PORTION / MFMA_ROWS;
            if constexpr (last && behind == PREFETCH) source.fetch<part, part_end>(current(), tile + PREFETCH);
            if constexpr (fetches<c, behind>()) {
                constexpr int portion = (c + 1) * PORTION;
                source.fetch<portion + part, portion + part_end>(previous(), tile + PREFETCH - 1);
            }
        });
    }

    static constexpr int reads_before(int row, int reads) {
        return 2 * row >= MFMA_ROWS ? reads : 2 * row * reads / MFMA_ROWS;
    }

    // Waits for the tile after this one, leaving those behind it in flight.
    template<int behind> __device__ __forceinline__ void await_next() {
        await_tile<behind - 1 < VMCNT_TILES ? behind - 1 : VMCNT_TILES>();
    }

    // Whether cluster c fetches a portion into the stage that the step before has freed.
    template<int c, int behind> static constexpr bool fetches() {
        return late ? behind >= PREFETCH - 1 && c < SPREAD - 1 : behind == PREFETCH && c < SPREAD;
    }

    template<int c, int behind> __device__ __forceinline__ void fetch_portion(int tile) {
        if constexpr (fetches<c, behind>()) {
            constexpr int portion = (late ? c + 1 : c) * PORTION;
            source.fetch<portion, portion + PORTION>(previous(), tile + STAGES - 1);
        }
    }
};

