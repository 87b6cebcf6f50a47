// Names of HIP's host API that kernel headers mention in code that a device-only compile never emits.
#pragma once

#include "vector_types.h"

typedef enum { hipSuccess = 0, hipErrorInvalidValue = 1, hipErrorUnknown = 999 } hipError_t;
typedef struct ihipStream_t* hipStream_t;

extern "C" const char* hipGetErrorString(hipError_t error);
extern "C" hipError_t hipGetLastError();
