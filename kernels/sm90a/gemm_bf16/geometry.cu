// Sizes that follow from the constants, and what the launcher reads of them.
//
// Two sets of names meet in this kernel. The GEMM's matrices are a, b and c, as its parameters are called. wgmma
// multiplies its own A, 64 rows at a time, by its own B, of up to 256 columns, into D: wgmma_a, wgmma_b and D.
//
//              wgmma_a  wgmma_b  D
//     usual    a        b        c
//     SWAPPED  b        a        c transposed, so that a c of few rows fills the narrow side
//
// Rows and columns are D's throughout. Both operands are K-major: a row of wgmma_a and a column of wgmma_b are elements
// of K side by side, here called a line.
#pragma once
#include "constants.cu"
#include "element.cu"

// The machine's sizes (PTX ISA 8.0: wgmma, swizzling modes, mbarrier, stmatrix).
constexpr int WARP = 32, WARPGROUP = 128, WARPS = WARPGROUP / WARP;  // threads, threads, warps of a warpgroup
constexpr int WGMMA_M = 64, WGMMA_K = 16;                            // of one multiply: rows of A, elements of K
constexpr int ATOM_LINES = 8, ATOM_LINE_BYTES = 128;                 // of a swizzle atom: the pattern repeats behind it
constexpr int ATOM_BYTES = ATOM_LINES * ATOM_LINE_BYTES, ATOM_K = ATOM_LINE_BYTES / ELEMENT_BYTES;
constexpr int MBARRIER_BYTES = 8;
constexpr int OCTET = 8, OCTET_BYTES = OCTET * ELEMENT_BYTES;  // elements of a row of the 8x8 matrices in a fragment
constexpr int OCTET_VALUES = 4, VALUE_COLUMNS = OCTET / OCTET_VALUES;  // a thread's accumulators of WGMMA_M rows of it

constexpr int MULTICAST = CLUSTER_ROWS * CLUSTER_COLUMNS, CLUSTER = MULTICAST * SPLIT_K;  // blocks
constexpr int THREADS = WARPGROUP * (CONSUMERS + 1), CONSUMER_THREADS = WARPGROUP * CONSUMERS;
constexpr int CONSUMERS_OF_A_TILE = PING_PONG ? 1 : CONSUMERS;
constexpr int FRAGMENTS = TILE_ROWS / WGMMA_M / CONSUMERS_OF_A_TILE;  // pieces of WGMMA_M rows, of a consumer's tile
static_assert(ACCUMULATORS == TILE_COLUMNS / VALUE_COLUMNS, "what a thread holds of a fragment");

// A stage holds wgmma_a's lines, then wgmma_b's. A block sends its share of the lines that its cluster has in common.
constexpr int WGMMA_A_BYTES = TILE_ROWS * K_STEP * ELEMENT_BYTES;
constexpr int WGMMA_B_BYTES = TILE_COLUMNS * K_STEP * ELEMENT_BYTES, STAGE_BYTES = WGMMA_A_BYTES + WGMMA_B_BYTES;
constexpr int WGMMA_A_SENT = TILE_ROWS / CLUSTER_COLUMNS, WGMMA_B_SENT = TILE_COLUMNS / CLUSTER_ROWS;  // lines
// Arrivals that release a stage: one of each consumer warp, of each block that shares lines with this one.
constexpr int RELEASES = WARPS * CONSUMERS_OF_A_TILE * (CLUSTER_ROWS + CLUSTER_COLUMNS - 1);

// Columns of a fragment stored at once, a chunk: the most that leave every block of a split K a part of the tile.
__host__ __device__ constexpr bool divides(int chunk) {
    return TILE_COLUMNS % chunk == 0 && chunk * SPLIT_K <= TILE_COLUMNS;
}
constexpr int CHUNK = divides(64) ? 64 : divides(32) ? 32 : divides(16) ? 16 : 8;
constexpr int CHUNK_BYTES = WGMMA_M * CHUNK * ELEMENT_BYTES;
constexpr int STORE_ROW_BYTES = (SWAPPED ? WGMMA_M : CHUNK) * ELEMENT_BYTES;  // of C, in a chunk
// A block of one tile has a buffer for every chunk that it stores: in the stages, idle by then unless they carry sums.
constexpr bool STORES_FROM_STAGES = TMA_STORE && !PERSISTENT && SPLIT_K == 1;
constexpr int STORE_BYTES = TMA_STORE && !STORES_FROM_STAGES ? CONSUMERS * STORE_BUFFERS * CHUNK_BYTES : 0;

// The boxes that the launcher encodes a, b and c with; rows of 128, 64 or 32 bytes are swizzled over their own length.
struct Box {
    int rows, columns, data_type = Element::TENSOR_MAP_TYPE;
};
extern "C" __constant__ Box hktune_box_a = {SWAPPED ? WGMMA_B_SENT : WGMMA_A_SENT, ATOM_K};
extern "C" __constant__ Box hktune_box_b = {SWAPPED ? WGMMA_A_SENT : WGMMA_B_SENT, ATOM_K};
#if TMA_STORE
extern "C" __constant__ Box hktune_box_c = {SWAPPED ? CHUNK : WGMMA_M, SWAPPED ? WGMMA_M : CHUNK};
#endif

struct alignas(64) TensorMap {
    u64 opaque[16];
};
#if TMA_STORE
using Output = TensorMap;
#else
using Output = u16*;
#endif
