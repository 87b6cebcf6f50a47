"""Reads an AMD code object: its ELF image, its kernels' descriptors, and the metadata the compiler left in it.

Layouts follow LLVM's AMDGPUUsage ("Code Object V3+ metadata", "Kernel Descriptor"). Nothing here executes or
trusts the bytes: every offset is checked, and what is wrong is one TableError line.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from hktune.core.errors import TableError
from hktune.core.launch import Argument
from hktune.core.variant import Resources
from hktune.objects.elf import PT_LOAD, SHT_DYNSYM, Elf, Segment

_EM_AMDGPU = 224
_NT_AMDGPU_METADATA = 32
_DESCRIPTOR_BYTES = 64
_DESCRIPTOR_ENTRY_OFFSET = slice(16, 24)
_SCALAR_BYTES = {"u32": 4, "i32": 4, "f32": 4, "u64": 8}
_MEMORY_BYTES_MAX = 1 << 26  # of all segments: a kernel's machine code and constants
_KERNELS_MAX = 4096
_METADATA_BYTES_MAX = 4 << 20  # a kernel's record has one or two thousand
_T = TypeVar("_T")

# LLVM AMDGPUUsage, "AMDGPU ELF Header": EF_AMDGPU_MACH, EF_AMDGPU_FEATURE_*, EI_ABIVERSION. The GPUs of CDNA.
_MACHINE_MASK, _ABI_V3 = 0xFF, 1
_MACHINES = {0x30: "gfx908", 0x3F: "gfx90a", 0x4C: "gfx942", 0x4F: "gfx950", 0x5F: "gfx9-4-generic"}
_RUNS_ON = {"gfx9-4-generic": ("gfx942", "gfx950")}
_SETTINGS = ("", "", "-", "+")  # not supported, any, off, on

_Count = Annotated[int, Meta(ge=0, lt=2**32)]
_Short = Annotated[str, Meta(max_length=4096)]


class _Slot(Struct):
    """One explicit or hidden argument in the metadata (AMDGPUUsage, "Code Object V3+ Kernel Argument Metadata Map")."""

    offset: _Count = field(name=".offset")
    size: _Count = field(name=".size")
    value_kind: _Short = field(name=".value_kind")
    name: _Short = field(name=".name", default="")


class _Record(Struct):
    """One kernel in the metadata (the same, "Kernel Metadata Map"), as far as it is read here."""

    name: _Short = field(name=".name")
    symbol: _Short = field(name=".symbol")
    kernarg_bytes: Annotated[int, Meta(ge=0, le=65536)] = field(name=".kernarg_segment_size")
    vgprs: _Count = field(name=".vgpr_count")
    sgprs: _Count = field(name=".sgpr_count")
    lds_bytes: _Count = field(name=".group_segment_fixed_size")
    scratch_bytes: _Count = field(name=".private_segment_fixed_size")
    max_workgroup_size: _Count = field(name=".max_flat_workgroup_size")
    agprs: _Count = field(name=".agpr_count", default=0)
    vgpr_spills: _Count = field(name=".vgpr_spill_count", default=0)
    sgpr_spills: _Count = field(name=".sgpr_spill_count", default=0)
    slots: Annotated[tuple[_Slot, ...], Meta(max_length=256)] = field(name=".args", default=())


class _Named(Struct):
    """A kernel's record, only its name read."""

    name: _Short = field(name=".name")


class _Metadata(Struct):
    """Version 1.0 (code object V3) has no target: the file's header says it."""

    kernels: Annotated[tuple[msgspec.Raw, ...], Meta(max_length=_KERNELS_MAX)] = field(name="amdhsa.kernels")
    target: _Short = field(name="amdhsa.target", default="")


@dataclass(frozen=True)
class ArgumentSlot:
    """Where one kernel argument is in the kernarg segment. `value_kind` is LLVM's word (by_value, global_buffer,
    hidden_block_count_x, ...); hidden ones are filled by the launch."""

    name: str
    offset_bytes: int
    size_bytes: int
    value_kind: str

    @property
    def hidden(self) -> bool:
        return self.value_kind.startswith("hidden_")

    def takes(self, argument: Argument) -> bool:
        """Whether `argument` has this slot's size and nature."""
        if argument.kind == "pointer":
            return self.value_kind == "global_buffer" and self.size_bytes == 8
        return self.value_kind == "by_value" and self.size_bytes == _SCALAR_BYTES.get(argument.kind)


