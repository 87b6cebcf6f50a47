// Sizes that follow from the constants, and what the launcher reads of them.
//
// Two sets of names meet in this kernel. The GEMM's matrices are a, b and c, as its parameters are called. wgmma
// multiplies its own A, 64 rows at a time, by its own B, of up to 256 columns, into D: wgmma_a, wgmma_b and D.
//
//              wgmma_a  wgmma_b  D
//     usual    a        b        c
//     SWAPPED  b        a        c transposed, so that a c of few rows fills the narrow side
//
// Rows and columns are D's throughout. A row of wgmma_a and a column of wgmma_b are here called a line. In memory either
// a line is contiguous, its elements along K, or the same element of all lines is (PTX ISA: K-major and MN-major).
#pragma once
#include "constants.cu"
#include "element.cu"

// The machine's sizes (PTX ISA 8.0: wgmma, swizzling modes, mbarrier, stmatrix).
constexpr int WARP = 32, WARPGROUP = 128, WARPS = WARPGROUP / WARP;  // threads, threads, warps of a warpgroup
constexpr int WGMMA_M = 64, WGMMA_K = WGMMA_DEPTH;                   // of one multiply: rows of A, elements of K
constexpr int ATOM_LINES = 8, ATOM_LINE_BYTES = 128;                 // of a swizzle atom: the pattern repeats behind it
constexpr int ATOM_BYTES = ATOM_LINES * ATOM_LINE_BYTES, ATOM_K = ATOM_LINE_BYTES / ELEMENT_BYTES;
constexpr int PIECE_K = K_STEP < ATOM_K ? K_STEP : ATOM_K;  // elements of K in a row of a stage
constexpr int MBARRIER_BYTES = 8;
constexpr int SWIZZLE_UNIT_BYTES = 16;  // what a swizzle exchanges
constexpr int OCTET = 8, OCTET_BYTES = OCTET * BYTES_OF_C;      // elements of a row of the 8x8 matrices in a fragment
constexpr int OCTET_VALUES = 4, VALUE_COLUMNS = OCTET / OCTET_VALUES;  // a thread's accumulators of WGMMA_M rows of it

constexpr int MULTICAST = CLUSTER_ROWS * CLUSTER_COLUMNS, CLUSTER = MULTICAST * SPLIT_K;  // blocks
constexpr int THREADS = WARPGROUP * (CONSUMERS + 1), CONSUMER_THREADS = WARPGROUP * CONSUMERS;
constexpr int CONSUMERS_OF_A_TILE = PING_PONG ? 1 : CONSUMERS;
constexpr int FRAGMENTS = TILE_ROWS / WGMMA_M / CONSUMERS_OF_A_TILE;  // pieces of WGMMA_M rows, of a consumer's tile
static_assert(ACCUMULATORS == TILE_COLUMNS / VALUE_COLUMNS, "what a thread holds of a fragment");
// Rows, columns and fragments of C (or of C transposed) that a tile of D makes: gates make one number of two.
constexpr int OUT_ROWS = TILE_ROWS / (GATED && SWAPPED ? 2 : 1), OUT_COLUMNS = TILE_COLUMNS / (GATED && !SWAPPED ? 2 : 1);
constexpr int OUT_FRAGMENTS = OUT_ROWS / WGMMA_M / CONSUMERS_OF_A_TILE;
static_assert(OUT_FRAGMENTS > 0 && OUT_ROWS % (WGMMA_M * CONSUMERS_OF_A_TILE) == 0, "a thread has a gate and what it gates");

