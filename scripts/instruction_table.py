"""Writes docs/reference/instructions.md: every instruction the emulator implements, and the tests that executed it.

    python scripts/instruction_table.py [--check]

An instruction is implemented when its step can be built. Which tests executed it is recorded while they run. `--check`
compares the list of instructions alone, which takes a second, and exits with 1 when the document is not current.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from hktune.core.errors import KernelFault
from hktune.emulator.instructions import control, decode, program

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "reference" / "instructions.md"
TABLE = ROOT / "hktune" / "emulator" / "instructions" / "cdna4.json"
TESTS = (
    "tests/unit/test_emulator_*.py",
    "tests/unit/test_gemm_bf16_proof.py",
    "tests/unit/test_gemm_bf16_shapes.py",
    "tests/unit/test_hazards_*.py",
)
_VGPR = 256
SHOWN = 6  # tests of an instruction; the rest are counted
SHORT = {
    "test_emulator_": "",
    "test_gemm_bf16_proof": "GEMMs",
    "test_gemm_bf16_shapes": "GEMMs",
    "test_hazards_": "hazards ",
}

HEADER = """# Instructions

Every instruction that the emulator implements, by encoding, and the tests that executed it. An instruction that is not
here, or a modifier that is not emulated, ends a kernel when it is reached. Its status is `crashed`, with the name.

`python scripts/instruction_table.py` writes this page, and a test checks that the list is current. For example,
`ds_add_f32 | atomics` means that `tests/unit/test_emulator_atomics.py` executes it and compares the result.

The wheel amd-aiter 0.1.7.post2.dev18 has 1,220 gfx950 code objects: AMD's hand-written attention, MoE and GEMM kernels.
Every instruction of **1,220 of 1,220** is decoded and implemented, 29 November 2026. This was found by
`python scripts/instruction_coverage.py FOLDER` over the unpacked wheel. The script takes any folder of code objects,
and lists what the emulator lacks. Of the AITER repository's newer GEMM objects (`hsa/gfx950` at commit
e4048607: bf16, fp4, fp8 and bytes) it is **75 of 75**.

rocBLAS 7.2.4 (Debian's librocblas5) has no gfx950 objects, and 38 gfx942 ones of Tensile's kernels in bf16, f16, f32
and f64. **34 of 38** are whole, by the same script with `--arch gfx942`. The other four are float32, and hold xf32
MFMAs, which gfx950 does not have: they are refused by name.

A test fails when an encoding is executed by no test with a truth of its own. These are the truths:

* `differential`: C functions that clang compiles for gfx950 and for the host, the same bits on random inputs.
* `vector`, `vector_types`, `scalar`, `scalar_bits`, `compare`, `lanes`, `dots`: Python's integers, fractions, numpy.
* `transcendentals`: mpmath's numbers of hundreds of digits, within what AMD promises.
* `conversions`: exact fractions, and the accuracy and examples that the ISA guide gives.
* `small_floats`: the OCP's formats of 8, 6 and 4 bits and their rounding, worked out in fractions.
* `extremes`: the ISA guide's rules of v_min and v_max, bit for bit.
* `matrix`, `matrix_blocks`, `matrix_small`: the ISA guide's layout formulas, float64 and int64 sums.
* `matrix_sparse`: float64 sums of the dense matrix, and where a gfx950 takes each value from.
* `modes`, `clamps`: subnormals flushed by hand, the ISA guide's rules of modes.
* `rounding`: fractions, rounded by the definition of each mode.
* `rare`: Python's integers, and sixteenths.
* `memory`, `widths`, `lds`, `control`, `scalar_stores`: byte arrays, written-out paths.
* `atomics`, `scalar_atomics`: Python's arithmetic.
* `GEMMs`: compiled GEMMs, every element against float64.
* `hazards`: nothing. The checker's tests executed it, and values were not compared.
"""


def implemented() -> dict[str, list[str]]:
    """Mnemonics by format, of everything whose step can be built from an encoding with all operands alike."""
    found: dict[str, list[str]] = {}
    for name, form in json.loads(TABLE.read_text()).items():
        for opcode, (mnemonic, _) in sorted(form["opcodes"].items(), key=lambda item: int(item[0])):
            if mnemonic in found.get(name, ()):
                continue
            if any(buildable(encoded(form, int(opcode), source)) for source in (0, _VGPR)):
                found.setdefault(name, []).append(mnemonic)
                if mnemonic.endswith("_f8f6f4"):
                    found[name].append(mnemonic.replace("v_mfma_", "v_mfma_scale_"))
    return found


def encoded(form: dict[str, list[list[int]]], opcode: int, source: int) -> bytes:
    """An instruction whose sources are all register `source`, every other field zero."""
    word = 0
    for _, low, value in form["match"]:
        word |= value << low
    word |= opcode << form["fields"]["op"][1]  # type: ignore[call-overload]
    for name in ("src0", "src1", "src2"):
        if name in form["fields"]:
            word |= source << form["fields"][name][1]  # type: ignore[call-overload]
    return word.to_bytes(16, "little")


def buildable(code: bytes) -> bool:
    try:
        instruction = decode.decode(code, 0)
        if control.ends_block(instruction):
            control.build_terminator(instruction)
            return True
        return not program.is_faulting(program.build(instruction))
    except KernelFault:
        return False


class Recorder:
    """A pytest plugin that notes which test file makes the emulator execute which instruction."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._file = ""

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._file = item.path.stem

    def watch(self) -> None:
        cut = program.Program._cut

        def recording(this: program.Program, start: int) -> program.Block:
            block = cut(this, start)
            for each in block.instructions:
                self.seen[each.format, each.mnemonic].add(self._file)
            return block

        program.Program._cut = recording  # type: ignore[method-assign]


def short(stem: str) -> str:
    for long, brief in SHORT.items():
        stem = stem.replace(long, brief)
    return stem.strip()


def document(seen: dict[tuple[str, str], set[str]]) -> str:
    lines, total, executed = [HEADER], 0, 0
    for form, mnemonics in sorted(implemented().items()):
        lines += [f"\n## {form}\n", "| instruction | executed by |", "|---|---|"]
        for mnemonic in sorted(mnemonics):
            tests = sorted({short(stem) for stem in seen.get((form, mnemonic), ())})
            more = [f"{len(tests) - SHOWN} more"] if len(tests) > SHOWN else []
            lines.append(f"| `{mnemonic}` | {', '.join(tests[:SHOWN] + more) or 'none'} |")
            total, executed = total + 1, executed + bool(tests)
    lines.insert(1, f"\n{total} encodings, {executed} of them executed by a test.")
    return "\n".join(lines) + "\n"


def listed(text: str) -> dict[str, list[str]]:
    """The instructions a document lists, by format."""
    found: dict[str, list[str]] = {}
    form = ""
    for line in text.splitlines():
        if line.startswith("## "):
            form = line[3:]
        elif line.startswith("| `"):
            found.setdefault(form, []).append(line.split("`")[1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        current = {form: sorted(mnemonics) for form, mnemonics in implemented().items()}
        return int(listed(DOCUMENT.read_text()) != current)
    recorder = Recorder()
    recorder.watch()
    files = [str(path) for pattern in TESTS for path in sorted(ROOT.glob(pattern))]
    if pytest.main([*files, "-n", "0", "-q", "-p", "no:cacheprovider"], plugins=[recorder]):
        return 1
    DOCUMENT.write_text(document(recorder.seen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
