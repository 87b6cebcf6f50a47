"""Reads a cubin: its ELF image, its kernels' parameters and needs, and the boxes of their tensor maps.

NVIDIA does not document the `.nv.info` records. Their numbers are those that `cuobjdump -elf` names (EIATTR_...), and
were read off objects of NVRTC 13.5; tests hold them against kernels whose answers are known. Nothing here executes or
trusts the bytes: what is wrong is one TableError line.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from hktune.core.dtype import BF16, E4M3, E5M2, F16, F32, I8, I32, Dtype
from hktune.core.errors import TableError
from hktune.core.launch import Argument, operand_name
from hktune.core.variant import Resources
from hktune.objects.elf import SHT_SYMTAB, STT_FUNC, STT_OBJECT, Elf, Symbol

TENSOR_MAP_BYTES = 128  # CUtensorMap, CUDA driver API
BOX_PREFIX = "hktune_box_"
PROGRAMMATIC = "hktune_programmatic"
"""A constant that says of a cubin's kernels that they wait for those before them by themselves (griddepcontrol)."""
_BFLOAT16 = 9
# Formats by their CUtensorMapDataType, CUDA driver API: numbers of 8 bits are copied as bytes.
_TENSOR_MAP_DTYPES = {0: (E4M3, E5M2, I8), 3: (I32,), 6: (F16,), 7: (F32,), _BFLOAT16: (BF16,)}

_EM_CUDA = 190
_PARAMETERS_MAX = 256
_RECORDS_MAX = 4096  # of one kernel, which has some thirty, and one for each parameter
_SHARED_RECORDS_MAX = 8  # for each symbol; a function has four
_RECORD = struct.Struct("<BBH")
_RESERVED_LDS_BYTES = 1024  # of each block's shared memory from compute capability 9.0 on; the section counts it
_SCALAR_BYTES = {"u32": 4, "i32": 4, "f32": 4, "u64": 8, "pointer": 8}
_BOX_OF_STACK, _BOX, _BOX_OF_BF16 = struct.Struct("<IIII"), struct.Struct("<III"), struct.Struct("<II")
_DIMENSIONS = (2, 3)
_WHOLE_VALUE = 4  # the form of a record that carries bytes; the others are one word long
_MAX_THREADS, _FRAME_SIZE, _REQUIRED_THREADS = 0x05, 0x11, 0x10
_PARAMETER, _REGISTERS, _CLUSTER = 0x17, 0x2F, 0x3D


@dataclass(frozen=True)
class Box:
    """What one tensor copy moves: `rows` x `columns` elements of a row-major matrix. `data_type` is a
    CUtensorMapDataType. The map has `dimensions`: 2, where the rows of several matrices follow one another; or 3, where
    it knows the end of each, and matrices may be anywhere."""

    rows: int
    columns: int
    data_type: int = _BFLOAT16
    dimensions: int = 2

    @property
    def dtypes(self) -> tuple[Dtype, ...]:
        """The formats that its elements may have, all of one width."""
        return _TENSOR_MAP_DTYPES[self.data_type]

    @property
    def element_bytes(self) -> int:
        return self.dtypes[0].bytes


@dataclass(frozen=True)
class Parameter:
    """Where one kernel parameter is in the parameter buffer."""

    offset_bytes: int
    size_bytes: int

    @property
    def is_tensor_map(self) -> bool:
        return self.size_bytes == TENSOR_MAP_BYTES

    def takes(self, argument: Argument) -> bool:
        """Whether `argument` fits: a pointer also fits a tensor map, which is made over what it points to."""
        return self.size_bytes == _SCALAR_BYTES.get(argument.kind) or (
            self.is_tensor_map and argument.kind == "pointer"
        )


