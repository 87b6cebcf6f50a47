// HIP's host API by name: kernel files mention it in code that a device-only compile reads and never emits. What a file
// needs beyond these is in functions that launch kernels, whose bodies `hktune verify` leaves out.
#pragma once

#include "vector_types.h"

typedef enum { hipSuccess = 0, hipErrorInvalidValue = 1, hipErrorUnknown = 999 } hipError_t;
typedef struct ihipStream_t* hipStream_t;
typedef struct ihipEvent_t* hipEvent_t;
typedef enum {
    hipMemcpyHostToHost,
    hipMemcpyHostToDevice,
    hipMemcpyDeviceToHost,
    hipMemcpyDeviceToDevice,
    hipMemcpyDefault
} hipMemcpyKind;
typedef enum { hipFuncAttributeMaxDynamicSharedMemorySize = 8, hipFuncAttributePreferredSharedMemoryCarveout } hipFuncAttribute;
struct hipDeviceProp_t {
    char name[256], gcnArchName[256];
    int multiProcessorCount, warpSize, maxThreadsPerBlock;
    size_t sharedMemPerBlock, totalGlobalMem;
};

extern "C" {
const char* hipGetErrorString(hipError_t error);
hipError_t hipGetLastError();
hipError_t hipPeekAtLastError();
hipError_t hipFree(void*);
hipError_t hipMemcpy(void*, const void*, size_t, hipMemcpyKind);
hipError_t hipMemcpyAsync(void*, const void*, size_t, hipMemcpyKind, hipStream_t stream = nullptr);
hipError_t hipMemset(void*, int, size_t);
hipError_t hipMemsetAsync(void*, int, size_t, hipStream_t stream = nullptr);
hipError_t hipDeviceSynchronize();
hipError_t hipSetDevice(int);
hipError_t hipGetDevice(int*);
hipError_t hipGetDeviceCount(int*);
hipError_t hipGetDeviceProperties(hipDeviceProp_t*, int);
hipError_t hipStreamCreate(hipStream_t*);
hipError_t hipStreamSynchronize(hipStream_t);
hipError_t hipStreamDestroy(hipStream_t);
hipError_t hipEventCreate(hipEvent_t*);
hipError_t hipEventRecord(hipEvent_t, hipStream_t stream = nullptr);
hipError_t hipEventSynchronize(hipEvent_t);
hipError_t hipEventElapsedTime(float*, hipEvent_t, hipEvent_t);
hipError_t hipEventDestroy(hipEvent_t);
hipError_t hipFuncSetAttribute(const void*, hipFuncAttribute, int);
// What clang calls for kernel<<<grid, block, lds, stream>>>, of older and newer kinds.
hipError_t hipConfigureCall(dim3 grid, dim3 block, size_t lds_bytes = 0, hipStream_t stream = nullptr);
unsigned __hipPushCallConfiguration(dim3 grid, dim3 block, size_t lds_bytes = 0, hipStream_t stream = nullptr);
hipError_t hipLaunchKernel(const void*, dim3, dim3, void**, size_t, hipStream_t);
}
template <typename T>
hipError_t hipMalloc(T**, size_t);
template <typename T>
hipError_t hipHostMalloc(T**, size_t, unsigned flags = 0);

#define hipLaunchKernelGGL(...) ((void)0)
