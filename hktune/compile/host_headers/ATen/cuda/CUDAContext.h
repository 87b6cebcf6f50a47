#pragma once
#include <torch/extension.h>

namespace at::cuda {
struct CUDAStream {
    operator hipStream_t() const;
    hipStream_t stream() const;
};
CUDAStream getCurrentCUDAStream(int device = -1);
}  // namespace at::cuda
namespace at::hip {
using HIPStream = at::cuda::CUDAStream;
HIPStream getCurrentHIPStream(int device = -1);
}  // namespace at::hip
namespace c10::cuda {
struct CUDAGuard {
    template <typename T>
    explicit CUDAGuard(T);
};
}  // namespace c10::cuda
namespace c10::hip {
using HIPGuard = c10::cuda::CUDAGuard;
}  // namespace c10::hip