// An operand in a stage: pieces, one after another, each of rows that are swizzled over their own length.
//
//                   a piece                         its rows
//     Along::k      PIECE_K elements of K, all lines     a line each
//     Along::lines  COLUMNS lines, all elements of K    an element of K each
//
// Each of the SHARED_BY blocks that have the operand in common sends all of them its part of every piece, SENT rows.
// RUN lines of a tile are side by side in the matrix too. Where this is fewer than LINES, runs are gates and what these
// gate in turn: each thread has both of them.
template <Along ALONG, int LINES, int SHARED_BY, int RUN, int LOADED>
struct Staged {
    static constexpr int LOAD_BYTES = LOADED;
    static constexpr bool BY_TMA = LOADED == SWIZZLE_UNIT_BYTES;  // or by threads, which load as much at a time
    static constexpr bool BY_LINES = ALONG == Along::lines;
    static constexpr int LINES_SIDE_BY_SIDE = RUN % 64 == 0 ? 64 : RUN % 32 == 0 ? 32 : RUN % 16 == 0 ? 16 : 8;
    static constexpr int ROWS = BY_LINES ? K_STEP : LINES, COLUMNS = BY_LINES ? LINES_SIDE_BY_SIDE : PIECE_K;
    static constexpr int ROW_BYTES = COLUMNS * ELEMENT_BYTES, PIECE_BYTES = ROWS * ROW_BYTES;
    static constexpr int PIECES = (BY_LINES ? LINES : K_STEP) / COLUMNS, BYTES = PIECES * PIECE_BYTES;
    static constexpr int SENDERS = SHARED_BY, SENT = ROWS / SHARED_BY;
    static constexpr int BOX_ROWS = !BY_LINES && RUN < SENT ? RUN : SENT;  // of SENT, that one copy moves
    static_assert(SENT % BOX_ROWS == 0 && RUN % LINES_SIDE_BY_SIDE == 0, "no box has gates and others");

    static constexpr bool IN_TURN = INTERLEAVED && RUN < LINES;  // the matrix has a gate, what it gates, and so on
    static_assert(!IN_TURN || !BY_LINES, "a copy is of one kind");

    // Whether line `line` of a tile is gated.
    static DEVICE constexpr bool is_gated(int line) { return RUN < LINES && line / RUN % 2; }

    // Where it is in the matrix, from the tile's first: what is gated comes behind all `gates`, or in turn with them.
    static DEVICE int line_of_matrix(int line, int gates) {
        if constexpr (RUN == LINES) return line;
        else return line / (2 * RUN) * RUN + line % RUN + (is_gated(line) && !IN_TURN ? gates : 0);
    }

    // Where a line begins, of those that begin a piece or are along K; and where a slice of WGMMA_K elements of K does.
    static DEVICE constexpr int line_at(int line) { return BY_LINES ? line / COLUMNS * PIECE_BYTES : line * ROW_BYTES; }

    static DEVICE constexpr int slice_at(int slice) {
        const int k = slice * WGMMA_K;
        return BY_LINES ? k * ROW_BYTES : k / PIECE_K * PIECE_BYTES + k % PIECE_K * ELEMENT_BYTES;
    }
};
constexpr int GATE_ROWS = GATED && SWAPPED ? OUT_FRAGMENTS * WGMMA_M : TILE_ROWS;
using WgmmaA = Staged<WGMMA_A_ALONG, TILE_ROWS, CLUSTER_COLUMNS, GATE_ROWS, WGMMA_A_LOAD_BYTES>;
using WgmmaB = Staged<WGMMA_B_ALONG, TILE_COLUMNS, CLUSTER_ROWS, OUT_COLUMNS, WGMMA_B_LOAD_BYTES>;
constexpr int STAGE_BYTES = WgmmaA::BYTES + WgmmaB::BYTES;
// All stages, and what aligns the buffers behind them: rows of 64 bytes make a stage of half an atom.
constexpr int RING_BYTES = (STAGES * STAGE_BYTES + ATOM_BYTES - 1) / ATOM_BYTES * ATOM_BYTES;
// What TMA brings of a stage, and the arrivals that fill it: one with what TMA is to bring; one of each thread that loads
// when its copies have come, and another where it stores as well.
constexpr bool BY_THREADS = !WgmmaA::BY_TMA || !WgmmaB::BY_TMA;
constexpr bool THREADS_STORE = WgmmaA::LOAD_BYTES == ELEMENT_BYTES || WgmmaB::LOAD_BYTES == ELEMENT_BYTES;
constexpr int TMA_BYTES = (WgmmaA::BY_TMA ? WgmmaA::BYTES : 0) + (WgmmaB::BY_TMA ? WgmmaB::BYTES : 0);
constexpr int FILLS = (TMA_BYTES > 0 ? 1 : 0) + (BY_THREADS ? WARPGROUP : 0) + (THREADS_STORE ? WARPGROUP : 0);
// Arrivals that release a stage: one of each consumer warp, of each block that shares lines with this one.
constexpr int RELEASES = WARPS * CONSUMERS_OF_A_TILE * (CLUSTER_ROWS + CLUSTER_COLUMNS - 1);

