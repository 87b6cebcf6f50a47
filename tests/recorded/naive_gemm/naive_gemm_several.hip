// Batched and grouped C = A @ B of bf16, one work-item per element of C. B is [G,N,K], or [G,K,N] in the layout nn.
// A grouped kernel writes no rows behind the last group. With groups of K, A is [K,M], B [K,N] and C [G,M,N]. The
// matrices of a batched one, and their rows, may be anywhere. With gates B has 2N columns for each group. Of e4m3 there are
// scales of the rows of A, and of the columns of B. Each group may have a bias of its own, and groups of K may be added
// to what C holds. Built as naive_gemm.hip says.
#define KERNEL extern "C" __attribute__((global, amdgpu_flat_work_group_size(1, 256)))
typedef unsigned short bf16;
typedef unsigned int u32;
typedef unsigned long long u64;

__attribute__((device)) static float widen(bf16 bits) { return __builtin_bit_cast(float, (u32)bits << 16); }

__attribute__((device)) static bf16 narrow(float value) {  // to nearest even
    const u32 bits = __builtin_bit_cast(u32, value);
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

__attribute__((device)) static float dot(const bf16* a, const bf16* b, u32 a_step, u32 b_step, u32 k) {
    float sum = 0.0f;
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < k; ++i) sum = __builtin_fmaf(widen(a[i * a_step]), widen(b[i * b_step]), sum);
    return sum;
}

__attribute__((device)) static u32 column() {
    return __builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x();
}

__attribute__((device)) static void element(
    const bf16* a, const bf16* b, bf16* c, u32 row, u32 group, u32 n, u32 k, bool transposed) {
    if (column() >= n) return;
    const bf16* line = b + group * n * k + (transposed ? column() * k : column());
    c[row * n + column()] = narrow(dot(a + row * k, line, 1, transposed ? 1 : n, k));
}

// The group of a row, or as many as there are: then it is behind the last one.
__attribute__((device)) static u32 group_of(u32 row, const int* offsets, u32 groups) {
    u32 group = 0;
#pragma clang loop unroll(disable)
    while (group < groups && (int)row >= offsets[group]) ++group;
    return group;
}

__attribute__((device)) static void grouped(
    const bf16* a, const bf16* b, bf16* c, const int* offsets, u32 n, u32 k, u32 groups, bool transposed) {
    const u32 row = __builtin_amdgcn_workgroup_id_y(), group = group_of(row, offsets, groups);
    if (group < groups) element(a, b, c, row, group, n, k, transposed);
}

KERNEL void naive_grouped_nt(const bf16* a, const bf16* b, bf16* c, const int* offsets, u32 n, u32 k, u32 groups) {
    grouped(a, b, c, offsets, n, k, groups, true);
}

KERNEL void naive_grouped_nn(const bf16* a, const bf16* b, bf16* c, const int* offsets, u32 n, u32 k, u32 groups) {
    grouped(a, b, c, offsets, n, k, groups, false);
}

KERNEL void naive_grouped_tn(
    const bf16* a, const bf16* b, bf16* c, const int* offsets, u32 m, u32 n, u32 k, u32 groups) {
    const u32 row = __builtin_amdgcn_workgroup_id_y(), group = __builtin_amdgcn_workgroup_id_z();
    if (column() >= n) return;
    const u32 begin = group ? offsets[group - 1] : 0, end = offsets[group];
    c[(group * m + row) * n + column()] = narrow(dot(a + begin * m + row, b + begin * n + column(), m, n, end - begin));
}

KERNEL void naive_grouped_nt_bias(
    const bf16* a, const bf16* b, bf16* c, const bf16* bias, const int* offsets, u32 n, u32 k, u32 groups) {
    const u32 row = __builtin_amdgcn_workgroup_id_y(), group = group_of(row, offsets, groups);
    if (group >= groups || column() >= n) return;
    const u32 line = group * n + column();
    c[row * n + column()] = narrow(dot(a + row * k, b + line * k, 1, 1, k) + widen(bias[line]));
}

KERNEL void naive_grouped_tn_accumulate(
    const bf16* a, const bf16* b, bf16* c, const int* offsets, u32 m, u32 n, u32 k, u32 groups) {
    const u32 row = __builtin_amdgcn_workgroup_id_y(), group = __builtin_amdgcn_workgroup_id_z();
    const u32 begin = group ? offsets[group - 1] : 0, end = offsets[group], at = (group * m + row) * n + column();
    if (column() >= n || end == begin) return;
    c[at] = narrow(widen(c[at]) + dot(a + begin * m + row, b + begin * n + column(), m, n, end - begin));
}

KERNEL void naive_grouped_tn_f32_accumulate(
    const bf16* a, const bf16* b, float* c, const int* offsets, u32 m, u32 n, u32 k, u32 groups) {
    const u32 row = __builtin_amdgcn_workgroup_id_y(), group = __builtin_amdgcn_workgroup_id_z();
    const u32 begin = group ? offsets[group - 1] : 0, end = offsets[group], at = (group * m + row) * n + column();
    if (column() >= n || end == begin) return;
    c[at] += dot(a + begin * m + row, b + begin * n + column(), m, n, end - begin);
}

