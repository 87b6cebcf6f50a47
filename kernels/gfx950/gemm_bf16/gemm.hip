// C[M,N] = A @ B on gfx950: row-major, bf16 or float16 in, the same, float32 or e4m3 out, float32 accumulation. A and B are
// each stored as the product reads them, or transposed. Where there are gates, B has 2N columns: gates, and then what
// they gate.
//
// One workgroup computes one BLOCK_M x BLOCK_N block of C. Its warps keep a ring of STAGES K-tiles in LDS filled from
// global memory and multiply out of it, K_STEP at a time. README.md draws the tiles and the pipeline and explains every
// knob; search_spaces/gfx950_gemm_bf16.yaml says which settings fit together.

#include "geometry.hip"
#include "load.hip"
#include "pingpong.hip"
#include "pipeline.hip"
#include "several.hip"
#include "store.hip"

extern "C" __global__ __launch_bounds__(NUM_THREADS, WAVES_PER_SIMD)
void hktune_gemm_bf16(const element *a, const element *b, output *c, const addend *bias, float *workspace,
                      int m, int n, int k, int lda, int ldb, int ldc, int accumulate
#if HAS_RESIDUAL
                      , const addend *residual, int ldresidual
#endif
#if SCALE_ARGUMENTS >= 2
                      , const float *scale_a, const float *scale_b
#endif
#if SCALE_ARGUMENTS == 4 || (SCALE_ARGUMENTS == 2 && STACK_OF_A)
                      , int ldscale_a
#endif
#if SCALE_ARGUMENTS == 4 || (SCALE_ARGUMENTS == 2 && STACK_OF_B)
                      , int ldscale_b
#endif
#if HAS_ALPHA
                      , const float *alpha
#endif
#if HAS_BETA
                      , const float *beta
#endif
#if SCALES_C
                      , const float *scale_c
#endif
#if SEVERAL
                      , int groups
#endif
#if GROUPED
                      , const int *offsets
#endif
#if STACK_OF_A
                      , int64_t stride_a
#endif
#if STACK_OF_B
                      , int64_t stride_b
#endif
#if STACK_OF_C
                      , int64_t stride_c
#endif
#if STACK_OF_C && HAS_RESIDUAL
                      , int64_t stride_residual
#endif
                      ) {
#if SCALE_ARGUMENTS < 2
    constexpr const float *scale_a = nullptr, *scale_b = nullptr;
#endif
#if SCALE_ARGUMENTS < 4 && !(SCALE_ARGUMENTS == 2 && STACK_OF_A)
    constexpr int ldscale_a = 0;
#endif
#if SCALE_ARGUMENTS < 4 && !(SCALE_ARGUMENTS == 2 && STACK_OF_B)
    constexpr int ldscale_b = 0;
#endif
#if !GROUPED
    constexpr const int *offsets = nullptr;
#endif
#if !STACK_OF_A
    constexpr int64_t stride_a = 0;
#endif
#if !STACK_OF_B
    constexpr int64_t stride_b = 0;
#endif
#if !STACK_OF_C
    constexpr int64_t stride_c = 0;
#endif
    k = halfwords_in(k), lda = halfwords_in(lda), ldb = halfwords_in(ldb);
    extern __shared__ alignment_dummy __shm[];
    shared_allocator al((int *)&__shm[0]);
    PART_A (&As)[STAGES][SPLIT] = al.allocate<PART_A, STAGES, SPLIT>();
    PART_B (&Bs)[STAGES][SPLIT] = al.allocate<PART_B, STAGES, SPLIT>();

    const int blocks_m = blocks_of_rows(m), blocks_n = (n + BLOCK_COLS - 1) / BLOCK_COLS;
#if SEVERAL
    const int blocks = most_blocks(m, blocks_n, groups);
#else
    const int blocks = blocks_m * blocks_n;
#endif
    const int share = SPLIT_K == 1 ? 0 : blockIdx.x / blocks, block = blockIdx.x - share * blocks;
#if SEVERAL
    const product own = product_of(tile_of(block, blocks), m, k, blocks_n, groups, offsets);
    if (GROUPS_OF_ROWS && own.size == 0) return;
    if (GROUPS_OF_K && ACCUMULATES && accumulate && own.size == 0) return;  // C stays what it is, to the bit
    if (GROUPS_OF_ROWS && bias) bias += int64_t(own.number) * n * (BLOCK_N / BLOCK_COLS);  // each group has its own
    a += own.number * halfwords_in(stride_a) + own.first * lda;
    b += own.number * halfwords_in(stride_b) + (GROUPS_OF_K ? own.first * ldb : 0);
    c += own.number * stride_c + (GROUPS_OF_ROWS ? own.first * ldc : 0);
#if SCALE_ARGUMENTS >= 2
    scale_a += int64_t(own.number) * ldscale_a + own.first, scale_b += int64_t(own.number) * ldscale_b;
#endif
#if HAS_RESIDUAL
    residual += own.number * stride_residual;
#endif
    (GROUPS_OF_K ? k : m) = own.size;
    const auto [block_row, block_col] = place_in(own.tile, blocks_of_rows(m), blocks_n);
#else
    const auto [block_row, block_col] = place_of(block, blocks_m, blocks_n);
#endif
    const int row = block_row * BLOCK_M, col = block_col * BLOCK_COLS;
    const int k_tiles = (k + K_STEP - 1) / K_STEP;
    const int first_tile = share * k_tiles / SPLIT_K;
#if GROUPS_OF_K
    int end_tile = (share + 1) * k_tiles / SPLIT_K;
    if (end_tile == first_tile) k = first_tile * K_STEP, end_tile++;  // of nothing: a tile of zeros
#else
    const int end_tile = (share + 1) * k_tiles / SPLIT_K;
#endif
    const int warp_id = __builtin_amdgcn_readfirstlane(kittens::warpid());
    const warp_place warp{warp_id / WARPS_N, warp_id % WARPS_N};
    const block_source source{
        {first_line<ALONG_A>(a, row, lda), lda, m - row, 0, words_of_a::of(scale_a, ldscale_a, row, m - row)},
        {first_line<ALONG_B>(b, col * GATE_STRIDE, ldb), ldb, n - col, INTERLEAVED ? 1 : n, words_of_b::of(scale_b, ldscale_b, col, n - col)},
        k, first_tile, end_tile - 1};

    using main_loop = std::conditional_t<SCHEDULE == Schedule::pingpong, pingpong<SPLIT>, pipeline<CLUSTERS>>;
    main_loop loop{{As, Bs, source, warp, end_tile - first_tile}};
    loop.prologue([&](RT_Ct (&sums)[SPLIT][SPLIT]) __attribute__((always_inline)) {
        if constexpr (ACCUMULATES) {
            if (accumulate && share == 0) return load_block(block_target(c, bias, row, col, m, n, ldc), sums, warp);
        }
        clear_block_under_loads(sums);
    });
    loop.steady_state();
    loop.drain();

    if (SPLIT_K > 1 && !gather_block(loop.ct, workspace, block, share, warp_id)) return;
    block_scales scales(scale_a, scale_b, row, col, m, n);
    block_target target(c, bias, row, col, m, n, ldc);
#if HAS_RESIDUAL
    target.add(residual, row, col, ldresidual);
#endif
#if HAS_ALPHA
    scales.alpha = single(alpha);
#endif
#if HAS_BETA
    scales.beta = single(beta);
#endif
#if SCALES_C
    scales.c = single(scale_c);
#endif
    store_block(target, scales, loop.ct, warp);
}
