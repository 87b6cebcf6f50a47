// The output: sums of a split K, scales, bias, activation, rounding, and how C is written.
// fragment.cu says where a thread's values are.
#pragma once
#include "activation.cu"
#include "constants.cu"
#include "copy.cu"
#include "element.cu"
#include "fragment.cu"
#include "geometry.cu"
#include "mainloop.cu"
#include "scale.cu"
#include "schedule.cu"

// Chunks of a tile are stored by the blocks of a split K in turn.
DEVICE bool owned(int column, const Schedule& schedule) {
    return SPLIT_K == 1 || column / CHUNK % SPLIT_K == schedule.rank;
}

// Adds the other blocks' parts of K to the chunks that this block owns, in fixed order: the next rank first, and so on
// round. The stages, now idle, hold them: the values of an octet of all threads, then those of the next.
DEVICE void reduce_split(Accumulators& accumulators, const Schedule& schedule, const Layout& layout) {
    constexpr int OCTETS = FRAGMENTS * TILE_COLUMNS / OCTET;
    constexpr int THREAD_BYTES = OCTET_VALUES * sizeof(float), STRIDE = THREAD_BYTES * CONSUMER_THREADS;
    const u32 mine = layout.stages + (threadIdx.x - WARPGROUP) * THREAD_BYTES;
    consumers_sync();
#pragma unroll
    for (int octet = 0; octet < OCTETS; ++octet) {
        const int column = octet * OCTET % TILE_COLUMNS;
        Sum* v = &accumulators[octet * OCTET / TILE_COLUMNS][column / VALUE_COLUMNS];
        if (schedule.k_steps == 0) v[0] = v[1] = v[2] = v[3] = 0;
        if (!owned(column, schedule))
            asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(mine + octet * STRIDE), REGISTER(v[0]),
                         REGISTER(v[1]), REGISTER(v[2]), REGISTER(v[3]) : "memory");
    }
    cluster_sync();
    for (int other = 1; other < SPLIT_K; ++other) {
        const u32 theirs = address_in(mine, (schedule.rank + other) % SPLIT_K);
#pragma unroll
        for (int octet = 0; octet < OCTETS; ++octet) {
            const int column = octet * OCTET % TILE_COLUMNS;
            if (!owned(column, schedule)) continue;
            Sum* v = &accumulators[octet * OCTET / TILE_COLUMNS][column / VALUE_COLUMNS];
            Sum part[OCTET_VALUES];
            asm volatile("ld.shared::cluster.v4.b32 {%0, %1, %2, %3}, [%4];"
                         : "=" REGISTER(part[0]), "=" REGISTER(part[1]), "=" REGISTER(part[2]), "=" REGISTER(part[3])
                         : "r"(theirs + octet * STRIDE) : "memory");
#pragma unroll
            for (int i = 0; i < OCTET_VALUES; ++i) v[i] += part[i];
        }
    }
}

// What the storing functions need besides a fragment: where D ends, and what is added.
struct Epilogue {
    const BitsOfC* bias;
    int rows, columns;
    bool accumulate;  // on what C holds
    Factors factors;
};

DEVICE float bias_at(const BitsOfC* bias, int index, int size) {
    return index < size ? ElementOfC::widened(bias[index]) : 0.0f;
}

// Makes C before its rounding of the sums of a chunk, whose first value is at (row, column).
DEVICE void finish(float* values, const Epilogue& epilogue, int row, int column) {
    scale(values, epilogue.factors, row, column);
    const Place place(row, column);
#pragma unroll
    for (int i = 0; i < CHUNK_VALUES; ++i) {
        if (epilogue.bias != nullptr)
            values[i] += SWAPPED ? bias_at(epilogue.bias, place.row(i), epilogue.rows)
                                 : bias_at(epilogue.bias, place.column(i), epilogue.columns);
        values[i] = activated(values[i]);
    }
}

// The offset in a chunk whose rows are swizzled over their own length as TMA does it: 16-byte columns are exchanged by
// the number of the row, which is three bits higher. Rows of other lengths than 128, 64 and 32 bytes are not swizzled;
// where they are odd multiples of 16 bytes, eight of them are in different banks as they are.
constexpr u32 SWIZZLED_BITS = STORE_ROW_BYTES == 128 || STORE_ROW_BYTES == 64 || STORE_ROW_BYTES == 32
                                  ? STORE_ROW_BYTES - SWIZZLE_UNIT_BYTES : 0;
DEVICE u32 swizzled(u32 offset) { return offset ^ ((offset >> 3) & SWIZZLED_BITS); }

// Writes an octet of a fragment's columns into a chunk of float32, where `stage_octets` writes rounded ones.
DEVICE void stage_octet(u32 chunk, int octet, const float* v) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x % WARPGROUP / WARP;
    const int down = warp * 2 * OCTET + lane / 4, across = octet * OCTET + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < OCTET_VALUES; i += 2) {
        const int row = down + i / 2 * OCTET;
        if (SWAPPED) {
            const u32 to = chunk + across * STORE_ROW_BYTES + row * BYTES_OF_C;  // rows of C that are not swizzled
            asm volatile("st.shared.f32 [%0], %1;" ::"r"(to), "f"(v[i]) : "memory");
            asm volatile("st.shared.f32 [%0], %1;" ::"r"(to + STORE_ROW_BYTES), "f"(v[i + 1]) : "memory");
        } else {
            const u32 to = chunk + swizzled(row * STORE_ROW_BYTES + across * BYTES_OF_C);
            asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(v[i]), "f"(v[i + 1]) : "memory");
        }
    }
}