@dataclass(frozen=True)
class CudaKernel:
    """One kernel of a cubin. `cluster` is the size in blocks that it was compiled for, (1, 1, 1) without one.
    One that is `programmatic` may be launched while the kernel before it still runs.

    In `resources`, a register of a thread is a VGPR; shared memory that the source declares is LDS. `scratch_bytes` is
    local memory, a thread's: a cubin does not tell spilled registers from arrays, so `vgpr_spills` counts all of its
    4-byte words.
    """

    symbol: str
    parameters: tuple[Parameter, ...]
    resources: Resources
    cluster: tuple[int, int, int]
    programmatic: bool = False

    def mismatch(self, arguments: tuple[Argument, ...]) -> str | None:
        """Why `arguments` do not fit this kernel's parameters, or None when they do."""
        if any(argument.offset_bytes is not None for argument in arguments):
            return f"{self.symbol} takes its arguments in order, the launch gives them by offset"
        if len(self.parameters) != len(arguments):
            return f"{self.symbol} takes {len(self.parameters)} arguments, the launch gives {len(arguments)}"
        for parameter, argument in zip(self.parameters, arguments, strict=True):
            if not parameter.takes(argument):
                return (
                    f"{self.symbol} takes {parameter.size_bytes} bytes at offset {parameter.offset_bytes}, "
                    f"the launch gives {argument.name} ({argument.kind})"
                )
        return None


@dataclass(frozen=True)
class Cubin:
    """A parsed cubin: its compute capability as two digits, its kernels by symbol, its boxes by argument name."""

    capability: int
    kernels: Mapping[str, CudaKernel]
    boxes: Mapping[str, Box]


def read_cubin(data: bytes, symbols: Collection[str] | None = None) -> Cubin:
    """Parse a cubin, of its kernels only `symbols` where they are given: a total function. Raises TableError when the
    bytes are not a whole, well-formed one.

    A box is a constant of four 32-bit words that a source names `hktune_box_<argument>`: rows, columns, the
    CUtensorMapDataType of an element, and the map's dimensions. Without the third, elements are bf16; without the
    fourth, the map has two.
    """
    try:
        return _parsed(Elf(data), symbols)
    except struct.error as error:
        raise TableError(f"not a readable cubin: a record has another length ({error}); rebuild it") from None
    except TableError as error:
        raise TableError(f"not a readable cubin: {error}") from None


def _parsed(elf: Elf, wanted: Collection[str] | None) -> Cubin:
    if elf.machine != _EM_CUDA:
        raise TableError(f"machine is {elf.machine}; rebuild it")
    symbols = elf.symbols(SHT_SYMTAB)
    if symbols is None:
        raise TableError("it has no symbol table; rebuild it")
    shared = _shared_records(elf, _RECORDS_MAX + len(symbols) * _SHARED_RECORDS_MAX)
    functions = {
        symbol.name: shared.get(index, {})
        for index, symbol in enumerate(symbols)
        if symbol.kind == STT_FUNC
        and (wanted is None or symbol.name in wanted)
        and elf.section(f".nv.info.{symbol.name}")
    }
    programmatic = any(symbol.name == PROGRAMMATIC for symbol in symbols)
    kernels = {name: _kernel(elf, name, said, programmatic) for name, said in functions.items()}
    return Cubin(elf.flags >> 8 & 0xFF, kernels, dict(_boxes(elf, symbols)))


def _records(data: memoryview, records_max: int) -> Iterator[tuple[int, memoryview]]:
    """The records of a `.nv.info` section that carry bytes: form and number, a byte each, then a 16-bit length. Those
    of other forms are one word, and nothing is read from them."""
    offset = 0
    for _ in range(records_max):
        if offset >= len(data):
            return
        form, number, value = _RECORD.unpack_from(data, offset)
        offset += 4
        if form != _WHOLE_VALUE:
            continue
        if offset + value > len(data):
            raise TableError("a record runs past its section; rebuild it")
        yield number, data[offset : offset + value]
        offset += value
    if offset < len(data):
        raise TableError(f"over {records_max} records in a section are no kernel's; rebuild it")