@dataclass(frozen=True)
class KernelImage:
    """One kernel of a code object. `entry_address` is a virtual address inside the object's segments."""

    symbol: str
    entry_address: int
    descriptor: bytes
    arguments: tuple[ArgumentSlot, ...]
    kernarg_bytes: int
    resources: Resources

    @cached_property
    def explicit(self) -> tuple[ArgumentSlot, ...]:
        """The slots that a launch's arguments fill."""
        return tuple(slot for slot in self.arguments if not slot.hidden)

    def filled(self, arguments: tuple[Argument, ...]) -> list[tuple[ArgumentSlot, Argument]]:
        """Each of `arguments`, which have no `mismatch`, with its slot. What no argument fills is zero."""
        if _are_placed(arguments):
            at = {slot.offset_bytes: slot for slot in self.explicit}
            return [(at[argument.offset_bytes], argument) for argument in arguments if argument.offset_bytes in at]
        return list(zip(self.explicit, arguments, strict=True))

    def mismatch(self, arguments: tuple[Argument, ...]) -> str | None:
        """Why `arguments` do not fit this kernel's explicit slots, or None when they do."""
        slots = self.explicit
        if not _are_placed(arguments) and len(slots) != len(arguments):
            return f"{self.symbol} takes {len(slots)} arguments, the launch gives {len(arguments)}"
        pairs = self.filled(arguments)
        places = {slot.offset_bytes for slot, _ in pairs}
        if not len(arguments) == len(pairs) == len(places):
            stray = next((each for each in arguments if each.offset_bytes not in places), arguments[-1])
            return f"{self.symbol} takes no argument at offset {stray.offset_bytes}, where the launch has {stray.name}"
        for slot, argument in pairs:
            if not slot.takes(argument):
                return (
                    f"{self.symbol} takes {slot.value_kind} of {slot.size_bytes} bytes at offset {slot.offset_bytes}, "
                    f"the launch gives {argument.name} ({argument.kind})"
                )
        return None


def _are_placed(arguments: tuple[Argument, ...]) -> bool:
    """Whether these arguments say where in the argument struct they are, instead of by their order."""
    return any(argument.offset_bytes is not None for argument in arguments)


@dataclass(frozen=True)
class AmdCodeObject:
    """A parsed code object: target, loadable segments, kernels by symbol.

    `features` are what it asks of the target's settings, as in a target id: "sramecc+", "xnack-"; nothing of one that
    it does not depend on.
    """

    arch: str
    features: tuple[str, ...]
    loaded: tuple[Segment, ...]
    kernels: Mapping[str, KernelImage]

    @cached_property
    def segments(self) -> tuple[tuple[int, bytes], ...]:
        """What a device's memory holds of it, as (virtual address, bytes): zeros included that the file leaves out."""
        return tuple((each.address, bytes(each.data).ljust(each.memory_bytes, b"\0")) for each in self.loaded)

    @property
    def variables(self) -> tuple[range, ...]:
        """Addresses that its kernels may store to: variables of the device."""
        return tuple(
            range(each.address, each.address + max(each.memory_bytes, len(each.data)))
            for each in self.loaded
            if each.writable
        )

    def misfit(self, arch: str, features: tuple[str, ...] = ()) -> str | None:
        """Why a device of `arch` with `features` cannot run it, or None when it can."""
        if arch not in _RUNS_ON.get(self.arch, (self.arch,)):
            return f"the code object is for {self.arch}, this device is {arch}"
        refused = [feature for feature in self.features if features and feature not in features]
        if refused:
            mine, its = ":".join((self.arch, *self.features)), ":".join((arch, *features))
            return f"the code object is for {mine}, this device is {its}"
        return None


def read_code_object(data: bytes, symbols: Collection[str] | None = None) -> AmdCodeObject:
    """Parse an AMDGPU ELF, of its kernels only `symbols` where they are given: a total function. Raises TableError when
    the bytes are not a whole, well-formed one."""
    try:
        return _parsed(Elf(data), symbols)
    except TableError as error:
        raise TableError(f"not a readable AMD code object: {error}") from None


def _parsed(elf: Elf, wanted: Collection[str] | None) -> AmdCodeObject:
    if elf.machine != _EM_AMDGPU:
        raise TableError(f"machine is {elf.machine}; rebuild it")
    metadata, loaded, symbols = _metadata(elf), _loaded(elf), _symbols(elf)
    images = [_kernel(record, symbols, loaded) for record in _records(metadata, wanted)]
    arch = _arch(elf.flags, metadata.target)
    return AmdCodeObject(arch, _features(elf), loaded, {image.symbol: image for image in images})


def _arch(flags: int, target: str) -> str:
    """The GPU that header and metadata name; metadata of version 1.0 leave it to the header."""
    number = flags & _MACHINE_MASK
    named = target.partition(":")[0].partition("--")[2]
    known = _MACHINES.get(number)
    if known and named and known != named:
        raise TableError(f"its header says {known}, its metadata {named[:80]}; rebuild it")
    return known or named or f"AMDGPU machine {number:#x}"


def _features(elf: Elf) -> tuple[str, ...]:
    """What the header's flags ask of XNACK and SRAM-ECC: one bit each in ABI V3, two since."""
    found = []
    for name, shift, old_bit in (("sramecc", 10, 0x200), ("xnack", 8, 0x100)):
        if elf.abi_version <= _ABI_V3:
            found.append(f"{name}{'+' if elf.flags & old_bit else '-'}")
        else:
            found.append(name + _SETTINGS[elf.flags >> shift & 3])
    return tuple(feature for feature in found if feature[-1] in "+-")


