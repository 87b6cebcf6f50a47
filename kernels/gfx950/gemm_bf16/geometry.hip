// Types and sizes that follow from the constants, and the small pieces that every other file uses.

#pragma once

#include <hip/hip_runtime.h>
#include <utility>
#include "kittens.cuh"
#include "constants.hip"
using namespace kittens;

// ---------------------------------------------------------------- geometry

template<Dtype> struct element_of;
template<> struct element_of<Dtype::bf16> {
    using tile = kittens::bf16;  // HipKittens' name
    using scalar = __bf16;       // the compiler's
    using bits = uint16_t;
};
template<> struct element_of<Dtype::f16> {
    using tile = kittens::half;
    using scalar = _Float16;
    using bits = uint16_t;
};
template<> struct element_of<Dtype::f32> {
    using tile = float;
    using scalar = float;
    using bits = uint32_t;
};
template<> struct element_of<Dtype::e4m3> {  // as C has it; float8.hip converts
    using tile = uint8_t;
    using scalar = uint8_t;
    using bits = uint8_t;
};
template<> struct element_of<Dtype::i32> {
    using tile = float;
    using scalar = int;
    using bits = uint32_t;
};

// What tiles are made of is a halfword: a number of 16 bits, two of 8, four of 4, and three are eight of 6. So K, and the
// row strides of A and B, are counted in halfwords from the kernel's arguments on, and all that moves them is the same
// for every format.
constexpr int HALFWORD_BITS = 16;
constexpr int bits_of(Dtype dtype) {
    if (dtype == Dtype::bf16 || dtype == Dtype::f16) return HALFWORD_BITS;
    if (dtype == Dtype::mxfp6 || dtype == Dtype::mxbf6) return 6;
    return dtype == Dtype::mxfp4 ? 4 : 8;
}
constexpr int BITS = bits_of(DTYPE_A);
template<typename Count> constexpr Count halfwords_in(Count numbers) { return BITS == HALFWORD_BITS ? numbers : numbers / 8 * BITS / 2; }
constexpr int numbers_in(int halfwords) { return halfwords * HALFWORD_BITS / BITS; }
template<Dtype dtype, int bits> struct halfword_of { using type = kittens::bf16; };
template<Dtype dtype> struct halfword_of<dtype, HALFWORD_BITS> { using type = element_of<dtype>::tile; };
using element = halfword_of<DTYPE_A, BITS>::type;
using output  = element_of<DTYPE_C>::tile;
using addend  = element_of<DTYPE_ADDED>::tile;  // of a bias and a residual
constexpr bool FLOAT8_OUTPUT = DTYPE_C == Dtype::e4m3;
constexpr bool INTEGER_SUMS = DTYPE_A == Dtype::i8;
constexpr bool SMALL_FLOATS = BITS < HALFWORD_BITS && !INTEGER_SUMS;

template<int rows> struct mfma_shape;
template<> struct mfma_shape<16> {  // v_mfma_f32_16x16x32_bf16 or _f16
    using operand = rt_16x32_s;
    using accumulator = rt_16x16_s;
    using shared = st_16x32_s;
};
template<> struct mfma_shape<32> {  // v_mfma_f32_32x32x16_bf16 or _f16
    using operand = rt_32x16_s;
    using accumulator = rt_32x32_s;
    using shared = st_32x16_s;
};
using shape = mfma_shape<MFMA>;

// Scales along K come as words: for each line and each WORD_K of K, four E8M0 of 32, or one float32.
constexpr bool HAS_WORDS = SCALES == Scales::blocks || SCALES == Scales::mx;
constexpr int WORD_K     = 128;
constexpr int WORDS      = HAS_WORDS ? numbers_in(K_STEP) / WORD_K : 0;  // of a line in a K-tile
static_assert(!HAS_WORDS || halfwords_in(WORDS * WORD_K) == K_STEP, "a K-tile has whole words");

