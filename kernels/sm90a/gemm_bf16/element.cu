// The elements of a and b, numbers of 16 or of 8 bits, those of c, which may have 32, and of what is added.
#pragma once
#include "constants.cu"

#define DEVICE __device__ __forceinline__
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)  // of a macro's value

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

// Numbers of 8 bits are copied, multiplied and, of e4m3, rounded to: a tensor map takes them for bytes.
struct Octet {
    using Bits = unsigned char;
    static constexpr int TENSOR_MAP_TYPE = 0;
};
struct e4m3 : Octet {};
struct e5m2 : Octet {};
struct s8 : Octet {};

// Integers travel to the store as the float of the same bits.
struct s32 {
    using Bits = int;
    static constexpr int TENSOR_MAP_TYPE = 3;

    static DEVICE float widened(int value) { return __int2float_rn(value); }
};

using WgmmaAElement = WGMMA_A_DTYPE;
using WgmmaBElement = WGMMA_B_DTYPE;
constexpr int ELEMENT_BYTES = sizeof(WgmmaAElement::Bits);
static_assert(sizeof(WgmmaBElement::Bits) == ELEMENT_BYTES, "both are of one width");
using Sum = SUM_DTYPE::Bits;
using ElementOfC = DTYPE_C;
using BitsOfC = ElementOfC::Bits;
constexpr int BYTES_OF_C = sizeof(BitsOfC);
using ElementAdded = DTYPE_ADDED;
using BitsAdded = ElementAdded::Bits;

// Two floats as elements, rounded to nearest even; `low` in the low half. What is beyond the format becomes infinite.
DEVICE u32 packed(float low, float high) {
    u32 both;
    asm("cvt.rn." TEXT(DTYPE_C) "x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

// Two floats as float8, rounded to nearest even; `low` in the low byte. What is beyond the format becomes its largest.
DEVICE u16 packed_bytes(float low, float high) {
    u16 both;
    asm("cvt.rn.satfinite." TEXT(DTYPE_C) "x2.f32 %0, %1, %2;" : "=h"(both) : "f"(high), "f"(low));
    return both;
}

// `value` as an element of C.
DEVICE BitsOfC rounded(float value) {
    if constexpr (sizeof(BitsOfC) == 1) return BitsOfC(packed_bytes(value, 0.0f));
    else if constexpr (sizeof(BitsOfC) != sizeof(float)) return BitsOfC(packed(value, 0.0f));
    else if constexpr (ElementOfC::TENSOR_MAP_TYPE == s32::TENSOR_MAP_TYPE) return __float_as_int(value);
    else return value;
}

// What the store takes of an integer sum.
DEVICE float stored(int sum) {
    if constexpr (ElementOfC::TENSOR_MAP_TYPE == s32::TENSOR_MAP_TYPE) return __int_as_float(sum);
    else return __int2float_rn(sum);
}