def _metadata(elf: Elf) -> _Metadata:
    """Of all notes together: a linker leaves one for each object that it joins, as in the files of rocBLAS."""
    parts: list[_Metadata] = []
    size = 0
    for owner, kind, content in elf.notes():
        if owner == b"AMDGPU" and kind == _NT_AMDGPU_METADATA:
            size += len(content)
            if size > _METADATA_BYTES_MAX:
                raise TableError(f"metadata of {size} bytes are no kernel's; rebuild it")
            parts.append(_decoded(content, _Metadata))
    if not parts:
        raise TableError("it carries no AMDGPU metadata note; rebuild it")
    kernels, targets = tuple(raw for part in parts for raw in part.kernels), {part.target for part in parts}
    if len(kernels) > _KERNELS_MAX or len(targets) > 1:
        raise TableError(f"{len(kernels)} kernels for {len(targets)} targets; {_KERNELS_MAX} for one are the most")
    return _Metadata(kernels, targets.pop())


def _records(metadata: _Metadata, wanted: Collection[str] | None) -> list[_Record]:
    """The records of the kernels in `wanted`, or of all. Others cost next to nothing."""
    own = [raw for raw in metadata.kernels if wanted is None or _decoded(raw, _Named).name in wanted]
    return [_decoded(raw, _Record) for raw in own]


def _decoded(content: bytes | msgspec.Raw, kind: type[_T]) -> _T:
    try:
        return msgspec.msgpack.decode(content, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise TableError(f"its metadata is malformed ({error}); rebuild it") from None


def _loaded(elf: Elf) -> tuple[Segment, ...]:
    loaded = tuple(segment for segment in elf.segments if segment.kind == PT_LOAD)
    sizes = [max(segment.memory_bytes, len(segment.data)) for segment in loaded]
    ends = [segment.address + size for segment, size in zip(loaded, sizes, strict=True)]
    if max([sum(sizes), *ends]) > _MEMORY_BYTES_MAX:
        raise TableError(f"segments of {sum(sizes)} bytes up to address {max(ends):#x} are no kernel's; rebuild it")
    return loaded


def _symbols(elf: Elf) -> dict[str, int]:
    symbols = elf.symbols(SHT_DYNSYM)
    if symbols is None:
        raise TableError("it has no dynamic symbols; link it with -shared")
    return {symbol.name: symbol.value for symbol in symbols}


def _kernel(record: _Record, symbols: Mapping[str, int], loaded: tuple[Segment, ...]) -> KernelImage:
    if record.symbol not in symbols:
        raise TableError(f"kernel {record.name[:80]!r} has no symbol; rebuild it")
    address = symbols[record.symbol]
    descriptor = _bytes_at(loaded, address, _DESCRIPTOR_BYTES)
    entry = address + int.from_bytes(descriptor[_DESCRIPTOR_ENTRY_OFFSET], "little", signed=True)
    if any(slot.offset + slot.size > record.kernarg_bytes for slot in record.slots):
        raise TableError(
            f"an argument of {record.name[:80]!r} lies outside its {record.kernarg_bytes} bytes; rebuild it"
        )
    arguments = tuple(ArgumentSlot(slot.name, slot.offset, slot.size, slot.value_kind) for slot in record.slots)
    vgprs, agprs = _registers(record, descriptor)
    resources = Resources(
        vgprs=vgprs,
        agprs=agprs,
        sgprs=record.sgprs,
        vgpr_spills=record.vgpr_spills,
        sgpr_spills=record.sgpr_spills,
        lds_bytes=record.lds_bytes,
        scratch_bytes=record.scratch_bytes,
        max_workgroup_size=record.max_workgroup_size,
    )
    return KernelImage(record.name, entry, descriptor, arguments, record.kernarg_bytes, resources)


def _registers(record: _Record, descriptor: bytes) -> tuple[int, int]:
    """Architectural and accumulation registers. LLVM's `.vgpr_count` is of both together; other assemblers leave out
    `.agpr_count`, or count architectural registers only. Then the descriptor tells: what is allocated, and where the
    accumulation registers begin in it (AMDGPUUsage, compute_pgm_rsrc1 and rsrc3 of gfx90a and later)."""
    rsrc3, rsrc1 = struct.unpack_from("<II", descriptor, 44)
    allocated, first = 8 * ((rsrc1 & 63) + 1), 4 * ((rsrc3 & 63) + 1)
    architectural = record.vgprs - record.agprs
    if architectural >= 0 and -(-max(architectural, 1) // 4) * 4 == first:
        return architectural, record.agprs
    return min(first, allocated), max(allocated - first, 0)


def _bytes_at(loaded: tuple[Segment, ...], address: int, size: int) -> bytes:
    for segment in loaded:
        at = address - segment.address
        if at >= 0 and at + size <= len(segment.data):
            return bytes(segment.data[at : at + size])
    raise TableError(f"address {address:#x} lies outside its segments; rebuild it")