// Base tiles along K that are multiplied at once, by one MFMA or more. An MFMA takes 16 bytes of a lane, which is one, or
// 32 of floats of 8 bits: two runs of 16, from the two halves of its K, which are two. Of 6 bits it takes 24, so that
// three serve two. A scale of a block is for all of WORD_K.
constexpr bool SIX_BITS     = BITS == 6;
constexpr int MFMA_TILES    = SMALL_FLOATS && BITS == 8 ? 2 : 1;
constexpr int GROUP_TILES   = SCALES == Scales::blocks ? halfwords_in(WORD_K) / shape::operand::cols
                              : SIX_BITS ? 3 : MFMA_TILES;
constexpr int GROUP_SCALES = SIX_BITS ? 2 : 1;  // registers, where there are scales

constexpr int VECTOR_BYTES   = 16;  // what one lane loads, reads from LDS, or stores, at once
constexpr int VECTOR         = VECTOR_BYTES / sizeof(element);
constexpr int VECTOR_C       = VECTOR_BYTES / sizeof(output);
constexpr int QUAD           = 4;  // neighbours in a row of C that a lane accumulates
constexpr int QUAD_PAIRS     = QUAD / 2;

constexpr int NUM_WARPS      = WARPS_M * WARPS_N;
constexpr int NUM_THREADS    = NUM_WARPS * kittens::WARP_THREADS;
// At least two waves a SIMD: one then has 256 VGPRs, or 128 where four must fit, and no AGPRs.
constexpr int WAVES_PER_SIMD = NUM_WARPS > 2 * SIMDS ? NUM_WARPS / SIMDS : 2;
constexpr int PART_M         = BLOCK_M / SPLIT;
constexpr int PART_N         = BLOCK_N / SPLIT;
constexpr int REG_M          = PART_M / WARPS_M;
constexpr int REG_N          = PART_N / WARPS_N;
// Where there are gates, half of a block's lines of B are gates: one part, or half of each warp's lines. The other half
// are what these gate. So one lane has both sums of an element of C.
enum class Gates { none, part, half_of_warp };
constexpr Gates GATES        = !GATED ? Gates::none : SPLIT == 2 ? Gates::part : Gates::half_of_warp;
constexpr int BLOCK_COLS     = GATED ? BLOCK_N / 2 : BLOCK_N;                       // columns of C in a block,
constexpr int GATE_STRIDE    = INTERLEAVED ? 2 : 1;  // columns of B from one gate to the next
static_assert(!INTERLEAVED || (GATED && ALONG_B == Along::k), "a load is of one gate's K, or of what it gates");
constexpr int PARTS_COLS     = GATED ? 1 : SPLIT;                                   // its parts of them,
constexpr int REG_COLS       = GATES == Gates::half_of_warp ? REG_N / 2 : REG_N;    // and a warp's columns in a part
constexpr int SLICE_K        = K_STEP / SLICES;
constexpr int CLUSTERS       = SLICES * SPLIT;  // a cluster: one part of A times every part of B, one slice deep

// A part in LDS of an operand that is contiguous along its lines: columns of `wide` lines, one after another. A row of
// a column has one k of each line.
//
// What LDS serves at once of a transposed read is 16 lines of k 0 to 3 and 8 to 11, or 32 lines of k 0 to 3, and must
// have banks of its own. So the bytes of some rows change places, or rows do.
template<int LINES> struct lines_part {
    static constexpr int wide = LINES % 64 == 0 ? 64 : LINES % 32 == 0 ? 32 : 16;
    static constexpr int row_bytes = wide * sizeof(element);
    static constexpr int column_bytes = row_bytes * K_STEP;

    element data[LINES * K_STEP];

    // The row of a column that has k, and the k that a row has. In rows of 32 bytes, k 8 to 11 follow 0 to 3.
    __device__ __forceinline__ static constexpr int row_of(int k) {
        return wide == 16 ? (k & ~12) | (k & 4) << 1 | (k & 8) >> 1 : k;
    }

    // The bits that are turned over in the places of the bytes of the row of k.
    __device__ __forceinline__ static constexpr uint32_t turn(int k) {
        return wide == 16 ? 0 : (k & 8) << 2 | (wide == 64 ? (k & 2) << 5 : 0);
    }
};

