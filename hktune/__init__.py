"""hktune finds, proves and dispatches the fastest correct GEMM kernel for every shape a model runs."""
