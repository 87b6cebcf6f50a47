// OCP 8-bit floats (e4m3, e5m2) in ones, twos and fours, converted by gfx950's own saturating instructions.
// The fnuz forms belong to gfx942 and are only named here, because type lists name them.
#pragma once

#include "hip_bf16.h"
#include "hip_fp16.h"
#include "amd_detail/amd_hip_ocp_types.h"

typedef uint8_t __hip_fp8_storage_t;
typedef uint16_t __hip_fp8x2_storage_t;
typedef uint32_t __hip_fp8x4_storage_t;

struct __hip_fp8_e4m3_fnuz;
struct __hip_fp8x2_e4m3_fnuz;
struct __hip_fp8x4_e4m3_fnuz;
struct __hip_fp8_e5m2_fnuz;
struct __hip_fp8x2_e5m2_fnuz;
struct __hip_fp8x4_e5m2_fnuz;

#define HKTUNE_FP8_(format, to_fp8, to_float)                                                                        \
    struct __hip_fp8_##format {                                                                                      \
        __hip_fp8_storage_t __x;                                                                                     \
        __hip_fp8_##format() = default;                                                                              \
        __host__ __device__ explicit __hip_fp8_##format(float a)                                                              \
            : __x(static_cast<__hip_fp8_storage_t>(to_fp8(a, a, 0, false))) {}                                       \
        __host__ __device__ operator float() const { return to_float(__x, 0); }                                               \
    };                                                                                                               \
    struct __hip_fp8x2_##format {                                                                                    \
        __hip_fp8x2_storage_t __x;                                                                                   \
        __hip_fp8x2_##format() = default;                                                                            \
        __host__ __device__ explicit __hip_fp8x2_##format(float2 a)                                                           \
            : __x(static_cast<__hip_fp8x2_storage_t>(to_fp8(a.x, a.y, 0, false))) {}                                 \
        __host__ __device__ operator float2() const { return {to_float(__x, 0), to_float(__x, 1)}; }                          \
    };                                                                                                               \
    struct __hip_fp8x4_##format {                                                                                    \
        __hip_fp8x4_storage_t __x;                                                                                   \
        __hip_fp8x4_##format() = default;                                                                            \
        __host__ __device__ explicit __hip_fp8x4_##format(float4 a)                                                           \
            : __x(static_cast<__hip_fp8x4_storage_t>(to_fp8(a.z, a.w, to_fp8(a.x, a.y, 0, false), true))) {}         \
        __host__ __device__ operator float4() const {                                                                         \
            return {to_float(__x, 0), to_float(__x, 1), to_float(__x, 2), to_float(__x, 3)};                         \
        }                                                                                                            \
    };
HKTUNE_FP8_(e4m3, __builtin_amdgcn_cvt_pk_fp8_f32, __builtin_amdgcn_cvt_f32_fp8)
HKTUNE_FP8_(e5m2, __builtin_amdgcn_cvt_pk_bf8_f32, __builtin_amdgcn_cvt_f32_bf8)
#undef HKTUNE_FP8_
