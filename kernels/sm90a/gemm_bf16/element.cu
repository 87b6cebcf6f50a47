// The elements of a and b, 16-bit floating-point numbers, and those of c and bias, which may be float32.
#pragma once
#include "constants.cu"

#define DEVICE __device__ __forceinline__
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)  // of a macro's value

constexpr int ELEMENT_BYTES = sizeof(u16);

// What is particular to a format, under the name that PTX has for it: how its bits are kept, a float of the same value,
// and what tensor maps call the format (CUtensorMapDataType, CUDA driver API).
struct bf16 {
    using Bits = u16;
    static constexpr int TENSOR_MAP_TYPE = 9;

    static DEVICE float widened(u16 bits) { return __uint_as_float(u32(bits) << 16); }
};

struct f16 {
    using Bits = u16;
    static constexpr int TENSOR_MAP_TYPE = 6;

    static DEVICE float widened(u16 bits) {
        float value;
        asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
        return value;
    }
};

struct f32 {
    using Bits = float;
    static constexpr int TENSOR_MAP_TYPE = 7;

    static DEVICE float widened(float value) { return value; }
};

using Element = DTYPE;
using ElementOfC = DTYPE_C;
using BitsOfC = ElementOfC::Bits;
constexpr int BYTES_OF_C = sizeof(BitsOfC);

// Two floats as elements, rounded to nearest even; `low` in the low half. What is beyond the format becomes infinite.
DEVICE u32 packed(float low, float high) {
    u32 both;
    asm("cvt.rn." TEXT(DTYPE) "x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

// `value` as an element of C.
DEVICE BitsOfC rounded(float value) {
    if constexpr (BYTES_OF_C == sizeof(float)) return value;
    else return BitsOfC(packed(value, 0.0f));
}
