// C = A @ B (+ bias) with each operand stored either way and rows any distance apart: one work-item per element of C.
// A symbol's letters are those of an operation: n is stored as the product reads it ([M,K], [K,N]), t transposed.
// Built as naive_gemm.hip says; of float16 a product is exact in float32, as naive_gemm_f16.hip says.
#pragma clang fp contract(off)
#define KERNEL extern "C" __attribute__((global, amdgpu_flat_work_group_size(1, 256)))
#define DEVICE __attribute__((device)) static
typedef unsigned short bf16;
typedef _Float16 f16;
typedef unsigned int u32;

DEVICE float widen(bf16 bits) { return __builtin_bit_cast(float, (u32)bits << 16); }
DEVICE float widen(f16 value) { return (float)value; }
DEVICE void narrow(float value, bf16& out) {  // to nearest even
    const u32 bits = __builtin_bit_cast(u32, value);
    out = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}
DEVICE void narrow(float value, f16& out) { out = (f16)value; }

#define GEMM(symbol, type, a_row, a_step, b_column, b_step, operand, last)                                       \
    KERNEL void symbol(const type* a, const type* b, type* c, operand u32 n, u32 k, u32 lda, u32 ldb) {           \
        const u32 column = __builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x();             \
        const u32 row = __builtin_amdgcn_workgroup_id_y();                                                       \
        if (column >= n) return;                                                                                 \
        float sum = 0.0f;                                                                                        \
        _Pragma("clang loop unroll(disable)") for (u32 i = 0; i < k; ++i)                                        \
            sum += widen(a[row * a_row + i * a_step]) * widen(b[column * b_column + i * b_step]);                \
        narrow(sum last, c[row * n + column]);                                                                   \
    }
#define NOTHING
#define BIASED(type) const type* bias,
#define BOTH(symbol, type, ...)                                     \
    GEMM(symbol, type, __VA_ARGS__, NOTHING, NOTHING)               \
    GEMM(symbol##_bias, type, __VA_ARGS__, BIASED(type), +widen(bias[column]))
#define LAYOUTS(name, type)                    \
    BOTH(name##_nt, type, lda, 1, ldb, 1)      \
    BOTH(name##_nn, type, lda, 1, 1, ldb)      \
    BOTH(name##_tn, type, 1, lda, 1, ldb)      \
    BOTH(name##_tt, type, 1, lda, ldb, 1)

LAYOUTS(naive_gemm, bf16)
LAYOUTS(naive_gemm_f16, f16)
