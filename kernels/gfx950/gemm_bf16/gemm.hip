// C[M,N] = A[M,K] @ Bt[N,K]^T on gfx950: row-major, bf16 in and out, float32 accumulation.
//
// One workgroup computes one BLOCK_M x BLOCK_N block of C. Its warps keep a ring of STAGES K-tiles in LDS filled from
// global memory and multiply out of it, K_STEP at a time. README.md draws the tiles and the pipeline and explains every
// knob; search_spaces/gfx950_gemm_bf16.yaml says which settings fit together.

#include <hip/hip_runtime.h>
#include <utility>
#include "kittens.cuh"
using namespace kittens;

// ---------------------------------------------------------------- knobs

enum class Schedule { pipeline, interleave, pingpong };
enum class Wait { step, cluster };
enum class Priority { none, cluster, phase };

constexpr int      BLOCK_M          = ${block_m};
constexpr int      BLOCK_N          = ${block_n};
constexpr int      K_STEP           = ${k_step};
constexpr int      WARPS_M          = ${warps_m};
constexpr int      WARPS_N          = ${warps_n};
constexpr int      MFMA             = ${mfma};              // rows and columns of one MFMA
constexpr Schedule SCHEDULE         = Schedule::${schedule};
constexpr int      SPLIT            = ${split};             // parts of a block's rows, and of its columns
constexpr int      SLICES           = ${slices};            // parts of K_STEP, each read into registers by itself
constexpr int      STAGES           = ${stages};            // K-tiles that LDS holds
constexpr int      PREFETCH         = ${prefetch};          // steps between sending for a tile and multiplying it
constexpr int      SPREAD           = ${spread};            // clusters over which the loads of one tile are sent for
constexpr Wait     VMCNT_WAITS      = Wait::${vmcnt_waits};
constexpr int      VMCNT_TILES      = ${vmcnt_tiles};       // tiles that may still be on their way when a step starts
constexpr int      LGKMCNT_CLUSTERS = ${lgkmcnt_clusters};  // clusters whose fragments may be, when one starts
constexpr bool     READ_ACROSS      = ${read_across};       // whether clusters are also read ahead into the next tile
constexpr Priority SETPRIO          = Priority::${setprio};
constexpr bool     SCHED_BARRIER    = ${sched_barrier};
constexpr int      SPLIT_K          = ${split_k};           // workgroups that share the K-tiles of one block
constexpr int      COUNTERS         = ${counters};        // of the workspace, 4 bytes each
constexpr int      XCD_CHUNK        = ${xcd_chunk};         // neighbouring tiles of C that one XCD takes in a row
constexpr int      GROUP_ROWS       = ${group_rows};        // rows of tiles that are walked column by column
constexpr int      XCDS             = ${xcds};

// ---------------------------------------------------------------- geometry

template<int rows> struct mfma_shape;
template<> struct mfma_shape<16> {  // v_mfma_f32_16x16x32_bf16
    using operand = rt_16x32_s;
    using accumulator = rt_16x16_s;
    using shared = st_16x32_s;
};
template<> struct mfma_shape<32> {  // v_mfma_f32_32x32x16_bf16
    using operand = rt_32x16_s;
    using accumulator = rt_32x32_s;
    using shared = st_32x16_s;
};
using shape = mfma_shape<MFMA>;

constexpr int NUM_WARPS      = WARPS_M * WARPS_N;
constexpr int NUM_THREADS    = NUM_WARPS * kittens::WARP_THREADS;
constexpr int WAVES_PER_SIMD = NUM_WARPS > 8 ? 4 : 2;  // at least: a wave then has 128 or 256 VGPRs and no AGPRs
constexpr int PART_M         = BLOCK_M / SPLIT;
constexpr int PART_N         = BLOCK_N / SPLIT;
constexpr int REG_M          = PART_M / WARPS_M;
constexpr int REG_N          = PART_N / WARPS_N;
constexpr int SLICE_K        = K_STEP / SLICES;
constexpr int CLUSTERS       = SLICES * SPLIT;  // a cluster: one part of A times every part of B, one slice deep

using G     = kittens::group<NUM_WARPS>;
using ST_A  = st_bf<PART_M, K_STEP, shape::shared>;
using ST_B  = st_bf<PART_N, K_STEP, shape::shared>;
using RT_A  = rt_bf<REG_M, SLICE_K, row_l, shape::operand>;
using RT_B  = rt_bf<REG_N, SLICE_K, row_l, shape::operand>;
using RT_Ct = rt_fl<REG_N, REG_M, col_l, shape::accumulator>;  // C is accumulated transposed: Ct = B A^T

constexpr int BYTES_PER_LOAD = ST_A::underlying_subtile_bytes_per_thread * NUM_THREADS;
constexpr int LOADS_A        = sizeof(ST_A) / BYTES_PER_LOAD;
constexpr int LOADS_B        = sizeof(ST_B) / BYTES_PER_LOAD;
constexpr int LOADS_PER_TILE = SPLIT * (LOADS_A + LOADS_B);

