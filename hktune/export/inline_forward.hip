
// ---------------------------------------------------------------- what PyTorch calls

// Kernels read 16 bytes at once, from whole rows.
inline torch::Tensor ready(const torch::Tensor &tensor, const char *name) {
    TORCH_CHECK(tensor.is_cuda() && tensor.scalar_type() == at::${scalar_type}, name, " must be ${dtype} on the GPU");
    const torch::Tensor rows = tensor.contiguous();
    return reinterpret_cast<uintptr_t>(rows.data_ptr()) % 16 == 0 ? rows : rows.clone();
}

inline element *address(const torch::Tensor &tensor) { return reinterpret_cast<element *>(tensor.data_ptr()); }

torch::Tensor multiply(const torch::Tensor &given_a, const torch::Tensor &given_bt, const torch::Tensor *given_bias) {
    TORCH_CHECK(given_a.dim() == 2 && given_bt.dim() == 2 && given_a.size(1) == given_bt.size(1),
                "A must be [M, K] and Bt [N, K]");
    const at::cuda::OptionalCUDAGuard guard(given_a.device());
    const torch::Tensor a = ready(given_a, "A"), bt = ready(given_bt, "Bt");
    const torch::Tensor bias = given_bias ? ready(*given_bias, "bias") : torch::Tensor();
    const int64_t m = a.size(0), n = bt.size(0), k = a.size(1);
    TORCH_CHECK(!given_bias || (bias.dim() == 1 && bias.size(0) == n), "bias must be [N]");
    torch::Tensor c = torch::empty({m, n}, a.options());
    if (m == 0 || n == 0) return c;

    const int kernel = choose_kernel(m, n, k, given_bias != nullptr);
    TORCH_CHECK(kernel != NO_KERNEL, "no kernel here runs M=", m, " N=", n, " K=", k, ": K must be a multiple of 8");
    const hipStream_t stream = at::cuda::getCurrentCUDAStream();
    torch::Tensor workspace;
    if (const int64_t bytes = workspace_bytes(kernel, m, n)) {
        workspace = torch::empty({bytes}, a.options().dtype(torch::kUInt8));
        const hipError_t cleared = hipMemsetAsync(workspace.data_ptr(), 0, WORKSPACE_COUNTER_BYTES, stream);
        TORCH_CHECK(cleared == hipSuccess, hipGetErrorString(cleared));
    }
    launch(kernel, {address(a), address(bt), address(c), given_bias ? address(bias) : nullptr,
                    workspace.defined() ? static_cast<float *>(workspace.data_ptr()) : nullptr, m, n, k}, stream);
    const hipError_t launched = hipGetLastError();
    TORCH_CHECK(launched == hipSuccess, hipGetErrorString(launched));
    return c;
}

torch::Tensor gemm_forward(torch::Tensor A, torch::Tensor Bt, int orig_M, int orig_N) {
    return multiply(A, Bt, nullptr).slice(0, 0, orig_M).slice(1, 0, orig_N);
}

torch::Tensor gemm_bias_forward(torch::Tensor A, torch::Tensor Bt, torch::Tensor bias) { return multiply(A, Bt, &bias); }
