// Which tiles a block works on, the layout of shared memory, and the producer.
#pragma once
#include "constants.cu"
#include "copy.cu"
#include "element.cu"
#include "geometry.cu"
#include "loads.cu"
#include "spot.cu"

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

// Addresses in shared memory: the stages, the buffers of a TMA store, and the mbarriers. `full` and `empty` are the
// first of STAGES barriers, `turns` the first of two, one for each consumer that takes turns. `owners`: a word of each
// consumer where blocks share tiles through the workspace. `factors`: each consumer's, where they are of whole lines.
struct Layout {
    u32 stages, staging, full, empty, turns, owners, factors;

    DEVICE explicit Layout(u32 base) {
        constexpr u32 MASK = ATOM_BYTES - 1;
        stages = (base + MASK) & ~MASK;
        full = stages + RING_BYTES + STORE_BYTES;
        staging = STORES_FROM_STAGES ? stages : full - STORE_BYTES;
        empty = full + MBARRIER_BYTES * STAGES;
        turns = empty + MBARRIER_BYTES * STAGES;
        owners = turns + MBARRIER_BYTES * 2;
        factors = owners;
    }
};

// The barrier `index` places behind `first`.
DEVICE u32 barrier_at(u32 first, u32 index) { return first + MBARRIER_BYTES * index; }

#if STACKED
#include "stack.cu"
#elif SEVERAL
#include "several.cu"
#else
// A cluster's tile, and where this block's part of it begins.
struct Work {
    int tile;
    Spot spot;
};

// Tiles at the ends of C have less to read than others, so their blocks run ahead. But blocks that ask the L2 for the
// same lines are answered together only where they ask at about the same time: with a long K those of some tiles took
// 1.1 to 1.5 times as long. So all tiles are whole there, unless what C holds is added to. What two tiles have in
// common must have the same bits: three or more blocks of a cluster add their parts beginning with the one that owns a
// chunk, which depends on where the tile begins. Other products than plain ones of 16 bits were not tried.
constexpr bool WHOLE_TILES = ELEMENT_BYTES == 2 && BYTES_OF_C > 1 && !SCALED && !GATED && !RESIDUAL && SPLIT_K <= 2;

// What this block works on: tiles of its cluster, and its part of K. `rows` and `columns` are those of C, or of
// C transposed.
//
// Parts of K are of a cluster's blocks or, where tiles are SHARED, of clusters that follow one another: as many as
// there are for each tile. `part` is this block's of `parts`.
struct Schedule {
    int clusters_down, clusters_across, tile_step, tiles, part, parts, k_first, k_steps;
    int rank, rank_row, rank_column;
    int last_row, last_column;  // where the last tiles begin
    Work first_work;

    // With `all_whole` the last tiles end with C, so they begin sooner, and write again what their neighbours write. See
    // WHOLE_TILES.
    DEVICE Schedule(int rows, int columns, int k, bool all_whole) {
        const u32 block = __shfl_sync(~0u, blockIdx.x, 0);  // here: the compiler would begin the kernel with what follows
        rank = block % CLUSTER;  // clusters extend along x
        rank_row = SPLIT_K == 1 ? rank % CLUSTER_ROWS : 0;
        rank_column = SPLIT_K == 1 ? rank / CLUSTER_ROWS : 0;
        clusters_down = (rows + OUT_ROWS * CLUSTER_ROWS - 1) / (OUT_ROWS * CLUSTER_ROWS);
        clusters_across = (columns + OUT_COLUMNS * CLUSTER_COLUMNS - 1) / (OUT_COLUMNS * CLUSTER_COLUMNS);
        tiles = clusters_down * clusters_across;
        last_row = all_whole ? whole_from(rows - OUT_ROWS) : rows;
        last_column = all_whole ? whole_from(columns - OUT_COLUMNS) : columns;
        int first_tile = block / CLUSTER;
        tile_step = gridDim.x / CLUSTER;
        part = SPLIT_K == 1 ? 0 : rank;
        parts = SPLIT_K;
        if (SHARED) {
            parts = tile_step / tiles;
            part = first_tile % parts;
            first_tile /= parts;
        }
        const int whole = (k + K_STEP - 1) / K_STEP;
        k_first = whole * part / parts;
        k_steps = whole * (part + 1) / parts - k_first;
        first_work = work_of(first_tile);
    }

    DEVICE const Work& first() const { return first_work; }

    DEVICE bool has(const Work& work) const { return work.tile < tiles; }

    DEVICE void next(Work& work) const {
        if (PERSISTENT) work = work_of(work.tile + tile_step);
        else work.tile = tiles;
    }

    DEVICE int steps(const Work&) const { return k_steps; }

    DEVICE const Spot& locate(const Work& work) const { return work.spot; }

    // Has all this worked out here. The compiler would do so behind the barrier that follows, in the way of the first
    // copies; what may trap stays before it.
    DEVICE void settle() const {
        const Spot& spot = first_work.spot;
        asm volatile("{\n.reg .pred p;\nsetp.lt.s32 p, %0, 0;\n@p trap;\n}" ::"r"(spot.row | spot.column | k_first | k_steps));
    }

