// The two kernels as first specified, word for word: only the torch header and the host function are left out.
// gemm_kernel_128 is wrong; tests/unit/test_gemm_bf16_spec.py shows how.

#include <hip/hip_runtime.h>
#include "kittens.cuh"
using namespace kittens;

// Common
constexpr int K_STEP = 64;
constexpr int WARPS_M = 2;
constexpr int WARPS_N = 4;
#define NUM_WARPS (WARPS_M * WARPS_N)
#define NUM_THREADS (NUM_WARPS * kittens::WARP_THREADS)
using _gl = gl<bf16, -1, -1, -1, -1>;
using G = kittens::group<NUM_WARPS>;

// ===================== 256x256 Configuration =====================
namespace cfg256 {
    constexpr int BLOCK_SIZE = 256;
    constexpr int HALF_BLOCK_SIZE = 128;
    constexpr int HALF_REG_M = 64;
    constexpr int HALF_REG_N = 32;
    using ST_A = st_bf<HALF_BLOCK_SIZE, K_STEP, st_16x32_s>;
    using ST_B = st_bf<HALF_BLOCK_SIZE, K_STEP, st_16x32_s>;
}

// ===================== 128x128 Configuration =====================
namespace cfg128 {
    constexpr int BLOCK_SIZE = 128;
    constexpr int REG_M = 32;
    constexpr int REG_N = 16;
    using ST_A = st_bf<BLOCK_SIZE, K_STEP, st_16x32_s>;
    using ST_B = st_bf<BLOCK_SIZE, K_STEP, st_16x32_s>;
}

// ===================== 256x256 Kernel =====================
__global__ __launch_bounds__(NUM_THREADS, 2)
void gemm_kernel_256(const _gl g_A, const _gl g_Bt, _gl g_C, int M, int K, int N) {
    using namespace cfg256;
    extern __shared__ alignment_dummy __shm[];
    shared_allocator al((int*)&__shm[0]);
    ST_A (&As)[2][2] = al.allocate<ST_A, 2, 2>();
    ST_B (&Bs)[2][2] = al.allocate<ST_B, 2, 2>();

    const int warp_id = kittens::warpid();
    const int warp_row = warp_id / WARPS_N;
    const int warp_col = warp_id % WARPS_N;
    const int row = blockIdx.x;
    const int col = blockIdx.y;

    // Register tiles
    rt_bf<HALF_REG_M, K_STEP, row_l, rt_16x32_s> a_reg;
    rt_bf<HALF_REG_N, K_STEP, row_l, rt_16x32_s> b_reg_0, b_reg_1;
    rt_fl<HALF_REG_M, HALF_REG_N, col_l, rt_16x16_s> c_accum[2][2];
    zero(c_accum[0][0]); zero(c_accum[0][1]);
    zero(c_accum[1][0]); zero(c_accum[1][1]);

    // Swizzled offsets - use BLOCK_SIZE for full block coverage
    using T = typename ST_A::dtype;
    constexpr int bytes_per_thread = ST_A::underlying_subtile_bytes_per_thread;
    constexpr int bytes_per_memcpy = bytes_per_thread * NUM_THREADS;
    constexpr int memcpy_per_tile = BLOCK_SIZE * K_STEP * sizeof(T) / bytes_per_memcpy;
    uint32_t swizzled_A[memcpy_per_tile/2];
    uint32_t swizzled_B[memcpy_per_tile/2];
    G::prefill_swizzled_offsets(As[0][0], g_A, swizzled_A);
    G::prefill_swizzled_offsets(Bs[0][0], g_Bt, swizzled_B);

    const int num_k_tiles = K / K_STEP;
    int tic = 0, toc = 1;

    // Initial load
    G::load(As[0][0], g_A, {0, 0, row*2, 0}, swizzled_A);
    G::load(As[0][1], g_A, {0, 0, row*2+1, 0}, swizzled_A);
    G::load(Bs[0][0], g_Bt, {0, 0, col*2, 0}, swizzled_B);
    G::load(Bs[0][1], g_Bt, {0, 0, col*2+1, 0}, swizzled_B);
    asm volatile("s_waitcnt vmcnt(0)\n");
    __builtin_amdgcn_s_barrier();

    // Main loop with double buffering
    for (int k = 0; k < num_k_tiles; k++) {
        // Prefetch next to toc buffer
        if (k + 1 < num_k_tiles) {
            G::load(As[toc][0], g_A, {0, 0, row*2, k+1}, swizzled_A);
            G::load(As[toc][1], g_A, {0, 0, row*2+1, k+1}, swizzled_A);
            G::load(Bs[toc][0], g_Bt, {0, 0, col*2, k+1}, swizzled_B);
            G::load(Bs[toc][1], g_Bt, {0, 0, col*2+1, k+1}, swizzled_B);
        }

        // Compute with tic buffer
        auto a_sub = subtile_inplace<HALF_REG_M, K_STEP>(As[tic][0], {warp_row, 0});
        load(a_reg, a_sub);
        auto b_sub0 = subtile_inplace<HALF_REG_N, K_STEP>(Bs[tic][0], {warp_col, 0});
        load(b_reg_0, b_sub0);
        auto b_sub1 = subtile_inplace<HALF_REG_N, K_STEP>(Bs[tic][1], {warp_col, 0});
        load(b_reg_1, b_sub1);
        asm volatile("s_waitcnt lgkmcnt(0)\n");

        __builtin_amdgcn_sched_barrier(0);
        __builtin_amdgcn_s_setprio(1);
        mma_ABt(c_accum[0][0], a_reg, b_reg_0, c_accum[0][0]);
        mma_ABt(c_accum[0][1], a_reg, b_reg_1, c_accum[0][1]);
        __builtin_amdgcn_s_setprio(0);
        __builtin_amdgcn_sched_barrier(0);

        a_sub = subtile_inplace<HALF_REG_M, K_STEP>(As[tic][1], {warp_row, 0});
        load(a_reg, a_sub);
        asm volatile("s_waitcnt lgkmcnt(0)\n");

        __builtin_amdgcn_sched_barrier(0);
        __builtin_amdgcn_s_setprio(1);
        mma_ABt(c_accum[1][0], a_reg, b_reg_0, c_accum[1][0]);
        mma_ABt(c_accum[1][1], a_reg, b_reg_1, c_accum[1][1]);
        __builtin_amdgcn_s_setprio(0);
        __builtin_amdgcn_sched_barrier(0);

        if (k + 1 < num_k_tiles) asm volatile("s_waitcnt vmcnt(0)\n");
        __builtin_amdgcn_s_barrier();
        tic ^= 1; toc ^= 1;
    }

    // Store results
    store(g_C, c_accum[0][0], {0, 0, row*2*WARPS_M + warp_row, col*2*WARPS_N + warp_col});
    store(g_C, c_accum[0][1], {0, 0, row*2*WARPS_M + warp_row, col*2*WARPS_N + WARPS_N + warp_col});
    store(g_C, c_accum[1][0], {0, 0, row*2*WARPS_M + WARPS_M + warp_row, col*2*WARPS_N + warp_col});
    store(g_C, c_accum[1][1], {0, 0, row*2*WARPS_M + WARPS_M + warp_row, col*2*WARPS_N + WARPS_N + warp_col});
}

