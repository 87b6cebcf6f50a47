
namespace ${name} {
constexpr int64_t ceil_div(int64_t x, int64_t y) { return (x + y - 1) / y; }
constexpr int64_t LDS_BYTES = int64_t(STAGES) * SPLIT * (sizeof(PART_A) + sizeof(PART_B));
inline int64_t blocks(int64_t m, int64_t n) { return ceil_div(m, BLOCK_M) * ceil_div(n, BLOCK_N); }
inline int64_t workspace_bytes(int64_t m, int64_t n) {
    return SPLIT_K == 1 ? 0 : int64_t(sizeof(float)) * (COUNTERS + blocks(m, n) * SPLIT_K * BLOCK_M * BLOCK_N);
}
// What offsets of 32 bits, a grid and a workspace can hold.
constexpr int64_t OFFSET_ELEMENTS = int64_t(1) << 30, GRID = int64_t(1) << 31, WORKSPACE_BYTES = int64_t(1) << 30;
inline bool can_run(int64_t m, int64_t n, int64_t k) {
    const int64_t part = PART_M > PART_N ? PART_M : PART_N;
    if (k % VECTOR != 0 || BLOCK_M * n >= OFFSET_ELEMENTS || part * k >= OFFSET_ELEMENTS) return false;
    if (blocks(m, n) * SPLIT_K >= GRID) return false;
    return SPLIT_K == 1 || (SPLIT_K <= ceil_div(k, K_STEP) && blocks(m, n) * NUM_WARPS <= COUNTERS &&
                            workspace_bytes(m, n) <= WORKSPACE_BYTES);
}
inline void launch(const operands &at, hipStream_t stream) {
    // Once: the most that this kernel may be given.
    static const hipError_t raised =
        hipFuncSetAttribute((void *)${name}_kernel, hipFuncAttributeMaxDynamicSharedMemorySize, int(LDS_BYTES));
    TORCH_CHECK(raised == hipSuccess, "${name}: ", hipGetErrorString(raised));
    const dim3 grid(unsigned(blocks(at.m, at.n) * SPLIT_K)), block(NUM_THREADS);
    ${name}_kernel<<<grid, block, LDS_BYTES, stream>>>(at.a, at.bt, at.c, at.bias, at.workspace, int(at.m), int(at.n),
                                                       int(at.k), int(at.k), int(at.k), int(at.n), 0);
}
}  // namespace ${name}
