// As much of PyTorch's and HIP's host API as an exported module names: enough to parse its host half.
#pragma once
#include <hip/hip_runtime.h>


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