constexpr int PARTS_PER_TILE = 2 * SPLIT;                   // sent for in the order B0 A0 B1 A1

static_assert(PREFETCH >= 1 && (PREFETCH == STAGES - 1 || PREFETCH == STAGES));
static_assert(PARTS_PER_TILE % SPREAD == 0, "every cluster that sends for parts sends for equally many");
static_assert(LOADS_A * BYTES_PER_LOAD == sizeof(ST_A) && LOADS_B * BYTES_PER_LOAD == sizeof(ST_B));

// A lane accumulates quads: four neighbours in a row of C. The lanes of one row, side by side, hold QUAD_COLS columns.
constexpr int LANES_PER_ROW = kittens::WARP_THREADS / MFMA;
constexpr int QUAD_COLS     = 4 * LANES_PER_ROW;
constexpr int QUADS         = REG_N / QUAD_COLS;  // of a lane in one row of its warp's part

constexpr uint32_t OUTSIDE = 0x80000000u;  // an offset beyond every range, whatever offset of a row is added to it

// Just enough of a kittens::gl, whose own constructor runs on the host only, to ask HipKittens for load offsets.
struct row_layout {
    using identifier = ducks::gl::identifier;
    using T = bf16;
    using T2 = bf16_2;
    using dtype = bf16;

    bf16 *raw_ptr;
    int row_stride;

    template<int axis> __device__ int stride() const { static_assert(axis == 2); return row_stride; }
};

// ---------------------------------------------------------------- small pieces

template<int count, typename F> __device__ __forceinline__ void static_for(F &&body) {
    [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
        (body.template operator()<i>(), ...);
    }(std::make_integer_sequence<int, count>{});
}

// Returns when this warp's loads have landed but for the last `pending`.
template<int pending> __device__ __forceinline__ void wait_loads() {
    asm volatile("s_waitcnt vmcnt(%0)" :: "n"(pending) : "memory");
}

// Returns when every warp's loads have landed but for those of the last `tiles_left` tiles sent for.
template<int tiles_left> __device__ __forceinline__ void await_tile() {
    wait_loads<tiles_left * LOADS_PER_TILE>();
    __builtin_amdgcn_s_barrier();
}

template<int pending> __device__ __forceinline__ void wait_shared() {
    asm volatile("s_waitcnt lgkmcnt(%0)" :: "n"(pending) : "memory");
}

__device__ __forceinline__ void scheduling_fence() {
    if constexpr (SCHED_BARRIER) __builtin_amdgcn_sched_barrier(0);
}

template<Priority where, int level> __device__ __forceinline__ void set_priority() {
    if constexpr (SETPRIO == where) __builtin_amdgcn_s_setprio(level);
}

// The compiler is kept from knowing that a single buffer's stage is always 0: it would hold each LDS address of a load
// in a register of its own across the loop.
__device__ __forceinline__ int next_stage(int stage) {
    if constexpr (STAGES == 1) asm volatile("" : "+s"(stage));
    return stage + 1 == STAGES ? 0 : stage + 1;
}

// HipKittens reads LDS in assembly, so the compiler does not know when a fragment arrives. Naming its registers after
// the wait keeps every MFMA that uses them behind it, with or without a sched_barrier.
template<ducks::rt::all RT> __device__ __forceinline__ void arrived(RT &fragment) {
    #pragma unroll
    for (int i = 0; i < RT::height; i++) {
        #pragma unroll
        for (int j = 0; j < RT::width; j++) {
            asm volatile("" : "+v"(*reinterpret_cast<i32x4 *>(fragment.tiles[i][j].data)));
        }
    }
}

// ---------------------------------------------------------------- which tile of C a workgroup computes

struct block_place { int row, col; };

// Workgroups go to the XCDs in turn, each of which has an L2 of its own. Within each whole run of XCDS * XCD_CHUNK of
// them, those of one XCD get neighbouring tiles. Tiles are numbered down the columns of GROUP_ROWS rows at a time. Both
// steps are one to one for every grid; a chunk of 1 in rows of 1 leaves the plain order.
__device__ __forceinline__ block_place place_of(int workgroup, int tiles_m, int tiles_n) {
    constexpr int run = XCDS * XCD_CHUNK;
    int tile = workgroup;
    if (XCD_CHUNK > 1 && workgroup < tiles_m * tiles_n / run * run) {
        tile = workgroup / run * run + workgroup % XCDS * XCD_CHUNK + workgroup % run / XCDS;
    }
    const int first = tile / (GROUP_ROWS * tiles_n) * GROUP_ROWS, within = tile % (GROUP_ROWS * tiles_n);
    const int rows = min(GROUP_ROWS, tiles_m - first);
    return {first + within % rows, within / rows};
}

// ---------------------------------------------------------------- global memory to LDS

struct staged_tile {
    ST_A (&a)[SPLIT];
    ST_B (&b)[SPLIT];
};

