// What is precompiled: the start of every HipKittens kernel.
#include <hip/hip_runtime.h>
#include "kittens.cuh"
