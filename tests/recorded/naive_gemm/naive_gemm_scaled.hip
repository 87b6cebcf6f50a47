// C = A @ Bt^T (+ bias) of float8 with scales of everything, or of rows and columns: one work-item per element of C.
// A symbol names the formats of A and of B, the scales, and the format of C. Built as naive_gemm.hip says.
#define KERNEL extern "C" __attribute__((global, amdgpu_flat_work_group_size(1, 256)))
#define DEVICE __attribute__((device)) static
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

// OFP8 1.0, table 1: all codes but the NaNs, and the infinities of E5M2.
DEVICE float widened(u8 bits, int fraction_bits, int bias) {
    const int exponent = (bits & 0x7f) >> fraction_bits, fraction = bits & ((1 << fraction_bits) - 1);
    const float whole = exponent ? (float)(fraction + (1 << fraction_bits)) : (float)fraction;
    const int power = (exponent ? exponent : 1) - bias - fraction_bits;
    const float value = whole * __builtin_bit_cast(float, (u32)(power + 127) << 23);
    return bits & 0x80 ? -value : value;
}
DEVICE float e4m3(u8 bits) { return widened(bits, 3, 7); }
DEVICE float e5m2(u8 bits) { return widened(bits, 2, 15); }

DEVICE float wide(u16 bits) { return __builtin_bit_cast(float, (u32)bits << 16); }
DEVICE float wide(_Float16 value) { return (float)value; }
DEVICE float wide(float value) { return value; }
DEVICE void narrow(float value, u16& out) {  // to nearest even; a NaN stays one
    const u32 bits = __builtin_bit_cast(u32, value);
    out = value == value ? (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16 : 0x7fc0;
}
DEVICE void narrow(float value, _Float16& out) { out = (_Float16)value; }
DEVICE void narrow(float value, float& out) { out = value; }

#define GEMM(symbol, of_a, of_b, type, row_step)                                                                  \
    KERNEL void symbol(const u8* a, const u8* b, type* c, const type* bias, const float* scale_a,                 \
                       const float* scale_b, u32 n, u32 k) {                                                      \
        const u32 column = __builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x();             \
        const u32 row = __builtin_amdgcn_workgroup_id_y();                                                        \
        if (column >= n) return;                                                                                  \
        float sum = 0.0f;                                                                                         \
        _Pragma("clang loop unroll(disable)") for (u32 i = 0; i < k; ++i)                                         \
            sum = __builtin_fmaf(of_a(a[row * k + i]), of_b(b[column * k + i]), sum);                             \
        sum = sum * (scale_a[row * row_step] * scale_b[column * row_step]);                                       \
        narrow(bias ? sum + wide(bias[column]) : sum, c[row * n + column]);                                       \
    }
#define OUTPUTS(name, of_a, of_b, row_step)            \
    GEMM(name##_bf16, of_a, of_b, u16, row_step)       \
    GEMM(name##_f16, of_a, of_b, _Float16, row_step)   \
    GEMM(name##_f32, of_a, of_b, float, row_step)
#define SCALES(of_a, of_b)                                   \
    OUTPUTS(naive_##of_a##_##of_b##_tensor, of_a, of_b, 0)   \
    OUTPUTS(naive_##of_a##_##of_b##_rows, of_a, of_b, 1)

SCALES(e4m3, e4m3)
SCALES(e5m2, e4m3)
