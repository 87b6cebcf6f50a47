"""Writes hktune/emulator/instructions/cdna4.json: every CDNA4 encoding, opcode and operand width.

The facts are AMD's machine-readable CDNA4 ISA (gpuopen.com, "AMD GPU machine-readable ISA") as the PyPI package
tinygrad 0.14.0 carries them (tinygrad/runtime/autogen/amd/cdna, MIT). Run once, with that package installed:

    python scripts/generate_cdna4_table.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tinygrad.renderer.amd.dsl import FixedBitField, Inst
from tinygrad.runtime.autogen.amd.cdna import ins
from tinygrad.runtime.autogen.amd.cdna.operands import OPERANDS

TARGET = Path(__file__).parent.parent / "hktune" / "emulator" / "instructions" / "cdna4.json"
SKIPPED = ("_LIT", "VOP3PX2", "VOP3_SDST", "VOP2_SDWA_SDST")


def table() -> str:
    """The text of the table."""
    formats = {
        name: cls
        for name, cls in vars(ins).items()
        if isinstance(cls, type) and issubclass(cls, Inst) and cls is not Inst and not name.endswith(SKIPPED)
    }
    lines = [f"{json.dumps(name)}: {_format(name, cls)}" for name, cls in sorted(formats.items())]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _format(name: str, cls: Any) -> str:
    fixed = [[field.hi, field.lo, field.default] for _, field in cls._fields if isinstance(field, FixedBitField)]
    fields = {key: [f.hi, f.lo] for key, f in cls._fields if not isinstance(f, FixedBitField)}
    rows = [] if "_" in name else [_opcode(op) for op in sorted(cls.op._enum, key=lambda op: op.value)]
    body = ",\n  ".join(rows)
    return (
        f'{{"bytes": {cls._base_size}, "match": {json.dumps(fixed)},\n "fields": {json.dumps(fields)},\n'
        f' "opcodes": {{{body}}}}}'
    )


def _opcode(op: Any) -> str:
    mnemonic = op.name.lower().removesuffix("_e32").removesuffix("_e64")
    operands = {
        name: [bits, fmt.name.lower().removeprefix("fmt_").removeprefix("num_")]
        for name, (fmt, bits, _) in OPERANDS.get(op, {}).items()
    }
    return f"{json.dumps(str(op.value))}: {json.dumps([mnemonic, operands])}"


if __name__ == "__main__":
    TARGET.write_text(table())
