"""What the kernel driver's sysfs would say of a machine with one MI350X, as files that ROCr's model interface reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

GPU_BYTES = 32 << 30
_HOST_BYTES = 16 << 30
_FRAME_BUFFER, _SYSTEM = 1, 0  # heap types of kfd's mem_banks
_PCIE = 2  # link type of kfd's io_links
_GPU_DATA = 8 | 1  # cache type of kfd's caches
_CACHE_KB = {1: 32, 2: 4096, 3: 256 << 10}
_DOORBELLS_OF_AQL = 2 << 12  # capability: a doorbell takes packet numbers
_SRAM_ECC = 1 << 26  # capability


@dataclass(frozen=True)
class Gpu:
    """What differs between architectures. `target` is as kfd's gfx_target_version spells it."""

    target: int
    device_id: int
    lds_kb: int


GPUS = {
    "gfx950": Gpu(target=90500, device_id=30112, lds_kb=160),  # MI350X
    "gfx942": Gpu(target=90402, device_id=29857, lds_kb=64),  # MI300X
}


def write_topology(folder: Path, gpu: Gpu) -> None:
    """Node 0 is the host, node 1 the GPU: 256 compute units in 8 dies, each of four SIMDs."""
    _properties(folder / "system_properties", {"platform_oem": 0, "platform_id": 0, "platform_rev": 0})
    _text(folder / "generation_id", "1")
    host, device = folder / "nodes" / "0", folder / "nodes" / "1"
    host_properties = {"cpu_cores_count": 1, "max_engine_clk_ccompute": 2000, "caches_count": 0}
    _node(host, 0, host_properties, _SYSTEM, _HOST_BYTES)
    _node(device, 2, _gpu_properties(gpu) | {"caches_count": len(_CACHE_KB)}, _FRAME_BUFFER, GPU_BYTES)
    for index, (level, size_kb) in enumerate(_CACHE_KB.items()):
        cache = {"processor_id_low": 0, "level": level, "size": size_kb, "cache_line_size": 128, "type": _GPU_DATA}
        _properties(device / "caches" / str(index) / "properties", cache | {"sibling_map": 1})
    for node, other in ((host, 1), (device, 0)):
        link = {"type": _PCIE, "version_major": 0, "version_minor": 0, "node_from": 1 - other, "node_to": other}
        _properties(node / "io_links" / "0" / "properties", link | {"weight": 20, "flags": 1})


def _gpu_properties(gpu: Gpu) -> dict[str, int]:
    return {
        "simd_count": 1024,
        "simd_per_cu": 4,
        "max_waves_per_simd": 8,
        "wave_front_size": 64,
        "array_count": 32,
        "simd_arrays_per_engine": 1,
        "cu_per_simd_array": 8,
        "num_xcc": 8,
        "lds_size_in_kb": gpu.lds_kb,
        "max_slots_scratch_cu": 32,
        "gfx_target_version": gpu.target,
        "vendor_id": 4098,
        "device_id": gpu.device_id,
        "drm_render_minor": 128,
        "location_id": 0x100,
        "domain": 0,
        "capability": _DOORBELLS_OF_AQL | _SRAM_ECC,
        "max_engine_clk_fcompute": 2400,
        "max_engine_clk_ccompute": 2000,
        "local_mem_size": GPU_BYTES,
        "num_cp_queues": 24,
        "unique_id": 1,
    }


def _node(folder: Path, gpu_id: int, properties: Mapping[str, int], heap: int, size_bytes: int) -> None:
    _text(folder / "gpu_id", str(gpu_id))
    _text(folder / "name", "")
    _properties(folder / "properties", {**properties, "mem_banks_count": 1, "io_links_count": 1})
    bank = {"heap_type": heap, "size_in_bytes": size_bytes, "flags": 0, "width": 8192, "mem_clk_max": 2000}
    _properties(folder / "mem_banks" / "0" / "properties", bank)


def _properties(path: Path, properties: Mapping[str, int]) -> None:
    _text(path, "\n".join(f"{name} {number}" for name, number in properties.items()))


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n", encoding="utf-8")
