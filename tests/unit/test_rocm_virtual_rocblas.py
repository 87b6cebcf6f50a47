"""AMD's own rocBLAS on its own HIP runtime, whose GPU is the emulator.

benchmarks/rocm_libraries_virtual.py tries more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gfx950_code import assemble
from rocm_algorithms import right, taken_back
from rocm_virtual.library_product import Product
from test_hip_device import POINTER, STORE

from hktune.core.errors import DeviceError
from hktune.core.launch import Launch
from hktune.device.hip import HipDevice
from hktune.device.rocblas import OWN_CHOICE
from hktune.device.vendor_libraries import open_vendor_library
from hktune.device.vendor_library import VendorLibrary

pytestmark = pytest.mark.rocm_virtual("rocblas")

LAYOUTS = ("nn", "nt", "tn", "tt")
SIZES = ((128, 128, 128), (1, 256, 64), (64, 48, 32), (33, 17, 65), (200, 136, 72), (256, 64, 256), (5, 7, 9))
SOLUTIONS = 6


@pytest.fixture
def device(rocm_virtual: HipDevice) -> HipDevice:
    return rocm_virtual


@pytest.fixture
def rocblas(device: HipDevice) -> VendorLibrary:
    return open_vendor_library("hip", "rocBLAS")


@pytest.fixture
def product(device: HipDevice) -> Callable[..., Product]:
    return lambda operation, sizes=(128, 128, 128): Product(device, operation, sizes)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_its_own_choice_is_right(rocblas: VendorLibrary, product: Callable[..., Product], layout: str) -> None:
    for sizes in SIZES:
        work = product(f"bf16.{layout}", sizes)
        choice = rocblas.algorithms(work.problem)[0]
        assert choice.name == OWN_CHOICE
        right(rocblas, choice, work)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_solutions_by_number_are_right(rocblas: VendorLibrary, product: Callable[..., Product], layout: str) -> None:
    work = product(f"bf16.{layout}")
    found = rocblas.algorithms(work.problem)
    assert len(found) > SOLUTIONS
    for each in found[:: len(found) // SOLUTIONS]:
        right(rocblas, each, work)


@pytest.mark.parametrize("operation", ["bf16.nt->f32", "bf16.tn->f32+accumulate", "bf16.nn+accumulate"])
def test_wider_sums_and_what_c_holds(rocblas: VendorLibrary, product: Callable[..., Product], operation: str) -> None:
    work = product(operation, (96, 64, 128))
    for each in rocblas.algorithms(work.problem)[:3]:
        right(rocblas, each, work)


def test_products_of_one_row_or_column_are_right_and_asking_launches_none(
    rocblas: VendorLibrary, product: Callable[..., Product]
) -> None:
    """rocBLAS launches some of their solutions where it is asked whether they fit, at whatever address it is given."""
    for sizes in ((1, 1, 1), (100, 1, 50), (1, 256, 64)):
        work = product("bf16.nn", sizes)
        found = rocblas.algorithms(work.problem)
        assert "never written" in str(work.outcome())
        for each in found[:12]:
            right(rocblas, each, work)


def test_solutions_that_share_a_problem_among_workgroups_are_right(
    rocblas: VendorLibrary, product: Callable[..., Product]
) -> None:
    """Some of these keep partial sums in the workspace."""
    work = product("bf16.nn", (16, 256, 4096))
    found = rocblas.algorithms(work.problem)
    for each in found[:: len(found) // 6]:
        right(rocblas, each, work)


def test_a_stored_solution_is_taken_back_and_a_changed_one_is_not(
    rocblas: VendorLibrary, product: Callable[..., Product], device: HipDevice, tmp_path: Path
) -> None:
    """By way of a row and a table, into a library that is opened anew."""
    work = product("bf16.nt")
    again, stored = taken_back(rocblas, work, device, tmp_path)
    for other in (
        replace(stored, version="9.9.9"),
        replace(stored, handle="7fffffff"),
        replace(stored, name="another"),
    ):
        assert again.refusal(other, work.problem)
        with pytest.raises(DeviceError):
            again.prepare(other, work.problem)


def test_a_captured_product_runs_with_every_replay(
    device: HipDevice, rocblas: VendorLibrary, product: Callable[..., Product]
) -> None:
    work, stream = product("bf16.nt"), device.create_stream()
    go = work.prepared(rocblas, rocblas.algorithms(work.problem)[0])
    go(stream)
    assert work.outcome() is None
    graph = device.capture(lambda: go(stream), stream)
    for _ in range(2):
        assert "never written" in str(work.outcome())
        device.replay(graph, stream)
        assert work.outcome() is None


def test_it_shares_a_stream_with_the_devices_own_launches(
    device: HipDevice, rocblas: VendorLibrary, product: Callable[..., Product]
) -> None:
    """A kernel before it writes C, and one after it the start of C: all in order."""
    code = assemble(STORE, pointers=1).replace(b"gfx950", b"gfx942")
    code = code[:48] + bytes([code[48] ^ 0x4F ^ 0x4C]) + code[49:]
    kernel, stream, work = device.load(code, "kernel"), device.create_stream(), product("bf16.nn")
    launch = Launch((1, 1, 1), (64, 1, 1), 0, (POINTER,))
    go = work.prepared(rocblas, rocblas.algorithms(work.problem)[0])
    device.launch(kernel, launch, {"c": work.tensors["c"].buffer}, stream)
    go(stream)
    assert work.outcome() is None
    go(stream)
    device.launch(kernel, launch, {"c": work.tensors["c"].buffer}, stream)
    found = np.zeros(65, np.uint32)
    device.read(work.tensors["c"].buffer, found)
    assert (found[:64] == 7).all()
    assert found[64] != 7