// The rows of A, or of Bt, that a workgroup multiplies: `first` is the first one's beginning, `rows` counts from there to
// the last of the matrix, `offsets` are where each load of this thread lies in a part.
template<typename ST, int LOADS> struct operand {
    const bf16 *first;
    int row_stride, rows;
    uint32_t offsets[LOADS];

    __device__ __forceinline__ void prepare(ST &part) {
        G::prefill_swizzled_offsets(part, row_layout{nullptr, row_stride}, offsets);
    }

    // Rows past the matrix's last lie beyond the descriptor's range, and read as 0.
    __device__ __forceinline__ i32x4 descriptor(int h, int k) const {
        const int present = min(rows - h * ST::rows, ST::rows);
        const uint32_t elements = present > 0 ? (present - 1) * row_stride + min(K_STEP, row_stride) : 0;
        return make_srsrc(first + int64_t(h * ST::rows) * row_stride + k, elements * sizeof(bf16));
    }

    // Part h of a K-tile of which only the first `k_left` columns are there, if it is `masked`. A load lies in one row, and
    // K is a multiple of its 8 elements.
    template<bool masked> __device__ __forceinline__ void fetch(ST &part, int h, int k, int k_left) const {
        uint32_t columns[LOADS];
        if constexpr (masked) G::prefill_swizzled_offsets(part, row_layout{nullptr, 0}, columns);
        const i32x4 srsrc = descriptor(h, k);
        const uint32_t to = reinterpret_cast<uintptr_t>(&part.data[0]) + kittens::warpid() * BYTES_PER_LOAD / NUM_WARPS;
        #pragma unroll
        for (int i = 0; i < LOADS; i++) {
            const uint32_t at = !masked || columns[i] < uint32_t(k_left) * sizeof(bf16) ? offsets[i] : OUTSIDE;
            llvm_amdgcn_raw_buffer_load_lds(srsrc, (as3_uint32_ptr)uintptr_t(to + i * BYTES_PER_LOAD), 16, at, 0, 0,
                                            static_cast<int>(coherency::cache_all));
            if constexpr (masked) __builtin_amdgcn_sched_barrier(0);  // not all masked offsets are to be alive at once
        }
    }
};

// The K-tiles of a workgroup. It begins with its last one, which may be only partly there: the steady state then
// fetches whole tiles alone, and masks nothing.
struct block_source {
    operand<ST_A, LOADS_A> a;
    operand<ST_B, LOADS_B> b;
    int k, first_tile, last_tile;

    __device__ __forceinline__ void prepare(staged_tile tile) {
        a.prepare(tile.a[0]);
        b.prepare(tile.b[0]);
    }

    // Tile `number` of the order in which they are multiplied: 0 is the last one.
    template<int part, bool masked> __device__ __forceinline__ void fetch_part(staged_tile tile, int number) const {
        constexpr int h = part / 2;
        const int at = (masked ? last_tile : first_tile + number - 1) * K_STEP;
        if constexpr (part % 2 == 0) b.template fetch<masked>(tile.b[h], h, at, k - at);
        else a.template fetch<masked>(tile.a[h], h, at, k - at);
    }

    template<int first, int last, bool masked = false>
    __device__ __forceinline__ void fetch(staged_tile tile, int number) const {
        static_for<last - first>([&]<int i>() __attribute__((always_inline)) {
            fetch_part<first + i, masked>(tile, number);
        });
    }
};

// ---------------------------------------------------------------- one step of K: LDS to registers to MFMA

struct warp_place { int row, col; };

struct fragments {
    RT_A a[SLICES][SPLIT];
    RT_B b[SLICES][SPLIT];
};

// Cluster c multiplies part c % SPLIT of A in slice c / SPLIT. The first cluster of a slice reads the slice of B, too.
constexpr int slice_of(int c) { return c / SPLIT; }
constexpr int part_of(int c) { return c % SPLIT; }

constexpr int reads_b_of(int c) { return part_of(c) == 0 ? SPLIT * RT_B::height * RT_B::width : 0; }

constexpr int reads_of(int c) {
    return reads_b_of(c) + RT_A::height * RT_A::width;
}

// With `next_follows`, the first clusters of the next tile come after the last ones of this. Interleaved reads have not
// set out yet when their cluster is waited for.
constexpr int reads_in_flight_under(int c, bool next_follows) {
    if (SCHEDULE == Schedule::interleave) return 0;
    int reads = 0;
    for (int later = c + 1; later <= c + LGKMCNT_CLUSTERS; later++) {
        if (later < CLUSTERS || next_follows) reads += reads_of(later % CLUSTERS);
    }
    return reads;
}

template<int c> __device__ __forceinline__ void read_cluster(fragments &f, const staged_tile &tile, warp_place warp) {
    constexpr int slice = slice_of(c), part = part_of(c);
    if constexpr (part == 0) {
        #pragma unroll
        for (int h = 0; h < SPLIT; h++) {
            load(f.b[slice][h], subtile_inplace<REG_N, SLICE_K>(tile.b[h], {warp.col, slice}));
        }
    }
    load(f.a[slice][part], subtile_inplace<REG_M, SLICE_K>(tile.a[part], {warp.row, slice}));
}

