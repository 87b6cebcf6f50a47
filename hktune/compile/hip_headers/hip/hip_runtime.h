// The umbrella header of a HIP kernel, for compiling to a device code object without ROCm. Functions of a work-item come
// before the standard headers: those name them in std:: too.
#pragma once

#include "stand_in/language.h"
#include "stand_in/vector_types.h"
#include "stand_in/device_functions.h"
#include "stand_in/float_maths.h"
#include "stand_in/wave_functions.h"
#include "stand_in/atomics.h"

#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "stand_in/host_api.h"
