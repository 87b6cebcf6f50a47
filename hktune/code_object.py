"""Reads an AMD code object: its ELF image, its kernels' descriptors, and the metadata the compiler left in it.

Layouts follow LLVM's AMDGPUUsage ("Code Object V3+ metadata", "Kernel Descriptor"). Nothing here executes or
trusts the bytes: every offset is checked, and what is wrong is one TableError line.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from elftools.elf.segments import NoteSegment

from hktune.errors import TableError
from hktune.model import Argument, Resources

_EM_AMDGPU = 224
_NT_AMDGPU_METADATA = 32
_DESCRIPTOR_BYTES = 64
_DESCRIPTOR_ENTRY_OFFSET = slice(16, 24)
_SCALAR_BYTES = {"u32": 4, "i32": 4, "f32": 4, "u64": 8}


@dataclass(frozen=True)
class ArgumentSlot:
    """Where one kernel argument lies in the kernarg segment. `value_kind` is LLVM's word (by_value, global_buffer,
    hidden_block_count_x, ...); hidden ones are filled by whoever launches."""

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

    def mismatch(self, arguments: tuple[Argument, ...]) -> str | None:
        """Why `arguments` do not fit this kernel's explicit slots, or None when they do."""
        slots = [slot for slot in self.arguments if not slot.hidden]
        if len(slots) != len(arguments):
            return f"{self.symbol} takes {len(slots)} arguments, the launch gives {len(arguments)}"
        for slot, argument in zip(slots, arguments, strict=True):
            if not slot.takes(argument):
                return (
                    f"{self.symbol} takes {slot.value_kind} of {slot.size_bytes} bytes at offset {slot.offset_bytes}, "
                    f"the launch gives {argument.name} ({argument.kind})"
                )
        return None


@dataclass(frozen=True)
class AmdCodeObject:
    """A parsed code object: target, loadable segments as (virtual address, bytes), kernels by symbol."""

    arch: str
    segments: tuple[tuple[int, bytes], ...]
    kernels: Mapping[str, KernelImage]


def read_code_object(data: bytes) -> AmdCodeObject:
    """Parse an AMDGPU ELF. Raises TableError when the bytes are not a whole, well-formed code object."""
    try:
        elf = ELFFile(io.BytesIO(data))
        if elf.header["e_machine"] not in ("EM_AMDGPU", _EM_AMDGPU):
            raise TableError(f"not an AMD code object: machine is {elf.header['e_machine']}; rebuild it")
        metadata = _metadata(elf)
        segments = tuple(_segments(elf))
        symbols = _symbols(elf)
        kernels = {}
        for record in metadata["amdhsa.kernels"]:
            image = _kernel(record, symbols, segments)
            kernels[image.symbol] = image
        arch = str(metadata["amdhsa.target"]).partition(":")[0].rpartition("-")[2]
        return AmdCodeObject(arch, segments, kernels)
    except (ELFError, KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
        reason = f"{type(error).__name__} {error}".strip()
        raise TableError(f"not a readable AMD code object ({reason}); rebuild it") from error


def source_line(data: bytes, address: int) -> str | None:
    """The nearest `file:line` at or before virtual `address`, from the object's debug lines; None without any."""
    elf = ELFFile(io.BytesIO(data))
    if not elf.has_dwarf_info():
        return None
    dwarf, best = elf.get_dwarf_info(), (-1, "")
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        files = program["file_entry"] if program else []
        first_file = 0 if program and program["version"] >= 5 else 1
        for entry in program.get_entries() if program else ():
            state = entry.state
            if state is not None and state.line and best[0] < state.address <= address:
                name = files[state.file - first_file].name.decode(errors="replace")
                best = (state.address, f"{name}:{state.line}")
    return best[1] or None


def _metadata(elf: ELFFile) -> dict[str, Any]:
    notes = (segment for segment in elf.iter_segments("PT_NOTE") if isinstance(segment, NoteSegment))
    for segment in notes:
        for note in segment.iter_notes():
            if note["n_name"] == "AMDGPU" and note["n_type"] in (_NT_AMDGPU_METADATA, "NT_AMDGPU_METADATA"):
                unpacked: dict[str, Any] = msgpack.unpackb(note["n_descdata"], strict_map_key=False)
                return unpacked
    raise TableError("the code object carries no AMDGPU metadata note; rebuild it")


def _segments(elf: ELFFile) -> list[tuple[int, bytes]]:
    segments = []
    for segment in elf.iter_segments("PT_LOAD"):
        data = segment.data()
        if segment["p_memsz"] > max(1 << 26, len(data)):
            raise TableError(f"a segment of {segment['p_memsz']} bytes is no kernel's; rebuild the code object")
        segments.append((segment["p_vaddr"], data.ljust(segment["p_memsz"], b"\0")))
    return segments


def _symbols(elf: ELFFile) -> dict[str, int]:
    table = elf.get_section_by_name(".dynsym")
    if not isinstance(table, SymbolTableSection):
        raise TableError("the code object has no dynamic symbols; link it with -shared")
    return {symbol.name: symbol["st_value"] for symbol in table.iter_symbols()}


def _kernel(
    record: Mapping[str, Any], symbols: Mapping[str, int], segments: tuple[tuple[int, bytes], ...]
) -> KernelImage:
    address = symbols[record[".symbol"]]
    descriptor = _bytes_at(segments, address, _DESCRIPTOR_BYTES)
    entry = address + int.from_bytes(descriptor[_DESCRIPTOR_ENTRY_OFFSET], "little", signed=True)
    arguments = tuple(
        ArgumentSlot(str(slot.get(".name", "")), slot[".offset"], slot[".size"], slot[".value_kind"])
        for slot in record.get(".args", ())
    )
    agprs = record.get(".agpr_count", 0)
    resources = Resources(
        vgprs=record[".vgpr_count"] - agprs,
        agprs=agprs,
        sgprs=record[".sgpr_count"],
        vgpr_spills=record.get(".vgpr_spill_count", 0),
        sgpr_spills=record.get(".sgpr_spill_count", 0),
        lds_bytes=record[".group_segment_fixed_size"],
        scratch_bytes=record[".private_segment_fixed_size"],
        max_workgroup_size=record[".max_flat_workgroup_size"],
    )
    return KernelImage(record[".name"], entry, descriptor, arguments, record[".kernarg_segment_size"], resources)


def _bytes_at(segments: tuple[tuple[int, bytes], ...], address: int, size: int) -> bytes:
    for start, data in segments:
        if start <= address and address + size <= start + len(data):
            return data[address - start : address - start + size]
    raise TableError(f"address {address:#x} lies outside the code object's segments; rebuild it")
