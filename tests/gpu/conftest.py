"""These tests run on a real GPU and are skipped, with the reason, where there is none."""

from __future__ import annotations

import pytest

from hktune.device.cuda import CudaDevice
from hktune.errors import DeviceError


@pytest.fixture(scope="session")
def device() -> CudaDevice:
    try:
        device = CudaDevice()
    except DeviceError as absent:
        pytest.skip(str(absent))
    return device


@pytest.fixture(scope="session")
def hopper(device: CudaDevice) -> CudaDevice:
    if device.identity.arch != "sm90a":
        pytest.skip(f"the kernels are for sm90a, this device is {device.identity.arch}")
    return device
