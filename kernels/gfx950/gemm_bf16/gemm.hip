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

enum class Priority { none, cluster, phase };

constexpr int      BLOCK_M          = ${block_m};
constexpr int      BLOCK_N          = ${block_n};
constexpr int      K_STEP           = ${k_step};
constexpr int      WARPS_M          = ${warps_m};
constexpr int      WARPS_N          = ${warps_n};
constexpr int      MFMA             = ${mfma};              // rows and columns of one MFMA
constexpr int      SPLIT            = ${split};             // parts of a block's rows, and of its columns
constexpr int      SLICES           = ${slices};            // parts of K_STEP, each read into registers by itself
constexpr int      STAGES           = ${stages};            // K-tiles that LDS holds
constexpr int      PREFETCH         = ${prefetch};          // steps between sending for a tile and multiplying it
constexpr int      VMCNT_TILES      = ${vmcnt_tiles};       // tiles that may still be on their way when a step starts
constexpr int      LGKMCNT_CLUSTERS = ${lgkmcnt_clusters};  // clusters whose fragments may be, when one starts
constexpr bool     READ_ACROSS      = ${read_across};       // whether clusters are also read ahead into the next tile
constexpr Priority SETPRIO          = Priority::${setprio};
constexpr bool     SCHED_BARRIER    = ${sched_barrier};
constexpr int      SPLIT_K          = ${split_k};           // workgroups that share the K-tiles of one block
constexpr int      COUNTERS         = ${counters};        // of the workspace, 4 bytes each

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

static_assert(PREFETCH >= 1 && (PREFETCH == STAGES - 1 || PREFETCH == STAGES));
static_assert(VMCNT_TILES < PREFETCH - READ_ACROSS, "a step must wait for the tile it reads");
static_assert(LGKMCNT_CLUSTERS < CLUSTERS, "a step must wait for every fragment it multiplies");
static_assert(!READ_ACROSS || (PREFETCH == STAGES && LGKMCNT_CLUSTERS >= 1 && LGKMCNT_CLUSTERS <= CLUSTERS - SPLIT));
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

