// bfloat16 and its pair. Arithmetic is done in float32 and rounded once, to nearest even.
#pragma once

#include "hip_runtime.h"

struct __hip_bfloat16 {
    __bf16 data;

    __hip_bfloat16() = default;
    __host__ __device__ constexpr __hip_bfloat16(__bf16 value) : data(value) {}
    __host__ __device__ constexpr __hip_bfloat16(float value) : data(static_cast<__bf16>(value)) {}
    __host__ __device__ constexpr __hip_bfloat16(double value) : data(static_cast<__bf16>(value)) {}
    __host__ __device__ constexpr __hip_bfloat16(int value) : data(static_cast<__bf16>(value)) {}
    __host__ __device__ constexpr __hip_bfloat16(unsigned value) : data(static_cast<__bf16>(value)) {}
    __host__ __device__ constexpr operator float() const { return static_cast<float>(data); }
};

struct alignas(4) __hip_bfloat162 {
    __hip_bfloat16 x, y;
};

typedef __hip_bfloat16 hip_bfloat16;

#define HKTUNE_BF16_ __host__ __device__ inline

HKTUNE_BF16_ float __bfloat162float(__hip_bfloat16 a) { return static_cast<float>(a); }
HKTUNE_BF16_ __hip_bfloat16 __float2bfloat16(float a) { return __hip_bfloat16(a); }
HKTUNE_BF16_ __hip_bfloat16 __float2bfloat16_rn(float a) { return __hip_bfloat16(a); }
HKTUNE_BF16_ __hip_bfloat16 __ushort_as_bfloat16(unsigned short a) { return __builtin_bit_cast(__hip_bfloat16, a); }
HKTUNE_BF16_ unsigned short __bfloat16_as_ushort(__hip_bfloat16 a) { return __builtin_bit_cast(unsigned short, a); }
HKTUNE_BF16_ __hip_bfloat162 __halves2bfloat162(__hip_bfloat16 a, __hip_bfloat16 b) { return {a, b}; }
HKTUNE_BF16_ __hip_bfloat162 __bfloat162bfloat162(__hip_bfloat16 a) { return {a, a}; }
HKTUNE_BF16_ __hip_bfloat162 __float22bfloat162_rn(float2 a) { return {__hip_bfloat16(a.x), __hip_bfloat16(a.y)}; }
HKTUNE_BF16_ __hip_bfloat162 __floats2bfloat162_rn(float a, float b) { return {__hip_bfloat16(a), __hip_bfloat16(b)}; }
HKTUNE_BF16_ float2 __bfloat1622float2(__hip_bfloat162 a) { return {static_cast<float>(a.x), static_cast<float>(a.y)}; }

HKTUNE_BF16_ float __low2float(__hip_bfloat162 a) { return static_cast<float>(a.x); }
HKTUNE_BF16_ float __high2float(__hip_bfloat162 a) { return static_cast<float>(a.y); }
HKTUNE_BF16_ __hip_bfloat16 __low2bfloat16(__hip_bfloat162 a) { return a.x; }
HKTUNE_BF16_ __hip_bfloat16 __high2bfloat16(__hip_bfloat162 a) { return a.y; }
HKTUNE_BF16_ __hip_bfloat162 __float2bfloat162_rn(float a) { return {__hip_bfloat16(a), __hip_bfloat16(a)}; }

#undef HKTUNE_BF16_
#define HKTUNE_ELEMENT_ __hip_bfloat16
#define HKTUNE_PAIR_ __hip_bfloat162
#include "stand_in/small_float_arithmetic.h"
