"""docs/instructions.md lists what the emulator implements, no more and no less, and names tests that exist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "instructions.md").read_text()


def test_the_list_is_current() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "instruction_table.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run scripts/instruction_table.py"


def test_every_instruction_of_the_gemm_is_executed_by_a_test_with_a_truth() -> None:
    """Compared with an independent result, not only run by the hazard checker's tests."""
    from gemm_bf16_variants import built, disassembled, space

    rows = [line.split("|") for line in DOCUMENT.splitlines() if line.startswith("| `")]
    executed: dict[str, set[str]] = {}
    for _, name, tests, _ in rows:
        executed.setdefault(name.strip(" `"), set()).update(part.strip() for part in tests.split(","))
    for config in space().seeds:
        for instruction in disassembled(built(config)):
            told = {
                test for test in executed[instruction.mnemonic] if test != "none" and not test.startswith("hazards")
            }
            assert told, instruction