__attribute__((device)) static void batched(
    const bf16* a, const bf16* b, bf16* c, const bf16* residual, u32 m, u32 n, u32 k, u32 lda, u32 ldb, u64 stride_a,
    u64 stride_b, bool transposed) {
    const u32 row = __builtin_amdgcn_workgroup_id_y(), matrix = __builtin_amdgcn_workgroup_id_z();
    if (column() >= n) return;
    const bf16* line = b + matrix * stride_b + (transposed ? column() * ldb : column());
    const float sum = dot(a + matrix * stride_a + row * lda, line, 1, transposed ? 1 : ldb, k);
    const u32 at = (matrix * m + row) * n + column();
    c[at] = narrow(residual ? sum + widen(residual[at]) : sum);
}

KERNEL void naive_batched_nt(
    const bf16* a, const bf16* b, bf16* c, u32 m, u32 n, u32 k, u32 lda, u32 ldb, u64 stride_a, u64 stride_b) {
    batched(a, b, c, nullptr, m, n, k, lda, ldb, stride_a, stride_b, true);
}

KERNEL void naive_batched_nn(
    const bf16* a, const bf16* b, bf16* c, u32 m, u32 n, u32 k, u32 lda, u32 ldb, u64 stride_a, u64 stride_b) {
    batched(a, b, c, nullptr, m, n, k, lda, ldb, stride_a, stride_b, false);
}

KERNEL void naive_batched_nn_residual(
    const bf16* a, const bf16* b, bf16* c, const bf16* residual, u32 m, u32 n, u32 k, u32 lda, u32 ldb, u64 stride_a,
    u64 stride_b) {
    batched(a, b, c, residual, m, n, k, lda, ldb, stride_a, stride_b, false);
}

__attribute__((device)) static float silu(float x) {  // by the base-2 exponential of the hardware
    return x * __builtin_amdgcn_rcpf(1.0f + __builtin_amdgcn_exp2f(-1.442695041f * x));
}

// SwiGLU: columns of gates and then of what they gate, or both in turn.
__attribute__((device)) static void gated(
    const bf16* a, const bf16* b, bf16* c, const int* offsets, u32 n, u32 k, u32 groups, bool in_turn) {
    const u32 row = __builtin_amdgcn_workgroup_id_y(), group = group_of(row, offsets, groups);
    if (group >= groups || column() >= n) return;
    const bf16* own = b + group * 2 * n * k;
    const float gate = dot(a + row * k, own + (in_turn ? 2 * column() : column()) * k, 1, 1, k);
    const float up = dot(a + row * k, own + (in_turn ? 2 * column() + 1 : n + column()) * k, 1, 1, k);
    c[row * n + column()] = narrow(silu(gate) * up);
}

KERNEL void naive_grouped_nt_silu_gated(
    const bf16* a, const bf16* b, bf16* c, const int* offsets, u32 n, u32 k, u32 groups) {
    gated(a, b, c, offsets, n, k, groups, false);
}

KERNEL void naive_grouped_nt_silu_gated_interleaved(
    const bf16* a, const bf16* b, bf16* c, const int* offsets, u32 n, u32 k, u32 groups) {
    gated(a, b, c, offsets, n, k, groups, true);
}

KERNEL void naive_grouped_nt_bias_silu_gated(
    const bf16* a, const bf16* b, bf16* c, const bf16* bias, const int* offsets, u32 n, u32 k, u32 groups) {
    const u32 row = __builtin_amdgcn_workgroup_id_y(), group = group_of(row, offsets, groups);
    if (group >= groups || column() >= n) return;
    const u32 gate = group * 2 * n + column(), up = gate + n;
    const float product = dot(a + row * k, b + gate * k, 1, 1, k) + widen(bias[gate]);
    c[row * n + column()] = narrow(silu(product) * (dot(a + row * k, b + up * k, 1, 1, k) + widen(bias[up])));
}

KERNEL void naive_grouped_nt_silu(
    const bf16* a, const bf16* b, bf16* c, const int* offsets, u32 n, u32 k, u32 groups) {
    const u32 row = __builtin_amdgcn_workgroup_id_y(), group = group_of(row, offsets, groups);
    if (group >= groups || column() >= n) return;
    c[row * n + column()] = narrow(silu(dot(a + row * k, b + (group * n + column()) * k, 1, 1, k)));
}

// OFP8 1.0, table 1: all codes, of which the NaNs are 0x7f and 0xff.
__attribute__((device)) static float e4m3(unsigned char bits) {
    if ((bits & 0x7f) == 0x7f) return __builtin_nanf("");
    const int exponent = (bits & 0x7f) >> 3, fraction = bits & 7;
    const float whole = (float)(exponent ? fraction + 8 : fraction);
    const float value = whole * __builtin_bit_cast(float, (u32)((exponent ? exponent : 1) - 10 + 127) << 23);
    return bits & 0x80 ? -value : value;
}

