// C[m,n] = A[m,k] @ Bt[n,k]^T (+ bias[n]), row-major, bf16 in and out, float32 accumulation, for sm_90a.
//
// One producer warpgroup sends K-steps of both operands into a ring of shared memory stages by TMA; one or two consumer
// warpgroups multiply them with wgmma and store their tile. "Rows" are the operand on wgmma's 64-row side, "columns"
// the other: A and Bt, or with SWAPPED Bt and A, so that an output of few rows fills the narrow side. Instructions are
// inline PTX (named as in the PTX ISA 8.0), so that NVRTC needs no header.

#define DEVICE __device__ __forceinline__
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

constexpr int ROWS = ${rows}, COLUMNS = ${columns}, K_STEP = ${k_step}, STAGES = ${stages};
constexpr int CONSUMERS = ${consumers}, CLUSTER_ROWS = ${cluster_rows}, CLUSTER_COLUMNS = ${cluster_columns};
constexpr int SPLIT_K = ${split_k}, GROUP = ${group}, STORE_BUFFERS = ${store_buffers};
constexpr bool PING_PONG = ${ping_pong}, SWAPPED = ${swapped}, TMA_STORE = ${tma_store}, BIASED = ${biased};

constexpr int MULTICAST = CLUSTER_ROWS * CLUSTER_COLUMNS, CLUSTER = MULTICAST * SPLIT_K;
constexpr int THREADS = 128 * (CONSUMERS + 1);
constexpr int FRAGMENTS = ROWS / 64 / (PING_PONG ? 1 : CONSUMERS);  // 64-row pieces of a consumer's tile
constexpr int REGISTERS = COLUMNS / 2;                              // float32 accumulators a thread and fragment
constexpr int ATOM = 64;                                            // elements of K in one 128-byte swizzled row
constexpr int ROW_BYTES = ROWS * K_STEP * 2, STAGE_BYTES = ROW_BYTES + COLUMNS * K_STEP * 2;
constexpr int ROWS_SENT = ROWS / CLUSTER_COLUMNS, COLUMNS_SENT = COLUMNS / CLUSTER_ROWS;  // this block's share
// Columns stored at once: the most that leave every block of a split K a part of the tile.
__device__ constexpr bool divides(int chunk) { return COLUMNS % chunk == 0 && chunk * SPLIT_K <= COLUMNS; }
constexpr int CHUNK = divides(64) ? 64 : divides(32) ? 32 : divides(16) ? 16 : 8;
constexpr int RELEASES = 4 * (PING_PONG ? 1 : CONSUMERS) * (CLUSTER_ROWS + CLUSTER_COLUMNS - 1);  // of a stage
constexpr int CHUNK_BYTES = 64 * CHUNK * 2;
constexpr int STORE_ROW_BYTES = SWAPPED ? 128 : CHUNK * 2;
constexpr int STORE_BYTES = TMA_STORE ? CONSUMERS * STORE_BUFFERS * CHUNK_BYTES : 0;

// The boxes that the launcher encodes a, bt and c with; rows of 128, 64 or 32 bytes are swizzled over their own length.
struct Box {
    u32 rows, columns;
};
extern "C" __constant__ Box hktune_box_a = {SWAPPED ? COLUMNS_SENT : ROWS_SENT, ATOM};
extern "C" __constant__ Box hktune_box_bt = {SWAPPED ? ROWS_SENT : COLUMNS_SENT, ATOM};
#if ${tma_store}
extern "C" __constant__ Box hktune_box_c = {SWAPPED ? CHUNK : 64, SWAPPED ? 64 : CHUNK};
#endif

struct alignas(64) TensorMap {
    u64 opaque[16];
};
#if ${tma_store}
using Output = TensorMap;
#else
using Output = u16*;
#endif

// ---- mbarriers and clusters

DEVICE void initialise(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}

DEVICE void expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// The address of block `rank`'s own copy of what lies at `address` in this block.
DEVICE u32 address_in(u32 address, u32 rank) {
    u32 remote;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
    return remote;
}

