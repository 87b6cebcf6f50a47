"""Counts the code objects of a folder that the emulator can run instruction by instruction, and says what stops others.

    python scripts/instruction_coverage.py FOLDER [--list]

Every gfx950 code object below FOLDER is decoded from its kernels' entries on, as far as direct branches lead, and a
step is built for every instruction. `--list` names the objects that are stopped. Exit code 1 when there are any.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np

from hktune.core.errors import KernelFault, TableError
from hktune.emulator.instructions.control import branch_target, build_terminator, ends_block, falls_through
from hktune.emulator.instructions.decode import Instruction, decode
from hktune.emulator.instructions.program import build, is_faulting
from hktune.emulator.machine.wave_start import Descriptor, entry_address
from hktune.objects.code_object import AmdCodeObject, read_code_object

ARCH = "gfx950"
_LONGEST_INSTRUCTION_BYTES = 16
_ELF = b"\x7fELF"


def objects_below(folder: Path) -> list[tuple[Path, AmdCodeObject]]:
    """The code objects for gfx950 that have kernels."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.open("rb").read(len(_ELF)) != _ELF:
            continue
        try:
            code = read_code_object(path.read_bytes())
        except TableError:
            continue
        if code.misfit(ARCH) is None and code.kernels:
            found.append((path, code))
    return found


def memory_of(code: AmdCodeObject) -> bytes:
    size = max((address + len(data) for address, data in code.segments), default=0)
    memory = np.zeros(size + _LONGEST_INSTRUCTION_BYTES, np.uint8)
    for address, data in code.segments:
        memory[address : address + len(data)] = np.frombuffer(data, np.uint8)
    return memory.tobytes()


def stoppers(code: AmdCodeObject) -> set[str]:
    """Names of what is not decoded or not implemented on any path of any kernel, and modes that are refused."""
    memory, found = memory_of(code), set[str]()
    for symbol, image in code.kernels.items():
        descriptor = Descriptor.read(image.descriptor)
        try:
            descriptor.check(symbol)
        except KernelFault as fault:
            found.add(fault.detail.removeprefix(symbol).strip())
        found |= _stoppers_from(memory, entry_address(descriptor, image.entry_address))
    return found


def _stoppers_from(memory: bytes, entry: int) -> set[str]:
    pending, seen, found = [entry], set[int](), set[str]()
    while pending:
        address = pending.pop()
        while address not in seen:
            seen.add(address)
            try:
                instruction = decode(memory[address : address + _LONGEST_INSTRUCTION_BYTES], address)
            except KernelFault as fault:
                found.add(f"not decoded: {fault.detail}")
                break
            reason = _reason(instruction.words)
            if reason:
                found.add(reason)
            target = branch_target(instruction)
            if target is not None:
                pending.append(target)
            if not falls_through(instruction):
                break
            address = instruction.next_address
    return found


@cache
def _reason(words: tuple[int, ...]) -> str | None:
    """The name of the instruction if it cannot be executed."""
    instruction: Instruction = decode(b"".join(word.to_bytes(4, "little") for word in words).ljust(16, b"\0"), 0)
    if ends_block(instruction):
        try:
            build_terminator(instruction)
        except KernelFault:
            return instruction.mnemonic
        return None
    return instruction.mnemonic if is_faulting(build(instruction)) else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--list", action="store_true", help="name the objects that are stopped")
    options = parser.parse_args()
    if not options.folder.is_dir():
        print(f"{options.folder} is no folder: pass one that holds code objects", file=sys.stderr)
        return 2
    objects = objects_below(options.folder)
    stopped = {path: reasons for path, code in objects if (reasons := stoppers(code))}
    whole = len(objects) - len(stopped)
    print(f"{whole} of {len(objects)} {ARCH} code objects: every instruction decoded and implemented")
    for reason, count in Counter(reason for reasons in stopped.values() for reason in reasons).most_common():
        print(f"{count:6}  {reason}")
    if options.list:
        for path, reasons in stopped.items():
            print(f"{path}: {', '.join(sorted(reasons))}")
    return 1 if stopped else 0


if __name__ == "__main__":
    sys.exit(main())
