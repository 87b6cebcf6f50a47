// The output: sums of a split K, scales, bias, activation, gates, residual, rounding, and how C is written. fragment.cu
// says where a thread's values are.
#pragma once
#include "activation.cu"
#include "constants.cu"
#include "copy.cu"
#include "element.cu"
#include "fragment.cu"
#include "geometry.cu"
#include "mainloop.cu"
#include "residual.cu"
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
        if (!owned(column % OUT_COLUMNS, schedule))
            asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(mine + octet * STRIDE), REGISTER(v[0]), REGISTER(v[1]),
                         REGISTER(v[2]), REGISTER(v[3]) : "memory");
    }
    cluster_sync();
    for (int other = 1; other < SPLIT_K; ++other) {
        const u32 theirs = address_in(mine, (schedule.rank + other) % SPLIT_K);
#pragma unroll
        for (int octet = 0; octet < OCTETS; ++octet) {
            const int column = octet * OCTET % TILE_COLUMNS;
            if (!owned(column % OUT_COLUMNS, schedule)) continue;
            Sum* v = &accumulators[octet * OCTET / TILE_COLUMNS][column / VALUE_COLUMNS];
            Sum part[OCTET_VALUES];
            asm volatile("ld.shared::cluster.v4.b32 {%0, %1, %2, %3}, [%4];"
                         : "=" REGISTER(part[0]), "=" REGISTER(part[1]), "=" REGISTER(part[2]), "=" REGISTER(part[3]) : "r"(theirs + octet * STRIDE)
                         : "memory");
#pragma unroll
            for (int i = 0; i < OCTET_VALUES; ++i) v[i] += part[i];
        }
    }
}

// What a value gates is so much further on in the tile of D: in its own fragment, or where others are of what is gated.
constexpr int UP_COLUMNS = TILE_COLUMNS - OUT_COLUMNS, UPS = UP_COLUMNS / VALUE_COLUMNS;
constexpr int UP_ROWS = (FRAGMENTS - OUT_FRAGMENTS) * WGMMA_M;

// What the storing functions need besides a fragment: where C (or C transposed) ends, and what is added.
struct Epilogue {
    const BitsAdded* bias;
    int rows, columns;
    bool accumulate;  // on what C holds
    Factors factors;
    const BitsAdded* residual;
    const float *alpha, *beta, *scale_c;  // single numbers
    int matrix = 0;                       // of a stack

    // Columns of B that are gates; as many behind them are gated.
    DEVICE int gates() const { return SWAPPED ? rows : columns; }

    // How far what is gated is behind its gate.
    DEVICE int behind_gates() const { return INTERLEAVED ? 1 : gates(); }

#if STACKED
    // For a tile of one product, whose matrix of C is the one of that number.
    DEVICE Epilogue within(const Work& work) const {
        const u64 before = u64(work.product) * rows * columns;
        return {bias, rows, columns, accumulate, factors, RESIDUAL ? residual + before : residual, alpha, beta, scale_c,
                work.product};
    }
#elif SEVERAL
    // For a tile of one product: rows of C end where its rows do, and a bias has a row for each product.
    DEVICE Epilogue within(const Work& work) const {
        const BitsAdded* own = bias == nullptr ? bias : bias + u64(work.product) * gates() * (GATED ? 2 : 1);
        return {own, SWAPPED ? rows : work.end, SWAPPED ? work.end : columns, accumulate, factors, residual, alpha,
                beta, scale_c};
    }
#endif
};

// From one gate to the next, among the columns of B.
constexpr int GATE_STEP = INTERLEAVED ? 2 : 1;

DEVICE float bias_at(const BitsAdded* bias, int index, int size) {
    return index < size ? ElementAdded::widened(bias[index * GATE_STEP]) : 0.0f;
}

// Adds the bias to `count` values from `first` on of a fragment at (row, column).
DEVICE void add_bias(
    Fragment& values, int first, int count, const Epilogue& epilogue, int row, int column) {
    if (epilogue.bias == nullptr) return;
    const Place place(row, column);
#pragma unroll
    for (int i = first; i < first + count; ++i)
        values[i] += SWAPPED ? bias_at(epilogue.bias, place.row(i), epilogue.rows)
                             : bias_at(epilogue.bias, place.column(i), epilogue.columns);
}

// Adds it to what `count` gates from `first` on gate, further on by UPS values.
DEVICE void add_bias_of_gated(Fragment& ups, int first, int count, const Epilogue& epilogue, int row, int column) {
    if (epilogue.bias == nullptr) return;
    const Place place(row, column);
    const BitsAdded* bias = epilogue.bias + epilogue.behind_gates();
#pragma unroll
    for (int i = first; i < first + count; ++i)
        ups[i + UPS] += SWAPPED ? bias_at(bias, place.row(i), epilogue.rows) : bias_at(bias, place.column(i), epilogue.columns);
}

