"""The real ROCm runtime over a GPU that is hktune's emulator: what scripts/rocm-virtual sets up and runs."""