def _shared_records(elf: Elf, records_max: int) -> dict[int, dict[int, int]]:
    """What `.nv.info` says of each function: symbol index -> record number -> value."""
    section = elf.section(".nv.info")
    said: dict[int, dict[int, int]] = {}
    for number, value in _records(section.data, records_max) if section else ():
        if number in (_REGISTERS, _FRAME_SIZE):
            symbol, amount = struct.unpack("<II", value)
            said.setdefault(symbol, {})[number] = amount
    return said


def _kernel(elf: Elf, symbol: str, said: Mapping[int, int], programmatic: bool) -> CudaKernel:
    parameters: dict[int, Parameter] = {}
    cluster, threads = (1, 1, 1), (1024, 1, 1)
    information = elf.section(f".nv.info.{symbol}")
    assert information is not None, "the caller found it"
    for number, value in _records(information.data, _RECORDS_MAX):
        if number == _PARAMETER:
            _, ordinal, offset, packed = struct.unpack("<IHHI", value)
            parameters[ordinal] = Parameter(offset, packed >> 18)
        elif number == _CLUSTER:
            cluster = struct.unpack("<III", value)
        elif number in (_MAX_THREADS, _REQUIRED_THREADS):
            threads = struct.unpack("<III", value)
    if sorted(parameters) != list(range(len(parameters))) or len(parameters) > _PARAMETERS_MAX:
        raise TableError(f"the parameters of {symbol[:80]} are not numbered in a row; rebuild it")
    if _REGISTERS not in said or 0 in cluster:
        raise TableError(f"{symbol[:80]} names no registers, or a cluster of no blocks; rebuild it")
    section = elf.section(f".nv.shared.{symbol}")
    reserved = _RESERVED_LDS_BYTES if elf.flags >> 8 & 0xFF >= 90 else 0
    resources = Resources(
        vgprs=said[_REGISTERS],
        agprs=0,
        sgprs=0,
        vgpr_spills=said.get(_FRAME_SIZE, 0) // 4,
        sgpr_spills=0,
        lds_bytes=max(section.size_bytes - reserved, 0) if section else 0,
        scratch_bytes=said.get(_FRAME_SIZE, 0),
        max_workgroup_size=threads[0] * threads[1] * threads[2],
    )
    in_order = tuple(parameters[ordinal] for ordinal in range(len(parameters)))
    return CudaKernel(symbol, in_order, resources, cluster, programmatic)


def _boxes(elf: Elf, symbols: list[Symbol]) -> Iterator[tuple[str, Box]]:
    for symbol in symbols:
        if symbol.name.startswith(BOX_PREFIX) and symbol.kind == STT_OBJECT:
            if symbol.section >= len(elf.sections) or symbol.value >= len(elf.sections[symbol.section].data):
                raise TableError(f"{symbol.name[:80]} lies outside its section; rebuild it")
            data = elf.sections[symbol.section].data
            yield operand_name(symbol.name.removeprefix(BOX_PREFIX)), _box(symbol, data)


def _box(symbol: Symbol, data: memoryview) -> Box:
    if symbol.size_bytes == _BOX_OF_BF16.size:
        return Box(*_BOX_OF_BF16.unpack_from(data, symbol.value))
    rows, columns, data_type = _BOX.unpack_from(data, symbol.value)
    dimensions = 2
    if symbol.size_bytes == _BOX_OF_STACK.size:
        *_, dimensions = _BOX_OF_STACK.unpack_from(data, symbol.value)
    if dimensions not in _DIMENSIONS:
        raise TableError(f"{symbol.name[:80]} is for a map of {dimensions} dimensions, known are 2 and 3; rebuild it")
    if data_type not in _TENSOR_MAP_DTYPES:
        known = ", ".join(f"{number} ({'/'.join(map(str, of))})" for number, of in _TENSOR_MAP_DTYPES.items())
        raise TableError(f"{symbol.name[:80]} has elements of type {data_type}, known are {known}; rebuild it")
    return Box(rows, columns, data_type, dimensions)
