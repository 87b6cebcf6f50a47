"""These tests run on a real GPU and are skipped, with the reason, where there is none."""

from __future__ import annotations

import os

import pytest

from hktune.core.errors import DeviceError
from hktune.core.settings import Settings
from hktune.device.cuda import CudaDevice
from hktune.device.hip import HipDevice


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


@pytest.fixture(scope="session")
def amd() -> HipDevice:
    try:
        device = HipDevice(rocm_path=Settings.from_environment(os.environ).rocm_path)
    except DeviceError as absent:
        pytest.skip(str(absent))
    if device.identity.arch != "gfx950":
        pytest.skip(f"the code objects are for gfx950, this device is {device.identity.arch}")
    return device
