"""Whether a row of a table can be trusted here: one pure function over what was saved and what was found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from hktune.core.arch import ARCHS
from hktune.core.identity import Identity
from hktune.core.launch import Launch
from hktune.core.launch_rule import LaunchRule
from hktune.core.operand import operands_of
from hktune.core.outcome import Source
from hktune.dispatch.table import Algorithm, Entry, Kernel
from hktune.objects.code_object import AmdCodeObject, KernelImage
from hktune.objects.cubin import Cubin, CudaKernel


class Reason(str, Enum):
    """Why an entry is not used, or is used and reported."""

    MODELLED = "modelled"
    OTHER_ARCHITECTURE = "other architecture"
    OTHER_DEVICE = "other device"
    SIBLING_DEVICE = "sibling device"
    OTHER_TEMPLATE = "other template"
    OBJECT_MISSING = "object missing"
    OBJECT_CHANGED = "object changed"
    OBJECT_UNREADABLE = "object unreadable"
    SYMBOL_MISSING = "symbol missing"
    ARGUMENTS = "arguments"
    RESOURCES = "resources"
    NOT_REPRODUCIBLE = "not reproducible"
    OTHER_LIBRARY = "other library"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Mismatch:
    """One way in which a row and what was found differ; `detail` is one line. hard: the row is not used. soft: it is
    used and reported."""

    level: Literal["hard", "soft"]
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Found:
    """What is here to hold a row against. `templates`: name -> sha256 of the templates whose sources are known here;
    rows of others are not judged by theirs. `allow_sibling_board`: rows of another board of the architecture may be
    used. `libraries`: name -> version of the vendor's libraries that are here; None where nobody looked, and rows of
    their algorithms are not judged by them."""

    identity: Identity
    allow_modelled: bool
    templates: Mapping[str, str] = field(default_factory=dict)
    allow_sibling_board: bool = False
    libraries: Mapping[str, str] | None = None


ObjectFound = AmdCodeObject | Cubin | Mismatch
"""The code object that a row names, parsed, or why there is none."""

# Elements along a side of a tensor map's box, and what its rows are multiples of (cuTensorMapEncodeTiled, boxDim).
_BOX_MAX, _BOX_ROW_BYTES = 256, 16
# Blocks along y and z, and threads along z (CUDA C++ programming guide 13.0, technical specifications).
_CUDA_GRID_YZ_MAX, _CUDA_BLOCK_Z_MAX = 65535, 64
_HIP_WORK_ITEMS = 2**32  # along each axis of a launch fewer than this: an AQL packet has 32 bits for them


def judge(entry: Entry, saved: Identity, found: Found, code: ObjectFound | None) -> tuple[Mismatch, ...]:
    """How `entry`, made on the device `saved`, and what is here differ; hard ones first. `code` is the entry's object,
    None for an entry that chose the vendor library. Pure: no file, device or clock is asked."""
    mismatches = [
        *_architecture(saved, found.identity),
        *_time(entry, saved, found),
        *(_template(entry.kernel, found) if entry.kernel else ()),
        *(_library(entry.vendor_algorithm, found) if entry.vendor_algorithm else ()),
        *(_object(entry, entry.kernel, saved.arch, code) if entry.kernel and code else ()),
    ]
    return tuple(sorted(mismatches, key=lambda mismatch: mismatch.level))


def _architecture(saved: Identity, current: Identity) -> list[Mismatch]:
    if saved.arch == current.arch:
        return []
    detail = f"the table is of another architecture: saved={saved.arch} current={current.arch}"
    return [Mismatch("hard", Reason.OTHER_ARCHITECTURE, detail)]


def _time(entry: Entry, saved: Identity, found: Found) -> list[Mismatch]:
    """Whether its time says something about the device that is here."""
    source = entry.source
    if source is Source.MODELLED and not found.allow_modelled:
        return [Mismatch("hard", Reason.MODELLED, "its time is modelled, and allow_modelled is False")]
    if _sku(source, saved) == _sku(source, found.identity):
        return []
    return [_of_another_board(source, saved, found)]


def _of_another_board(source: Source, saved: Identity, found: Found) -> Mismatch:
    """A time of `saved`, which is another board than the one here.

    Other kernels may be best here, even where boards differ in clocks and power alone: so a sibling needs a word. Grids
    that fill the device are numbers in a table, right for so many compute units. So a board with more or fewer is no
    sibling.
    """
    of = "measured on" if source is Source.MEASURED else "modelled for"
    detail = f"saved={_said(_sku(source, saved))} current={_said(_sku(source, found.identity))}"
    if saved.arch != found.identity.arch or _size(source, saved) != _size(source, found.identity):
        return Mismatch("hard", Reason.OTHER_DEVICE, f"{of} another device: {detail}")
    if found.allow_sibling_board:
        return Mismatch("soft", Reason.SIBLING_DEVICE, f"{of} a sibling of this device: {detail}")
    rule = f"{of} a sibling of this device, and allow_sibling_board is False"
    return Mismatch("hard", Reason.OTHER_DEVICE, f"{rule}: {detail}")


def _sku(source: Source, identity: Identity) -> dict[str, object]:
    """What decides whether a time holds: not the marketing name, which drivers spell differently. What a time is
    modelled for is the record of a whole board."""
    if source is Source.MODELLED:
        board = identity.known_board
        return {"compute_units": identity.compute_units, "board": board.name if board else None}
    return {name: getattr(identity, name) for name in ("compute_units", "pci_id", "partition")}


def _size(source: Source, identity: Identity) -> list[object]:
    """What of that is alike of siblings."""
    return [value for name, value in _sku(source, identity).items() if name not in ("pci_id", "board")]


def _said(sku: Mapping[str, object]) -> str:
    return " ".join(f"{name}:{value}" for name, value in sku.items() if value is not None)


def _template(kernel: Kernel, found: Found) -> list[Mismatch]:
    current = found.templates.get(kernel.template, kernel.template_sha256)
    if current == kernel.template_sha256:
        return []
    detail = f"{kernel.template} has changed: saved={kernel.template_sha256} current={current}"
    return [Mismatch("hard", Reason.OTHER_TEMPLATE, detail)]


def _library(algorithm: Algorithm, found: Found) -> list[Mismatch]:
    """An algorithm is known to the version only that named it."""
    if found.libraries is None or found.libraries.get(algorithm.library) == algorithm.version:
        return []
    current = found.libraries.get(algorithm.library, "not here")
    detail = f"{algorithm.library}: saved={algorithm.version} current={current}"
    return [Mismatch("hard", Reason.OTHER_LIBRARY, detail)]


def _object(entry: Entry, kernel: Kernel, arch: str, code: ObjectFound) -> list[Mismatch]:
    if isinstance(code, Mismatch):
        return [code]
    current = code.arch if isinstance(code, AmdCodeObject) else f"sm{code.capability}"
    if current != (arch if isinstance(code, AmdCodeObject) else arch.rstrip("abcdefghijklmnopqrstuvwxyz")):
        detail = f"{kernel.object_sha256}: arch saved={arch} current={current}"
        return [Mismatch("hard", Reason.OBJECT_UNREADABLE, detail)]
    image = code.kernels.get(kernel.symbol)
    if image is None:
        detail = f"{kernel.object_sha256} has no kernel {kernel.symbol}"
        return [Mismatch("hard", Reason.SYMBOL_MISSING, detail)]
    mapless = _mapless(image, entry, code) if isinstance(code, Cubin) and isinstance(image, CudaKernel) else None
    rule = kernel.launch.rule
    unfit = image.mismatch(rule.arguments) or mapless
    if unfit:
        return [Mismatch("hard", Reason.ARGUMENTS, unfit)]
    refused = _refused(entry, kernel, rule, arch, image)
    return [Mismatch("hard", Reason.RESOURCES, refused)] if refused else []


def _mapless(image: CudaKernel, entry: Entry, cubin: Cubin) -> str | None:
    """Why a tensor map of the kernel of `entry` cannot be made, or would be of another format than its operand; None
    where neither is so."""
    assert entry.kernel is not None
    operands = operands_of(entry.problem.operation)
    for parameter, argument in zip(image.parameters, entry.kernel.launch.rule.arguments, strict=False):
        if not parameter.is_tensor_map:
            continue
        box = cubin.boxes.get(argument.name)
        if box is None or argument.name not in operands or not operands[argument.name].row_stride:
            return f"{image.symbol} takes {argument.name} as a tensor map, and the cubin has no box for it"
        if box.dimensions > 2 and not operands[argument.name].is_stack:
            return f"{image.symbol} takes {argument.name} as a stack of matrices, {entry.operation} has but one"
        dtype, row_bytes = operands[argument.name].dtype, box.columns * box.element_bytes
        if dtype not in box.dtypes:
            return f"{image.symbol} copies {argument.name} as {box.dtypes[0]}, {entry.operation} has it as {dtype}"
        if not (0 < box.rows <= _BOX_MAX and 0 < box.columns <= _BOX_MAX and row_bytes % _BOX_ROW_BYTES == 0):
            return (
                f"{image.symbol} copies {argument.name} in boxes of {box.rows} x {box.columns}, which no map can have"
            )
    return None


def _grid_refused(launch: Launch, image: KernelImage | CudaKernel) -> str | None:
    grid, block = launch.grid, launch.block
    if isinstance(image, KernelImage):
        too_many = any(a * b >= _HIP_WORK_ITEMS for a, b in zip(grid, block, strict=True))
        return f"grid {grid} of {block} has 2**32 work-items or more along an axis" if too_many else None
    if any(blocks % per for blocks, per in zip(grid, image.cluster, strict=True)):
        return f"grid {grid} is not whole clusters of {image.cluster} blocks"
    if max(grid[1:]) > _CUDA_GRID_YZ_MAX or block[2] > _CUDA_BLOCK_Z_MAX:
        return f"grid {grid} of {block} has too many blocks along y or z, or threads along z"
    return None


def _refused(entry: Entry, kernel: Kernel, rule: LaunchRule, arch: str, image: KernelImage | CudaKernel) -> str | None:
    """Why a driver would refuse this launch, or None when it would not."""
    launch, needs = kernel.launch, image.resources
    work_items = math.prod(launch.block)
    if work_items > needs.max_workgroup_size:
        return f"launches {work_items} work-items a workgroup, {kernel.symbol} takes {needs.max_workgroup_size}"
    for m in dict.fromkeys((entry.m, *entry.rows)):
        at_m = rule.at(m)
        refused = _grid_refused(at_m, image) if at_m else None
        if refused:
            return f"{refused} (m={m})"
    record = ARCHS.get(arch)
    if record is None:
        return None
    waves, lds_bytes = -(-work_items // record.wave_size), needs.lds_bytes + launch.dynamic_lds_bytes
    if waves > record.waves_per_workgroup:
        return f"a workgroup of {waves} waves, {arch} takes {record.waves_per_workgroup}"
    if lds_bytes > record.lds_bytes:
        return f"needs lds_bytes={lds_bytes}, {arch} has {record.lds_bytes}"
    if needs.vgprs + needs.agprs > record.vgprs_per_wave:
        return f"needs {needs.vgprs + needs.agprs} registers a work-item, {arch} has {record.vgprs_per_wave}"
    if record.waves_that_fit(needs.vgprs, needs.agprs, lds_bytes, waves) < -(-waves // record.simds_per_cu):
        return f"{waves} waves of {needs.vgprs + needs.agprs} registers do not fit one compute unit of {arch}"
    return None
