"""Mutants of a compiled kernel: one wait, barrier or load of its assembly changed, or one distance in its source."""

from __future__ import annotations

import random
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hktune.compile.hipkittens import HipKittens
from hktune.compile.toolchain import HipToolchain
from hktune.core.variant import Variant

_ASSEMBLE = ("--target=amdgcn-amd-amdhsa", "-mcpu=gfx950", "-c")
_INSTRUCTION = re.compile(r"^\t(?=[a-z]+_)(?!\.)")
_COUNTER = re.compile(r"(vmcnt|lgkmcnt)\((\d+)\)")
_FULL = {"vmcnt": 63, "lgkmcnt": 15}
_SHIFT_BYTES = 16
_FETCHED = "first_tile + number - 1)"


@dataclass(frozen=True)
class Mutant:
    """`kind` is what was done, `index` which instruction of the kernel, counted from its entry (-1: in the source)."""

    kind: str
    index: int
    text: str
    original: str = ""
    counts: tuple[tuple[str, int], ...] = ()


def assembly_of(toolchain: HipToolchain, headers: HipKittens, variant: Variant) -> str:
    """The compiler's assembly for `variant`."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "kernel.hip"
        source.write_text(variant.source)
        where = (f"--offload-arch={variant.arch}", *toolchain.includes, "-I", str(headers.include))
        command = [*toolchain.driver, *toolchain.flags, *where, "-S", "-o", "kernel.s", "kernel.hip"]
        subprocess.run(command, cwd=name, check=True, capture_output=True)
        return (Path(name) / "kernel.s").read_text()


def assembled(toolchain: HipToolchain, text: str) -> bytes:
    """The code object of an assembly text."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "kernel.s").write_text(text)
        for command in (
            [*toolchain.driver, *_ASSEMBLE, "-o", "kernel.o", "kernel.s"],
            [*toolchain.linker, "kernel.o", "-o", "kernel.so"],
        ):
            subprocess.run(command, cwd=name, check=True, capture_output=True)
        return (Path(name) / "kernel.so").read_bytes()


def instruction_lines(text: str, symbol: str) -> list[int]:
    """Line numbers of the kernel's instructions, in order of address."""
    lines = text.split("\n")
    first = (
        lines.index(f"{symbol}:")
        if f"{symbol}:" in lines
        else next(i for i, line in enumerate(lines) if line.startswith(f"{symbol}:"))
    )
    last = next(i for i in range(first, len(lines)) if lines[i].startswith((".Lfunc_end", "\t.section")))
    return [i for i in range(first, last) if _INSTRUCTION.match(lines[i])]


def mutants(text: str, symbol: str, loads: int, rng: random.Random) -> Iterator[Mutant]:
    """Every wait, barrier, cache write-back and drop, and up to `loads` each of LDS reads and loads to LDS."""
    lines = text.split("\n")
    places = list(enumerate(instruction_lines(text, symbol)))
    for index, at in places:
        line = lines[at].split(";")[0].strip()
        if line.startswith("s_waitcnt"):
            for kind, changed, counts in _wait_mutants(line):
                yield Mutant(kind, index, _with(lines, at, changed), line, counts)
        elif line.startswith(("s_barrier", "buffer_wbl2", "buffer_inv")):
            yield Mutant(f"{line.split()[0]} removed", index, _with(lines, at, ""), line)
    reads = [place for place in places if lines[place[1]].lstrip().startswith("ds_read_b128")]
    for index, at in rng.sample(reads, min(loads, len(reads))):
        yield Mutant("LDS read shifted", index, _with(lines, at, _shifted(lines[at])), lines[at].strip())
    sent = [place for place in places if re.search(r"buffer_load_dwordx4 .* lds", lines[place[1]])]
    for index, at in rng.sample(sent, min(loads, len(sent))):
        # Bit 4 of M0 is clear before these loads; s_bitset leaves SCC alone.
        moved = f"\ts_bitset1_b32 m0, 4\n\ts_nop 0\n{lines[at]}"
        yield Mutant("load to LDS shifted", index, _with(lines, at, moved), lines[at].strip())


def source_mutants(variant: Variant) -> Iterator[tuple[str, Variant]]:
    """The tile that a step fetches: one earlier, one later."""
    assert variant.source.count(_FETCHED) == 1, "the template says in one place which tile it fetches"
    for kind, number in (("prefetch one short", "- 2)"), ("prefetch one far", ")")):
        changed = variant.source.replace(_FETCHED, f"first_tile + number {number}")
        yield kind, replace(variant, source=changed)


def _wait_mutants(line: str) -> Iterator[tuple[str, str, tuple[tuple[str, int], ...]]]:
    """(kind, changed line, what it waits for now)."""
    counts = {name: int(count) for name, count in _COUNTER.findall(line)}
    for name, count in counts.items():
        for more in (1, 2):
            raised = counts | {name: min(count + more, _FULL[name])}
            text = " ".join(f"{key}({value})" for key, value in raised.items())
            yield f"{name} raised by {more}", f"\ts_waitcnt {text}", tuple(raised.items())
    yield "s_waitcnt removed", "", ()


def _shifted(line: str) -> str:
    found = re.search(r"offset:(0x[0-9a-f]+|\d+)", line)
    if found is None:
        return f"{line.split(';')[0].rstrip()} offset:{_SHIFT_BYTES}"
    return line.replace(found[0], f"offset:{int(found[1], 0) + _SHIFT_BYTES}")


def _with(lines: list[str], at: int, line: str) -> str:
    return "\n".join([*lines[:at], line, *lines[at + 1 :]])