DEVICE void arrive_in_cluster(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

DEVICE void arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

DEVICE void wait(u32 barrier, u32 parity) {
    u32 done = 0;
    while (!done)
        asm volatile(
            "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
            : "=r"(done) : "r"(barrier), "r"(parity) : "memory");
}

DEVICE void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

// Barriers of one or all consumer warpgroups; 0 is __syncthreads's.
DEVICE void warpgroup_sync(int name, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

// ---- tensor copies

DEVICE void prefetch(const TensorMap& map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

#define LOAD "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"

// A copy to this block alone is a plain one: a multicast to one receiver reads the L2 as often and arrives later.
template <int SHARED_BY>
DEVICE void load(u32 target, const TensorMap& map, int k, int row, u32 barrier, u32 receivers) {
    if (SHARED_BY == 1)
        asm volatile(LOAD " [%0], [%1, {%2, %3}], [%4];" ::"r"(target), "l"(&map), "r"(k), "r"(row), "r"(barrier)
                     : "memory");
    else
        asm volatile(LOAD ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(target), "l"(&map), "r"(k),
                     "r"(row), "r"(barrier), "h"(static_cast<u16>(receivers)) : "memory");
}

DEVICE void store(const TensorMap& map, u32 source, int column, int row) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&map), "r"(column),
                 "r"(row), "r"(source) : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// ---- warpgroup multiply

#define FOUR(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define EIGHT(i) FOUR(i), FOUR(i + 4)
#define SIXTEEN(i) EIGHT(i), EIGHT(i + 8)
#define THIRTY_TWO(i) SIXTEEN(i), SIXTEEN(i + 16)
#define SIXTY_FOUR(i) THIRTY_TWO(i), THIRTY_TWO(i + 32)
#define ACCUMULATORS_4 FOUR(0)
#define ACCUMULATORS_8 EIGHT(0)
#define ACCUMULATORS_16 SIXTEEN(0)
#define ACCUMULATORS_32 THIRTY_TWO(0)
#define ACCUMULATORS_48 THIRTY_TWO(0), SIXTEEN(32)
#define ACCUMULATORS_64 SIXTY_FOUR(0)
#define ACCUMULATORS_80 SIXTY_FOUR(0), SIXTEEN(64)
#define ACCUMULATORS_88 SIXTY_FOUR(0), SIXTEEN(64), EIGHT(80)
#define ACCUMULATORS_96 SIXTY_FOUR(0), THIRTY_TWO(64)
#define ACCUMULATORS_112 SIXTY_FOUR(0), THIRTY_TWO(64), SIXTEEN(96)
#define ACCUMULATORS_128 SIXTY_FOUR(0), SIXTY_FOUR(64)

// Operand names %t0 to %t9, where t is the number of tens.
#define FIRST2(t) "%" #t "0,%" #t "1"
#define FIRST4(t) FIRST2(t) ",%" #t "2,%" #t "3"
#define FIRST6(t) FIRST4(t) ",%" #t "4,%" #t "5"
#define FIRST8(t) FIRST6(t) ",%" #t "6,%" #t "7"
#define TEN(t) FIRST8(t) ",%" #t "8,%" #t "9"
#define NAMES_4 FIRST4()
#define NAMES_8 FIRST8()
#define NAMES_16 TEN() "," FIRST6(1)
#define NAMES_32 TEN() "," TEN(1) "," TEN(2) "," FIRST2(3)
#define FORTY TEN() "," TEN(1) "," TEN(2) "," TEN(3)
#define NAMES_48 FORTY "," FIRST8(4)
#define NAMES_64 FORTY "," TEN(4) "," TEN(5) "," FIRST4(6)
#define EIGHTY FORTY "," TEN(4) "," TEN(5) "," TEN(6) "," TEN(7)
#define NAMES_80 EIGHTY
#define NAMES_88 EIGHTY "," FIRST8(8)
#define NAMES_96 EIGHTY "," TEN(8) "," FIRST6(9)
#define HUNDRED_TEN EIGHTY "," TEN(8) "," TEN(9) "," TEN(10)
#define NAMES_112 HUNDRED_TEN "," FIRST2(11)
#define NAMES_128 HUNDRED_TEN "," TEN(11) "," FIRST8(12)

// d += rows (64 x 16) * columns^T (COLUMNS x 16), both in shared memory; d = that product when `accumulate` is 0.
DEVICE void multiply(float (&d)[REGISTERS], u64 rows, u64 columns, int accumulate) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %${operand_accumulate}, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n${columns}k16.f32.bf16.bf16 {" NAMES_${registers} "},"
        " %${operand_rows}, %${operand_columns}, p, 1, 1, 0, 0;\n}"
        : ACCUMULATORS_${registers} : "l"(rows), "l"(columns), "r"(accumulate));
}

