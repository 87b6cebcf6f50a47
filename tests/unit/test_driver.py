"""Which kernel driver a GPU of this machine runs by, from files like those of a machine that has one."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from hktune.device import driver


def test_a_driver_s_version_is_its_module_s_or_else_the_kernel_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_MODULES", tmp_path)
    (tmp_path / "nvidia").mkdir()
    (tmp_path / "nvidia" / "version").write_text("580.82.07\n")
    assert driver.driver_version("cuda") == "580.82.07"
    assert driver.driver_version("hip") == platform.release(), "amdgpu of the kernel's own has no version"
    assert driver.driver_version("emulated") == ""
