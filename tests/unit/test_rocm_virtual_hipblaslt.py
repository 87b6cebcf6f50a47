"""AMD's own hipBLASLt on its own HIP runtime, whose GPU is the emulator. Its kernels are those for gfx90a, translated
(scripts/rocm_virtual/translated.py). benchmarks/rocm_libraries_virtual.py tries more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rocm_algorithms import right, taken_back
from rocm_virtual.library_product import Product

from hktune.core.errors import DeviceError
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.device.hip import HipDevice
from hktune.device.hipblaslt import FIRST_ASKED
from hktune.device.vendor_libraries import open_vendor_library, vendor_libraries
from hktune.device.vendor_library import VendorLibrary

pytestmark = pytest.mark.rocm_virtual("hipblaslt")

OPERATIONS = (
    *("bf16.nn", "bf16.nt", "bf16.tn", "bf16.tt", "f16.nt", "bf16.nt+bias", "f16.nn+bias", "bf16.nt+accumulate"),
    *("f16.nt->f32", "f16.tn->f32+accumulate", "f32.nt"),
)
SOLUTIONS = 4


@pytest.fixture
def device(rocm_virtual: HipDevice) -> HipDevice:
    return rocm_virtual


@pytest.fixture
def library(device: HipDevice) -> VendorLibrary:
    return open_vendor_library("hip", "hipBLASLt")


@pytest.fixture
def product(device: HipDevice) -> Callable[..., Product]:
    return lambda operation, sizes=(128, 96, 64): Product(device, operation, sizes)


def test_it_is_what_the_device_offers(library: VendorLibrary) -> None:
    assert [(each.name, each.version) for each in vendor_libraries("hip")] == [("hipBLASLt", library.version)]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_solutions_are_right(library: VendorLibrary, product: Callable[..., Product], operation: str) -> None:
    work = product(operation)
    found = library.algorithms(work.problem)
    assert len({each.handle for each in found}) == len(found)
    for each in (*found[:2], *found[2 :: len(found) // SOLUTIONS + 1]):
        right(library, each, work)


def test_it_names_more_than_its_heuristic_does(library: VendorLibrary) -> None:
    found = library.algorithms(Problem(128, 96, 64, operation_of("bf16.nt")))
    assert len(found) > 3 * FIRST_ASKED
    assert all(each.name.startswith("Cijk_") for each in found)
    assert len({each.name for each in found}) > 3 * FIRST_ASKED


def test_a_solution_that_needs_a_workspace_is_given_one(
    library: VendorLibrary, product: Callable[..., Product]
) -> None:
    work = product("bf16.nt", (32, 64, 512))
    some = [each for each in library.algorithms(work.problem) if each.workspace_bytes]
    assert some
    for each in some[:2]:
        right(library, each, work)


def test_a_stored_solution_is_taken_back_and_a_changed_one_is_not(
    library: VendorLibrary, product: Callable[..., Product], device: HipDevice, tmp_path: Path
) -> None:
    """By way of a row and a table, into a library that is opened anew."""
    work = product("bf16.nt")
    again, stored = taken_back(library, work, device, tmp_path)
    for other in (
        replace(stored, version="9.9.9"),
        replace(stored, handle="7fffffff"),
        replace(stored, name=stored.name.replace("Cijk", "Cijl")),
        replace(stored, workspace_bytes=stored.workspace_bytes + 16),
    ):
        assert again.refusal(other, work.problem)
        with pytest.raises(DeviceError):
            again.prepare(other, work.problem)


def test_a_captured_product_runs_with_every_replay(
    device: HipDevice, library: VendorLibrary, product: Callable[..., Product]
) -> None:
    work, stream = product("bf16.nt"), device.create_stream()
    go = work.prepared(library, library.algorithms(work.problem)[0])
    go(stream)
    assert work.outcome() is None
    graph = device.capture(lambda: go(stream), stream)
    for _ in range(2):
        assert "never written" in str(work.outcome())
        device.replay(graph, stream)
        assert work.outcome() is None
