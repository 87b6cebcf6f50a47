// What a config and an operation decide: the only file with fields. constants.cu is this file filled in for the space's
// first seed, so that an editor can parse the others.
//
// Rows and columns are those of D, wgmma's output; geometry.cu says which matrix that is.
#pragma once

// Macros are for the preprocessor: in the text of instructions, and where a declaration comes or goes.
#define WGMMA_A_DTYPE bf16  // as PTX calls it
#define WGMMA_B_DTYPE bf16
#define DTYPE_C bf16
#define DTYPE_ADDED bf16  // of bias and residual
#define SUM_DTYPE f32  // of the accumulators
#define SUMS_ARE_INTEGERS false
#define WGMMA_DEPTH 16  // elements of K of one multiply
#define SCALED false  // a and b have factors
#define IN_BLOCKS false  // factors are of blocks along K
#define PROMOTED false  // float32 takes sums over from the tensor cores, which hold less
#define RUN_BUFFERS 2  // sums that the tensor cores may be at
#define TILE_COLUMNS 128  // of D that a block computes
#define ACCUMULATORS 64  // values that a thread holds of WGMMA_M rows of the tile
// Numbers of the multiply's operands, which follow its accumulators.
#define WGMMA_A_OPERAND 64
#define WGMMA_B_OPERAND 65
#define ACCUMULATE_OPERAND 66
#define WGMMA_A_TRANSPOSED 0  // 1: its rows are along lines
#define WGMMA_B_TRANSPOSED 0
#define A_BY_TMA true  // or threads load it, as TMA cannot address its rows
#define B_BY_TMA true
#define SHARED false  // tiles' K is shared through the workspace
#define TMA_STORE true  // C is written by TMA, or element by element
#define ROW_STORE false  // C is written through shared memory, as many rows as there are
#define SEVERAL false  // products in a launch, each with a B of its own
#define GROUPED false  // they divide the rows of one A, as it is stored
#define RAGGED_K false  // which are along K, so they divide one B as well
#define BATCHED (SEVERAL && !GROUPED)  // a, b and c are stacks of matrices
#define STACKED (SEVERAL && (!GROUPED || RAGGED_K))  // c is a stack of matrices
#define RESIDUAL false  // a matrix is added to what becomes C
#define INTERLEAVED false  // gates and what they gate are columns of B in turn
#define HAS_ALPHA false  // A @ B is multiplied by a number,
#define HAS_BETA false  // the residual by another,
#define SCALES_C false  // and what becomes C, of 8 bits, by a third
#define IN_CLUSTERS false  // blocks are launched as clusters, perhaps of one

// What is contiguous in memory: a line of an operand (a row of wgmma_a, a column of wgmma_b), whose elements are along
// K; or one element of each line after the other.
enum class Along { k, lines };
constexpr Along WGMMA_A_ALONG = Along::k, WGMMA_B_ALONG = Along::k;

enum class Scales { none, tensor, rows, blocks };
constexpr Scales SCALES = Scales::none;  // what has a factor: all of a matrix, each line, each block of lines

enum class Activation { none, relu, gelu, gelu_tanh, silu };
constexpr Activation ACTIVATION = Activation::none;  // of C before it is rounded, or of the gates
constexpr bool GATED = false;  // half of B's columns are gates of the others

constexpr int TILE_ROWS = 64;  // of D that a block computes
constexpr int WGMMA_A_LOAD_BYTES = 16;  // that every row of it is a multiple of; 16: TMA loads it
constexpr int WGMMA_B_LOAD_BYTES = 16;
constexpr int K_STEP = 64;  // elements of K in a stage
constexpr int STAGES = 6;  // of the ring in shared memory
constexpr bool SWAPPED = false;  // wgmma_a is b
constexpr int CONSUMERS = 2;  // warpgroups that multiply
constexpr bool PING_PONG = true;  // they take tiles in turn, or share each
constexpr bool PERSISTENT = true;  // blocks take tile after tile, or one each
constexpr int CLUSTER_ROWS = 1;  // blocks of a cluster along D's rows
constexpr int CLUSTER_COLUMNS = 1;  // and along its columns
constexpr int SPLIT_K = 1;  // blocks of a cluster that share a tile's K
constexpr int LONG_K = 2048;  // from which on the last tiles end with C
constexpr int GROUP = 8;  // cluster rows whose tiles are taken column by column
constexpr int CHUNK = 64;  // columns of D that a consumer stores at once
constexpr int STORE_BUFFERS = 2;  // of a consumer, for a TMA store
constexpr int BLOCKS_PER_SM = 1;
constexpr int PRODUCER_REGISTERS = 24;  // of a thread, by setmaxnreg
constexpr int CONSUMER_REGISTERS = 240;  // likewise; 0 leaves all as they start