// Writes an octet pair of a fragment's columns, or a SINGLE octet twice, into a chunk as the tensor map wants it,
// transposed where C's rows are D's columns.
template <bool SINGLE>
DEVICE void stage_octets(u32 chunk, int octet, const float* v) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x % WARPGROUP / WARP;
    const int matrix = lane / OCTET;  // each eight lanes give the rows of one 8x8 matrix
    const int row_octet = warp * 2 + matrix % 2, column_octet = octet + (SINGLE ? 0 : matrix / 2);
    const int row = (SWAPPED ? column_octet : row_octet) * OCTET + lane % OCTET;
    const u32 address = chunk + swizzled(row * STORE_ROW_BYTES + (SWAPPED ? row_octet : column_octet) * OCTET_BYTES);
    const float* w = v + (SINGLE ? 0 : OCTET_VALUES);
    const u32 x0 = packed(v[0], v[1]), x1 = packed(v[2], v[3]), x2 = packed(w[0], w[1]), x3 = packed(w[2], w[3]);
    if constexpr (SWAPPED)
        asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(x0),
                     "r"(x1), "r"(x2), "r"(x3) : "memory");
    else
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(x0),
                     "r"(x1), "r"(x2), "r"(x3) : "memory");
}

#if TMA_STORE
// Where a consumer stores, one chunk after another: through its own buffers by TMA, which drops what lies outside C.
struct Target {
    const TensorMap& c;
    u32 staging, chunks = 0;

    DEVICE Target(const TensorMap& c, const Layout& layout, int consumer)
        : c(c), staging(layout.staging + consumer * STORE_BUFFERS * CHUNK_BYTES) {}

    // Stores a chunk of a fragment, whose first value is at (row, column).
    DEVICE void store_chunk(float* values, const Epilogue& epilogue, int row, int column) {
        constexpr int OCTETS = CHUNK / OCTET;
        const int consumer = threadIdx.x / WARPGROUP - 1;
        const u32 chunk = staging + chunks % STORE_BUFFERS * CHUNK_BYTES;
        if (PERSISTENT) {
            if (threadIdx.x % WARPGROUP == 0)
                asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(STORE_BUFFERS - 1) : "memory");
            consumer_sync(consumer);
        }
        finish(values, epilogue, row, column);
        if constexpr (BYTES_OF_C == sizeof(float)) {
#pragma unroll
            for (int octet = 0; octet < OCTETS; ++octet) stage_octet(chunk, octet, values + octet * OCTET_VALUES);
        } else {
#pragma unroll
            for (int octet = 0; octet + 1 < OCTETS; octet += 2)
                stage_octets<false>(chunk, octet, values + octet * OCTET_VALUES);
            if constexpr (OCTETS % 2 != 0)
                stage_octets<true>(chunk, OCTETS - 1, values + (OCTETS - 1) * OCTET_VALUES);
        }
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        consumer_sync(consumer);
        if (threadIdx.x % WARPGROUP == 0) {
            const int across = SWAPPED ? row : column, down = SWAPPED ? column : row;
            if (BYTES_OF_C == sizeof(float) && epilogue.accumulate) store_added(c, chunk, across, down);
            else store(c, chunk, across, down);
        }
        ++chunks;
    }
};
#else
// The same for a C whose rows TMA cannot address (n not a multiple of 8): element by element from registers.
struct Target {
    BitsOfC* c;

    DEVICE Target(BitsOfC* c, const Layout&, int) : c(c) {}

    // The row length is made anew for every chunk, or the compiler would keep all its multiples in registers from tile
    // to tile.
    DEVICE void store_chunk(float* values, const Epilogue& epilogue, int row, int column) {
        const Place place(row, column);
        u64 length;
        asm volatile("cvt.u64.u32 %0, %1;" : "=l"(length) : "r"(SWAPPED ? epilogue.rows : epilogue.columns));
        finish(values, epilogue, row, column);
#pragma unroll
        for (int i = 0; i < CHUNK_VALUES; ++i) {
            const int down = place.row(i), across = place.column(i);
            if (down >= epilogue.rows || across >= epilogue.columns) continue;
            BitsOfC& there = c[SWAPPED ? across * length + down : down * length + across];
            if (BYTES_OF_C == sizeof(float) && epilogue.accumulate) values[i] += there;
            there = rounded(values[i]);
        }
    }
};
#endif

// Stores a fragment that begins at (row, column), as far as this block owns it.
DEVICE void store_fragment(
    Target& target, float (&values)[ACCUMULATORS], const Epilogue& epilogue, const Schedule& schedule, int row,
    int column) {
#pragma unroll
    for (int first = 0; first < TILE_COLUMNS; first += CHUNK)
        if (owned(first, schedule))
            target.store_chunk(values + first / VALUE_COLUMNS, epilogue, row, column + first);
}