// Columns of a fragment stored at once are a chunk.
static_assert(OUT_COLUMNS % CHUNK == 0 && CHUNK % OCTET == 0, "chunks are whole octets");
constexpr int CHUNK_VALUES = CHUNK / VALUE_COLUMNS;  // of them, a thread's
constexpr int CHUNK_BYTES = WGMMA_M * CHUNK * BYTES_OF_C;
constexpr int STORE_ROW_BYTES = (SWAPPED ? WGMMA_M : CHUNK) * BYTES_OF_C;  // of C, in a chunk
// A block of one tile has a buffer for every chunk that it stores: in the stages, idle by then unless they carry sums.
constexpr bool STORES_FROM_STAGES = TMA_STORE && !PERSISTENT && SPLIT_K == 1;
constexpr int STORE_BYTES = (TMA_STORE || ROW_STORE) && !STORES_FROM_STAGES ? CONSUMERS * STORE_BUFFERS * CHUNK_BYTES : 0;

// A residual that TMA can read as it writes C comes through the ring like a K-step: behind those of a tile, in the boxes that C is
// stored in. Each of a tile's consumers has RESIDUAL_BOXES of them in a stage. Otherwise threads read it themselves.
constexpr bool RESIDUAL_IN_STAGES = RESIDUAL && TMA_STORE && SPLIT_K == 1 && sizeof(BitsAdded) == BYTES_OF_C;
constexpr int OUT_CHUNKS = OUT_COLUMNS / CHUNK, TILE_BOXES = OUT_FRAGMENTS * OUT_CHUNKS;  // a fragment's; a consumer's
constexpr int RESIDUAL_BOXES = STAGE_BYTES / (CHUNK_BYTES * CONSUMERS_OF_A_TILE);
constexpr int RESIDUAL_STEPS = RESIDUAL_IN_STAGES ? (TILE_BOXES + RESIDUAL_BOXES - 1) / RESIDUAL_BOXES : 0;

// The boxes that the launcher encodes a, b and c with; rows of 128, 64 or 32 bytes are swizzled over their own length.
// The map of a stack has three dimensions, the last of which is the matrix.
struct Box {
    int rows, columns, data_type;
};
struct BoxOfStack {
    Box box;
    int dimensions = 3;
};
constexpr Box WGMMA_A_BOX = {WgmmaA::BOX_ROWS, WgmmaA::COLUMNS, WgmmaAElement::TENSOR_MAP_TYPE};
constexpr Box WGMMA_B_BOX = {WgmmaB::BOX_ROWS, WgmmaB::COLUMNS, WgmmaBElement::TENSOR_MAP_TYPE};
constexpr Box A_BOX = SWAPPED ? WGMMA_B_BOX : WGMMA_A_BOX, B_BOX = SWAPPED ? WGMMA_A_BOX : WGMMA_B_BOX;
#if !A_BY_TMA
#elif BATCHED
extern "C" __constant__ BoxOfStack hktune_box_a = {A_BOX};
#else
extern "C" __constant__ Box hktune_box_a = A_BOX;
#endif
#if !B_BY_TMA
#elif BATCHED || INTERLEAVED
extern "C" __constant__ BoxOfStack hktune_box_b = {B_BOX};
#else
extern "C" __constant__ Box hktune_box_b = B_BOX;
#endif
#if TMA_STORE
constexpr Box C_BOX = {SWAPPED ? CHUNK : WGMMA_M, SWAPPED ? WGMMA_M : CHUNK, ElementOfC::TENSOR_MAP_TYPE};
#if STACKED
using BoxOfC = BoxOfStack;
#else
using BoxOfC = Box;
#endif
extern "C" __constant__ BoxOfC hktune_box_c = {C_BOX};
#if RESIDUAL
extern "C" __constant__ BoxOfC hktune_box_residual = {C_BOX};
#endif
#endif

struct alignas(64) TensorMap {
    u64 opaque[16];
};
// What the kernel takes of a and of b.
template <bool BY_TMA>
struct Given {
    using Type = TensorMap;
};
template <>
struct Given<false> {
    using Type = const u16*;
};
using GivenA = Given<A_BY_TMA>::Type;
using GivenB = Given<B_BY_TMA>::Type;
#if TMA_STORE
using Output = TensorMap;
#else
using Output = BitsOfC*;
#endif
