"""Capacities of the architectures hktune knows: one record each, the only place they are written.

Only facts that decide what is legal or how it is dispatched live here. Rates and latencies, which only a
clock needs, are in `hktune.emulator.clock.rates`.
"""

from __future__ import annotations

from dataclasses import dataclass

from hktune.core.errors import InputError


@dataclass(frozen=True)
class Arch:
    """What one GPU architecture offers a workgroup. Sizes in bytes, counts per compute unit (CU) or SIMD.

    On NVIDIA a compute unit is a streaming multiprocessor (SM), a SIMD one of its four partitions, a wave a warp, LDS
    shared memory, and a workgroup a thread block. A counter that an architecture does not have counts to 0.

    Where the matrix unit adds products of float8 less exactly than float32 does, it adds `float8_terms` of them at
    once, and keeps `float8_sum_bits` of the largest (`hktune.core.sums`).
    """

    name: str
    compute_units: int
    xcds: int
    simds_per_cu: int
    wave_size: int
    waves_per_simd: int
    waves_per_workgroup: int
    work_items_max: int
    vgprs_per_simd: int
    vgprs_per_wave: int
    vgpr_granule: int
    lds_bytes: int
    lds_granule_bytes: int
    vmcnt_max: int
    lgkmcnt_max: int
    float8_terms: int = 0
    float8_sum_bits: int = 24

    def waves_that_fit(self, vgprs: int, agprs: int, lds_bytes: int, waves_per_workgroup: int) -> int:
        """Waves per SIMD that registers and LDS allow at once (AMD CDNA4 ISA guide, section 3.6; LLVM AMDGPUUsage).

        `vgprs` counts architectural registers only; accumulation registers start at the next multiple of 4.
        """
        registers = _align(_align(vgprs, 4) + agprs, self.vgpr_granule)
        by_registers = self.vgprs_per_simd // max(registers, self.vgpr_granule)
        workgroups = self.lds_bytes // max(_align(lds_bytes, self.lds_granule_bytes), self.lds_granule_bytes)
        by_lds = workgroups * -(-waves_per_workgroup // self.simds_per_cu)
        return min(self.waves_per_simd, by_registers, by_lds)


def _align(value: int, granule: int) -> int:
    return -(-value // granule) * granule


GFX950 = Arch(  # AMD CDNA4 ISA guide (2025-08) and white paper; granules from LLVM's AMDGPUUsage
    name="gfx950",
    compute_units=256,
    xcds=8,
    simds_per_cu=4,
    wave_size=64,
    waves_per_simd=8,
    waves_per_workgroup=16,
    work_items_max=2**32 - 1,  # along an axis: a dispatch packet has 32 bits for them (HSA runtime specification 1.2)
    vgprs_per_simd=512,
    vgprs_per_wave=512,
    vgpr_granule=8,
    lds_bytes=163840,
    lds_granule_bytes=1280,
    vmcnt_max=63,
    lgkmcnt_max=15,
)

SM90A = Arch(  # NVIDIA CUDA C++ programming guide 13.0, table "Technical Specifications per Compute Capability", 9.0
    name="sm90a",
    compute_units=132,  # H100 SXM5 and H200 (NVIDIA H100 white paper); the PCIe card has 114
    xcds=1,
    simds_per_cu=4,
    wave_size=32,
    waves_per_simd=16,
    waves_per_workgroup=32,
    work_items_max=(2**31 - 1) * 1024,  # along x: blocks of a grid times threads of a block
    vgprs_per_simd=512,  # 64 K 32-bit registers an SM, over 4 partitions of 32 lanes
    vgprs_per_wave=255,
    vgpr_granule=8,
    lds_bytes=232448,
    lds_granule_bytes=1024,  # also what the driver reserves of an SM's 228 KiB for each block
    vmcnt_max=0,
    lgkmcnt_max=0,
    float8_terms=32,  # DeepSeek-V3 Technical Report (arXiv 2412.19437), section 3.5.2
    float8_sum_bits=14,
)

ARCHS = {arch.name: arch for arch in (GFX950, SM90A)}


def arch_named(name: str) -> Arch:
    """The record of `name`. Raises InputError for an architecture hktune does not know."""
    if name not in ARCHS:
        raise InputError(f"unknown architecture {name!r}: known are {', '.join(sorted(ARCHS))}")
    return ARCHS[name]
