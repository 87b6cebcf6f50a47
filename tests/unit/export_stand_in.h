// As much of PyTorch's and HIP's host API as an exported module names: enough to parse its host half.
#pragma once
#include <hip/hip_runtime.h>

extern "C" hipError_t hipFuncSetAttribute(const void *kernel, int attribute, int value);
extern "C" hipError_t hipMemsetAsync(void *to, int value, size_t bytes, hipStream_t stream);
extern "C" unsigned __hipPushCallConfiguration(dim3 grid, dim3 block, size_t lds_bytes = 0, hipStream_t stream = nullptr);
constexpr int hipFuncAttributeMaxDynamicSharedMemorySize = 8;

#define TORCH_CHECK(condition, ...) stand_in::check(condition, __VA_ARGS__)
namespace stand_in { template<typename... T> void check(bool, T...) {} }

namespace at {
constexpr int kBFloat16 = 0, kHalf = 2;
struct Device {};
namespace cuda {
struct OptionalCUDAGuard { explicit OptionalCUDAGuard(Device) {} };
inline hipStream_t getCurrentCUDAStream() { return nullptr; }
}  // namespace cuda
}  // namespace at

namespace torch {
constexpr int kUInt8 = 1;
struct Options { Options dtype(int) const { return {}; } };
struct Sizes { template<typename... T> Sizes(T...) {} };
struct Tensor {
    bool is_cuda() const, defined() const;
    int scalar_type() const;
    Tensor contiguous() const, clone() const, slice(int64_t, int64_t, int64_t) const;
    void *data_ptr() const;
    int64_t dim() const, size(int64_t) const;
    at::Device device() const;
    Options options() const;
};
Tensor empty(Sizes, Options);
}  // namespace torch
