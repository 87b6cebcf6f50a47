"""The CUDA device on a real GPU: its identity, memory, launches, refusals and faults."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from hktune.compile.nvrtc import NvrtcCompiler
from hktune.core.config import Config
from hktune.core.errors import DeviceError
from hktune.core.launch import Argument, Launch
from hktune.core.variant import CodeObject, Variant
from hktune.device.cuda import CudaDevice
from hktune.objects.cubin import read_cubin

SOURCE = """
extern "C" __global__ void __launch_bounds__(256) add(const float* a, float* c, int n) {
    extern __shared__ float staged[];
    __shared__ float fixed[64];
    fixed[threadIdx.x % 64] = 1;
    const int i = blockIdx.x * 256 + threadIdx.x;
    staged[threadIdx.x] = i < n ? a[i] : 0;
    __syncthreads();
    if (i < n) c[i] = staged[threadIdx.x] + fixed[i % 64];
}
extern "C" __global__ void __cluster_dims__(2, 1, 1) pair(float* c) { c[blockIdx.x] = blockIdx.x; }
extern "C" __global__ void stray(float* c) { c[1ull << 40] = 1; }
"""
ARGUMENTS = (Argument("a", "pointer"), Argument("c", "pointer"), Argument("n", "i32"))


@lru_cache
def built(arch: str) -> CodeObject:
    code = NvrtcCompiler().compile(Variant("sample", "0" * 64, arch, "cuda", "add", SOURCE, Config({})), 120.0)
    assert isinstance(code, CodeObject), code
    return code


def test_the_identity_names_the_very_model(device: CudaDevice) -> None:
    asked = ["nvidia-smi", "--query-gpu=name,pci.device_id", "--format=csv,noheader"]
    name, pci_id = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()[0].split(", ")
    identity = device.identity
    assert (identity.kind, identity.name) == ("cuda", name)
    assert identity.pci_id is not None
    assert re.fullmatch(r"10de:[0-9a-f]{4}:[0-9a-f]{4}", identity.pci_id)
    assert int(pci_id, 16) >> 16 == int(identity.pci_id.split(":")[1], 16)
    assert identity.compute_units > 0


def test_memory_comes_back_as_it_was_written(device: CudaDevice) -> None:
    data = np.arange(1000, dtype=np.float32)
    buffer = device.allocate(data.nbytes + 4)
    device.write(buffer, data)
    out = np.zeros_like(data)
    device.read(buffer, out)
    assert np.array_equal(out, data)
    with pytest.raises(DeviceError, match="allocate a larger one"):
        device.write(buffer, np.zeros(2000, np.float32))
    with pytest.raises(DeviceError, match="pass a smaller array"):
        device.read(buffer, np.zeros(2000, np.float32))
    with pytest.raises(DeviceError, match="contiguous"):
        device.read(buffer, np.zeros((10, 10), np.float32)[:, ::2])
    with pytest.raises(DeviceError, match="at least 1"):
        device.allocate(0)
    with pytest.raises(DeviceError, match="OUT_OF_MEMORY"):
        device.allocate(1 << 50)


def test_what_a_cubin_says_is_what_the_driver_says(device: CudaDevice) -> None:
    from cuda.bindings import driver

    code = built(device.identity.arch)
    for symbol, image in read_cubin(code.data).kernels.items():
        kernel = device.load(code.data, symbol)
        said = {
            name: driver.cuFuncGetAttribute(
                getattr(driver.CUfunction_attribute, f"CU_FUNC_ATTRIBUTE_{name}"), kernel.function
            )[1]
            for name in ("NUM_REGS", "SHARED_SIZE_BYTES", "LOCAL_SIZE_BYTES", "MAX_THREADS_PER_BLOCK")
        }
        needs = image.resources
        assert said["NUM_REGS"] == needs.vgprs
        assert said["SHARED_SIZE_BYTES"] == needs.lds_bytes
        assert said["LOCAL_SIZE_BYTES"] == needs.scratch_bytes
        assert said["MAX_THREADS_PER_BLOCK"] <= needs.max_workgroup_size


def test_a_launch_computes_with_dynamic_shared_memory_beyond_48_kib(device: CudaDevice) -> None:
    n = 1000
    a, c = device.allocate(4 * n), device.allocate(4 * n)
    device.write(a, np.arange(n, dtype=np.float32))
    kernel = device.load(built(device.identity.arch).data, "add")
    device.launch(kernel, Launch((4, 1, 1), (256, 1, 1), 64 << 10, ARGUMENTS), {"a": a, "c": c, "n": n})
    out = np.zeros(n, np.float32)
    device.read(c, out)
    assert np.array_equal(out, np.arange(n) + 1)


def test_a_launch_takes_torchs_tensors_and_stream(device: CudaDevice) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch is built without CUDA")
    a = torch.arange(1000, dtype=torch.float32, device="cuda")
    c = torch.zeros_like(a)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    kernel = device.load(built(device.identity.arch).data, "add")
    binding = {"a": device.borrow(a), "c": device.borrow(c), "n": 1000}
    device.launch(kernel, Launch((4, 1, 1), (256, 1, 1), 1024, ARGUMENTS), binding, stream.cuda_stream)
    stream.synchronize()
    assert torch.equal(c, a + 1)
    rows = a.reshape(10, 100)[2:, :7]
    strided = device.borrow(rows)
    assert (strided.address, strided.size_bytes) == (a.data_ptr() + 4 * 200, 4 * (7 * 100 + 7))
    for refused in (a.cpu(), a[:0]):
        with pytest.raises(DeviceError, match="cannot borrow"):
            device.borrow(refused)


@pytest.mark.parametrize(
    ("launch", "reason"),
    [
        (Launch((4, 1, 1), (512, 1, 1), 2048, ARGUMENTS), "allows 1 to 256"),
        (Launch((0, 1, 1), (256, 1, 1), 1024, ARGUMENTS), "not whole clusters"),
        (Launch((4, 1, 1), (256, 1, 1), 1 << 20, ARGUMENTS), "bytes of shared memory"),
        (Launch((4, 1, 1), (256, 1, 1), 1024, ARGUMENTS[:2]), "takes 3 arguments"),
        (Launch((4, 1, 1), (256, 1, 1), 1024, (*ARGUMENTS[:2], Argument("n", "u64"))), "takes 4 bytes"),
    ],
)
def test_a_launch_that_does_not_fit_is_refused_with_its_reason(device: CudaDevice, launch: Launch, reason: str) -> None:
    kernel = device.load(built(device.identity.arch).data, "add")
    buffer = device.allocate(4000)
    with pytest.raises(DeviceError, match=reason):
        device.launch(kernel, launch, {"a": buffer, "c": buffer, "n": 1000})


def test_a_binding_that_does_not_fit_is_refused_with_its_reason(device: CudaDevice) -> None:
    kernel = device.load(built(device.identity.arch).data, "add")
    buffer, launch = device.allocate(4000), Launch((4, 1, 1), (256, 1, 1), 1024, ARGUMENTS)
    for binding, reason in (
        ({"a": buffer, "c": buffer}, r"lacks \['n'\]"),
        ({"a": buffer, "c": buffer, "n": 1, "m": 1}, r"unused \['m'\]"),
        ({"a": 5, "c": buffer, "n": 1}, "int does not fit"),
        ({"a": buffer, "c": buffer, "n": 1 << 40}, "does not fit"),
    ):
        with pytest.raises(DeviceError, match=reason):
            device.launch(kernel, launch, binding)


def test_half_a_cluster_is_refused(hopper: CudaDevice) -> None:
    kernel = hopper.load(built("sm90a").data, "pair")
    with pytest.raises(DeviceError, match="not whole clusters of"):
        hopper.launch(kernel, Launch((3, 1, 1), (32, 1, 1), 0, ARGUMENTS[1:2]), {"c": hopper.allocate(64)})


def test_objects_that_do_not_belong_here_are_refused(device: CudaDevice) -> None:
    other = "sm80" if device.identity.arch != "sm80" else "sm90a"
    source = SOURCE.replace("__cluster_dims__(2, 1, 1)", "")
    foreign = NvrtcCompiler().compile(Variant("sample", "0" * 64, other, "cuda", "add", source, Config({})), 120.0)
    assert isinstance(foreign, CodeObject), foreign
    with pytest.raises(DeviceError, match="this device is"):
        device.load(foreign.data, "add")
    with pytest.raises(DeviceError, match="no kernel 'gemm'"):
        device.load(built(device.identity.arch).data, "gemm")
    with pytest.raises(DeviceError, match="rebuild it"):
        device.load(b"not a cubin", "add")
    with pytest.raises(DeviceError, match="no CUDA device 99"):
        CudaDevice(99)


FAULT = """
import sys
sys.path.insert(0, {folder!r})
from test_cuda_device import ARGUMENTS, built
from hktune.device.cuda import CudaDevice
from hktune.core.errors import KernelFault
from hktune.core.launch import Launch
device = CudaDevice()
buffer = device.allocate(64)
kernel = device.load(built(device.identity.arch).data, "stray")
device.launch(kernel, Launch((1, 1, 1), (1, 1, 1), 0, ARGUMENTS[1:2]), {{"c": buffer}})
for attempt in range(2):
    try:
        device.synchronize()
    except KernelFault as fault:
        print(fault.status, fault.detail)
"""


def test_a_stray_store_is_a_fault_and_stays_one(device: CudaDevice) -> None:
    script = FAULT.format(folder=str(Path(__file__).parent))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert ended.stdout.splitlines() == ["crashed the CUDA driver says CUDA_ERROR_ILLEGAL_ADDRESS"] * 2, ended.stderr