// Similar kernel for 128x128 config (simpler, single tile per half-block)
__global__ __launch_bounds__(NUM_THREADS, 2)
void gemm_kernel_128(const _gl g_A, const _gl g_Bt, _gl g_C, int M, int K, int N) {
    using namespace cfg128;
    extern __shared__ alignment_dummy __shm[];
    shared_allocator al((int*)&__shm[0]);
    ST_A (&As)[2] = al.allocate<ST_A, 2>();
    ST_B (&Bs)[2] = al.allocate<ST_B, 2>();

    const int warp_id = kittens::warpid();
    const int warp_row = warp_id / WARPS_N;
    const int warp_col = warp_id % WARPS_N;
    const int row = blockIdx.x;
    const int col = blockIdx.y;

    rt_bf<REG_M, K_STEP, row_l, rt_16x32_s> a_reg;
    rt_bf<REG_N, K_STEP, row_l, rt_16x32_s> b_reg;
    rt_fl<REG_M, REG_N, col_l, rt_16x16_s> c_accum;
    zero(c_accum);

    using T = typename ST_A::dtype;
    constexpr int bytes_per_thread = ST_A::underlying_subtile_bytes_per_thread;
    constexpr int bytes_per_memcpy = bytes_per_thread * NUM_THREADS;
    constexpr int memcpy_per_tile = BLOCK_SIZE * K_STEP * sizeof(T) / bytes_per_memcpy;
    uint32_t swizzled_A[memcpy_per_tile/2];
    uint32_t swizzled_B[memcpy_per_tile/2];
    G::prefill_swizzled_offsets(As[0], g_A, swizzled_A);
    G::prefill_swizzled_offsets(Bs[0], g_Bt, swizzled_B);

    const int num_k_tiles = K / K_STEP;
    int tic = 0, toc = 1;

    G::load(As[0], g_A, {0, 0, row, 0}, swizzled_A);
    G::load(Bs[0], g_Bt, {0, 0, col, 0}, swizzled_B);
    asm volatile("s_waitcnt vmcnt(0)\n");
    __builtin_amdgcn_s_barrier();

    for (int k = 0; k < num_k_tiles; k++) {
        if (k + 1 < num_k_tiles) {
            G::load(As[toc], g_A, {0, 0, row, k+1}, swizzled_A);
            G::load(Bs[toc], g_Bt, {0, 0, col, k+1}, swizzled_B);
        }

        auto a_sub = subtile_inplace<REG_M, K_STEP>(As[tic], {warp_row, 0});
        load(a_reg, a_sub);
        auto b_sub = subtile_inplace<REG_N, K_STEP>(Bs[tic], {warp_col, 0});
        load(b_reg, b_sub);
        asm volatile("s_waitcnt lgkmcnt(0)\n");

        __builtin_amdgcn_sched_barrier(0);
        __builtin_amdgcn_s_setprio(1);
        mma_ABt(c_accum, a_reg, b_reg, c_accum);
        __builtin_amdgcn_s_setprio(0);
        __builtin_amdgcn_sched_barrier(0);

        if (k + 1 < num_k_tiles) asm volatile("s_waitcnt vmcnt(0)\n");
        __builtin_amdgcn_s_barrier();
        tic ^= 1; toc ^= 1;
    }

    store(g_C, c_accum, {0, 0, row*WARPS_M + warp_row, col*WARPS_N + warp_col});
}
