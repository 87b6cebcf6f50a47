// The umbrella header of a HIP kernel, for compiling to a device code object without ROCm.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "stand_in/language.h"
#include "stand_in/vector_types.h"
#include "stand_in/device_functions.h"
#include "stand_in/host_api.h"