template<int c, bool next_follows> __device__ __forceinline__ void await_cluster(fragments &f) {
    constexpr int slice = slice_of(c), part = part_of(c);
    wait_shared<reads_in_flight_under(c, next_follows)>();
    if constexpr (part == 0) {
        #pragma unroll
        for (int h = 0; h < SPLIT; h++) arrived(f.b[slice][h]);
    }
    arrived(f.a[slice][part]);
}

// Base tile (y, x) of a fragment, alone. `at` is where the fragment begins in the part of the tile, in base tiles.
template<int y, int x, ducks::rt::all RT, ducks::st::all ST>
__device__ __forceinline__ void read_base_tile(RT &fragment, ST &part, int2 at) {
    using one = rt_bf<RT::base_tile_rows, RT::base_tile_cols, row_l, shape::operand>;
    load(reinterpret_cast<one &>(fragment.tiles[y][x]),
         subtile_inplace<RT::base_tile_rows, RT::base_tile_cols>(part, {at.x + y, at.y + x}));
}

// Read `i` of cluster c, in the order of read_cluster.
template<int c, int i>
__device__ __forceinline__ void read_one(fragments &f, const staged_tile &tile, warp_place warp) {
    constexpr int slice = slice_of(c), part = part_of(c), reads_b = reads_b_of(c);
    if constexpr (i < reads_b) {
        constexpr int h = i / (RT_B::height * RT_B::width), y = i / RT_B::width % RT_B::height, x = i % RT_B::width;
        read_base_tile<y, x>(f.b[slice][h], tile.b[h], {warp.col * RT_B::height, slice * RT_B::width});
    } else {
        constexpr int y = (i - reads_b) / RT_A::width, x = (i - reads_b) % RT_A::width;
        read_base_tile<y, x>(f.a[slice][part], tile.a[part], {warp.row * RT_A::height, slice * RT_A::width});
    }
}

constexpr int MFMA_ROWS = SPLIT * RT_Ct::height;  // of a cluster: what runs between two pieces of other work

template<int c, int row>
__device__ __forceinline__ void multiply_row(RT_Ct (&ct)[SPLIT][SPLIT], const fragments &f) {
    constexpr int slice = slice_of(c), part = part_of(c), h = row / RT_Ct::height, y = row % RT_Ct::height;
    #pragma unroll
    for (int x = 0; x < RT_Ct::width; x++) {
        #pragma unroll
        for (int k = 0; k < RT_A::width; k++) {
            auto &sum = ct[part][h].tiles[y][x];
            mma_ABt_base(sum, f.b[slice][h].tiles[y][k], f.a[slice][part].tiles[x][k], sum);
        }
    }
}

// The MFMAs of a cluster, with `between.operator()<row>()` after each of its rows.
template<int c, typename F>
__device__ __forceinline__ void multiply_cluster(RT_Ct (&ct)[SPLIT][SPLIT], const fragments &f, F &&between) {
    scheduling_fence();
    set_priority<Priority::cluster, 1>();
    static_for<MFMA_ROWS>([&]<int row>() __attribute__((always_inline)) {
        multiply_row<c, row>(ct, f);
        if constexpr (SCHEDULE == Schedule::interleave) {
            scheduling_fence();
            between.template operator()<row>();
            scheduling_fence();
        }
    });
    set_priority<Priority::cluster, 0>();
    scheduling_fence();
}

__device__ __forceinline__ void read_ahead(fragments &f, const staged_tile &tile, warp_place warp) {
    static_for<LGKMCNT_CLUSTERS>([&]<int c>() __attribute__((always_inline)) { read_cluster<c>(f, tile, warp); });
}

// ---------------------------------------------------------------- registers to global memory

__device__ __forceinline__ void clear_block(RT_Ct (&ct)[SPLIT][SPLIT]) {
    #pragma unroll
    for (int i = 0; i < SPLIT; i++) {
        #pragma unroll
        for (int j = 0; j < SPLIT; j++) zero(ct[i][j]);
    }
}

// Calls body(index, a lane's quad as two pairs) for all its accumulators.
template<typename F> __device__ __forceinline__ void for_each_quad(RT_Ct (&ct)[SPLIT][SPLIT], F &&body) {
    constexpr int pairs = RT_Ct::packed_per_base_tile, tiles = RT_Ct::height * RT_Ct::width;
    #pragma unroll
    for (int part = 0; part < SPLIT * SPLIT; part++) {
        #pragma unroll
        for (int t = 0; t < tiles; t++) {
            auto &data = ct[part / SPLIT][part % SPLIT].tiles[t / RT_Ct::width][t % RT_Ct::width].data;
            #pragma unroll
            for (int p = 0; p < pairs; p += 2) body(((part * tiles + t) * pairs + p) / 2, data[p], data[p + 1]);
        }
    }
}

