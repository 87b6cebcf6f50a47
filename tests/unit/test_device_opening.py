from __future__ import annotations

from pathlib import Path

import pytest
from hip_stand_in import StandIn

from hktune.core.errors import DeviceError, InputError
from hktune.core.settings import Settings
from hktune.device.opening import find_device, open_device


def test_a_device_is_opened_by_its_kind(stand_in: StandIn, tmp_path: Path) -> None:
    settings = Settings(tmp_path, rocm_path=stand_in.rocm_path)
    assert open_device("emulated").identity.kind == "emulated"
    assert open_device("hip", settings=settings).identity.kind == "hip"
    open_device("hip", 1, settings)
    with pytest.raises(DeviceError, match=r"^no HIP device 2: this process sees 2$"):
        open_device("hip", 2, settings)


def test_an_unknown_kind_is_refused_with_those_known() -> None:
    with pytest.raises(InputError, match=r"^unknown kind of device 'tpu': known are emulated, hip, cuda$"):
        open_device("tpu")


def test_rocm_is_looked_for_where_the_environment_says(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCM_PATH", str(stand_in.rocm_path))
    assert open_device("hip").identity.name == "AMD Instinct MI350X"


def test_a_real_gpu_is_found_before_the_emulated_one(stand_in: StandIn, tmp_path: Path) -> None:
    settings = Settings(tmp_path, rocm_path=stand_in.rocm_path)
    assert find_device(settings=settings).identity.kind == "hip"
    stand_in.targets = ()
    assert find_device(settings=settings).identity.kind in ("cuda", "emulated")
