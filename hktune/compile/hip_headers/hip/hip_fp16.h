// float16 and its pair. Arithmetic is done in float32 and rounded once, to nearest even.
#pragma once

#include "hip_runtime.h"

struct __half {
    _Float16 data;

    __half() = default;
    __host__ __device__ constexpr __half(_Float16 value) : data(value) {}
    __host__ __device__ constexpr __half(float value) : data(static_cast<_Float16>(value)) {}
    __host__ __device__ constexpr __half(double value) : data(static_cast<_Float16>(value)) {}
    __host__ __device__ constexpr __half(int value) : data(static_cast<_Float16>(value)) {}
    __host__ __device__ constexpr __half(unsigned value) : data(static_cast<_Float16>(value)) {}
    __host__ __device__ constexpr operator float() const { return static_cast<float>(data); }
};

struct alignas(4) __half2 {
    __half x, y;
};

typedef __half half;
typedef __half2 half2;

#define HKTUNE_FP16_ __host__ __device__ inline

HKTUNE_FP16_ float __half2float(__half a) { return static_cast<float>(a); }
HKTUNE_FP16_ __half __float2half(float a) { return __half(a); }
HKTUNE_FP16_ __half __float2half_rn(float a) { return __half(a); }
HKTUNE_FP16_ __half __ushort_as_half(unsigned short a) { return __builtin_bit_cast(__half, a); }
HKTUNE_FP16_ unsigned short __half_as_ushort(__half a) { return __builtin_bit_cast(unsigned short, a); }
HKTUNE_FP16_ __half2 __halves2half2(__half a, __half b) { return {a, b}; }
HKTUNE_FP16_ __half2 __half2half2(__half a) { return {a, a}; }
HKTUNE_FP16_ __half2 __float22half2_rn(float2 a) { return {__half(a.x), __half(a.y)}; }
HKTUNE_FP16_ __half2 __floats2half2_rn(float a, float b) { return {__half(a), __half(b)}; }
HKTUNE_FP16_ float2 __half22float2(__half2 a) { return {static_cast<float>(a.x), static_cast<float>(a.y)}; }

HKTUNE_FP16_ float __low2float(__half2 a) { return static_cast<float>(a.x); }
HKTUNE_FP16_ float __high2float(__half2 a) { return static_cast<float>(a.y); }
HKTUNE_FP16_ __half __low2half(__half2 a) { return a.x; }
HKTUNE_FP16_ __half __high2half(__half2 a) { return a.y; }
HKTUNE_FP16_ __half2 __float2half2_rn(float a) { return {__half(a), __half(a)}; }
HKTUNE_FP16_ __half2 make_half2(__half x, __half y) { return {x, y}; }
HKTUNE_FP16_ __half __int2half_rn(int a) { return __half(a); }
HKTUNE_FP16_ int __half2int_rz(__half a) { return static_cast<int>(static_cast<float>(a)); }

#undef HKTUNE_FP16_
#define HKTUNE_ELEMENT_ __half
#define HKTUNE_PAIR_ __half2
#include "stand_in/small_float_arithmetic.h"