// Adds the residual where threads read it themselves.
DEVICE void add_residual(Fragment& values, int first, int count, const Epilogue& epilogue, int row, int column) {
    const Place place(row, column);
    const u64 length = epilogue.gates();
#pragma unroll
    for (int i = first; i < first + count; ++i) {
        const int down = place.row(i), across = place.column(i);
        if (down < epilogue.rows && across < epilogue.columns)
            values[i] += times(
                epilogue.beta,
                ElementAdded::widened(epilogue.residual[SWAPPED ? across * length + down : down * length + across]));
    }
}

DEVICE void multiply_all(Fragment& values, int first, int count, float factor) {
#pragma unroll
    for (int i = first; i < first + count; ++i) values[i] *= factor;
}

// Makes C before its rounding of those sums; `ups` has what they gate, if they are gates.
DEVICE void finish(
    Fragment& values, Fragment& ups, int first, int count, const Epilogue& epilogue, int row, int column) {
    scale(values, first, count, epilogue.factors, row, column);
    if (GATED) scale(ups, first, count, epilogue.factors, row + UP_ROWS, column + UP_COLUMNS, UPS);
#if HAS_ALPHA
    multiply_all(values, first, count, *epilogue.alpha);
    if (GATED) multiply_all(ups, first + UPS, count, *epilogue.alpha);
#endif
    add_bias(values, first, count, epilogue, row, column);
    if (GATED) add_bias_of_gated(ups, first, count, epilogue, row, column);
#pragma unroll
    for (int i = first; i < first + count; ++i) values[i] = activated(values[i]) * (GATED ? ups[i + UPS] : 1.0f);
    if (RESIDUAL && !RESIDUAL_IN_STAGES) add_residual(values, first, count, epilogue, row, column);
#if SCALES_C
    multiply_all(values, first, count, *epilogue.scale_c);
#endif
}

// The offset in a chunk whose rows are swizzled over their own length as TMA does it: 16-byte columns are exchanged by
// the number of the row, which is three bits higher. Rows of other lengths than 128, 64 and 32 bytes are not swizzled;
// where they are odd multiples of 16 bytes, eight of them are in different banks as they are.
constexpr u32 SWIZZLED_BITS = STORE_ROW_BYTES == 128 || STORE_ROW_BYTES == 64 || STORE_ROW_BYTES == 32
                                  ? STORE_ROW_BYTES - SWIZZLE_UNIT_BYTES : 0;
DEVICE u32 swizzled(u32 offset) { return offset ^ ((offset >> 3) & SWIZZLED_BITS); }

// Where values `i` and `i + 1` of an octet of columns are in a chunk of float32: side by side in a row or, where C's rows
// are D's columns and not swizzled, a row apart.
DEVICE u32 pair_in_chunk(int octet, int i) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x % WARPGROUP / WARP;
    const int row = warp * 2 * OCTET + lane / 4 + i / 2 * OCTET, column = octet * OCTET + lane % 4 * 2;
    return SWAPPED ? column * STORE_ROW_BYTES + row * BYTES_OF_C : swizzled(row * STORE_ROW_BYTES + column * BYTES_OF_C);
}

// Writes an octet of a fragment's columns into a chunk of float32, where `stage_octets` writes rounded ones.
DEVICE void stage_octet(u32 chunk, int octet, const float* v) {
#pragma unroll
    for (int i = 0; i < OCTET_VALUES; i += 2) {
        const u32 to = chunk + pair_in_chunk(octet, i);
        if (SWAPPED) {
            asm volatile("st.shared.f32 [%0], %1;" ::"r"(to), "f"(v[i]) : "memory");
            asm volatile("st.shared.f32 [%0], %1;" ::"r"(to + STORE_ROW_BYTES), "f"(v[i + 1]) : "memory");
        } else {
            asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(v[i]), "f"(v[i + 1]) : "memory");
        }
    }
}

// Adds what is there, where `stage_octet` writes.
DEVICE void add_octet(u32 chunk, int octet, float* v, const float* beta) {
#pragma unroll
    for (int i = 0; i < OCTET_VALUES; i += 2) {
        const u32 from = chunk + pair_in_chunk(octet, i);
        float x, y;
        if (SWAPPED) {
            asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(from) : "memory");
            asm volatile("ld.shared.f32 %0, [%1];" : "=f"(y) : "r"(from + STORE_ROW_BYTES) : "memory");
        } else {
            asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x), "=f"(y) : "r"(from) : "memory");
        }
        v[i] += times(beta, x);
        v[i + 1] += times(beta, y);
    }
}

