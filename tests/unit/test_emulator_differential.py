"""The same C functions compiled for gfx950 and for this machine give the same bits on the same random inputs.

The compiler, not this project, chooses the instructions: integer and float arithmetic, divisions, conversions, loops
that lanes leave at different times, 64-bit arithmetic, selects and switches. The hazard checker watches, and must have
nothing to say of a compiler's code.
"""

from __future__ import annotations

import ctypes
import platform
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from gfx950_code import link

from hktune.core.launch import Argument, Launch
from hktune.device.emulated import EmulatedDevice

COUNT = 256
SOURCE = Path(__file__).with_name("emulator_differential.c").read_text()
FUNCTIONS = re.findall(r"^FUNCTION\((\w+)\)", SOURCE, re.MULTILINE)
COMMON = ("-x", "c", f"-DCOUNT={COUNT}", "-O2", "-ffp-contract=off", "-fno-math-errno", "-ffreestanding", "-w")
DEVICE = (*COMMON, "--target=amdgcn-amd-amdhsa", "-mcpu=gfx950", "-nogpulib")
HOST = (*COMMON, "--target=x86_64-linux-gnu", "-fPIC", "-mfma", "-mf16c", "-msse4.1")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, ctypes.CDLL]:
    """The functions for both machines."""
    folder = tmp_path_factory.mktemp("differential")
    for name in ("device", "host"):
        (folder / f"{name}.c").write_text(SOURCE)
    code = link(folder / "device.c", DEVICE)
    link(folder / "host.c", HOST)
    return code, ctypes.CDLL(str(folder / "host.so"))


def inputs() -> npt.NDArray[np.uint32]:
    """Three words for each of COUNT work-items: corners crossed, small divisors and shift counts, anything."""
    rng = np.random.default_rng(20261)
    values = rng.integers(0, 1 << 32, (3, COUNT), dtype=np.uint32)
    values[1, 64:128] >>= rng.integers(0, 32, 64, dtype=np.uint32)
    values[2, 128:192] >>= rng.integers(0, 32, 64, dtype=np.uint32)
    corners = np.array([0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x00800000, 0x7F7FFFFF], np.uint32)
    values[0, :64], values[1, :64] = np.repeat(corners, 8), np.tile(corners, 8)
    return values


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the host's half is built for x86-64")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_device_and_host_agree(name: str, objects: tuple[bytes, ctypes.CDLL]) -> None:
    code, host = objects
    given, expected, found = inputs(), np.zeros(COUNT, np.uint32), np.zeros(COUNT, np.uint32)
    getattr(host, f"run_{name}")(ctypes.c_void_p(given.ctypes.data), ctypes.c_void_p(expected.ctypes.data))
    device = EmulatedDevice(deadline_s=60.0, find_hazards=True, strict_hazards=True)
    source, target = device.allocate(given.nbytes), device.allocate(found.nbytes)
    device.write(source, given)
    arguments = (Argument("a", "pointer"), Argument("c", "pointer"))
    shape = Launch((COUNT // 64, 1, 1), (64, 1, 1), 0, arguments)
    device.launch(device.load(code, f"run_{name}"), shape, {"a": source, "c": target})
    device.read(target, found)
    wrong = np.flatnonzero(found != expected)
    first = [tuple(hex(int(row[i])) for row in (*given, expected, found)) for i in wrong[:3]]
    assert not len(wrong), f"{name}: {len(wrong)} of {COUNT} differ, (a, b, c, host, device) = {first}"