// Returns when every warp's loads have landed but for those of the last `tiles_left` tiles sent for.
template<int tiles_left> __device__ __forceinline__ void await_tile() {
    asm volatile("s_waitcnt vmcnt(%0)" :: "n"(tiles_left * LOADS_PER_TILE) : "memory");
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

    __device__ __forceinline__ void fetch_last(staged_tile tile) const { fetch_at<true>(tile, last_tile * K_STEP); }

    // Tile `number` of the order in which they are multiplied, from 1.
    __device__ __forceinline__ void fetch(staged_tile tile, int number) const {
        fetch_at<false>(tile, (first_tile + number - 1) * K_STEP);
    }

    template<bool masked> __device__ __forceinline__ void fetch_at(staged_tile tile, int at) const {
        #pragma unroll
        for (int h = 0; h < SPLIT; h++) {
            a.template fetch<masked>(tile.a[h], h, at, k - at);
            b.template fetch<masked>(tile.b[h], h, at, k - at);
        }
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

constexpr int reads_of(int c) {
    constexpr int reads_a = RT_A::height * RT_A::width, reads_b = SPLIT * RT_B::height * RT_B::width;
    return part_of(c) == 0 ? reads_a + reads_b : reads_a;
}

// With `next_follows`, the first clusters of the next tile come after the last ones of this.
constexpr int reads_in_flight_under(int c, bool next_follows) {
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

template<int c> __device__ __forceinline__ void multiply_cluster(RT_Ct (&ct)[SPLIT][SPLIT], const fragments &f) {
    constexpr int slice = slice_of(c), part = part_of(c);
    scheduling_fence();
    set_priority<Priority::cluster, 1>();
    #pragma unroll
    for (int h = 0; h < SPLIT; h++) {
        mma_ABt(ct[part][h], f.b[slice][h], f.a[slice][part], ct[part][h]);
    }
    set_priority<Priority::cluster, 0>();
    scheduling_fence();
}

__device__ __forceinline__ void read_ahead(fragments &f, const staged_tile &tile, warp_place warp) {
    static_for<LGKMCNT_CLUSTERS>([&]<int c>() __attribute__((always_inline)) { read_cluster<c>(f, tile, warp); });
}

// Multiplies a tile whose first clusters have been read ahead. Calls `before_next` before it reads ahead into the next
// tile, if that follows, and `on_all_read` once this warp has read all of its own, before the last cluster's MFMAs.
template<bool next_follows, typename Before, typename After>
__device__ __forceinline__ void multiply_tile(RT_Ct (&ct)[SPLIT][SPLIT], fragments &f, staged_tile tile,
                                              staged_tile next, warp_place warp, Before &&before_next,
                                              After &&on_all_read) {
    set_priority<Priority::phase, 1>();
    static_for<CLUSTERS>([&]<int c>() __attribute__((always_inline)) {
        constexpr int ahead = c + LGKMCNT_CLUSTERS;
        if constexpr (ahead < CLUSTERS) {
            read_cluster<ahead>(f, tile, warp);
        } else if constexpr (next_follows) {
            if constexpr (ahead == CLUSTERS) before_next();
            read_cluster<ahead - CLUSTERS>(f, next, warp);
        }
        await_cluster<c, next_follows>(f);
        if constexpr (c == CLUSTERS - 1) on_all_read();
        multiply_cluster<c>(ct, f);
    });
    set_priority<Priority::phase, 0>();
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

// ---------------------------------------------------------------- the pipeline

struct pipeline {
    ST_A (&As)[STAGES][SPLIT];
    ST_B (&Bs)[STAGES][SPLIT];
    block_source source;
    warp_place warp;
    int k_tiles;
    int stage = 0;
    fragments f;
    RT_Ct ct[SPLIT][SPLIT];

    __device__ __forceinline__ staged_tile staged(int at) { return {As[at], Bs[at]}; }

    // The first PREFETCH tiles set out.
    __device__ __forceinline__ void prologue() {
        source.prepare(staged(0));
        clear_block(ct);
        static_for<PREFETCH>([&]<int tile>() __attribute__((always_inline)) {
            if constexpr (tile == 0) source.fetch_last(staged(0));
            else if (tile < k_tiles) source.fetch(staged(tile), tile);
        });
        if constexpr (READ_ACROSS) {
            VMCNT_TILES == 0 || k_tiles > VMCNT_TILES ? await_tile<VMCNT_TILES>() : await_tile<0>();
            read_ahead(f, staged(0), warp);
        }
    }

    // Every step sends for one tile and multiplies another. With PREFETCH == STAGES the one sent for takes the place of
    // the one being multiplied, once every warp has read that.
    __device__ __forceinline__ void steady_state() {
        for (int tile = 0; tile + PREFETCH < k_tiles; tile++) {
            if constexpr (!READ_ACROSS) await_tile<VMCNT_TILES>();
            if constexpr (PREFETCH < STAGES) source.fetch(staged((stage == 0 ? STAGES : stage) - 1), tile + PREFETCH);
            step<READ_ACROSS, VMCNT_TILES>([&]() __attribute__((always_inline)) {
                if constexpr (PREFETCH == STAGES) {
                    __builtin_amdgcn_s_barrier();
                    source.fetch(staged(stage), tile + PREFETCH);
                }
            });
        }
    }

    // The last tiles, with ever fewer behind them.
    __device__ __forceinline__ void drain() {
        static_for<PREFETCH>([&]<int drained>() __attribute__((always_inline)) {
            constexpr int behind = PREFETCH - 1 - drained, behind_next = behind == 0 ? 0 : behind - 1;
            if (behind == 0 || behind < k_tiles) {
                if constexpr (!READ_ACROSS) await_tile<behind < VMCNT_TILES ? behind : VMCNT_TILES>();
                step<READ_ACROSS && behind != 0, behind_next < VMCNT_TILES ? behind_next : VMCNT_TILES>([] {});
            }
        });
    }

    // Multiplies the tile in `stage`. If it reads ahead into the next, the wait for that leaves `tiles_left` in flight.
    template<bool next_follows, int tiles_left, typename F> __device__ __forceinline__ void step(F &&on_all_read) {
        const int next = next_stage(stage);
        if constexpr (!READ_ACROSS) read_ahead(f, staged(stage), warp);
        multiply_tile<next_follows>(ct, f, staged(stage), staged(next), warp, await_tile<tiles_left>, on_all_read);
        stage = next;
    }
};

extern "C" __global__ __launch_bounds__(NUM_THREADS, WAVES_PER_SIMD)
void hktune_gemm_bf16(const bf16 *a, const bf16 *bt, bf16 *c, const bf16 *bias, float *workspace, int m, int n, int k,
                      int lda, int ldb, int ldc) {
    extern __shared__ alignment_dummy __shm[];
    shared_allocator al((int *)&__shm[0]);
    ST_A (&As)[STAGES][SPLIT] = al.allocate<ST_A, STAGES, SPLIT>();
    ST_B (&Bs)[STAGES][SPLIT] = al.allocate<ST_B, STAGES, SPLIT>();

    const int blocks_n = (n + BLOCK_N - 1) / BLOCK_N, blocks = (m + BLOCK_M - 1) / BLOCK_M * blocks_n;
    const int share = SPLIT_K == 1 ? 0 : blockIdx.x / blocks, block = blockIdx.x - share * blocks;
    const int row = block / blocks_n * BLOCK_M, col = block % blocks_n * BLOCK_N;
    const int k_tiles = (k + K_STEP - 1) / K_STEP;
    const int first_tile = share * k_tiles / SPLIT_K, end_tile = (share + 1) * k_tiles / SPLIT_K;
    const int warp_id = __builtin_amdgcn_readfirstlane(kittens::warpid());
    const warp_place warp{warp_id / WARPS_N, warp_id % WARPS_N};
    const block_source source{{a + int64_t(row) * lda, lda, m - row}, {bt + int64_t(col) * ldb, ldb, n - col},
                              k, first_tile, end_tile - 1};

    pipeline p{As, Bs, source, warp, end_tile - first_tile};
    p.prologue();
    p.steady_state();
    p.drain();

    if (SPLIT_K > 1 && !gather_block(p.ct, workspace, block, share, warp_id)) return;
    const block_target target{c + int64_t(row) * ldc + col, bias ? bias + col : nullptr, ldc, m - row, n - col,
                              n % 8 == 0 && ldc % 8 == 0};
    store_block(target, p.ct, warp);
}
