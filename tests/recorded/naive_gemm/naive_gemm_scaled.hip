// C = A @ Bt^T (+ bias) of numbers of 8 bits or fewer, with scales of everything, of rows and columns, of blocks, or of 32
// elements along K: one work-item per element of C. A symbol names the formats of A and of B, the scales, and the format
// of C. Built as naive_gemm.hip says.
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

// Blocks of 1x128 and of 128x128. Scales of A may be stored in any order: the next row, and the next block, are so far on.
#define BLOCKS(symbol, type, NUMBERS, ROW, BLOCK)                                                                 \
    KERNEL void symbol(const u8* a, const u8* b, type* c, const type* bias, const float* scale_a,                 \
                       const float* scale_b, u32 n, u32 k NUMBERS) {                                              \
        const u32 column = __builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x();             \
        const u32 row = __builtin_amdgcn_workgroup_id_y(), blocks = (k + 127) / 128;                              \
        if (column >= n) return;                                                                                  \
        float sum = 0.0f;                                                                                         \
        _Pragma("clang loop unroll(disable)") for (u32 i = 0; i < k; ++i) {                                       \
            const float of_b = scale_b[column / 128 * blocks + i / 128];                                          \
            const float scale = scale_a[row * (ROW) + i / 128 * (BLOCK)] * of_b;                                  \
            sum = __builtin_fmaf(e4m3(a[row * k + i]) * scale, e4m3(b[column * k + i]), sum);                     \
        }                                                                                                         \
        narrow(bias ? sum + wide(bias[column]) : sum, c[row * n + column]);                                       \
    }
#define STRIDES , u32 ldscale_a, u32 incscale_a
BLOCKS(naive_e4m3_e4m3_blocks_bf16, u16, STRIDES, ldscale_a, incscale_a)
BLOCKS(naive_e4m3_e4m3_blocks_f32, float, , blocks, 1)

// Scales of 32 elements along K: powers of two, of which 255 is NaN (OCP Microscaling Formats 1.0, 5.4.1).
DEVICE float e8m0(u8 bits) { return __builtin_bit_cast(float, bits == 255 ? 0x7fc00000u : bits ? (u32)bits << 23 : 1u << 22); }
DEVICE float e2m1(u8 bits) {  // the same, 5.3.3
    const int exponent = bits >> 1 & 3, fraction = bits & 1;
    const float value = exponent ? (1.0f + 0.5f * fraction) * (float)(1 << exponent) * 0.5f : 0.5f * fraction;
    return bits & 8 ? -value : value;
}
DEVICE float of_mxfp8(const u8* row, u32 i) { return e4m3(row[i]); }
DEVICE float of_mxfp4(const u8* row, u32 i) { return e2m1(row[i / 2] >> i % 2 * 4 & 15); }

#define MX(format, packed)                                                                                        \
    KERNEL void naive_##format##_##format##__bf16(const u8* a, const u8* b, u16* c, const u16* bias,              \
                                                  const u8* scale_a, const u8* scale_b, u32 n, u32 k) {           \
        const u32 column = __builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x();             \
        const u32 row = __builtin_amdgcn_workgroup_id_y(), length = k / packed, blocks = k / 32;                  \
        if (column >= n) return;                                                                                  \
        float sum = 0.0f;                                                                                         \
        _Pragma("clang loop unroll(disable)") for (u32 i = 0; i < k; ++i) {                                       \
            const float scale = e8m0(scale_a[row * blocks + i / 32]) * e8m0(scale_b[column * blocks + i / 32]);   \
            const float product = of_##format(a + row * length, i) * of_##format(b + column * length, i);         \
            sum = __builtin_fmaf(product, scale, sum);                                                            \
        }                                                                                                         \
        narrow(bias ? sum + wide(bias[column]) : sum, c[row * n + column]);                                       \
    }
MX(mxfp8, 1)
MX(mxfp4, 2)

DEVICE int integers(const signed char* a, const signed char* b, u32 k) {
    int sum = 0;
    _Pragma("clang loop unroll(disable)") for (u32 i = 0; i < k; ++i) sum += a[i] * b[i];
    return sum;
}
KERNEL void naive_i8_i8__i32(const signed char* a, const signed char* b, int* c, const int*, u32 n, u32 k) {
    const u32 column = __builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x();
    const u32 row = __builtin_amdgcn_workgroup_id_y();
    if (column < n) c[row * n + column] = integers(a + row * k, b + column * k, k);
}
#define INTEGERS(symbol, type, row_step)                                                                          \
    KERNEL void symbol(const signed char* a, const signed char* b, type* c, const type* bias,                     \
                       const float* scale_a, const float* scale_b, u32 n, u32 k) {                                \
        const u32 column = __builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x();             \
        const u32 row = __builtin_amdgcn_workgroup_id_y();                                                        \
        if (column >= n) return;                                                                                  \
        const float scale = scale_a[row * row_step] * scale_b[column * row_step];                                 \
        const float sum = (float)integers(a + row * k, b + column * k, k) * scale;                                \
        narrow(bias ? sum + wide(bias[column]) : sum, c[row * n + column]);                                       \
    }
INTEGERS(naive_i8_i8_tensor_f32, float, 0)
INTEGERS(naive_i8_i8_rows_bf16, u16, 1)