DEVICE void multiply_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

DEVICE void multiply_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int IN_FLIGHT>
DEVICE void multiply_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(IN_FLIGHT) : "memory");
}

// The matrix descriptor of K-major rows of 128 swizzled bytes: groups of 8 rows lie 1024 bytes apart.
DEVICE u64 descriptor(u32 address) {
    return (u64(1) << 62) | (u64(1024 >> 4) << 32) | (u64(1) << 16) | ((address & 0x3FFFF) >> 4);
}

// ---- the schedule

// Position in the ring of stages; `parity` flips each time round.
struct Ring {
    u32 stage = 0, parity = 0;

    DEVICE void advance(u32 steps) {
        stage += steps;
        parity ^= (stage / STAGES) & 1;
        stage %= STAGES;
    }

    DEVICE void next() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

struct Layout {
    u32 stages, staging, full, empty, turns;

    DEVICE explicit Layout(u32 base) {
        stages = (base + 1023) & ~1023u;
        staging = stages + STAGES * STAGE_BYTES;
        full = staging + STORE_BYTES;
        empty = full + 8 * STAGES;
        turns = empty + 8 * STAGES;
    }
};

// What this block works on: tiles of its cluster, which lie in groups of GROUP cluster rows so that neighbours in time
// share operands in the L2, and its part of K.
struct Schedule {
    int clusters_down, clusters_across, first_tile, tile_step, tiles, k_first, k_steps;
    int rank, rank_row, rank_column;

    DEVICE Schedule(int rows, int columns, int k) {
        rank = blockIdx.x % CLUSTER;  // clusters lie along x
        rank_row = SPLIT_K == 1 ? rank % CLUSTER_ROWS : 0;
        rank_column = SPLIT_K == 1 ? rank / CLUSTER_ROWS : 0;
        clusters_down = (rows + ROWS * CLUSTER_ROWS - 1) / (ROWS * CLUSTER_ROWS);
        clusters_across = (columns + COLUMNS * CLUSTER_COLUMNS - 1) / (COLUMNS * CLUSTER_COLUMNS);
        tiles = clusters_down * clusters_across;
        first_tile = blockIdx.x / CLUSTER;
        tile_step = gridDim.x / CLUSTER;
        const int whole = (k + K_STEP - 1) / K_STEP, part = SPLIT_K == 1 ? 0 : rank;
        k_first = whole * part / SPLIT_K;
        k_steps = whole * (part + 1) / SPLIT_K - k_first;
    }

    // The first row and column of this block's part of cluster tile `tile`.
    DEVICE void locate(int tile, int& row, int& column) const {
        const int group = tile / (GROUP * clusters_across), within = tile % (GROUP * clusters_across);
        const int height = min(GROUP, clusters_down - group * GROUP);
        row = ((group * GROUP + within % height) * CLUSTER_ROWS + rank_row) * ROWS;
        column = (within / height * CLUSTER_COLUMNS + rank_column) * COLUMNS;
    }
};

// ---- producer: one thread

DEVICE void produce(const TensorMap& rows, const TensorMap& columns, const Schedule& schedule, const Layout& layout) {
    // A block's rows go to all blocks of its cluster that share them, and so for columns.
    u32 row_receivers = 0, column_receivers = 0;
    const int rank_row = schedule.rank_row, rank_column = schedule.rank_column;
    for (int other = 0; other < CLUSTER_COLUMNS; ++other) row_receivers |= 1u << (rank_row + other * CLUSTER_ROWS);
    for (int other = 0; other < CLUSTER_ROWS; ++other) column_receivers |= 1u << (rank_column * CLUSTER_ROWS + other);
    Ring ring;
    for (int tile = schedule.first_tile; tile < schedule.tiles; tile += schedule.tile_step) {
        int row, column;
        schedule.locate(tile, row, column);
        row += rank_column * ROWS_SENT;
        column += rank_row * COLUMNS_SENT;
        for (int step = 0; step < schedule.k_steps; ++step, ring.next()) {
            const u32 full = layout.full + 8 * ring.stage;
            const u32 to = layout.stages + ring.stage * STAGE_BYTES;
            wait(layout.empty + 8 * ring.stage, ring.parity ^ 1);
            expect(full, STAGE_BYTES);
#pragma unroll
            for (int atom = 0; atom < K_STEP / ATOM; ++atom) {
                const int k = (schedule.k_first + step) * K_STEP + atom * ATOM;
                const u32 to_rows = to + (atom * ROWS + rank_column * ROWS_SENT) * 128;
                const u32 to_columns = to + ROW_BYTES + (atom * COLUMNS + rank_row * COLUMNS_SENT) * 128;
                load<CLUSTER_COLUMNS>(to_rows, rows, k, row, full, row_receivers);
                load<CLUSTER_ROWS>(to_columns, columns, k, column, full, column_receivers);
            }
        }
    }
}

// ---- consumers

using Accumulators = float[FRAGMENTS][REGISTERS];

// Tells every block that sends to this one that its stage may be refilled: one arrival a warp, by lane `rank` of it.
struct Release {
    u32 empty;
    bool arrives;

