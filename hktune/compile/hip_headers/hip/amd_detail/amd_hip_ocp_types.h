// Storage types of the OCP microscaling formats (OCP MX specification 1.0), as bytes and vectors of bytes.
#pragma once

#include <cstdint>

typedef uint8_t __amd_scale_t;
typedef uint8_t __amd_fp8_storage_t;
typedef uint16_t __amd_fp8x2_storage_t;
typedef uint8_t __amd_fp4x2_storage_t;
typedef __bf16 __amd_bf16_storage_t;
typedef _Float16 __amd_fp16_storage_t;
typedef __bf16 __amd_bf16x2_storage_t __attribute__((ext_vector_type(2)));
typedef _Float16 __amd_fp16x2_storage_t __attribute__((ext_vector_type(2)));
typedef float __amd_floatx2_storage_t __attribute__((ext_vector_type(2)));