// Writes an octet of a fragment's columns into a chunk of float8.
DEVICE void stage_bytes(u32 chunk, int octet, const float* v) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x % WARPGROUP / WARP;
    const int down = warp * 2 * OCTET + lane / 4, across = octet * OCTET + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < OCTET_VALUES; i += 2) {
        const int row = down + i / 2 * OCTET;
        const u32 both = packed_bytes(v[i], v[i + 1]);
        if (SWAPPED) {
            const u32 to = across * STORE_ROW_BYTES + row;
            asm volatile("st.shared.u8 [%0], %1;" ::"r"(chunk + swizzled(to)), "r"(both) : "memory");
            asm volatile("st.shared.u8 [%0], %1;" ::"r"(chunk + swizzled(to + STORE_ROW_BYTES)), "r"(both >> 8) : "memory");
        } else {
            const u32 to = chunk + swizzled(row * STORE_ROW_BYTES + across);
            asm volatile("st.shared.u16 [%0], %1;" ::"r"(to), "h"(static_cast<u16>(both)) : "memory");
        }
    }
}

// Whether an octet is the last of an odd number: it is written twice.
DEVICE constexpr bool is_single(int octet) { return octet == CHUNK / OCTET - 1; }

// The row of an 8x8 matrix that this lane gives the address of, in a chunk as the tensor map wants it: of an octet pair
// (or a last single one) of columns, transposed where C's rows are D's columns.
DEVICE u32 octets_in_chunk(int octet) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x % WARPGROUP / WARP;
    const int matrix = lane / OCTET;  // each eight lanes give the rows of one 8x8 matrix
    const int row_octet = warp * 2 + matrix % 2, column_octet = octet + (is_single(octet) ? 0 : matrix / 2);
    const int row = (SWAPPED ? column_octet : row_octet) * OCTET + lane % OCTET;
    return swizzled(row * STORE_ROW_BYTES + (SWAPPED ? row_octet : column_octet) * OCTET_BYTES);
}

// Writes an octet pair of a fragment's columns into a chunk.
DEVICE void stage_octets(u32 chunk, int octet, const float* v) {
    const u32 address = chunk + octets_in_chunk(octet);
    const float* w = v + (is_single(octet) ? 0 : OCTET_VALUES);
    const u32 x0 = packed(v[0], v[1]), x1 = packed(v[2], v[3]), x2 = packed(w[0], w[1]), x3 = packed(w[2], w[3]);
    if constexpr (SWAPPED)
        asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(x0),
                     "r"(x1), "r"(x2), "r"(x3) : "memory");
    else
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(x0),
                     "r"(x1), "r"(x2), "r"(x3) : "memory");
}

// Writes CHUNK columns of a fragment, from `values` on, into a chunk.
DEVICE void stage(u32 chunk, const float* values) {
#pragma unroll
    for (int octet = 0; octet < CHUNK / OCTET; octet += BYTES_OF_C == sizeof(u16) ? 2 : 1) {
        if constexpr (BYTES_OF_C == sizeof(float)) stage_octet(chunk, octet, values + octet * OCTET_VALUES);
        else if constexpr (BYTES_OF_C == 1) stage_bytes(chunk, octet, values + octet * OCTET_VALUES);
        else stage_octets(chunk, octet, values + octet * OCTET_VALUES);
    }
}

// Stores a fragment by TMA, chunk by chunk through the warpgroup's own buffers, or in place of the residual where these
// are in the stages; TMA drops what lies outside C.
DEVICE void store_fragment(
    const TensorMap& c, Fragment& values, Fragment& ups, const Epilogue& epilogue, const Schedule& schedule, u32 staging,
    u32& chunks, const Boxes& boxes, int fragment, int row, int column) {
    const int consumer = threadIdx.x / WARPGROUP - 1;
#pragma unroll
    for (int first = 0; first < OUT_COLUMNS; first += CHUNK) {
        if (!owned(first, schedule)) continue;
        const int box = fragment * OUT_CHUNKS + first / CHUNK;
        const u32 held = RESIDUAL_IN_STAGES ? boxes[box] : 0;
        const u32 chunk = RESIDUAL_IN_STAGES && STORES_FROM_STAGES ? held : staging + chunks % STORE_BUFFERS * CHUNK_BYTES;
        if (PERSISTENT) {
            if (threadIdx.x % WARPGROUP == 0)
                asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(STORE_BUFFERS - 1) : "memory");
            consumer_sync(consumer);
        }
        finish(values, ups, first / VALUE_COLUMNS, CHUNK / VALUE_COLUMNS, epilogue, row, column);
        float* here = values + first / VALUE_COLUMNS;
        if constexpr (BYTES_OF_C == sizeof(float)) {
#pragma unroll
            for (int octet = 0; octet < CHUNK / OCTET; ++octet) {
                if constexpr (RESIDUAL_IN_STAGES) add_octet(held, octet, here + octet * OCTET_VALUES, epilogue.beta);
                stage_octet(chunk, octet, here + octet * OCTET_VALUES);
            }
        } else if constexpr (BYTES_OF_C == 1) {
            stage(chunk, here);
        } else {
#pragma unroll
            for (int octet = 0; octet < CHUNK / OCTET; octet += 2) {
                if constexpr (RESIDUAL_IN_STAGES)
                    add_octets(held + octets_in_chunk(octet), here + octet * OCTET_VALUES, epilogue.beta);
                stage_octets(chunk, octet, here + octet * OCTET_VALUES);
            }
        }
        if (RESIDUAL_IN_STAGES) boxes.done(box);
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        consumer_sync(consumer);
        if (threadIdx.x % WARPGROUP == 0) {
            const int across = SWAPPED ? row : column + first, down = SWAPPED ? column + first : row;
            if (BYTES_OF_C == sizeof(float) && epilogue.accumulate) store_added(c, chunk, across, down, epilogue.matrix);
            else store(c, chunk, across, down, epilogue.matrix);
        }
        ++chunks;
    }
}