    DEVICE Release(const Schedule& schedule, const Layout& layout) {
        const int lane = threadIdx.x % 32;
        const bool sends_rows = lane % CLUSTER_ROWS == schedule.rank_row;
        const bool sends_columns = lane / CLUSTER_ROWS == schedule.rank_column;
        arrives = MULTICAST == 1 ? lane == 0 : lane < MULTICAST && (sends_rows || sends_columns);
        empty = MULTICAST == 1 || !arrives ? layout.empty : address_in(layout.empty, lane);
    }

    DEVICE void operator()(u32 stage) const {
        if (!arrives) return;
        if (MULTICAST == 1) arrive(empty + 8 * stage);
        else arrive_in_cluster(empty + 8 * stage);
    }
};

// accumulators = this block's part of K. One K-step of multiplies stays in flight, so a stage is released a step late.
// `next_turn` hears when the last stage is in use: a consumer that waited for its own sooner would mistake a round of
// the ring for another of the same parity.
DEVICE void multiply_tile(
    Accumulators& accumulators, Ring& ring, int k_steps, const Layout& layout, const Release& release, int first_row,
    u32 next_turn) {
    u32 last = 0;
    for (int step = 0; step < k_steps; ++step, ring.next()) {
        const u32 from = layout.stages + ring.stage * STAGE_BYTES;
        wait(layout.full + 8 * ring.stage, ring.parity);
        multiply_fence();
        const u64 rows = descriptor(from + first_row * 128), columns = descriptor(from + ROW_BYTES);
#pragma unroll
        for (int slice = 0; slice < K_STEP / 16; ++slice) {
            const int atom = slice * 16 / ATOM, within = slice * 16 % ATOM * 2;
            const u64 columns_here = columns + ((atom * COLUMNS * 128 + within) >> 4);
#pragma unroll
            for (int fragment = 0; fragment < FRAGMENTS; ++fragment) {
                const u64 rows_here = rows + (((atom * ROWS + fragment * 64) * 128 + within) >> 4);
                multiply(accumulators[fragment], rows_here, columns_here, step + slice);
            }
        }
        multiply_commit();
        multiply_wait<1>();
        if (step > 0) release(last);
        last = ring.stage;
    }
    if (PING_PONG && threadIdx.x % 32 == 0) arrive(next_turn);
    multiply_wait<0>();
    if (k_steps > 0) release(last);
}

// Chunks of a tile are stored by the blocks of a split K in turn.
DEVICE bool owned(int column, const Schedule& schedule) {
    return SPLIT_K == 1 || column / CHUNK % SPLIT_K == schedule.rank;
}

// Adds the other blocks' parts of K to the chunks that this block owns, in fixed order: the next rank first, and so on
// round. The stages, now idle, carry them.
DEVICE void reduce_split(Accumulators& accumulators, const Schedule& schedule, const Layout& layout) {
    constexpr int FIRST_THREAD = 128, STRIDE = 4 * 128 * CONSUMERS;  // bytes from a thread's value to its next
    const u32 mine = layout.stages + (threadIdx.x - FIRST_THREAD) * 4;
    warpgroup_sync(1, 128 * CONSUMERS);
#pragma unroll
    for (int i = 0; i < FRAGMENTS * REGISTERS; ++i) {
        float& value = accumulators[i / REGISTERS][i % REGISTERS];
        if (schedule.k_steps == 0) value = 0;
        if (!owned(i % REGISTERS * 2, schedule))
            asm volatile("st.shared.f32 [%0], %1;" ::"r"(mine + i * STRIDE), "f"(value) : "memory");
    }
    cluster_sync();
    for (int other = 1; other < SPLIT_K; ++other) {
        const u32 theirs = address_in(mine, (schedule.rank + other) % SPLIT_K);
#pragma unroll
        for (int i = 0; i < FRAGMENTS * REGISTERS; ++i) {
            if (!owned(i % REGISTERS * 2, schedule)) continue;
            float part;
            asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(part) : "r"(theirs + i * STRIDE) : "memory");
            accumulators[i / REGISTERS][i % REGISTERS] += part;
        }
    }
}

