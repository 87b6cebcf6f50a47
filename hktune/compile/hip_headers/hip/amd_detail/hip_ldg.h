// __ldg: a load that the programmer promises is of memory nobody writes. The compiler picks the instruction.
#pragma once

#include "../hip_runtime.h"

template <typename T>
__device__ inline T __ldg(const T* address) {
    return *address;
}
