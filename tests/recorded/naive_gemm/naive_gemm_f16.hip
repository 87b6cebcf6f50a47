// C = A @ B^T (+ bias) as naive_gemm.hip, of float16: one work-item per element of C. A is [M,K], B [N,K].
// Built as naive_gemm.hip says. A product of two float16 numbers is exact in float32, so that a multiplication and an
// addition give what a fused one would; that one would be a v_fma_mix_f32, which no kernel of hktune has.
#pragma clang fp contract(off)
#define KERNEL extern "C" __attribute__((global, amdgpu_flat_work_group_size(1, 256)))
typedef _Float16 f16;
typedef unsigned int u32;

__attribute__((device)) static float dot(const f16* a, const f16* b, u32 k) {
    float sum = 0.0f;
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < k; ++i) sum += (float)a[i] * (float)b[i];
    return sum;
}

KERNEL void naive_gemm_f16(const f16* a, const f16* b, f16* c, u32 n, u32 k) {
    const u32 column = __builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x();
    const u32 row = __builtin_amdgcn_workgroup_id_y();
    if (column < n) c[row * n + column] = (f16)dot(a + row * k, b + column * k, k);
}

KERNEL void naive_gemm_f16_bias(const f16* a, const f16* b, f16* c, const f16* bias, u32 n, u32 k) {
    const u32 column = __builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x();
    const u32 row = __builtin_amdgcn_workgroup_id_y();
    if (column < n) c[row * n + column] = (f16)(dot(a + row * k, b + column * k, k) + (float)bias[column]);
}
