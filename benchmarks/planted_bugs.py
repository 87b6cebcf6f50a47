"""Bugs planted into right kernels of several kinds: what `hktune.verify` misses of them.

    python benchmarks/planted_bugs.py [--only TEXT] [--seed 0]

Two kinds of bug. Of the source (planted_kernels.py): a barrier, an index, a size, a constant, who writes where. Of the
compiled code: an s_waitcnt left out, where what it waits for is used right behind it, drawn with the seed, up to two
for each kernel. A kernel with a bug is judged with a reference in numpy and under other schedules. Prints a table in
Markdown, and each miss.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from planted_kernels import ALL, Bug, PlantedKernel

from hktune.compile.command_line import device_flags
from hktune.core.escaped import shown
from hktune.core.settings import Settings
from hktune.emulator.instructions.control import ends_block
from hktune.emulator.instructions.decode import Instruction, decode
from hktune.emulator.instructions.scalar_registers import scalars_of
from hktune.emulator.instructions.vector_registers import registers_of
from hktune.objects.code_object import read_code_object
from hktune.verify.called_kernel import KernelResult, verify_kernel
from hktune.verify.kernel_source import kernel_code

_S_NOP = (0xBF800000).to_bytes(4, "little")
_WAITS_OF_A_KERNEL = 2
_TRIES_S = 3.0  # enough for every schedule; fixes are not asked for


def judged(kernel: PlantedKernel, code: str | bytes) -> KernelResult:
    """What is found in the source or code object of `kernel`."""
    last = max(at for at, each in enumerate(kernel.arguments) if hasattr(each, "shape"))
    return verify_kernel(
        code,
        kernel.grid,
        kernel.block,
        kernel.arguments,
        reference=lambda *given: kernel.truth(*(each for each in given if hasattr(each, "shape"))),
        tolerance=kernel.tolerance,
        outputs=[last] if kernel.whole else None,
        check=False,
        try_seconds=_TRIES_S,
    )


def planted(kernel: PlantedKernel, bug: Bug) -> str:
    """The source with the bug."""
    assert kernel.source.count(bug.right) == 1, f"{kernel.name} says once: {bug.right}"
    return kernel.source.replace(bug.right, bug.wrong)


def without_waits(kernel: PlantedKernel, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Code objects with one s_waitcnt left out, and where it was."""
    code = compiled(kernel.source)
    image = read_code_object(code).kernels["kernel"]
    start, text = next(part for part in read_code_object(code).segments if holds(part, image.entry_address))
    program = [decode(text[image.entry_address - start :][:16], image.entry_address)]
    while program[-1].mnemonic != "s_endpgm":
        at = program[-1].next_address
        program.append(decode(text[at - start :][:16], at))
    waits = [at for at, each in enumerate(program) if each.mnemonic == "s_waitcnt" and is_needed(program, at)]
    entry = code.find(text[image.entry_address - start :][: program[-1].next_address - image.entry_address])
    for wait in rng.sample(waits, min(_WAITS_OF_A_KERNEL, len(waits))):
        offset = program[wait].address - image.entry_address
        yield f"s_waitcnt at +{offset:#x}", code[: entry + offset] + _S_NOP + code[entry + offset + 4 :]


def is_needed(program: Sequence[Instruction], wait: int) -> bool:
    """Whether a register that is loaded shortly before the wait is read shortly behind it. Other waits may be needed
    too; of these it is certain."""
    loaded: set[tuple[str, int]] = set()
    for each in reversed(program[:wait]):
        if ends_block(each) or each.mnemonic == "s_waitcnt":
            break
        if "_load" in each.mnemonic or "read" in each.mnemonic.split("_")[1]:
            loaded |= touched(each, 1)
    for each in program[wait + 1 :]:
        if each.mnemonic == "s_waitcnt":
            break
        if loaded & touched(each, 0):
            return True
        loaded -= touched(each, 1)
        if ends_block(each):
            break
    return False


def touched(instruction: Instruction, which: int) -> set[tuple[str, int]]:
    """Registers that an instruction reads (0) or writes (1)."""
    vector = {("vector", register) for register in registers_of(instruction)[which]}
    return vector | {("scalar", register) for register in scalars_of(instruction)[which]}


def holds(part: tuple[int, bytes], address: int) -> bool:
    """Whether a segment has the address."""
    return part[0] <= address < part[0] + len(part[1])


def compiled(source: str) -> bytes:
    """The code object of a HIP source."""
    settings = Settings.from_environment(os.environ)
    return kernel_code(source.encode(), Path("kernel.hip"), None, device_flags("", [], []), settings, None)[0]


def cases(kernel: PlantedKernel, rng: random.Random) -> Iterator[tuple[str, str, str | bytes]]:
    """Kind of bug, what it is, and the kernel with it."""
    for bug in kernel.bugs:
        yield bug.kind, f"{shown(bug.right)} -> {shown(bug.wrong)}", planted(kernel, bug)
    for where, code in without_waits(kernel, rng):
        yield "wait", where, code


def said(result: KernelResult) -> str:
    """The worst of what was found."""
    first = [f"{each.status}" for each in result.failures] + [each.rule.name for each in result.findings if each.counts]
    return ", ".join(first[:3])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="kernels whose name has this")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    planted_count: Counter[str] = Counter()
    missed: list[str] = []
    alarms: list[str] = []
    started = time.process_time()
    for kernel in ALL:
        if options.only not in kernel.name:
            continue
        right = judged(kernel, kernel.source)
        if not right.right:
            alarms.append(f"{kernel.name}: {right}")
        for kind, what, code in cases(kernel, random.Random(options.seed)):
            result = judged(kernel, code)
            planted_count[kind] += 1
            if result.right:
                missed.append(f"{kernel.name}: {kind}: {what}")
            print(f"{kernel.name:24} {kind:14} {said(result) or 'MISSED':60.60} {what}", flush=True)
    print(f"\n{len(ALL)} right kernels, {len(alarms)} flagged; {time.process_time() - started:.0f} s of a CPU\n")
    print("| bug | planted | missed |\n|---|---|---|")
    for kind in (*sorted(planted_count), "all"):
        count = planted_count[kind] if kind != "all" else planted_count.total()
        lost = sum(kind == "all" or f": {kind}: " in line for line in missed)
        print(f"| {kind} | {count} | {lost} |")
    for line in (*missed, *alarms):
        print(f"! {line}")
    return 1 if missed or alarms else 0


if __name__ == "__main__":
    sys.exit(main())