DEVICE float bias_at(const u16* bias, int index, int size) {
    return index < size ? __uint_as_float(u32(bias[index]) << 16) : 0.0f;
}

// A thread of fragment f holds rows r and r + 8 of each octet j of columns: values 4j and 4j + 1 in row r, 4j + 2 and
// 4j + 3 in row r + 8, at columns 8j + 2 * (lane % 4) and the next.
DEVICE void add_bias(float (&values)[REGISTERS], const u16* bias, int row, int column, int rows, int columns) {
    const int lane = threadIdx.x % 32, first_row = row + threadIdx.x % 128 / 32 * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < REGISTERS; ++i) {
        const int across = column + i / 4 * 8 + lane % 4 * 2 + i % 2;
        values[i] += SWAPPED ? bias_at(bias, first_row + i / 2 % 2 * 8, rows) : bias_at(bias, across, columns);
    }
}

// Two floats as bf16, rounded to nearest even; `low` in the low half.
DEVICE u32 packed(float low, float high) {
    u32 both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

// Writes one column octet pair (or a last single one) of a fragment into a chunk as the tensor map wants it, transposed
// where the output's rows are the fragment's columns.
DEVICE void stage_octets(u32 chunk, int octet, const float* v) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x % 128 / 32, matrix = lane / 8;
    const int row_octet = warp * 2 + matrix % 2, column_octet = octet + (CHUNK == 8 ? 0 : matrix / 2);
    const int row = (SWAPPED ? column_octet : row_octet) * 8 + lane % 8;
    const u32 offset = row * STORE_ROW_BYTES + (SWAPPED ? row_octet : column_octet) * 16;
    const u32 address = chunk + (offset ^ ((offset >> 3) & (STORE_ROW_BYTES - 16)));
    // A chunk of one octet is written twice.
    const float* w = v + (CHUNK == 8 ? 0 : 4);
    const u32 x0 = packed(v[0], v[1]), x1 = packed(v[2], v[3]), x2 = packed(w[0], w[1]), x3 = packed(w[2], w[3]);
#if ${swapped}
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};"
#else
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
#endif
                 ::"r"(address), "r"(x0), "r"(x1), "r"(x2), "r"(x3) : "memory");
}

// Stores a fragment by TMA, chunk by chunk through the warpgroup's own buffers; TMA drops what lies outside C.
DEVICE void store_fragment(
    const TensorMap& c, const float (&values)[REGISTERS], const Schedule& schedule, u32 staging, u32& chunks, int row,
    int column) {
    const int warpgroup = threadIdx.x / 128;
#pragma unroll
    for (int first = 0; first < COLUMNS; first += CHUNK) {
        if (!owned(first, schedule)) continue;
        const u32 chunk = staging + chunks % STORE_BUFFERS * CHUNK_BYTES;
        if (threadIdx.x % 128 == 0)
            asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(STORE_BUFFERS - 1) : "memory");
        warpgroup_sync(1 + warpgroup, 128);
#pragma unroll
        for (int octet = 0; octet < CHUNK / 8; octet += 2) stage_octets(chunk, octet, values + first / 2 + octet * 4);
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        warpgroup_sync(1 + warpgroup, 128);
        if (threadIdx.x % 128 == 0) store(c, chunk, SWAPPED ? row : column + first, SWAPPED ? column + first : row);
        ++chunks;
    }
}