// Behind the numbers of a part are its words, line by line, and as many more as make every thread load equally many.
constexpr int word_loads(int lines) { return (lines * WORDS + NUM_THREADS - 1) / NUM_THREADS; }

template<typename PART, int LINES> struct with_words : PART {
    uint32_t words[word_loads(LINES) * NUM_THREADS];
};

template<Along, int LINES> struct numbers_of_part { using type = st<element, LINES, K_STEP, shape::shared>; };
template<int LINES> struct numbers_of_part<Along::lines, LINES> { using type = lines_part<LINES>; };

template<Along along, int LINES, bool words = HAS_WORDS> struct part_of_operand : numbers_of_part<along, LINES> {};
template<Along along, int LINES> struct part_of_operand<along, LINES, true> {
    using type = with_words<typename numbers_of_part<along, LINES>::type, LINES>;
};

// A fragment with its scales, a register each: of every row of base tiles, for each group of them along K.
template<typename RT> struct with_scales : RT {
    static constexpr int row_scales = RT::width / GROUP_TILES * GROUP_SCALES;
    uint32_t scales[RT::height][row_scales];
};

template<int LINES> using numbers_of_fragment = rt<element, LINES, SLICE_K, row_l, shape::operand>;
template<int LINES, bool words = HAS_WORDS> struct fragment_of { using type = numbers_of_fragment<LINES>; };
template<int LINES> struct fragment_of<LINES, true> { using type = with_scales<numbers_of_fragment<LINES>>; };

using G      = kittens::group<NUM_WARPS>;
using PART_A = part_of_operand<ALONG_A, PART_M>::type;
using PART_B = part_of_operand<ALONG_B, PART_N>::type;
using RT_A   = fragment_of<REG_M>::type;
using RT_B   = fragment_of<REG_N>::type;
using RT_Ct  = rt_fl<REG_N, REG_M, col_l, shape::accumulator>;  // C is accumulated transposed: Ct = B A^T

constexpr int BYTES_PER_LOAD = VECTOR_BYTES * NUM_THREADS;
constexpr int NUMBER_LOADS_A = sizeof(PART_A::data) / BYTES_PER_LOAD;
constexpr int NUMBER_LOADS_B = sizeof(PART_B::data) / BYTES_PER_LOAD;
constexpr int LOADS_A        = NUMBER_LOADS_A + word_loads(PART_M);
constexpr int LOADS_B        = NUMBER_LOADS_B + word_loads(PART_N);
constexpr int LOADS_PER_TILE = SPLIT * (LOADS_A + LOADS_B);

constexpr int PARTS_PER_TILE = 2 * SPLIT;  // fetched in the order B0 A0 B1 A1

// Base tiles of a fragment, and its LDS reads: a base tile is one of 16 bytes a lane, or two transposed ones of 8.
constexpr int TILES_A = RT_A::height * RT_A::width;
constexpr int TILES_B = RT_B::height * RT_B::width;
constexpr int SCALES_A = HAS_WORDS ? TILES_A / GROUP_TILES * GROUP_SCALES : 0;
constexpr int SCALES_B = HAS_WORDS ? TILES_B / GROUP_TILES * GROUP_SCALES : 0;
constexpr int READS_A   = TILES_A * (ALONG_A == Along::k ? 1 : 2) + SCALES_A;
constexpr int READS_B   = TILES_B * (ALONG_B == Along::k ? 1 : 2) + SCALES_B;

static_assert(PREFETCH >= 1 && (PREFETCH == STAGES - 1 || PREFETCH == STAGES));
static_assert(PARTS_PER_TILE % SPREAD == 0, "every cluster that fetches parts fetches equally many");
static_assert(NUMBER_LOADS_A * BYTES_PER_LOAD == sizeof(PART_A::data));
static_assert(NUMBER_LOADS_B * BYTES_PER_LOAD == sizeof(PART_B::data));
static_assert(RT_A::width % GROUP_TILES == 0, "a slice is whole groups deep");
static_assert(shape::shared::bytes_per_thread<element>() == VECTOR_BYTES);

