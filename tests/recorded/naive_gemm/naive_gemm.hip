// C = A @ Bt^T (+ bias), one work-item per element of C: the plainest kernels that a dispatch table can name.
// Built without any header by (clang 22, from the PyPI package ziglang 0.17.1):
//   python -m ziglang clang -x hip --offload-arch=gfx950 --offload-device-only -nogpulib -nogpuinc -O2 -S -o naive_gemm.s naive_gemm.hip
//   python -m ziglang clang --target=amdgcn-amd-amdhsa -mcpu=gfx950 -c -o naive_gemm.o naive_gemm.s
//   python -m ziglang ld.lld -shared naive_gemm.o -o naive_gemm.hsaco
#define KERNEL extern "C" __attribute__((global, amdgpu_flat_work_group_size(1, 256)))
typedef unsigned short bf16;
typedef unsigned int u32;

__attribute__((device)) static float widen(bf16 bits) { return __builtin_bit_cast(float, (u32)bits << 16); }

__attribute__((device)) static bf16 narrow(float value) {  // to nearest even
    const u32 bits = __builtin_bit_cast(u32, value);
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

__attribute__((device)) static float dot(const bf16* a, const bf16* bt, u32 k) {
    float sum = 0.0f;
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < k; ++i) sum = __builtin_fmaf(widen(a[i]), widen(bt[i]), sum);
    return sum;
}

KERNEL void naive_gemm(const bf16* a, const bf16* bt, bf16* c, u32 n, u32 k) {
    const u32 column = __builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x();
    const u32 row = __builtin_amdgcn_workgroup_id_y();
    if (column < n) c[row * n + column] = narrow(dot(a + row * k, bt + column * k, k));
}

KERNEL void naive_gemm_bias(const bf16* a, const bf16* bt, bf16* c, const bf16* bias, u32 n, u32 k) {
    const u32 column = __builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x();
    const u32 row = __builtin_amdgcn_workgroup_id_y();
    if (column < n) c[row * n + column] = narrow(dot(a + row * k, bt + column * k, k) + widen(bias[column]));
}
