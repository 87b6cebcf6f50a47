"""reference/instructions.md lists what the emulator implements, no more and no less, and names tests that exist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "reference" / "instructions.md").read_text()


def test_the_list_is_current() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "instruction_table.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run scripts/instruction_table.py"


def executing() -> dict[tuple[str, str], set[str]]:
    """What the document says: the tests that executed (format, mnemonic)."""
    found, form = {}, ""
    for line in DOCUMENT.splitlines():
        if line.startswith("## "):
            form = line[3:]
        elif line.startswith("| `"):
            _, name, tests, _ = line.split("|")
            found[form, name.strip(" `")] = {part.strip() for part in tests.split(",")}
    return found


def test_every_encoding_is_executed_by_a_test_with_a_truth() -> None:
    """Compared with an independent result, not only run by the hazard checker's tests, or in passing by the clock's."""
    untold = [
        f"{form} {name}"
        for (form, name), tests in executing().items()
        if all(test in ("none", "launch", "trace") or test.startswith("hazards") for test in tests)
    ]
    assert not untold, "write a test with a truth of its own, then run scripts/instruction_table.py"


def test_every_instruction_of_the_gemm_is_listed() -> None:
    from gemm_bf16_variants import built, disassembled, space

    listed = executing()
    for config in space().seeds:
        for instruction in disassembled(built(config)):
            assert (instruction.format, instruction.mnemonic) in listed, instruction


def test_the_readme_counts_the_list() -> None:
    count = sum(line.startswith("| `") for line in DOCUMENT.splitlines())
    assert f"\n{count} encodings, {count} of them executed by a test." in DOCUMENT
    assert f"executes {count} encodings" in (ROOT / "README.md").read_text()
