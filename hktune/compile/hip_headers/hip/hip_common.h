// A part of HIP that kernels include by name.
#pragma once
#include "hip_runtime.h"