#if ROW_STORE
// The same without TMA, which knows no end of rows but C's: threads copy 16 bytes of a chunk at a time, side by side, as
// far as the product's rows go. A buffer is free when all have met again after they read it, so two do with one meeting.
DEVICE void store_rows(
    BitsOfC* c, Fragment& values, Fragment& ups, const Epilogue& epilogue, u32 staging, u32& chunks, int row, int column) {
    constexpr int ROWS = SWAPPED ? CHUNK : WGMMA_M, VECTORS = STORE_ROW_BYTES / SWIZZLE_UNIT_BYTES;
    constexpr int IN_VECTOR = SWIZZLE_UNIT_BYTES / BYTES_OF_C;
    constexpr bool SWIZZLED = STORE_ROW_BYTES <= ATOM_LINE_BYTES;
    const int consumer = threadIdx.x / WARPGROUP - 1, thread = threadIdx.x % WARPGROUP;
    const int rows = SWAPPED ? epilogue.columns : epilogue.rows, columns = SWAPPED ? epilogue.rows : epilogue.columns;
#pragma unroll
    for (int first = 0; first < OUT_COLUMNS; first += CHUNK) {
        const u32 chunk = staging + chunks % STORE_BUFFERS * CHUNK_BYTES;
        if (STORE_BUFFERS == 1) consumer_sync(consumer);
        finish(values, ups, first / VALUE_COLUMNS, CHUNK / VALUE_COLUMNS, epilogue, row, column);
        stage(chunk, values + first / VALUE_COLUMNS);
        consumer_sync(consumer);
        const int first_row = SWAPPED ? column + first : row, first_column = SWAPPED ? row : column + first;
#pragma unroll
        for (int i = 0; i < ROWS * VECTORS; i += WARPGROUP) {
            const int down = (i + thread) / VECTORS, vector = (i + thread) % VECTORS;
            const int row_of_c = first_row + down, column_of_c = first_column + vector * IN_VECTOR;
            if (i + thread >= ROWS * VECTORS || row_of_c >= rows || column_of_c >= columns) continue;
            const u32 offset = down * STORE_ROW_BYTES + vector * SWIZZLE_UNIT_BYTES;
            u32 x, y, z, w;
            asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(x), "=r"(y), "=r"(z), "=r"(w)
                         : "r"(chunk + (SWIZZLED ? swizzled(offset) : offset)) : "memory");
            asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(c + u64(row_of_c) * columns + column_of_c),
                         "r"(x), "r"(y), "r"(z), "r"(w) : "memory");
        }
        ++chunks;
    }
}
#endif

// The same for a C whose rows TMA cannot address (n not a multiple of 8): element by element from registers. The row
// length is made anew for every fragment, or the compiler would keep all its multiples in registers from tile to tile.
DEVICE void store_fragment(
    BitsOfC* c, Fragment& values, Fragment& ups, const Epilogue& epilogue, const Schedule& schedule, int row, int column) {
    const Place place(row, column);
    u64 length;
    asm volatile("cvt.u64.u32 %0, %1;" : "=l"(length) : "r"(SWAPPED ? epilogue.rows : epilogue.columns));
    if (STACKED) c += epilogue.matrix * length * (SWAPPED ? epilogue.columns : epilogue.rows);
#pragma unroll
    for (int i = 0; i < OUT_COLUMNS / VALUE_COLUMNS; ++i) {
        const int down = place.row(i), across = place.column(i);
        if (down >= epilogue.rows || across >= epilogue.columns || !owned(i * VALUE_COLUMNS, schedule)) continue;
        finish(values, ups, i, 1, epilogue, row, column);
        BitsOfC& there = c[SWAPPED ? across * length + down : down * length + across];
        if (BYTES_OF_C == sizeof(float) && epilogue.accumulate) values[i] += there;
        there = rounded(values[i]);
    }
}