// The same for a C whose rows TMA cannot address (n not a multiple of 8): element by element from registers. The row
// length is made anew for every fragment, or the compiler would keep all its multiples in registers from tile to tile.
DEVICE void store_fragment(
    u16* c, const float (&values)[REGISTERS], const Schedule& schedule, int row, int column, int rows, int columns) {
    const int lane = threadIdx.x % 32, first_row = row + threadIdx.x % 128 / 32 * 16 + lane / 4;
    u64 length;
    asm volatile("cvt.u64.u32 %0, %1;" : "=l"(length) : "r"(SWAPPED ? rows : columns));
#pragma unroll
    for (int i = 0; i < REGISTERS; ++i) {
        const int down = first_row + i / 2 % 2 * 8, across = column + i / 4 * 8 + lane % 4 * 2 + i % 2;
        if (down < rows && across < columns && owned(i * 2, schedule))
            c[SWAPPED ? across * length + down : down * length + across] = u16(packed(values[i], 0.0f));
    }
}

DEVICE void consume(
    const Output& c, const u16* bias, const Schedule& schedule, const Layout& layout, int rows, int columns) {
    const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0) - 1;  // uniform, as the compiler then knows
    const int first_row = PING_PONG ? 0 : warpgroup * FRAGMENTS * 64;
    const u32 staging = layout.staging + warpgroup * STORE_BUFFERS * CHUNK_BYTES;
    const Release release(schedule, layout);
    u32 chunks = 0, turn = 0;
    Ring ring;
    for (int tile = schedule.first_tile; tile < schedule.tiles; tile += schedule.tile_step, ++turn) {
        if (PING_PONG && turn % CONSUMERS != warpgroup) {
            ring.advance(schedule.k_steps);
            continue;
        }
        Accumulators accumulators;
        int row, column;
        schedule.locate(tile, row, column);
        if (PING_PONG && turn > 0) wait(layout.turns + 8 * warpgroup, (turn - 1) / 2 & 1);
        multiply_tile(
            accumulators, ring, schedule.k_steps, layout, release, first_row, layout.turns + 8 * (1 - warpgroup));
        if (SPLIT_K > 1) reduce_split(accumulators, schedule, layout);
#pragma unroll
        for (int fragment = 0; fragment < FRAGMENTS; ++fragment) {
            const int down = row + first_row + fragment * 64;
            if (BIASED) add_bias(accumulators[fragment], bias, down, column, rows, columns);
#if ${tma_store}
            store_fragment(c, accumulators[fragment], schedule, staging, chunks, down, column);
#else
            store_fragment(c, accumulators[fragment], schedule, down, column, rows, columns);
#endif
        }
    }
    if (TMA_STORE) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

extern "C" __global__ __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS, ${blocks_per_sm})
void hktune_gemm_bf16(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap bt,
                      const __grid_constant__ Output c, int m, int n, int k${bias_parameter}) {
    extern __shared__ char memory[];
    const Layout layout(static_cast<u32>(__cvta_generic_to_shared(memory)));
    const TensorMap &row_map = SWAPPED ? bt : a, &column_map = SWAPPED ? a : bt;
    const int rows = SWAPPED ? n : m, columns = SWAPPED ? m : n;
    if (threadIdx.x == 0) {
        prefetch(row_map);
        prefetch(column_map);
        for (int stage = 0; stage < STAGES; ++stage) {
            initialise(layout.full + 8 * stage, 1);
            initialise(layout.empty + 8 * stage, RELEASES);
        }
        for (int consumer = 0; consumer < 2; ++consumer) initialise(layout.turns + 8 * consumer, 4);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    if (CLUSTER > 1) cluster_sync();
    else __syncthreads();
    const Schedule schedule(rows, columns, k);
    if (threadIdx.x < 128) {
#if ${consumer_registers}
        asm volatile("setmaxnreg.dec.sync.aligned.u32 ${producer_registers};");
#endif
        if (threadIdx.x == 0) produce(row_map, column_map, schedule, layout);
        __syncwarp();
        if (SPLIT_K > 1) cluster_sync();
    } else {
#if ${consumer_registers}
        asm volatile("setmaxnreg.inc.sync.aligned.u32 ${consumer_registers};");
#endif
        consume(c, ${bias_argument}, schedule, layout, rows, columns);
    }
    if (CLUSTER > 1) cluster_sync();  // no block may leave while others send, arrive or read there
}
