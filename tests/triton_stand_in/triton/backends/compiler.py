from types import SimpleNamespace


def GPUTarget(backend, arch, warp_size):  # noqa: N802 - as Triton calls it
    assert backend == "hip"
    return SimpleNamespace(arch=arch, warp_size=warp_size)
