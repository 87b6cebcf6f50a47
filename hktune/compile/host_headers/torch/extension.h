// torch's names, for code that is read and never run: device compiles of files that also take torch's tensors.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <hip/hip_runtime.h>
#include <pybind11/pybind11.h>

namespace c10 {

enum class ScalarType { Byte, Char, Short, Int, Long, Half, Float, Double, Bool, BFloat16, Float8_e4m3fn, Float8_e5m2 };
enum class DeviceType { CPU, CUDA, HIP };

struct Device {
    bool is_cuda() const;
    bool is_cpu() const;
    int index() const;
    DeviceType type() const;
};
struct IntArrayRef {
    long operator[](long) const;
    unsigned long size() const;
    std::vector<long> vec() const;
};
struct TensorOptions {
    template <typename T>
    TensorOptions dtype(T) const;
    template <typename T>
    TensorOptions device(T) const;
};
template <typename T>
struct optional;
struct Half;
struct BFloat16;

}  // namespace c10

namespace at {

using namespace c10;

struct Tensor {
    template <typename T>
    T* data_ptr() const;
    void* data_ptr() const;
    template <typename T>
    const T* const_data_ptr() const;
    template <typename T>
    T* mutable_data_ptr() const;
    long size(long) const;
    long stride(long) const;
    long dim() const;
    long numel() const;
    long element_size() const;
    bool is_contiguous() const;
    bool is_cuda() const;
    bool defined() const;
    IntArrayRef sizes() const;
    IntArrayRef strides() const;
    Device device() const;
    ScalarType dtype() const;
    ScalarType scalar_type() const;
    TensorOptions options() const;
    Tensor contiguous() const;
    template <typename... Sizes>
    Tensor view(Sizes&&...) const;
};
using Half = c10::Half;
using BFloat16 = c10::BFloat16;

}  // namespace at

namespace torch {

using at::Tensor;
using namespace c10;
template <typename... Values>
Tensor empty(Values&&...);
template <typename... Values>
Tensor zeros(Values&&...);
template <typename... Values>
Tensor empty_like(Values&&...);
template <typename... Values>
Tensor zeros_like(Values&&...);

constexpr ScalarType kFloat32 = ScalarType::Float, kFloat = ScalarType::Float, kFloat16 = ScalarType::Half;
constexpr ScalarType kHalf = ScalarType::Half, kBFloat16 = ScalarType::BFloat16, kInt32 = ScalarType::Int;
constexpr ScalarType kInt64 = ScalarType::Long, kInt8 = ScalarType::Char, kUInt8 = ScalarType::Byte;
constexpr DeviceType kCUDA = DeviceType::CUDA, kCPU = DeviceType::CPU;

}  // namespace torch

namespace py = pybind11;

#define TORCH_EXTENSION_NAME hktune_extension
#define TORCH_CHECK(...) ((void)0)
#define TORCH_LIBRARY(name, variable) \
    template <typename HktuneLibrary> \
    void hktune_library_##name(HktuneLibrary& variable)
#define TORCH_LIBRARY_IMPL(name, key, variable) \
    template <typename HktuneLibrary>           \
    void hktune_library_##name##_##key(HktuneLibrary& variable)
#define AT_DISPATCH_FLOATING_TYPES(...) ((void)0)
