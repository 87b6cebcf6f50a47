"""What both of AMD's libraries are asked of their algorithms, on AMD's own HIP runtime whose GPU is the emulator."""

from __future__ import annotations

from pathlib import Path

from rocm_virtual.library_product import Product
from stored_algorithm import entry_of

from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.device.hip import HipDevice
from hktune.device.vendor_libraries import open_vendor_library
from hktune.device.vendor_library import VendorLibrary
from hktune.dispatch.judge import Found, judge


def right(library: VendorLibrary, algorithm: VendorAlgorithm, work: Product) -> None:
    work.prepared(library, algorithm)(None)
    assert work.outcome() is None, f"{algorithm}, {work.problem}"


def taken_back(
    library: VendorLibrary, work: Product, device: HipDevice, folder: Path
) -> tuple[VendorLibrary, VendorAlgorithm]:
    """The last algorithm that `library` has for `work`, by way of a row and a table in `folder`, into a library that is
    opened anew; and that library, which a table's rows of another version are not for."""
    entry = entry_of(folder, work.problem, library.algorithms(work.problem)[-1], device.identity)
    assert entry.choice == "algorithm"
    assert entry.vendor_algorithm
    stored, again = entry.vendor_algorithm.known, open_vendor_library("hip", library.name)
    here = Found(device.identity, allow_modelled=False, libraries={again.name: again.version})
    assert judge(entry, device.identity, here, None) == ()
    right(again, stored, work)
    [mismatch] = judge(entry, device.identity, Found(device.identity, False, libraries={again.name: "9.9.9"}), None)
    assert mismatch.detail == f"{library.name}: saved={again.version} current=9.9.9"
    return again, stored