// Whether this warp comes last of the SPLIT_K that share its part of a block; then what the others stored can be read.
// The counter wraps to 0, ready for the next launch.
__device__ __forceinline__ bool arrives_last(uint32_t *counter) {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "agent");
    uint32_t earlier = 0;
    if (kittens::laneid() == 0) {
        earlier = __builtin_amdgcn_atomic_inc32(counter, SPLIT_K - 1, __ATOMIC_RELAXED, "agent");
    }
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "agent");
    return __builtin_amdgcn_readfirstlane(earlier) == SPLIT_K - 1;
}

// Adds up the sums of the workgroups that share a block, in the order of their K-tiles, whoever comes last: the bits of C
// do not depend on timing. The workspace holds a counter for each warp of each block, in bytes that the launch finds and
// leaves zero; from COUNTERS on, SPLIT_K slabs of float32 for each block.
__device__ __forceinline__ bool gather_block(RT_Ct (&ct)[SPLIT][SPLIT], float *workspace, int block, int share,
                                             int warp_id) {
    constexpr int slab = BLOCK_M * BLOCK_N, quads_at_once = 8;  // more would not fit beside all accumulators
    float *const slabs = workspace + COUNTERS + int64_t(block) * SPLIT_K * slab;
    const auto descriptor = [&](int s) { return make_srsrc(slabs + s * slab, slab * sizeof(float)); };
    const uint32_t lane_offset = threadIdx.x * sizeof(float4);
    const i32x4 own = descriptor(share);
    for_each_quad(ct, [&](int i, float2 &low, float2 &high) {
        const float4 sum{low.x, low.y, high.x, high.y};
        const uint32_t quad_offset = i * NUM_THREADS * sizeof(float4);
        llvm_amdgcn_raw_buffer_store_b128(__builtin_bit_cast(__uint128_t, sum), own, lane_offset, quad_offset, 0);
    });
    if (!arrives_last(reinterpret_cast<uint32_t *>(workspace) + block * NUM_WARPS + warp_id)) return false;
    clear_block(ct);
    #pragma unroll 1
    for (int s = 0; s < SPLIT_K; s++) {
        const i32x4 shared = descriptor(s);
        for_each_quad(ct, [&](int i, float2 &low, float2 &high) {
            const uint32_t quad_offset = i * NUM_THREADS * sizeof(float4);
            const __uint128_t words = llvm_amdgcn_raw_buffer_load_b128(shared, lane_offset, quad_offset, 0);
            const auto sum = __builtin_bit_cast(float4, words);
            low = {low.x + sum.x, low.y + sum.y};
            high = {high.x + sum.z, high.y + sum.w};
            if (i % quads_at_once == quads_at_once - 1) __builtin_amdgcn_sched_barrier(0);
        });
    }
    return true;
}

__device__ uint16_t raw_buffer_load_b16(i32x4 srsrc, uint32_t voffset, uint32_t soffset, uint32_t coherency)
    __asm("llvm.amdgcn.raw.buffer.load.i16");

// The block of C that a workgroup stores: `first` is its corner, `rows` and `cols` count from there to the matrix's ends.
struct block_target {
    bf16 *first;
    const bf16 *bias;  // of the block's first column; or null
    int row_stride, rows, cols;
    bool whole_vectors;  // whether no 8 columns from a multiple of 8 on straddle a row's end or 16 bytes

    // Beyond the block's last row nothing is stored; beyond its last column, nothing at OUTSIDE.
    __device__ __forceinline__ i32x4 descriptor() const {
        return make_srsrc(first, ((min(rows, BLOCK_M) - 1) * row_stride + min(cols, BLOCK_N)) * sizeof(bf16));
    }

    __device__ __forceinline__ uint32_t column_offset(int col) const { return col < cols ? col * sizeof(bf16) : OUTSIDE; }
};

__device__ __forceinline__ float2 *quad_of(RT_Ct &ct, int row_tile, int quad) {
    constexpr int quads_per_tile = MFMA / QUAD_COLS;
    return &ct.tiles[quad / quads_per_tile][row_tile].data[quad % quads_per_tile * 2];
}

// The bias of a quad's columns, 0 where C has none. Nothing but these is decided at run time: a branch around all the
// accumulators would cost registers.
struct quad_bias { float2 pairs[2]; };

__device__ __forceinline__ quad_bias bias_at(const block_target &c, int col) {
    quad_bias bias{};
    if (c.bias) {
        const i32x4 srsrc = make_srsrc(c.bias, min(c.cols, BLOCK_N) * sizeof(bf16));
        float columns[4];
        #pragma unroll
        for (int e = 0; e < 4; e++) {
            const uint32_t bits = raw_buffer_load_b16(srsrc, (col + e) * sizeof(bf16), 0, 0);
            columns[e] = __builtin_bit_cast(float, bits << 16);
        }
        bias = {{{columns[0], columns[1]}, {columns[2], columns[3]}}};
    }
    return bias;
}

