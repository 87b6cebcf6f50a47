"""AMD's own rocBLAS on its own HIP runtime, whose GPU is the emulator. benchmarks/rocblas_virtual.py tries more."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gfx950_code import assemble
from rocm_virtual.rocblas_product import Product
from test_hip_device import POINTER, STORE

from hktune.core.errors import DeviceError
from hktune.core.launch import Launch
from hktune.device.hip import HipDevice
from hktune.measure.rocblas import Rocblas, RocblasSolution

pytestmark = pytest.mark.rocm_virtual("rocblas")

LAYOUTS = ("nn", "nt", "tn", "tt")
SIZES = ((128, 128, 128), (1, 256, 64), (64, 48, 32), (33, 17, 65), (200, 136, 72), (256, 64, 256), (5, 7, 9))
SOLUTIONS = 6


@pytest.fixture
def device(rocm_virtual: HipDevice) -> HipDevice:
    return rocm_virtual


@pytest.fixture
def rocblas(device: HipDevice) -> Rocblas:
    return Rocblas(Path(os.environ["ROCM_PATH"]) / "lib")


@pytest.fixture
def product(device: HipDevice) -> Callable[..., Product]:
    return lambda layout, sizes=(128, 128, 128): Product(device, layout, sizes)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_its_own_choice_is_right(
    device: HipDevice, rocblas: Rocblas, product: Callable[..., Product], layout: str
) -> None:
    for sizes in SIZES:
        work = product(layout, sizes)
        RocblasSolution(rocblas).prepare(work.problem, work.tensors, device.create_stream())  # type: ignore[arg-type]
        assert work.outcome() is None, sizes


@pytest.mark.parametrize("layout", LAYOUTS)
def test_solutions_by_number_are_right(rocblas: Rocblas, product: Callable[..., Product], layout: str) -> None:
    work, right = product(layout), 0
    found = rocblas.solutions(work.problem, work.tensors)  # type: ignore[arg-type]
    assert len(set(found)) == len(found) >= SOLUTIONS
    for index in found[:: len(found) // SOLUTIONS]:
        with contextlib.suppress(DeviceError):  # one that does not fit after all
            RocblasSolution(rocblas, index).prepare(work.problem, work.tensors, 0)  # type: ignore[arg-type]
            assert work.outcome() is None, index
            right += 1
    assert right >= SOLUTIONS // 2


def test_a_number_that_is_none_is_refused(rocblas: Rocblas, product: Callable[..., Product]) -> None:
    work = product("nt")
    with pytest.raises(DeviceError, match="rocblas_gemm_ex answers 11"):
        RocblasSolution(rocblas, 1 << 30).prepare(work.problem, work.tensors, 0)  # type: ignore[arg-type]


def test_a_captured_product_runs_with_every_replay(
    device: HipDevice, rocblas: Rocblas, product: Callable[..., Product]
) -> None:
    work, stream = product("nt"), device.create_stream()
    enqueue = RocblasSolution(rocblas).prepare(work.problem, work.tensors, stream)  # type: ignore[arg-type]
    assert work.outcome() is None
    graph = device.capture(lambda: enqueue(work.tensors), stream)  # type: ignore[arg-type]
    for _ in range(2):
        assert "never written" in str(work.outcome())
        device.replay(graph, stream)
        assert work.outcome() is None


def test_it_shares_a_stream_with_the_devices_own_launches(
    device: HipDevice, rocblas: Rocblas, product: Callable[..., Product]
) -> None:
    """A kernel before it writes C, and one after it the start of C: all in order."""
    code = assemble(STORE, pointers=1).replace(b"gfx950", b"gfx942")
    code = code[:48] + bytes([code[48] ^ 0x4F ^ 0x4C]) + code[49:]
    kernel, stream, work = device.load(code, "kernel"), device.create_stream(), product("nn")
    launch = Launch((1, 1, 1), (64, 1, 1), 0, (POINTER,))
    enqueue = RocblasSolution(rocblas).prepare(work.problem, work.tensors, stream)  # type: ignore[arg-type]
    device.launch(kernel, launch, {"c": work.tensors["c"].buffer}, stream)
    enqueue(work.tensors)  # type: ignore[arg-type]
    assert work.outcome() is None
    enqueue(work.tensors)  # type: ignore[arg-type]
    device.launch(kernel, launch, {"c": work.tensors["c"].buffer}, stream)
    found = np.zeros(65, np.uint32)
    device.read(work.tensors["c"].buffer, found)
    assert (found[:64] == 7).all()
    assert found[64] != 7
