// What every schedule of the main loop works on.

#pragma once

#include "load.hip"
#include "multiply.hip"

struct staging {
    PART_A (&As)[STAGES][SPLIT];
    PART_B (&Bs)[STAGES][SPLIT];
    block_source source;
    warp_place warp;
    int k_tiles;
    int stage = 0;  // of the tile being multiplied
    RT_Ct ct[SPLIT][SPLIT];

    __device__ __forceinline__ staged_tile staged(int at) { return {As[at], Bs[at]}; }
    __device__ __forceinline__ staged_tile current() { return staged(stage); }
    __device__ __forceinline__ staged_tile previous() { return staged((stage == 0 ? STAGES : stage) - 1); }
    __device__ __forceinline__ staged_tile next() { return staged(next_stage(stage)); }
};