// Two sums as bf16, rounded to nearest even. The conversion is the compiler's, which puts wait states between an MFMA
// and what reads its result; before HipKittens' own convertor, an assembly statement, it would put none.
__device__ __forceinline__ uint32_t rounded(float2 sum, float2 bias) {
    using f32x2 = float __attribute__((ext_vector_type(2)));
    using bf16x2 = __bf16 __attribute__((ext_vector_type(2)));
    return __builtin_bit_cast(uint32_t, __builtin_convertvector((f32x2{sum.x + bias.x, sum.y + bias.y}), bf16x2));
}

// Trades halves of two quads with the neighbouring lane of the row, so that each lane ends up with 8 columns in a row.
__device__ __forceinline__ void pair_up(uint32_t &left, uint32_t &right) {
    const auto swapped = MFMA == 16 ? __builtin_amdgcn_permlane16_swap(left, right, false, false)
                                    : __builtin_amdgcn_permlane32_swap(left, right, false, false);
    left = swapped[0];
    right = swapped[1];
}

template<int quads> __device__ __forceinline__ int lane_column() {
    const int lane = kittens::laneid() / MFMA;
    return quads == 1 ? lane * 4 : lane % 2 * QUAD_COLS + lane / 2 * 8;
}

// Stores `quads` neighbouring quads, 8 bytes each, with one instruction.
template<int quads> __device__ __forceinline__ void store_vector(i32x4 srsrc, uint32_t at, RT_Ct &ct, int t, int q,
                                                                 const quad_bias (&bias)[quads]) {
    uint32_t words[4];
    #pragma unroll
    for (int w = 0; w < 2 * quads; w++) words[w] = rounded(quad_of(ct, t, q + w / 2)[w % 2], bias[w / 2].pairs[w % 2]);
    if constexpr (quads == 1) {
        llvm_amdgcn_raw_buffer_store_b64(uint64_t(words[1]) << 32 | words[0], srsrc, at, 0, 0);
    } else {
        pair_up(words[0], words[2]);
        pair_up(words[1], words[3]);
        __uint128_t vector;
        __builtin_memcpy(&vector, words, sizeof(vector));
        llvm_amdgcn_raw_buffer_store_b128(vector, srsrc, at, 0, 0);
    }
}

// For rows of C that begin, or end, anywhere: element by element.
__device__ __forceinline__ void store_elements(i32x4 srsrc, uint32_t row, const uint32_t (&columns)[4], RT_Ct &ct, int t,
                                               int q, const quad_bias &bias) {
    #pragma unroll
    for (int e = 0; e < 4; e++) {
        const uint32_t pair = rounded(quad_of(ct, t, q)[e / 2], bias.pairs[e / 2]);
        llvm_amdgcn_raw_buffer_store_b16(e % 2 ? pair >> 16 : pair, srsrc, row + columns[e], 0, 0);
    }
}

__device__ __forceinline__ void store_block(const block_target &c, RT_Ct (&ct)[SPLIT][SPLIT], warp_place warp) {
    constexpr int vector_quads = QUADS % 2 == 0 ? 2 : 1, row_tiles = RT_Ct::width;
    const i32x4 srsrc = c.descriptor();
    const auto row_offset = [&](int it) __attribute__((always_inline)) {
        const int row = it / row_tiles * PART_M + warp.row * REG_M + it % row_tiles * MFMA + kittens::laneid() % MFMA;
        return uint32_t(row * c.row_stride) * sizeof(bf16);
    };
    const auto column_of = [&](int j, int q) { return j * PART_N + warp.col * REG_N + q * QUAD_COLS; };
    if (c.whole_vectors) {
        static_for<SPLIT * QUADS / vector_quads>([&]<int v>() __attribute__((always_inline)) {
            constexpr int j = v * vector_quads / QUADS, q = v * vector_quads % QUADS;
            const uint32_t column = c.column_offset(column_of(j, q) + lane_column<vector_quads>());
            quad_bias bias[vector_quads];
            for (int i = 0; i < vector_quads; i++) bias[i] = bias_at(c, column_of(j, q + i) + lane_column<1>());
            static_for<SPLIT * row_tiles>([&]<int it>() __attribute__((always_inline)) {
                store_vector<vector_quads>(srsrc, row_offset(it) + column, ct[it / row_tiles][j], it % row_tiles, q, bias);
            });
            __builtin_amdgcn_sched_barrier(0);
        });
    } else {
        static_for<SPLIT * QUADS>([&]<int jq>() __attribute__((always_inline)) {
            constexpr int j = jq / QUADS, q = jq % QUADS;
            const quad_bias bias = bias_at(c, column_of(j, q) + lane_column<1>());
            uint32_t columns[4];
            for (int e = 0; e < 4; e++) columns[e] = c.column_offset(column_of(j, q) + lane_column<1>() + e);
            static_for<SPLIT * row_tiles>([&]<int it>() __attribute__((always_inline)) {
                store_elements(srsrc, row_offset(it), columns, ct[it / row_tiles][j], it % row_tiles, q, bias);
            });
            __builtin_amdgcn_sched_barrier(0);
        });
    }
}

