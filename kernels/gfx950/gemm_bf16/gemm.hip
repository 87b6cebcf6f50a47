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
using RT_C  = rt_bf<REG_M, REG_N, row_l, shape::accumulator>;

constexpr int BYTES_PER_LOAD = ST_A::underlying_subtile_bytes_per_thread * NUM_THREADS;
constexpr int LOADS_A        = sizeof(ST_A) / BYTES_PER_LOAD;
constexpr int LOADS_B        = sizeof(ST_B) / BYTES_PER_LOAD;
constexpr int LOADS_PER_TILE = SPLIT * (LOADS_A + LOADS_B);

static_assert(PREFETCH >= 1 && (PREFETCH == STAGES - 1 || PREFETCH == STAGES));
static_assert(VMCNT_TILES < PREFETCH - READ_ACROSS, "a step must wait for the tile it reads");
static_assert(LGKMCNT_CLUSTERS < CLUSTERS, "a step must wait for every fragment it multiplies");
static_assert(!READ_ACROSS || (PREFETCH == STAGES && LGKMCNT_CLUSTERS >= 1 && LGKMCNT_CLUSTERS <= CLUSTERS - SPLIT));
static_assert(LOADS_A * BYTES_PER_LOAD == sizeof(ST_A) && LOADS_B * BYTES_PER_LOAD == sizeof(ST_B));

// A row-major matrix of 2-byte elements that quacks like a kittens::gl, whose own constructor runs on the host only.
struct matrix {
    using identifier = ducks::gl::identifier;
    using T = bf16;
    using T2 = bf16_2;
    using dtype = bf16;

    bf16 *raw_ptr;
    int num_rows, num_cols;

    __device__ static constexpr int batch() { return 1; }
    __device__ static constexpr int depth() { return 1; }
    __device__ int rows() const { return num_rows; }
    __device__ int cols() const { return num_cols; }
    template<int axis> __device__ int stride() const { static_assert(axis == 2); return num_cols; }
    __device__ bf16 &operator[](const coord<> &at) const { return raw_ptr[int64_t(at.r) * num_cols + at.c]; }
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

// The rows of A and Bt that a workgroup multiplies, and where in a part of them each load of this thread lies.
struct block_source {
    matrix a, bt;
    int row, col;
    uint32_t offsets_a[LOADS_A], offsets_b[LOADS_B];

    __device__ __forceinline__ void prepare(staged_tile tile) {
        G::prefill_swizzled_offsets(tile.a[0], a, offsets_a);
        G::prefill_swizzled_offsets(tile.b[0], bt, offsets_b);
    }

    __device__ __forceinline__ void fetch(staged_tile tile, int k_tile) const {
        #pragma unroll
        for (int h = 0; h < SPLIT; h++) {
            G::load(tile.a[h], a, {0, 0, row * SPLIT + h, k_tile}, offsets_a);
            G::load(tile.b[h], bt, {0, 0, col * SPLIT + h, k_tile}, offsets_b);
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

// Rounds to nearest even, and transposes without moving anything: four neighbours in a column of Ct, held by one lane,
// are four neighbours in a row of C. The conversion is the compiler's, which puts wait states between an MFMA and what
// reads its result; before HipKittens' own convertor, an assembly statement, it would put none.
__device__ __forceinline__ void round_transposed(RT_C &c, const RT_Ct &ct) {
    using f32x2 = float __attribute__((ext_vector_type(2)));
    using bf16x2 = __bf16 __attribute__((ext_vector_type(2)));
    #pragma unroll
    for (int i = 0; i < RT_C::height; i++) {
        #pragma unroll
        for (int j = 0; j < RT_C::width; j++) {
            #pragma unroll
            for (int p = 0; p < RT_C::packed_per_base_tile; p++) {
                const float2 wide = ct.tiles[j][i].data[p];
                const bf16x2 rounded = __builtin_convertvector((f32x2{wide.x, wide.y}), bf16x2);
                __builtin_memcpy(&c.tiles[i][j].data[p], &rounded, sizeof(rounded));
            }
        }
    }
}

__device__ __forceinline__ void store_block(const matrix &c, const RT_Ct (&ct)[SPLIT][SPLIT], int row, int col,
                                            warp_place warp) {
    #pragma unroll
    for (int i = 0; i < SPLIT; i++) {
        #pragma unroll
        for (int j = 0; j < SPLIT; j++) {
            RT_C tile;
            round_transposed(tile, ct[i][j]);
            store(c, tile, {0, 0, (row * SPLIT + i) * WARPS_M + warp.row, (col * SPLIT + j) * WARPS_N + warp.col});
        }
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
            if (tile == 0 || tile < k_tiles) source.fetch(staged(tile), tile);
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
void hktune_gemm_bf16(const bf16 *a, const bf16 *bt, bf16 *c, int m, int n, int k) {
    extern __shared__ alignment_dummy __shm[];
    shared_allocator al((int *)&__shm[0]);
    ST_A (&As)[STAGES][SPLIT] = al.allocate<ST_A, STAGES, SPLIT>();
    ST_B (&Bs)[STAGES][SPLIT] = al.allocate<ST_B, STAGES, SPLIT>();

    const int row = blockIdx.x / (n / BLOCK_N), col = blockIdx.x % (n / BLOCK_N);
    const int warp_id = __builtin_amdgcn_readfirstlane(kittens::warpid());
    const warp_place warp{warp_id / WARPS_N, warp_id % WARPS_N};
    const block_source source{{const_cast<bf16 *>(a), m, k}, {const_cast<bf16 *>(bt), n, k}, row, col};

    pipeline p{As, Bs, source, warp, k / K_STEP};
    p.prologue();
    p.steady_state();
    p.drain();
    store_block({c, m, n}, p.ct, row, col, warp);  // the epilogue
}
