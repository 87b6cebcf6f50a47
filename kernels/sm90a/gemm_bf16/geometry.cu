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
constexpr bool PING_PONG = ${ping_pong}, PERSISTENT = ${persistent}, SWAPPED = ${swapped}, TMA_STORE = ${tma_store};

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
// A block of one tile has a buffer for every chunk that it stores: in the stages, idle by then, unless these carry sums.
constexpr bool STORES_FROM_STAGES = TMA_STORE && !PERSISTENT && SPLIT_K == 1;
constexpr int STORE_BYTES = TMA_STORE && !STORES_FROM_STAGES ? CONSUMERS * STORE_BUFFERS * CHUNK_BYTES : 0;

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