// ---------------------------------------------------------------- what every schedule of the main loop works on

struct staging {
    ST_A (&As)[STAGES][SPLIT];
    ST_B (&Bs)[STAGES][SPLIT];
    block_source source;
    warp_place warp;
    int k_tiles;
    int stage = 0;  // of the tile being multiplied
    RT_Ct ct[SPLIT][SPLIT];

    __device__ __forceinline__ staged_tile staged(int at) { return {As[at], Bs[at]}; }
    __device__ __forceinline__ staged_tile current() { return staged(stage); }
    __device__ __forceinline__ staged_tile previous() { return staged((stage == 0 ? STAGES : stage) - 1); }
    __device__ __forceinline__ staged_tile next() { return staged(next_stage(stage)); }
};

// ---------------------------------------------------------------- schedules pipeline and interleave

// Every step sends for one tile and multiplies another. With PREFETCH == STAGES (refilling late) the one sent for takes
// the place of the one being multiplied, once every warp has read that. With SPREAD > 1 the parts of a tile go out one
// portion a cluster; of a late refill only the first portion in that step, the rest in the next.
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

    // The first PREFETCH tiles set out, but for what the first step sends of them.
    __device__ __forceinline__ void prologue() {
        source.prepare(staged(0));
        clear_block(ct);
        static_for<PREFETCH>([&]<int tile>() __attribute__((always_inline)) {
            constexpr int parts = late && tile == PREFETCH - 1 ? PORTION : PARTS_PER_TILE;
            if (tile == 0 || tile < k_tiles) source.fetch<0, parts, tile == 0>(staged(tile), tile);
        });
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
            send_spread<0, behind>(tile);
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
        if constexpr (c > 0 || READ_ACROSS) send_spread<c, behind>(tile);
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

    // The loads go out between the rows of MFMAs, and in the first half of them the reads of the next cluster. The
    // barrier of the last cluster says both that the next tile has landed and that this one has been read.
    template<int c, int behind> __device__ __forceinline__ void interleaved_cluster(int tile) {
        constexpr bool last = c == clusters - 1;
        constexpr int reads = last && behind == 0 ? 0 : reads_of((c + 1) % clusters);
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
            if constexpr (sends<c, behind>()) {
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

    // Whether cluster c sends for a portion into the stage that the step before has freed.
    template<int c, int behind> static constexpr bool sends() {
        return late ? behind >= PREFETCH - 1 && c < SPREAD - 1 : behind == PREFETCH && c < SPREAD;
    }

    template<int c, int behind> __device__ __forceinline__ void send_spread(int tile) {
        if constexpr (sends<c, behind>()) {
            constexpr int portion = (late ? c + 1 : c) * PORTION;
            source.fetch<portion, portion + PORTION>(previous(), tile + STAGES - 1);
        }
    }
};

// ---------------------------------------------------------------- schedule pingpong

// Two groups of four warps, one warp of each on every SIMD, half a phase apart: between two barriers one group reads
// LDS and sends for loads while the other one multiplies. Cluster c multiplies part c / 2 of A with part c % 2 of B.
//
// The parts of all tiles are one stream, B0 A0 B1 A1 B0' ...; a cluster sends for one of them, LEAD parts ahead.
// Refilled late, each part takes the place of the one of its kind that has just been read.
template<int split> struct pingpong : staging {
    static_assert(split == 2 && SLICES == 1 && NUM_WARPS == 8 && STAGES >= 2 && SPREAD == PARTS_PER_TILE);
    static_assert(VMCNT_TILES <= STAGES - 2);
    static_assert(VMCNT_TILES >= 1 || PREFETCH == STAGES || !READ_ACROSS || VMCNT_WAITS == Wait::cluster,
                  "a wait must come after what it waits for has been sent for");

    static constexpr int PARTS = PARTS_PER_TILE;
    static constexpr int LEAD = PREFETCH == STAGES ? PARTS * STAGES - 1 : PARTS * (STAGES - 1);
    static constexpr int SPARE = PARTS * (STAGES - 2 - VMCNT_TILES);  // parts that are waited for before they must be
    static constexpr int READS_A = RT_A::height * RT_A::width;

    RT_A a;
    RT_B b[split];

    // Loads of the parts after `from` up to `to` of the stream.
    static constexpr int loads_between(int from, int to) {
        int loads = 0;
        for (int part = from + 1; part <= to; part++) loads += part % 2 == 0 ? LOADS_B : LOADS_A;
        return loads;
    }

    __device__ __forceinline__ bool second_group() const { return warp.row * WARPS_N + warp.col >= NUM_WARPS / 2; }

    __device__ __forceinline__ void prologue() {
        source.prepare(staged(0));
        clear_block(ct);
        static_for<LEAD>([&]<int part>() __attribute__((always_inline)) {
            constexpr int tile = part / PARTS;
            if (tile == 0 || tile < k_tiles) source.template fetch_part<part % PARTS, tile == 0>(staged(tile), tile);
        });
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
            send_part<c, behind>(tile);
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
        if constexpr (part % 2 == 0) load(b[h], subtile_inplace<REG_N, SLICE_K>(tile.b[h], {warp.col, 0}));
        else load(a, subtile_inplace<REG_M, SLICE_K>(tile.a[h], {warp.row, 0}));
    }

    // A cluster reads the one part that its MFMAs need and no earlier cluster has read; the first of a tile both,
    // unless the last cluster of the tile before, which needs none, has read across.
    template<int c, int behind> __device__ __forceinline__ void read_cluster() {
        if constexpr (c == 0 && !READ_ACROSS) read_part<0>(current());
        if constexpr (c < PARTS - 1) read_part<c + 1>(current());
        else if constexpr (READ_ACROSS && behind > 0) read_part<0>(next());
    }

    static constexpr int last_part(int behind) { return PARTS * (behind + 1) - 1; }

    template<int c, int behind> __device__ __forceinline__ void send_part(int tile) {
        constexpr int part = c + LEAD, tiles_on = part / PARTS;
        if constexpr (part <= last_part(behind)) {
            source.template fetch_part<part % PARTS, false>(tiles_on == STAGES ? current() : previous(), tile + tiles_on);
        }
    }

    static constexpr bool waits_for_loads(int c) {
        if (VMCNT_WAITS == Wait::step) return c == PARTS - 1 - READ_ACROSS;
        return READ_ACROSS || c != PARTS - 2;  // the cluster after that one reads nothing
    }

    // What the wait of cluster c leaves: all but what the next cluster, or the next step, reads.
    static constexpr int loads_in_flight(int c, int behind) {
        const int last = last_part(behind), sent = c + LEAD < last ? c + LEAD : last;
        const int read = (VMCNT_WAITS == Wait::step ? 2 * PARTS - 1 : c + 2) + SPARE;
        return loads_between(read, sent);
    }

    template<int c> __device__ __forceinline__ void multiply() {
        constexpr int i = c / split, j = c % split;
        wait_shared<0>();
        arrived(a);
        arrived(b[j]);
        scheduling_fence();
        set_priority<Priority::cluster, 1>();
        mma_ABt(ct[i][j], b[j], a, ct[i][j]);
        set_priority<Priority::cluster, 0>();
        scheduling_fence();
    }
};

extern "C" __global__ __launch_bounds__(NUM_THREADS, WAVES_PER_SIMD)
void hktune_gemm_bf16(const bf16 *a, const bf16 *bt, bf16 *c, const bf16 *bias, float *workspace, int m, int n, int k,
                      int lda, int ldb, int ldc) {
    extern __shared__ alignment_dummy __shm[];
    shared_allocator al((int *)&__shm[0]);
    ST_A (&As)[STAGES][SPLIT] = al.allocate<ST_A, STAGES, SPLIT>();
    ST_B (&Bs)[STAGES][SPLIT] = al.allocate<ST_B, STAGES, SPLIT>();

    const int blocks_m = (m + BLOCK_M - 1) / BLOCK_M, blocks_n = (n + BLOCK_N - 1) / BLOCK_N, blocks = blocks_m * blocks_n;
    const int share = SPLIT_K == 1 ? 0 : blockIdx.x / blocks, block = blockIdx.x - share * blocks;
    const auto [block_row, block_col] = place_of(block, blocks_m, blocks_n);
    const int row = block_row * BLOCK_M, col = block_col * BLOCK_N;
    const int k_tiles = (k + K_STEP - 1) / K_STEP;
    const int first_tile = share * k_tiles / SPLIT_K, end_tile = (share + 1) * k_tiles / SPLIT_K;
    const int warp_id = __builtin_amdgcn_readfirstlane(kittens::warpid());
    const warp_place warp{warp_id / WARPS_N, warp_id % WARPS_N};
    const block_source source{{a + int64_t(row) * lda, lda, m - row}, {bt + int64_t(col) * ldb, ldb, n - col},
                              k, first_tile, end_tile - 1};

    using main_loop = std::conditional_t<SCHEDULE == Schedule::pingpong, pingpong<SPLIT>, pipeline<CLUSTERS>>;
    main_loop loop{{As, Bs, source, warp, end_tile - first_tile}};
    loop.prologue();
    loop.steady_state();
    loop.drain();

    if (SPLIT_K > 1 && !gather_block(loop.ct, workspace, block, share, warp_id)) return;
    const block_target target{c + int64_t(row) * ldc + col, bias ? bias + col : nullptr, ldc, m - row, n - col,
                              n % 8 == 0 && ldc % 8 == 0};
    store_block(target, loop.ct, warp);
}