__attribute__((device)) static float scaled(
    const unsigned char* a, const unsigned char* b, float scale_a, float scale_b, u32 k) {
    float sum = 0.0f;
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < k; ++i) sum = __builtin_fmaf(e4m3(a[i]), e4m3(b[i]), sum);
    return sum * (scale_a * scale_b);
}

__attribute__((device)) static bf16 narrow_or_nan(float value) { return value == value ? narrow(value) : 0x7fc0; }

KERNEL void naive_grouped_e4m3_bf16(
    const unsigned char* a, const unsigned char* b, bf16* c, const float* scale_a, const float* scale_b,
    const int* offsets, u32 n, u32 k, u32 groups) {
    const u32 row = __builtin_amdgcn_workgroup_id_y(), group = group_of(row, offsets, groups);
    if (group >= groups || column() >= n) return;
    const u32 line = group * n + column();
    c[row * n + column()] = narrow_or_nan(scaled(a + row * k, b + line * k, scale_a[row], scale_b[line], k));
}

KERNEL void naive_grouped_e4m3_bf16_bias(
    const unsigned char* a, const unsigned char* b, bf16* c, const bf16* bias, const float* scale_a,
    const float* scale_b, const int* offsets, u32 n, u32 k, u32 groups) {
    const u32 row = __builtin_amdgcn_workgroup_id_y(), group = group_of(row, offsets, groups);
    if (group >= groups || column() >= n) return;
    const u32 line = group * n + column();
    const float sum = scaled(a + row * k, b + line * k, scale_a[row], scale_b[line], k);
    c[row * n + column()] = narrow_or_nan(sum + widen(bias[line]));
}

KERNEL void naive_grouped_e4m3_f32(
    const unsigned char* a, const unsigned char* b, float* c, const float* scale_a, const float* scale_b,
    const int* offsets, u32 n, u32 k, u32 groups) {
    const u32 row = __builtin_amdgcn_workgroup_id_y(), group = group_of(row, offsets, groups);
    if (group >= groups || column() >= n) return;
    const u32 line = group * n + column();
    c[row * n + column()] = scaled(a + row * k, b + line * k, scale_a[row], scale_b[line], k);
}

KERNEL void naive_batched_e4m3_bf16(
    const unsigned char* a, const unsigned char* b, bf16* c, const float* scale_a, const float* scale_b, u32 m, u32 n,
    u32 k, u32 lda, u32 ldb, u64 stride_a, u64 stride_b) {
    const u32 row = __builtin_amdgcn_workgroup_id_y(), matrix = __builtin_amdgcn_workgroup_id_z();
    if (column() >= n) return;
    const float of_a = scale_a[matrix * m + row], of_b = scale_b[matrix * n + column()];
    const float sum = scaled(a + matrix * stride_a + row * lda, b + matrix * stride_b + column() * ldb, of_a, of_b, k);
    c[(matrix * m + row) * n + column()] = narrow_or_nan(sum);
}

// SwiGLU of e4m3: columns of gates and then of what they gate, or both in turn. Scales of B are in the same order.
__attribute__((device)) static void gated_e4m3(
    const unsigned char* a, const unsigned char* b, bf16* c, const float* scale_a, const float* scale_b,
    const int* offsets, u32 n, u32 k, u32 groups, bool in_turn) {
    const u32 row = __builtin_amdgcn_workgroup_id_y(), group = group_of(row, offsets, groups);
    if (group >= groups || column() >= n) return;
    const u32 own = group * 2 * n, left = own + (in_turn ? 2 * column() : column());
    const u32 right = own + (in_turn ? 2 * column() + 1 : n + column());
    const float gate = scaled(a + row * k, b + left * k, scale_a[row], scale_b[left], k);
    const float up = scaled(a + row * k, b + right * k, scale_a[row], scale_b[right], k);
    c[row * n + column()] = narrow_or_nan(silu(gate) * up);
}

KERNEL void naive_grouped_e4m3_bf16_silu_gated(
    const unsigned char* a, const unsigned char* b, bf16* c, const float* scale_a, const float* scale_b,
    const int* offsets, u32 n, u32 k, u32 groups) {
    gated_e4m3(a, b, c, scale_a, scale_b, offsets, n, k, groups, false);
}

KERNEL void naive_grouped_e4m3_bf16_silu_gated_interleaved(
    const unsigned char* a, const unsigned char* b, bf16* c, const float* scale_a, const float* scale_b,
    const int* offsets, u32 n, u32 k, u32 groups) {
    gated_e4m3(a, b, c, scale_a, scale_b, offsets, n, k, groups, true);
}

KERNEL void naive_grouped_e4m3_bf16_silu(
    const unsigned char* a, const unsigned char* b, bf16* c, const float* scale_a, const float* scale_b,
    const int* offsets, u32 n, u32 k, u32 groups) {
    const u32 row = __builtin_amdgcn_workgroup_id_y(), group = group_of(row, offsets, groups);
    if (group >= groups || column() >= n) return;
    const u32 line = group * n + column();
    c[row * n + column()] = narrow_or_nan(silu(scaled(a + row * k, b + line * k, scale_a[row], scale_b[line], k)));
}
