// OpenMP's functions by name, for host code that is read and never run.
#pragma once

extern "C" int omp_get_max_threads();
extern "C" int omp_get_thread_num();
extern "C" int omp_get_num_threads();
extern "C" void omp_set_num_threads(int);
extern "C" double omp_get_wtime();
