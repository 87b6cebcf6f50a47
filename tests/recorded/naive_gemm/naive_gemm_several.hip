// Batched and grouped C = A @ B of bf16, one work-item per element of C. B is [G,N,K], or [G,K,N] in the layout nn.
// A grouped kernel writes no rows behind the last group. Built as naive_gemm.hip says.
#define KERNEL extern "C" __attribute__((global, amdgpu_flat_work_group_size(1, 256)))
typedef unsigned short bf16;
typedef unsigned int u32;

__attribute__((device)) static float widen(bf16 bits) { return __builtin_bit_cast(float, (u32)bits << 16); }

__attribute__((device)) static bf16 narrow(float value) {  // to nearest even
    const u32 bits = __builtin_bit_cast(u32, value);
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

__attribute__((device)) static float dot(const bf16* a, const bf16* b, u32 step, u32 k) {
    float sum = 0.0f;
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < k; ++i) sum = __builtin_fmaf(widen(a[i]), widen(b[i * step]), sum);
    return sum;
}

__attribute__((device)) static u32 column() {
    return __builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x();
}

__attribute__((device)) static void element(
    const bf16* a, const bf16* b, bf16* c, u32 row, u32 group, u32 n, u32 k, bool transposed) {
    if (column() >= n) return;
    const bf16* line = b + group * n * k + (transposed ? column() * k : column());
    c[row * n + column()] = narrow(dot(a + row * k, line, transposed ? 1 : n, k));
}

__attribute__((device)) static void grouped(
    const bf16* a, const bf16* b, bf16* c, const int* offsets, u32 n, u32 k, u32 groups, bool transposed) {
    const u32 row = __builtin_amdgcn_workgroup_id_y();
    u32 group = 0;
#pragma clang loop unroll(disable)
    while (group < groups && (int)row >= offsets[group]) ++group;
    if (group < groups) element(a, b, c, row, group, n, k, transposed);
}

KERNEL void naive_grouped_nt(const bf16* a, const bf16* b, bf16* c, const int* offsets, u32 n, u32 k, u32 groups) {
    grouped(a, b, c, offsets, n, k, groups, true);
}

KERNEL void naive_grouped_nn(const bf16* a, const bf16* b, bf16* c, const int* offsets, u32 n, u32 k, u32 groups) {
    grouped(a, b, c, offsets, n, k, groups, false);
}

KERNEL void naive_batched_nt(const bf16* a, const bf16* b, bf16* c, u32 m, u32 n, u32 k) {
    const u32 group = __builtin_amdgcn_workgroup_id_z();
    element(a, b, c, group * m + __builtin_amdgcn_workgroup_id_y(), group, n, k, true);
}

KERNEL void naive_batched_nn(const bf16* a, const bf16* b, bf16* c, u32 m, u32 n, u32 k) {
    const u32 group = __builtin_amdgcn_workgroup_id_z();
    element(a, b, c, group * m + __builtin_amdgcn_workgroup_id_y(), group, n, k, false);
}
