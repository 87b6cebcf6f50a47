// OCP 4-bit floats (e2m1): two to a byte, the first in the low nibble. gfx950 converts pairs, here with a scale of 1.
#pragma once

#include "hip_fp8.h"

typedef uint8_t __hip_fp4_storage_t;
typedef uint8_t __hip_fp4x2_storage_t;
typedef uint16_t __hip_fp4x4_storage_t;

namespace hip_stand_in {

// Writes the pair into byte `byte` of `old`, leaving the others.
template <int byte>
HKTUNE_DEVICE_ unsigned to_fp4_pair(unsigned old, float low, float high) {
    return __builtin_amdgcn_cvt_scalef32_pk_fp4_f32(old, low, high, 1.0f, byte);
}
template <int byte>
HKTUNE_DEVICE_ float2 from_fp4_pair(unsigned packed) {
    const auto pair = __builtin_amdgcn_cvt_scalef32_pk_f32_fp4(packed, 1.0f, byte);
    return {pair[0], pair[1]};
}

}  // namespace hip_stand_in

struct __hip_fp4_e2m1 {
    __hip_fp4_storage_t __x;
    __hip_fp4_e2m1() = default;
    __device__ explicit __hip_fp4_e2m1(float a)
        : __x(static_cast<__hip_fp4_storage_t>(hip_stand_in::to_fp4_pair<0>(0, a, 0.0f))) {}
    __device__ operator float() const { return hip_stand_in::from_fp4_pair<0>(__x).x; }
};

struct __hip_fp4x2_e2m1 {
    __hip_fp4x2_storage_t __x;
    __hip_fp4x2_e2m1() = default;
    __device__ explicit __hip_fp4x2_e2m1(float2 a)
        : __x(static_cast<__hip_fp4x2_storage_t>(hip_stand_in::to_fp4_pair<0>(0, a.x, a.y))) {}
    __device__ operator float2() const { return hip_stand_in::from_fp4_pair<0>(__x); }
};

struct __hip_fp4x4_e2m1 {
    __hip_fp4x4_storage_t __x;
    __hip_fp4x4_e2m1() = default;
    __device__ explicit __hip_fp4x4_e2m1(float4 a)
        : __x(static_cast<__hip_fp4x4_storage_t>(
              hip_stand_in::to_fp4_pair<1>(hip_stand_in::to_fp4_pair<0>(0, a.x, a.y), a.z, a.w))) {}
    __device__ operator float4() const {
        const float2 low = hip_stand_in::from_fp4_pair<0>(__x), high = hip_stand_in::from_fp4_pair<1>(__x);
        return {low.x, low.y, high.x, high.y};
    }
};
