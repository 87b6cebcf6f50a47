// Tiles whose K several blocks share through the workspace: whatever their number, and whichever comes last, the same
// sums are added in the same order.
//
// Each block leaves its sums in a slab, but for those of the chunks that it owns. It arrives at the tile's counter, and
// waits for the others. Then it adds theirs to its own, the lowest K first, and stores what it owns. A block that has
// waited in vain gives its chunks up; the last to arrive stores them too. So no block depends on one that the device
// has not begun.
//
//     workspace: two counters for each part of a tile | a slab of float32 for each block
#pragma once
#include "constants.cu"
#include "copy.cu"
#include "element.cu"
#include "geometry.cu"
#include "mainloop.cu"
#include "schedule.cu"
#include "store.cu"

constexpr int COUNTERS = 16384;  // of 4 bytes, zero before and after every launch
constexpr int PATIENCE = 64;     // how often a block looks whether all have arrived: some 40 us
constexpr u32 ARRIVALS = 0xff, GIVEN_UP = ARRIVALS + 1;  // of a counter: how many came; the bit of the first block
// Consumers that share a tile share it with the same consumers of other blocks. A slab has the chunks of each, in each
// octet by octet the values of all threads.
constexpr int SHARES = CONSUMERS_OF_A_TILE;
constexpr int FRAGMENT_CHUNKS = TILE_COLUMNS / CHUNK, CHUNKS = FRAGMENTS * FRAGMENT_CHUNKS;
constexpr int CHUNK_FLOATS = CHUNK_VALUES * WARPGROUP, SLAB_FLOATS = SHARES * CHUNKS * CHUNK_FLOATS;
constexpr int SLABS_AT_ONCE = FRAGMENTS * ACCUMULATORS > 96 ? 2 : 4;  // that are read; as many as registers allow

struct Quad {
    float x[OCTET_VALUES];
};

DEVICE void leave(float* to, const float* v) {
    asm volatile("st.global.cg.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3])
                 : "memory");
}

DEVICE Quad left(const float* at) {
    Quad v;
    asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x[0]), "=f"(v.x[1]), "=f"(v.x[2]), "=f"(v.x[3]) : "l"(at) : "memory");
    return v;
}

// Who sees the new value sees what this thread wrote before, and others before a barrier that it has passed.
DEVICE u32 fetch_add(u32* counter, u32 value) {
    u32 before;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;" : "=r"(before) : "l"(counter), "r"(value) : "memory");
    return before;
}

DEVICE u32 look(const u32* counter) {
    u32 value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
    return value;
}

// One consumer's part of a tile, and the blocks that share it.
struct Share {
    const u32 sharers, rank;  // rank: of this block among them
    const int k_steps, share, consumer;
    const bool leads;  // of the consumer's threads, for the counters
    u32* counter;
    float* slabs;  // of this thread's values, in the first block's slab
    u64 to_next;

    DEVICE Share(const Schedule& schedule, int tile, int consumer, u32* workspace)
        : sharers(schedule.parts), rank(schedule.part), k_steps(schedule.k_steps),
          share(PING_PONG ? 0 : consumer), consumer(consumer),
          leads(threadIdx.x % WARPGROUP == 0), to_next(u64(MULTICAST) * SLAB_FLOATS) {
        counter = workspace + 2 * ((tile * MULTICAST + schedule.rank) * SHARES + share);
        slabs = reinterpret_cast<float*>(workspace + COUNTERS) + tile * sharers * to_next +
                schedule.rank * SLAB_FLOATS + share * CHUNKS * CHUNK_FLOATS + threadIdx.x % WARPGROUP * OCTET_VALUES;
    }

    DEVICE u32 owner(int chunk) const { return (chunk * SHARES + share) * sharers / (CHUNKS * SHARES); }

    // Stores what falls to this block of a tile that begins at (row, column): every block's sums together. `staging`
    // has a buffer for each chunk.
    DEVICE void store(
        Accumulators& accumulators, const Layout& layout, const TensorMap& c, u32 staging, const Epilogue& epilogue,
        int row, int column) const {
        if (k_steps == 0) clear(accumulators);
        for (u32 owners = arrive(accumulators, layout.owners + consumer * sizeof(u32)); owners; owners &= owners - 1) {
            const u32 mine = __ffs(owners) - 1;
#pragma unroll 1
            for (int chunk = 0; chunk < CHUNKS; ++chunk) {
                if (owner(chunk) != mine) continue;
                Fragment values;
                take(accumulators, chunk, values);
                add_others(values, chunk);
                const int down = row + chunk / FRAGMENT_CHUNKS * WGMMA_M;
                store_chunk(c, values, epilogue, staging, down, column + chunk % FRAGMENT_CHUNKS * CHUNK);
                staging += CHUNK_BYTES;
            }
        }
    }

