"""Counts the code objects of a folder that the emulator can run instruction by instruction, and says what stops others.

    python scripts/instruction_coverage.py FOLDER [--arch gfx942] [--list]

Every code object for the architecture below FOLDER is decoded from its kernels' entries on, as far as direct branches
lead, and a step is built for every instruction. Files are ELF objects, or clang's offload bundles of them, compressed
ones too (zlib, or zstd where the program `zstd` is there). `--list` names the objects that are stopped. Exit code 1
when there are any.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from hktune.core.errors import KernelFault, TableError
from hktune.emulator.instructions.control import branch_target, build_terminator, ends_block, falls_through
from hktune.emulator.instructions.decode import Instruction, decode
from hktune.emulator.instructions.program import build, is_faulting
from hktune.emulator.machine.wave_start import Descriptor, entry_address
from hktune.objects.code_object import AmdCodeObject, read_code_object
from hktune.objects.offload_bundle import BUNDLE_MAGIC, COMPRESSED_MAGIC, ELF_MAGIC, bundled, decompressed

ARCH = "gfx950"
_LONGEST_INSTRUCTION_BYTES = 16
_MOST_BYTES = 1 << 30


def objects_below(folder: Path, arch: str) -> list[tuple[str, AmdCodeObject]]:
    """The code objects for `arch` that have kernels, under their file's name and, in a bundle, their own."""
    found = []
    for path in sorted(folder.rglob("*")):
        for name, data in objects_in(path) if path.is_file() else ():
            try:
                code = read_code_object(data)
            except TableError:
                continue
            if code.misfit(arch) is None and code.kernels:
                found.append((name, code))
    return found


def objects_in(path: Path) -> Iterator[tuple[str, bytes]]:
    """The ELF files that a file is or holds. Raises ValueError for a compression that cannot be undone here."""
    with path.open("rb") as file:
        magic = file.read(len(BUNDLE_MAGIC))
        if not magic.startswith((ELF_MAGIC, COMPRESSED_MAGIC, BUNDLE_MAGIC)):
            return
        data = magic + file.read(_MOST_BYTES)
    try:
        data = decompressed(data)
    except TableError as error:
        raise ValueError(f"{path}: {error}") from None
    if data.startswith(ELF_MAGIC):
        yield str(path), data
    elif data.startswith(BUNDLE_MAGIC):
        yield from ((f"{path} {name}", part) for name, part in bundled(data) if part.startswith(ELF_MAGIC))


def memory_of(code: AmdCodeObject) -> bytes:
    size = max((address + len(data) for address, data in code.segments), default=0)
    memory = np.zeros(size + _LONGEST_INSTRUCTION_BYTES, np.uint8)
    for address, data in code.segments:
        memory[address : address + len(data)] = np.frombuffer(data, np.uint8)
    return memory.tobytes()


def stoppers(code: AmdCodeObject) -> set[str]:
    """Names of what is not decoded or not implemented on any path of any kernel, and modes that are refused."""
    memory, found, seen = memory_of(code), set[str](), set[int]()
    for symbol, image in code.kernels.items():
        descriptor = Descriptor.read(image.descriptor)
        try:
            descriptor.check(symbol)
        except KernelFault as fault:
            found.add(fault.detail.removeprefix(symbol).strip())
        found |= _stoppers_from(memory, entry_address(descriptor, image.entry_address), seen)
    return found


def _stoppers_from(memory: bytes, entry: int, seen: set[int]) -> set[str]:
    """What stops a kernel that begins at `entry`. Addresses in `seen` are known already; new ones join them."""
    pending, found = [entry], set[str]()
    while pending:
        address = pending.pop()
        while address not in seen:
            seen.add(address)
            facts = next(filter(None, (_facts(memory[address : address + size]) for size in (4, 8, 16))))
            found |= facts.reasons
            if facts.branch_bytes is not None:
                pending.append(address + facts.branch_bytes)
            if not facts.falls_through:
                break
            address += facts.size_bytes
    return found


@dataclass(frozen=True)
class _Facts:
    """Of an instruction, wherever it is: its size, why it cannot be executed, how far on it may branch."""

    size_bytes: int
    reasons: frozenset[str]
    branch_bytes: int | None
    falls_through: bool


@cache
def _facts(code: bytes) -> _Facts | None:
    """Of the instruction that begins with `code`; None when it may be longer."""
    try:
        instruction = decode(code.ljust(_LONGEST_INSTRUCTION_BYTES, b"\0"), 0)
    except KernelFault as fault:
        reason = f"not decoded: {fault.detail.partition(' at ')[0]}"
        return _Facts(0, frozenset({reason}), None, False) if len(code) == _LONGEST_INSTRUCTION_BYTES else None
    if instruction.size_bytes > len(code):
        return None
    reasons = frozenset() if _is_implemented(instruction) else frozenset({instruction.mnemonic})
    return _Facts(instruction.size_bytes, reasons, branch_target(instruction), falls_through(instruction))


def _is_implemented(instruction: Instruction) -> bool:
    if not ends_block(instruction):
        return not is_faulting(build(instruction))
    try:
        build_terminator(instruction)
    except KernelFault:
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arch", default=ARCH, help="whose objects are counted; all run as gfx950's (%(default)s)")
    parser.add_argument("--list", action="store_true", help="name the objects that are stopped")
    options = parser.parse_args()
    if not options.folder.is_dir():
        print(f"{options.folder} is no folder: pass one that holds code objects", file=sys.stderr)
        return 2
    try:
        objects = objects_below(options.folder, options.arch)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    stopped = {name: reasons for name, code in objects if (reasons := stoppers(code))}
    whole = len(objects) - len(stopped)
    print(f"{whole} of {len(objects)} {options.arch} code objects: every instruction decoded and implemented")
    for reason, count in Counter(reason for reasons in stopped.values() for reason in reasons).most_common():
        print(f"{count:6}  {reason}")
    if options.list:
        for name, reasons in stopped.items():
            print(f"{name}: {', '.join(sorted(reasons))}")
    return 1 if stopped else 0


if __name__ == "__main__":
    sys.exit(main())