// The lanes of one row of C, side by side, hold QUAD_COLS columns.
constexpr int LANES_PER_ROW = kittens::WARP_THREADS / MFMA;
constexpr int QUAD_COLS     = QUAD * LANES_PER_ROW;
constexpr int QUADS         = REG_COLS / QUAD_COLS;  // of a lane in one row of its warp's part of C
static_assert(QUADS * QUAD_COLS == REG_COLS, "gates and what they gate are in the same lanes");

constexpr int LGKMCNT_MAX = 14;  // that a wait can leave: 15 in its field waits for nothing

constexpr uint32_t OUTSIDE = 0x80000000u;  // an offset beyond every range, whatever offset of a row is added to it

// Just enough of a kittens::gl, whose own constructor runs on the host only, to ask HipKittens for load offsets.
struct row_layout {
    using identifier = ducks::gl::identifier;
    using T = element;
    using T2 = base_types::packing<element>::packed_type;
    using dtype = element;

    element *raw_ptr;
    int row_stride;

    template<int axis> __device__ int stride() const { static_assert(axis == 2); return row_stride; }
};

// ---------------------------------------------------------------- small pieces

template<int count, typename F> __device__ __forceinline__ void static_for(F &&body) {
    [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
        (body.template operator()<i>(), ...);
    }(std::make_integer_sequence<int, count>{});
}

// Returns when this warp's loads have landed but for the last `pending`.
template<int pending> __device__ __forceinline__ void wait_loads() {
    asm volatile("s_waitcnt vmcnt(%0)" :: "n"(pending) : "memory");
}

// Returns when every warp's loads have landed but for those of the last `tiles_left` tiles.
template<int tiles_left> __device__ __forceinline__ void await_tile() {
    wait_loads<tiles_left * LOADS_PER_TILE>();
    __builtin_amdgcn_s_barrier();
}

// Returns when this warp's LDS reads have arrived but for the last `pending`, or as many of them as can be counted.
template<int pending> __device__ __forceinline__ void wait_shared() {
    asm volatile("s_waitcnt lgkmcnt(%0)" :: "n"(pending < LGKMCNT_MAX ? pending : LGKMCNT_MAX) : "memory");
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
        if constexpr (HAS_WORDS) {
            #pragma unroll
            for (int j = 0; j < RT::row_scales; j++) asm volatile("" : "+v"(fragment.scales[i][j]));
        }
    }
}

// ---------------------------------------------------------------- which tile of C a workgroup computes

struct block_place { int row, col; };

// Workgroups go to the XCDs in turn, each of which has an L2 of its own. Within each whole run of XCDS * XCD_CHUNK of
// them, those of one XCD get neighbouring tiles. Tiles are numbered down the columns of GROUP_ROWS rows at a time. Both
// steps are one to one for every grid; a chunk of 1 in rows of 1 leaves the plain order.
__device__ __forceinline__ int tile_of(int workgroup, int tiles) {
    constexpr int run = XCDS * XCD_CHUNK;
    if (XCD_CHUNK > 1 && workgroup < tiles / run * run) {
        return workgroup / run * run + workgroup % XCDS * XCD_CHUNK + workgroup % run / XCDS;
    }
    return workgroup;
}

__device__ __forceinline__ block_place place_in(int tile, int tiles_m, int tiles_n) {
    const int first = tile / (GROUP_ROWS * tiles_n) * GROUP_ROWS, within = tile % (GROUP_ROWS * tiles_n);
    const int rows = min(GROUP_ROWS, tiles_m - first);
    return {first + within % rows, within / rows};
}

__device__ __forceinline__ block_place place_of(int workgroup, int tiles_m, int tiles_n) {
    return place_in(tile_of(workgroup, tiles_m * tiles_n), tiles_m, tiles_n);
}
