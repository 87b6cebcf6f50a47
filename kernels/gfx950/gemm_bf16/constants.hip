// What a config sets. Every other file of the kernel derives from these names; README.md explains each knob.
//
// constants.hip.in has fields in the place of the values, and is what hktune reads. constants.hip has the values of the
// search space's first seed, so that an editor can parse the kernel.

#pragma once

enum class Dtype { bf16, f16, f32, e4m3, e5m2, mxfp8, mxbf8, mxfp6, mxbf6, mxfp4, i8, i32 };
enum class Scales { none, tensor, rows, blocks, mx };
enum class Activation { none, relu, gelu, gelu_tanh, silu };
enum class Along { k, lines };
enum class Schedule { pipeline, interleave, pingpong };
enum class Wait { step, cluster };
enum class Priority { none, cluster, phase };

constexpr Dtype DTYPE_A = Dtype::bf16;  // sums are float32, those of i8 i32
constexpr Dtype DTYPE_B = Dtype::bf16;
constexpr Dtype DTYPE_C = Dtype::bf16;
constexpr Dtype DTYPE_ADDED = Dtype::bf16;  // of a bias and a residual
constexpr Scales SCALES = Scales::none;  // what numbers of A and of B are multiplied by
#define SCALE_ARGUMENTS 0  // pointers to them, and row strides where they are matrices
constexpr bool ACCUMULATES = false;  // whether a launch may ask to add what C holds
constexpr Activation ACTIVATION = Activation::none;  // of C, or of gates alone, before the rounding
constexpr bool GATED = false;  // whether B has columns of gates, and as many of what they gate
constexpr bool INTERLEAVED = false;  // whether these take turns, or all gates come first
#define HAS_RESIDUAL false  // whether the kernel has two more arguments, and adds a matrix to C
#define HAS_ALPHA false  // whether there is a pointer to what A @ B is multiplied by,
#define HAS_BETA false  // what the residual is,
#define SCALES_C false  // and what C is before it is rounded to float8
#define SEVERAL false  // whether a launch computes several products, in stacks of matrices
#define GROUPED false  // and whether these are groups: of the rows of A and C,
#define GROUPS_OF_K false  // or of K
// What is contiguous in memory: a line of the operand (a row of A, a column of B), which runs along K, or one element
// of every line.
constexpr Along ALONG_A = Along::k;
constexpr Along ALONG_B = Along::k;

// The block of C that a workgroup computes, and how its warps share it.
constexpr int BLOCK_M = 256;
constexpr int BLOCK_N = 256;
constexpr int K_STEP = 64;  // depth of a K-tile, in halfwords
constexpr int WARPS_M = 2;
constexpr int WARPS_N = 4;
constexpr int MFMA = 32;  // rows and columns of one MFMA
constexpr int SPLIT = 2;  // parts of a block's rows, and of its columns
constexpr int SLICES = 1;  // parts of K_STEP, each read into registers by itself

// The pipeline from global memory through LDS to registers.
constexpr Schedule SCHEDULE = Schedule::pingpong;
constexpr int STAGES = 2;  // K-tiles that LDS holds
constexpr int PREFETCH = 2;  // steps between fetching a tile and multiplying it
constexpr int SPREAD = 4;  // clusters over which one tile is fetched
constexpr Wait VMCNT_WAITS = Wait::step;
constexpr int VMCNT_TILES = 0;  // tiles that may still be on their way when a step starts
constexpr int LGKMCNT_CLUSTERS = 1;  // clusters whose fragments may be, when one starts
constexpr bool READ_ACROSS = false;  // whether clusters are also read ahead into the next tile
constexpr Priority SETPRIO = Priority::cluster;
constexpr bool SCHED_BARRIER = true;

// Which workgroup computes what.
constexpr int SPLIT_K = 1;  // workgroups that share the K-tiles of one block
constexpr int COUNTERS = 16384;  // of the workspace, 4 bytes each
constexpr int XCD_CHUNK = 1;  // neighbouring tiles of C that one XCD takes in a row
constexpr int GROUP_ROWS = 4;  // rows of tiles that are walked column by column

// The chip.
constexpr int XCDS = 8;
constexpr int SIMDS = 4;  // of a compute unit