  private:
    // Where rows have an odd number of elements, threads copy words from even lines on (loads.cu).
    DEVICE static int whole_from(int line) { return THREADS_STORE ? (max(line, 0) + 1) & ~1 : max(line, 0); }

    DEVICE Work work_of(int tile) const {
        int row, column;
        locate_in(clusters_down, clusters_across, tile, row, column);
        row = min((row + rank_row) * OUT_ROWS, last_row);
        column = min((column + rank_column) * OUT_COLUMNS, last_column);
        return {tile, {row, column, row, column, k_first, k_first}};
    }
};
#endif

// ---- producer: one thread, or all of its warpgroup where they load what TMA cannot

// The lengths of an operand's lines and of K, which TMA knows from the maps.
struct Extents {
    int a_lines, b_lines, k;
};

// Sends part `part` of an operand's K-step to all blocks that share it: from `line` on, and from `k` on, of a stack's
// `matrix`. What is gated comes behind `gates` lines of gates, or in turn with them.
template <class Operand>
DEVICE void send(
    u32 to, const TensorMap& map, int part, int line, int k, int matrix, u32 full, u32 receivers, int gates) {
#pragma unroll
    for (int piece = 0; piece < Operand::PIECES; ++piece) {
#pragma unroll
        for (int box = 0; box < Operand::SENT; box += Operand::BOX_ROWS) {
            const int down = part * Operand::SENT + box, across = piece * Operand::COLUMNS;
            const int column = Operand::BY_LINES ? line + Operand::line_of_matrix(across, gates) : k + across;
            const int row = Operand::BY_LINES ? k + down : line + Operand::line_of_matrix(down, gates);
            const u32 target = to + piece * Operand::PIECE_BYTES + down * Operand::ROW_BYTES;
            if constexpr (Operand::IN_TURN)
                load_of_turns<Operand::SENDERS>(target, map, column, Operand::is_gated(down), row, full, receivers);
            else load<Operand::SENDERS>(target, map, column, row, full, receivers, matrix);
        }
    }
}

template <class Operand>
DEVICE void send(u32, const u16*, int, int, int, int, u32, u32, int) {}

// `behind` sends what goes through the ring behind the K-steps of the tile at a spot.
template <class SourceOfA, class SourceOfB, class Behind>
DEVICE void produce(
    const SourceOfA& wgmma_a, const SourceOfB& wgmma_b, const Extents& extents, const Schedule& schedule,
    const Layout& layout, int gates, Behind behind) {
    // What a block sends goes to all blocks of its cluster that share it: wgmma_a along a row of blocks, wgmma_b down a
    // column.
    u32 a_receivers = 0, b_receivers = 0;
    const int rank_row = schedule.rank_row, rank_column = schedule.rank_column;
    for (int other = 0; other < CLUSTER_COLUMNS; ++other) a_receivers |= 1u << (rank_row + other * CLUSTER_ROWS);
    for (int other = 0; other < CLUSTER_ROWS; ++other) b_receivers |= 1u << (rank_column * CLUSTER_ROWS + other);
    const bool sends = !BY_THREADS || threadIdx.x == 0;
    Ring ring;
    wait_for_kernel_before();
    for (Work work = schedule.first(); schedule.has(work); schedule.next(work)) {
        const Spot spot = schedule.locate(work);
        const int steps = schedule.steps(work);
        for (int step = 0; step < steps; ++step, ring.next()) {
            const u32 full = barrier_at(layout.full, ring.stage);
            const u32 to = layout.stages + ring.stage * STAGE_BYTES;
            wait(barrier_at(layout.empty, ring.stage), ring.parity ^ 1);
            if (TMA_BYTES > 0 && sends) expect(full, TMA_BYTES);
            const int a_k = spot.k + (spot.a_step + step) * K_STEP, b_k = spot.k + (spot.b_step + step) * K_STEP;
            if (sends) {
                send<WgmmaA>(to, wgmma_a, rank_column, spot.a_line, a_k, spot.a_matrix, full, a_receivers, gates);
                send<WgmmaB>(
                    to + WgmmaA::BYTES, wgmma_b, rank_row, spot.b_line, b_k, spot.b_matrix, full, b_receivers, gates);
            }
            if constexpr (BY_THREADS) {
                fill<WgmmaA>(to, wgmma_a, spot.a_line, a_k, extents.a_lines, extents.k);
                fill<WgmmaB>(to + WgmmaA::BYTES, wgmma_b, spot.b_line, b_k, extents.b_lines, extents.k);
                arrive_behind_copies(full);
                if (THREADS_STORE) arrive(full);
            }
        }
        behind(ring, spot);
    }
    // No block may leave while others still arrive at its barriers: all stages must have been released once more.
    for (int stage = 0; MULTICAST > 1 && stage < STAGES; ++stage, ring.next())
        wait(barrier_at(layout.empty, ring.stage), ring.parity ^ 1);
}
