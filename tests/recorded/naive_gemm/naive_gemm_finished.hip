// C = A @ Bt^T of e4m3 with scales of everything, or of rows and columns, in bf16, and what is behind it in float32: a
// residual is added, SiLU is applied, or gates are applied that SiLU is applied to. One work-item per element of C; with
// gates Bt has 2 n rows, first those of the gates. Built as naive_gemm.hip says.
#define KERNEL extern "C" __attribute__((global, amdgpu_flat_work_group_size(1, 256)))
#define DEVICE __attribute__((device)) static
typedef unsigned char u8;
typedef unsigned short bf16;
typedef unsigned int u32;

DEVICE float e4m3(u8 bits) {  // OFP8 1.0, table 1: all codes but the NaNs
    const int exponent = (bits & 0x7f) >> 3, fraction = bits & 7;
    const float whole = exponent ? (float)(fraction + 8) : (float)fraction;
    const float value = whole * __builtin_bit_cast(float, (u32)((exponent ? exponent : 1) - 10 + 127) << 23);
    return bits & 0x80 ? -value : value;
}
DEVICE float widen(bf16 bits) { return __builtin_bit_cast(float, (u32)bits << 16); }
DEVICE bf16 narrow(float value) {  // to nearest even; a NaN stays one
    const u32 bits = __builtin_bit_cast(u32, value);
    return value == value ? (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16 : 0x7fc0;
}
DEVICE float silu(float x) {
    const float power = __builtin_amdgcn_exp2f(-1.44269504f * x);  // log2(e)
    return x * __builtin_amdgcn_rcpf(1.0f + power);
}
DEVICE float product(const u8* a, const u8* b, const float* scale_a, const float* scale_b, u32 row, u32 column, u32 k,
                     u32 row_step) {
    float sum = 0.0f;
    _Pragma("clang loop unroll(disable)") for (u32 i = 0; i < k; ++i)
        sum = __builtin_fmaf(e4m3(a[row * k + i]), e4m3(b[column * k + i]), sum);
    return sum * (scale_a[row * row_step] * scale_b[column * row_step]);
}

#define BEGIN(symbol, ...)                                                                              \
    KERNEL void symbol(const u8* a, const u8* b, bf16* c, __VA_ARGS__ const float* scale_a,             \
                       const float* scale_b, u32 n, u32 k) {                                            \
        const u32 column = __builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x();   \
        const u32 row = __builtin_amdgcn_workgroup_id_y();                                              \
        if (column >= n) return;
#define PRODUCT(at) product(a, b, scale_a, scale_b, row, at, k, row_step)
#define FINISHED(scales, step)                                                                          \
    BEGIN(naive_e4m3_##scales##_residual, const bf16* residual,)                                        \
        const u32 row_step = step;                                                                      \
        c[row * n + column] = narrow(PRODUCT(column) + widen(residual[row * n + column]));              \
    }                                                                                                   \
    BEGIN(naive_e4m3_##scales##_silu)                                                                   \
        const u32 row_step = step;                                                                      \
        c[row * n + column] = narrow(silu(PRODUCT(column)));                                            \
    }                                                                                                   \
    BEGIN(naive_e4m3_##scales##_silu_gated)                                                             \
        const u32 row_step = step;                                                                      \
        c[row * n + column] = narrow(silu(PRODUCT(column)) * PRODUCT(n + column));                      \
    }
FINISHED(tensor, 0)
FINISHED(rows, 1)
