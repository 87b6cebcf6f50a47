// Qualifiers and built-in coordinates.
//
// Coordinates read registers and the implicit kernel arguments directly. Going through the device library's functions
// (__ockl_get_local_id) without linking that library leaves real calls in the kernel, which then spills around them.
#pragma once

#define __host__ __attribute__((host))
#define __device__ __attribute__((device))
#define __global__ __attribute__((global))
#define __shared__ __attribute__((shared))
#define __constant__ __attribute__((constant))
#define __managed__ __attribute__((managed))
#define __forceinline__ inline __attribute__((always_inline))
#define HKTUNE_DEVICE_ __device__ inline __attribute__((always_inline))
#define HIP_DYNAMIC_SHARED(type, name) extern __shared__ type name[];

// __launch_bounds__(work-items a workgroup, waves per SIMD): HIP's second figure is waves per execution unit.
#define HKTUNE_WORKGROUP_(size) __attribute__((amdgpu_flat_work_group_size(1, size)))
#define HKTUNE_WORKGROUP_AND_WAVES_(size, waves) \
    __attribute__((amdgpu_flat_work_group_size(1, size), amdgpu_waves_per_eu(waves)))
#define HKTUNE_THIRD_(first, second, third, ...) third
#define __launch_bounds__(...) \
    HKTUNE_THIRD_(__VA_ARGS__, HKTUNE_WORKGROUP_AND_WAVES_, HKTUNE_WORKGROUP_)(__VA_ARGS__)

namespace hip_stand_in {

// Byte 0 of the implicit arguments: the grid in workgroups, three u32 (LLVM AMDGPUUsage, hidden_block_count_x).
__device__ inline unsigned block_count(int axis) {
    return ((const unsigned*)__builtin_amdgcn_implicitarg_ptr())[axis];
}

#define HKTUNE_COORDINATE_(name, expression_x, expression_y, expression_z)                             \
    struct name {                                                                                      \
        __device__ __attribute__((always_inline)) static unsigned get_x() { return expression_x; }     \
        __device__ __attribute__((always_inline)) static unsigned get_y() { return expression_y; }     \
        __device__ __attribute__((always_inline)) static unsigned get_z() { return expression_z; }     \
        __declspec(property(get = get_x)) unsigned x;                                                  \
        __declspec(property(get = get_y)) unsigned y;                                                  \
        __declspec(property(get = get_z)) unsigned z;                                                  \
    }

HKTUNE_COORDINATE_(
    ThreadIdx, __builtin_amdgcn_workitem_id_x(), __builtin_amdgcn_workitem_id_y(), __builtin_amdgcn_workitem_id_z());
HKTUNE_COORDINATE_(
    BlockIdx, __builtin_amdgcn_workgroup_id_x(), __builtin_amdgcn_workgroup_id_y(), __builtin_amdgcn_workgroup_id_z());
HKTUNE_COORDINATE_(
    BlockDim, __builtin_amdgcn_workgroup_size_x(), __builtin_amdgcn_workgroup_size_y(),
    __builtin_amdgcn_workgroup_size_z());
HKTUNE_COORDINATE_(GridDim, block_count(0), block_count(1), block_count(2));

#undef HKTUNE_COORDINATE_

}  // namespace hip_stand_in

extern const __device__ __attribute__((weak)) hip_stand_in::ThreadIdx threadIdx;
extern const __device__ __attribute__((weak)) hip_stand_in::BlockIdx blockIdx;
extern const __device__ __attribute__((weak)) hip_stand_in::BlockDim blockDim;
extern const __device__ __attribute__((weak)) hip_stand_in::GridDim gridDim;
inline constexpr __device__ int warpSize = 64;
