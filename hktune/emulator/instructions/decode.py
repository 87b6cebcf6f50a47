"""Bytes to instructions: the CDNA4 encodings of `cdna4.json`, applied to the words of a code object.

Encodings: AMD CDNA4 ISA guide, chapter 13. The table's source is named in scripts/generate_cdna4_table.py.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import msgspec

from hktune.core.errors import KernelFault

LITERAL = 255
_SDWA, _DPP = 249, 250
_ALWAYS_LITERAL = frozenset({"v_fmamk_f32", "v_fmaak_f32", "v_madmk_f16", "v_madak_f16", "s_setreg_imm32_b32"})
_LITERAL_SOURCES = {
    "SOP1": ("ssrc0",),
    "SOP2": ("ssrc0", "ssrc1"),
    "SOPC": ("ssrc0", "ssrc1"),
    "VOP1": ("src0",),
    "VOP2": ("src0",),
    "VOPC": ("src0",),
}


@dataclass(frozen=True)
class Operand:
    """Width in bits and number format of one operand, in the ISA's words (u32, f16, pk8_bf16, any, ...)."""

    bits: int
    format: str

    @property
    def registers(self) -> int:
        return max(1, self.bits // 32)


@dataclass(frozen=True)
class Instruction:
    """One decoded instruction. `fields` are raw encoding fields by name, `literal` the 32-bit constant if one follows;
    `variant` is "", "sdwa" or "dpp"."""

    address: int
    words: tuple[int, ...]
    format: str
    mnemonic: str
    fields: Mapping[str, int]
    operands: Mapping[str, Operand]
    literal: int = 0
    variant: str = ""

    @property
    def size_bytes(self) -> int:
        return 4 * len(self.words)

    @property
    def next_address(self) -> int:
        return self.address + self.size_bytes

    def operand(self, name: str) -> Operand:
        return self.operands.get(name, _DWORD)

    def __str__(self) -> str:
        return f"{self.mnemonic} at {self.address:#x} ({' '.join(f'{word:08x}' for word in self.words)})"


_DWORD = Operand(32, "b32")
_SMALL_SOURCES = (
    *(Operand(256, "pk32_f8"),) * 2,
    *(Operand(192, "pk32_f6"),) * 2,
    *(Operand(128, "pk32_f4"),) * 4,
)
"""A source of an f8f6f4 MFMA by its format's code: fp8, bf8, fp6, bf6, fp4. Codes from 5 on mean nothing."""


@dataclass(frozen=True)
class _Format:
    name: str
    words: int
    match: tuple[tuple[int, int, int], ...]
    fields: Mapping[str, tuple[int, int]]
    opcodes: Mapping[int, tuple[str, Mapping[str, Operand]]]

    def accepts(self, word: int) -> bool:
        return all(_bits(word, high, low) == value for high, low, value in self.match)

    def read(self, raw: int) -> dict[str, int]:
        return {name: _bits(raw, high, low) for name, (high, low) in self.fields.items()}


def decode(code: bytes, address: int) -> Instruction:
    """The instruction at the start of `code`, which is at `address`. Raises KernelFault for an unknown encoding."""
    word = int.from_bytes(code[:4], "little")
    form = _format_of(word)
    if form is None:
        raise KernelFault(
            "crashed", f"no CDNA4 encoding matches word {word:08x} at {address:#x}; the code is not gfx950"
        )
    raw = int.from_bytes(code[: 4 * form.words], "little")
    fields = form.read(raw)
    mnemonic, operands = form.opcodes.get(fields["op"], ("", {}))
    if not mnemonic:
        raise KernelFault("crashed", f"no {form.name} opcode {fields['op']} (word {word:08x}) at {address:#x}")
    if mnemonic.startswith(("v_mfma", "v_smfmac", "v_accvgpr_read", "v_accvgpr_write")):
        fields |= _formats()["VOP3P_MFMA"].read(raw)
    if mnemonic.endswith("_f8f6f4"):
        operands = {**operands, "src0": _SMALL_SOURCES[fields["cbsz"]], "src1": _SMALL_SOURCES[fields["blgp"]]}
    if mnemonic == "v_mfma_ld_scale_b32":
        return _with_scales(code, address, fields)
    return _with_suffix(code, address, form, mnemonic, fields, operands)


def _with_scales(code: bytes, address: int, scales: dict[str, int]) -> Instruction:
    """v_mfma_ld_scale_b32 and the f8f6f4 MFMA that it scales: to assemblers one instruction of 16 bytes.

    Its name has v_mfma_scale_. Beside the MFMA's fields: `scale0` and `scale1`, the sources of A's and B's scales, and
    which byte of each.
    """
    second = decode(code[8:16], address + 8) if len(code) >= 16 else None
    if second is None or not second.mnemonic.endswith("_f8f6f4") or not second.fields["abid"] & 1:
        raise KernelFault("crashed", f"v_mfma_ld_scale_b32 at {address:#x} is followed by no MFMA that takes scales")
    bytes_of = {f"scale{i}_byte": scales["opsel"] >> i & 1 | (scales["opsel_hi"] >> i & 1) << 1 for i in range(2)}
    words = tuple(int.from_bytes(code[4 * i : 4 * i + 4], "little") for i in range(4))
    fields = {**second.fields, "scale0": scales["src0"], "scale1": scales["src1"], **bytes_of}
    operands = {**second.operands, "scale0": _DWORD, "scale1": _DWORD}
    mnemonic = second.mnemonic.replace("v_mfma_", "v_mfma_scale_")
    return Instruction(address, words, second.format, mnemonic, fields, operands)


def _with_suffix(
    code: bytes, address: int, form: _Format, mnemonic: str, fields: dict[str, int], operands: Mapping[str, Operand]
) -> Instruction:
    """Reads the second word of a short encoding: a literal, an SDWA or a DPP control word."""
    words, literal, variant = form.words, 0, ""
    wide = int.from_bytes(code[:8], "little")
    if form.name in ("VOP1", "VOP2", "VOPC") and fields["src0"] in (_SDWA, _DPP):
        variant = "sdwa" if fields["src0"] == _SDWA else "dpp"
        fields |= _formats()[_variant_format(form.name, variant)].read(wide)
        words = 2
    elif mnemonic in _ALWAYS_LITERAL or LITERAL in (fields[name] for name in _LITERAL_SOURCES.get(form.name, ())):
        literal = wide >> 32
        words += 1
    parts = tuple(int.from_bytes(code[4 * i : 4 * i + 4], "little") for i in range(words))
    return Instruction(address, parts, form.name, mnemonic, fields, operands, literal, variant)


def _variant_format(name: str, variant: str) -> str:
    if variant == "dpp":
        return "VOP2_DPP16" if name == "VOPC" else f"{name}_DPP16"
    return "VOPC_SDWA_SDST" if name == "VOPC" else f"{name}_SDWA"


def _bits(word: int, high: int, low: int) -> int:
    return (word >> low) & ((1 << (high - low + 1)) - 1)


class _Encoding(TypedDict):
    """An entry of cdna4.json: `match` and `fields` name bits (high, low), an opcode its mnemonic and its operands."""

    bytes: int
    match: tuple[tuple[int, int, int], ...]
    fields: dict[str, tuple[int, int]]
    opcodes: dict[int, tuple[str, dict[str, tuple[int, str]]]]


@functools.cache
def _formats() -> Mapping[str, _Format]:
    data = Path(__file__).with_name("cdna4.json").read_bytes()
    return {
        name: _Format(
            name,
            entry["bytes"] // 4,
            entry["match"],
            entry["fields"],
            {
                op: (mnemonic, {key: Operand(*value) for key, value in operands.items()})
                for op, (mnemonic, operands) in entry["opcodes"].items()
            },
        )
        for name, entry in msgspec.json.decode(data, type=dict[str, _Encoding]).items()
    }


@functools.cache
def _by_specificity() -> tuple[_Format, ...]:
    """Formats with opcodes, the ones that fix most bits first: VOP2 and SOP2 are what is left."""
    formats = [form for form in _formats().values() if form.opcodes]
    return tuple(sorted(formats, key=lambda form: -sum(high - low + 1 for high, low, _ in form.match)))


@functools.lru_cache(maxsize=4096)
def _format_of(word: int) -> _Format | None:
    for form in _by_specificity():
        if form.accepts(word):
            if form.name == "VOP3" and _bits(word, 25, 16) in _formats()["VOP3SD"].opcodes:
                return _formats()["VOP3SD"]
            if form.name == "VOP3SD" and _bits(word, 25, 16) not in form.opcodes:
                return _formats()["VOP3"]
            return form
    return None