    // Stores the first CHUNK columns of `values`, which are at (row, column).
    DEVICE void store_chunk(
        const TensorMap& c, Fragment& values, const Epilogue& epilogue, u32 buffer, int row, int column) const {
        finish(values, values, 0, CHUNK_VALUES, epilogue, row, column);
        stage(buffer, values);
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        consumer_sync(consumer);
        if (!leads) return;
        const int across = SWAPPED ? row : column, down = SWAPPED ? column : row;
        if (BYTES_OF_C == sizeof(float) && epilogue.accumulate) store_added(c, buffer, across, down);
        else ::store(c, buffer, across, down);
    }

    // A K of fewer steps than blocks leaves some without any.
    DEVICE void clear(Accumulators& accumulators) const {
#pragma unroll
        for (int i = 0; i < FRAGMENTS * ACCUMULATORS; ++i) accumulators[i / ACCUMULATORS][i % ACCUMULATORS] = 0;
    }

    // Leaves this block's sums, and waits for the others'. Returns the blocks whose chunks are this one's to store, a
    // bit each; all of the consumer's threads learn it through the shared memory at `word`.
    DEVICE u32 arrive(const Accumulators& accumulators, u32 word) const {
        leave_chunks(accumulators, false);
        consumer_sync(consumer);
        if (leads) tell(word, counted());
        u32 owners = told(word);
        if (owners == 0 && owns_some()) {
            leave_chunks(accumulators, true);
            consumer_sync(consumer);
            if (leads) tell(word, (fetch_add(counter, GIVEN_UP << rank) & ARRIVALS) == sharers ? 1u << rank : 0);
            owners = told(word);
        }
        if (leads) depart();
        return owners;
    }

    // Counts this block, and looks for the others.
    DEVICE u32 counted() const {
        const u32 before = fetch_add(counter, 1);
        if ((before & ARRIVALS) + 1 == sharers) return before / GIVEN_UP | 1u << rank;
        for (int i = 0; i < PATIENCE && owns_some(); ++i)
            if ((look(counter) & ARRIVALS) == sharers) return 1u << rank;
        return 0;
    }

    // The last to know what falls to it leaves both counters as they were. What this thread has read of the counter
    // decided that it comes here, so relaxed order is enough.
    DEVICE void depart() const {
        u32 before;
        asm volatile("atom.inc.relaxed.gpu.global.u32 %0, [%1], %2;" : "=r"(before) : "l"(counter + 1), "r"(sharers - 1)
                     : "memory");
        if (before == sharers - 1) asm volatile("st.relaxed.gpu.global.u32 [%0], 0;" ::"l"(counter) : "memory");
    }

    DEVICE void tell(u32 word, u32 owners) const {
        asm volatile("st.shared.u32 [%0], %1;" ::"r"(word), "r"(owners) : "memory");
    }

    DEVICE u32 told(u32 word) const {
        u32 owners;
        consumer_sync(consumer);
        asm volatile("ld.shared.u32 %0, [%1];" : "=r"(owners) : "r"(word) : "memory");
        return owners;
    }

    DEVICE bool owns_some() const {
        bool some = false;
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; ++chunk) some |= owner(chunk) == rank;
        return some;
    }

    // Leaves the sums of the chunks that this block owns, or of those that it does not.
    DEVICE void leave_chunks(const Accumulators& accumulators, bool own) const {
        float* const to = slabs + rank * to_next;
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; ++chunk) {
            if ((owner(chunk) == rank) != own) continue;
            const float* const values = &accumulators[chunk / FRAGMENT_CHUNKS][chunk % FRAGMENT_CHUNKS * CHUNK_VALUES];
#pragma unroll
            for (int first = 0; first < CHUNK_VALUES; first += OCTET_VALUES)
                leave(to + chunk * CHUNK_FLOATS + first * WARPGROUP, values + first);
        }
    }

    // This block's own sums of a chunk; only the run decides of which.
    DEVICE void take(const Accumulators& accumulators, int chunk, Fragment& values) const {
#pragma unroll
        for (int other = 0; other < CHUNKS; ++other)
#pragma unroll
            for (int i = 0; i < CHUNK_VALUES; ++i)
                if (other == chunk)
                    values[i] = accumulators[other / FRAGMENT_CHUNKS][other % FRAGMENT_CHUNKS * CHUNK_VALUES + i];
    }

    // Adds the other blocks' sums of a chunk.
    DEVICE void add_others(Fragment& values, int chunk) const {
        float sums[CHUNK_VALUES] = {};
#pragma unroll SLABS_AT_ONCE
        for (u32 other = 0; other < sharers; ++other) {
            const float* const theirs = slabs + other * to_next + chunk * CHUNK_FLOATS;
#pragma unroll
            for (int first = 0; first < CHUNK_VALUES; first += OCTET_VALUES) {
                Quad part = {values[first], values[first + 1], values[first + 2], values[first + 3]};
                if (other != rank) part = left(theirs + first * WARPGROUP);
#pragma unroll
                for (int i = 0; i < OCTET_VALUES; ++i) sums[first + i] += part.x[i];
            }
        }
#pragma unroll
        for (int i = 0; i < CHUNK_VALUES; ++i) values[i] = sums[i];
    }
};
