"""An instruction as an assembler writes it: for a reader, so what has no short form is left out of the text."""

from __future__ import annotations

from collections.abc import Callable

from hktune.emulator.instructions.control import branch_target
from hktune.emulator.instructions.decode import LITERAL, Instruction
from hktune.emulator.instructions.vector_memory import access_bytes
from hktune.emulator.machine.waves import EXEC, M0, VCC

_VGPR, _NO_SCALAR = 256, 127
_NAMED = {
    (VCC, 1): "vcc_lo", (VCC + 1, 1): "vcc_hi", (VCC, 2): "vcc", (EXEC, 1): "exec_lo", (EXEC + 1, 1): "exec_hi",
    (EXEC, 2): "exec", (M0, 1): "m0", (102, 1): "flat_scratch_lo", (103, 1): "flat_scratch_hi",
    (102, 2): "flat_scratch", (104, 1): "xnack_mask_lo", (105, 1): "xnack_mask_hi", (104, 2): "xnack_mask",
}  # fmt: skip
_SPECIAL = {
    235: "src_shared_base", 236: "src_shared_limit", 237: "src_private_base", 238: "src_private_limit",
    240: "0.5", 241: "-0.5", 242: "1.0", 243: "-1.0", 244: "2.0", 245: "-2.0", 246: "4.0", 247: "-4.0",
    248: "0.15915494", 251: "src_vccz", 252: "src_execz", 253: "src_scc",
}  # fmt: skip
_SELECTS = ("BYTE_0", "BYTE_1", "BYTE_2", "BYTE_3", "WORD_0", "WORD_1", "DWORD")
_UNUSED = ("UNUSED_PAD", "UNUSED_SEXT", "UNUSED_PRESERVE")
_FULL_VMCNT, _FULL_EXPCNT, _FULL_LGKMCNT = 63, 7, 15
_WITH_CARRY_IN = ("v_addc_co", "v_subb_co", "v_subbrev_co", "v_cndmask")
_CARRY_OUT = ("v_add_co", "v_sub_co", "v_subrev_co", "v_addc_co", "v_subb_co", "v_subbrev_co")


def assembly(instruction: Instruction, origin: int = 0) -> str:
    """Such as `ds_read_b128 v[4:7], v3 offset:16`. The target of a branch is told from `origin`."""
    target = branch_target(instruction)
    if target is not None and instruction.format == "SOPP":
        return f"{instruction.mnemonic} {'+' if origin else ''}{target - origin:#x}"
    write = _FORMATS[instruction.format]
    operands, modifiers = write(instruction)
    name = instruction.mnemonic + {"sdwa": "_sdwa", "dpp": "_dpp", "": ""}[instruction.variant]
    return " ".join(part for part in (name, ", ".join(operands), *modifiers) if part)


_Text = tuple[list[str], list[str]]
"""Operands, and modifiers behind them."""


def _range(prefix: str, first: int, count: int) -> str:
    return f"{prefix}{first}" if count == 1 else f"{prefix}[{first}:{first + count - 1}]"


def _scalar(code: int, count: int, literal: int = 0) -> str:
    """A scalar source or destination by its code."""
    if (code, count) in _NAMED:
        return _NAMED[code, count]
    if code < 102:
        return _range("s", code, count)
    if 108 <= code < 124:
        return _range("ttmp", code - 108, count)
    if 128 <= code <= 208:
        return str(code - 128 if code <= 192 else 192 - code)
    return f"{literal:#x}" if code == LITERAL else _SPECIAL.get(code, f"src_{code}")


def _source(instruction: Instruction, name: str, accumulation: bool = False) -> str:
    code, count = instruction.fields[name], instruction.operand(name).registers
    if name.startswith("vsrc"):
        code += _VGPR
    if code >= _VGPR:
        return _range("a" if accumulation else "v", code - _VGPR, count)
    return _scalar(code, count, instruction.literal)


def _vector(instruction: Instruction, name: str, accumulation: bool = False) -> str:
    return _range("a" if accumulation else "v", instruction.fields[name], instruction.operand(name).registers)


def _scalar_operand(instruction: Instruction, name: str) -> str:
    return _scalar(instruction.fields[name], instruction.operand(name).registers, instruction.literal)


def _of_scalar(instruction: Instruction) -> _Text:
    names = [name for name in ("sdst", "ssrc0", "ssrc1") if name in instruction.operands]
    return [_scalar_operand(instruction, name) for name in names], []


def _of_scalar_constant(instruction: Instruction) -> _Text:
    target = [_scalar_operand(instruction, "sdst")] if "sdst" in instruction.operands else []
    value = instruction.fields["simm16"]
    if instruction.mnemonic.startswith(("s_getreg", "s_setreg")):
        constant = [f"hwreg({value & 63}, {value >> 6 & 31}, {(value >> 11) + 1})"]
        if instruction.mnemonic == "s_setreg_imm32_b32":
            return [*constant, f"{instruction.literal:#x}"], []
        return (constant + target if "setreg" in instruction.mnemonic else target + constant), []
    return [*target, f"{value:#x}"], []


def _of_control(instruction: Instruction) -> _Text:
    value, name = instruction.fields["simm16"], instruction.mnemonic
    if name == "s_waitcnt":
        counts = (
            ("vmcnt", value & 15 | value >> 14 << 4, _FULL_VMCNT),
            ("expcnt", value >> 4 & 7, _FULL_EXPCNT),
            ("lgkmcnt", value >> 8 & 15, _FULL_LGKMCNT),
        )
        return [" ".join(f"{which}({count})" for which, count, full in counts if count != full)], []
    return [] if name in ("s_barrier", "s_endpgm") else [str(value)], []


def _of_scalar_memory(instruction: Instruction) -> _Text:
    fields, operands = instruction.fields, instruction.operands
    parts = []
    if "sdata" in operands:
        parts.append(_scalar(fields["sdata"], instruction.operand("sdata").registers))
    if "sbase" in operands:
        parts.append(_scalar(2 * fields["sbase"], instruction.operand("sbase").registers))
        fixed = fields["offset"] - (1 << 21 if fields["offset"] >> 20 else 0)
        register = fields["soffset"] if fields["soffset_en"] else None
        if not fields["imm"]:
            parts.append(_scalar(fields["offset"] & 0x7F, 1))
        elif register is not None:
            return [*parts, _scalar(register, 1)], [f"offset:{fixed:#x}", *(["glc"] if fields["glc"] else [])]
        else:
            parts.append(f"{fixed:#x}")
    return parts, ["glc"] if fields["glc"] else []


def _of_lds(instruction: Instruction) -> _Text:
    fields, accumulation = instruction.fields, bool(instruction.fields["acc"])
    names = [name for name in ("vdst", "addr", "data0", "data1") if name in instruction.operands]
    parts = [_vector(instruction, name, accumulation and name != "addr") for name in names]
    if instruction.mnemonic.startswith(("ds_read2", "ds_write2")):
        offsets = [f"offset{i}:{fields[f'offset{i}']}" for i in range(2) if fields[f"offset{i}"]]
    else:
        offset = fields["offset0"] | fields["offset1"] << 8
        offsets = [f"offset:{offset}"] if offset else []
    return parts, offsets + (["gds"] if fields["gds"] else [])


def _cache_bits(instruction: Instruction) -> list[str]:
    return [name for name in ("sc0", "nt", "sc1") if instruction.fields.get(name)]


def _of_buffer(instruction: Instruction) -> _Text:
    fields, to_lds = instruction.fields, bool(instruction.fields.get("lds"))
    if "srsrc" not in instruction.operands:
        return [], _cache_bits(instruction)
    parts = []
    if not to_lds:
        count = _loaded_registers(instruction, "vdata")
        parts.append(_range("a" if fields["acc"] else "v", fields["vdata"], count))
    wide = fields["offen"] + fields["idxen"]
    parts.append(_range("v", fields["vaddr"], wide) if wide else "off")
    parts.append(_scalar(4 * fields["srsrc"], 4))
    parts.append(_scalar(fields["soffset"], 1))
    modifiers = [name for name in ("idxen", "offen") if fields[name]]
    modifiers += [f"offset:{fields['offset']}"] if fields["offset"] else []
    return parts, modifiers + _cache_bits(instruction) + (["lds"] if to_lds else [])


def _loaded_registers(instruction: Instruction, name: str) -> int:
    """Registers of the data: the table has its widest form for some."""
    size = access_bytes(instruction)
    return max(1, size // 4) if size and "atomic" not in instruction.mnemonic else instruction.operand(name).registers


def _of_global(instruction: Instruction) -> _Text:
    fields, name = instruction.fields, instruction.mnemonic
    kind, accumulation = instruction.format, bool(fields["acc"])
    loads = "_load_" in name
    has_saddr = fields["saddr"] != _NO_SCALAR
    parts = []
    atomic_returns = "atomic" in name and fields["sc0"]
    if (loads or atomic_returns) and "_lds_" not in name:
        parts.append(_range("a" if accumulation else "v", fields["vdst"], _loaded_registers(instruction, "vdst")))
    if kind == "SCRATCH":
        parts.append(_range("v", fields["addr"], 1) if fields["sve"] else "off")
    else:
        parts.append(_range("v", fields["addr"], 1 if has_saddr and kind == "GLOBAL" else 2))
    if "_store_" in name or "atomic" in name:
        parts.append(_range("a" if accumulation else "v", fields["data"], _loaded_registers(instruction, "data")))
    if kind != "FLAT":
        parts.append(_scalar(fields["saddr"], 1 if kind == "SCRATCH" else 2) if has_saddr else "off")
    offset = fields["offset"] - (1 << 13 if kind != "FLAT" and fields["offset"] >> 12 else 0)
    return parts, ([f"offset:{offset}"] if offset else []) + _cache_bits(instruction)


def _signed(text: str, negative: int, absolute: int = 0) -> str:
    text = f"|{text}|" if absolute else text
    return f"-{text}" if negative else text


def _target(instruction: Instruction) -> list[str]:
    if "vdst" not in instruction.operands:
        return []
    if instruction.mnemonic.startswith(("v_readlane", "v_readfirstlane", "v_cmp")):
        return [_scalar(instruction.fields["vdst"], instruction.operand("vdst").registers)]
    return [_vector(instruction, "vdst")]


def _of_short_vector(instruction: Instruction) -> _Text:
    """VOP1, VOP2 and VOPC, with SDWA and DPP."""
    name, fields = instruction.mnemonic, instruction.fields
    parts = _target(instruction)
    if instruction.format == "VOPC":
        explicit = instruction.variant == "sdwa" and fields.get("sd")
        parts.append(_scalar(fields["sdst"], 2) if explicit else "vcc")
    elif name.startswith(_CARRY_OUT):
        parts.append("vcc")
    if "src0" in instruction.operands:
        parts.append(_varied(instruction, 0) if instruction.variant else _source(instruction, "src0"))
    if name in ("v_fmamk_f32", "v_madmk_f16"):
        parts.append(f"{instruction.literal:#x}")
    if "vsrc1" in instruction.operands:
        parts.append(_varied(instruction, 1) if instruction.variant else _source(instruction, "vsrc1"))
    if name in ("v_fmaak_f32", "v_madak_f16"):
        parts.append(f"{instruction.literal:#x}")
    if name.startswith(_WITH_CARRY_IN):
        parts.append("vcc")
    return parts, _variant_modifiers(instruction)


def _varied(instruction: Instruction, number: int) -> str:
    """A source of an instruction with an SDWA or DPP word."""
    fields = instruction.fields
    code = fields["vsrc0"] if number == 0 else fields["vsrc1"]
    scalar = instruction.variant == "sdwa" and fields.get(f"s{number}")
    text = _scalar(code, 1) if scalar else f"v{code}"
    if instruction.variant == "sdwa" and fields.get(f"src{number}_sext"):
        text = f"sext({text})"
    return _signed(text, fields.get(f"src{number}_neg", 0), fields.get(f"src{number}_abs", 0))


def _variant_modifiers(instruction: Instruction) -> list[str]:
    fields = instruction.fields
    if instruction.variant == "dpp":
        parts = [_lane_move(fields["dpp"]), f"row_mask:{fields['row_mask']:#x}", f"bank_mask:{fields['bank_mask']:#x}"]
        return parts + (["bound_ctrl:0"] if fields["bc"] else [])
    if instruction.variant == "sdwa":
        parts = []
        if "dst_sel" in fields:
            parts += [f"dst_sel:{_select(fields['dst_sel'])}", f"dst_unused:{_UNUSED[fields['dst_unused'] % 3]}"]
        parts.append(f"src0_sel:{_select(fields['src0_sel'])}")
        return parts + ([f"src1_sel:{_select(fields['src1_sel'])}"] if "vsrc1" in instruction.operands else [])
    return []


def _select(code: int) -> str:
    return _SELECTS[code] if code < len(_SELECTS) else str(code)


def _lane_move(code: int) -> str:
    """The control word of DPP (CDNA4 ISA guide, section 13.3.9)."""
    if code < 0x100:
        return f"quad_perm:[{','.join(str(code >> 2 * i & 3) for i in range(4))}]"
    rows = {0x100: "row_shl", 0x110: "row_shr", 0x120: "row_ror"}
    if code < 0x130:
        return f"{rows[code & 0x1F0]}:{code & 15}"
    named = {
        0x130: "wave_shl:1", 0x134: "wave_rol:1", 0x138: "wave_shr:1", 0x13C: "wave_ror:1", 0x140: "row_mirror",
        0x141: "row_half_mirror", 0x142: "row_bcast:15", 0x143: "row_bcast:31",
    }  # fmt: skip
    return named.get(code, f"row_newbcast:{code & 15}" if 0x150 <= code < 0x160 else f"dpp_ctrl:{code:#x}")


def _of_long_vector(instruction: Instruction) -> _Text:
    """VOP3 and VOP3SD."""
    fields, name = instruction.fields, instruction.mnemonic
    parts = _target(instruction)
    if instruction.format == "VOP3SD" and "sdst" in instruction.operands:
        parts.append(_scalar(fields["sdst"], 2))
    for i in range(3):
        if f"src{i}" in instruction.operands:
            text = _source(instruction, f"src{i}")
            parts.append(_signed(text, fields["neg"] >> i & 1, fields.get("abs", 0) >> i & 1))
    modifiers = []
    if fields.get("opsel"):
        bits = [str(fields["opsel"] >> i & 1) for i in (*range(len(_sources(instruction))), 3)]
        modifiers.append(f"op_sel:[{','.join(bits)}]")
    if fields["clmp"]:
        modifiers.append("clamp")
    if fields["omod"]:
        modifiers.append(("", "mul:2", "mul:4", "div:2")[fields["omod"]])
    return parts, modifiers if not name.startswith("v_readlane") else []


def _sources(instruction: Instruction) -> list[str]:
    return [name for name in ("src0", "src1", "src2") if name in instruction.operands]


def _of_packed(instruction: Instruction) -> _Text:
    if instruction.mnemonic.startswith(("v_mfma", "v_smfmac", "v_accvgpr")):
        return _of_matrix(instruction)
    fields, sources = instruction.fields, _sources(instruction)
    parts = [_vector(instruction, "vdst"), *(_source(instruction, name) for name in sources)]
    high = fields["opsel_hi"] | fields["opsel_hi2"] << 2
    mixed = "_mix" in instruction.mnemonic
    modifiers = []
    for name, value, usual in (
        ("op_sel", fields["opsel"], 0),
        ("op_sel_hi", high, 0 if mixed else (1 << len(sources)) - 1),
        ("neg_lo", fields["neg"], 0),
        ("neg_hi", fields["neg_hi"], 0),
    ):
        bits = value & (1 << len(sources)) - 1
        if bits != usual:
            modifiers.append(f"{name}:[{','.join(str(bits >> i & 1) for i in range(len(sources)))}]")
    return parts, modifiers + (["clamp"] if fields["clmp"] else [])


def _of_matrix(instruction: Instruction) -> _Text:
    fields, name = instruction.fields, instruction.mnemonic
    if name.startswith("v_accvgpr_read"):
        return [_vector(instruction, "vdst"), _source(instruction, "src0", accumulation=True)], []
    if name.startswith("v_accvgpr_write"):
        return [_vector(instruction, "vdst", accumulation=True), _source(instruction, "src0")], []
    results = bool(fields["acc_cd"])
    parts = [_vector(instruction, "vdst", results)]
    parts += [_source(instruction, f"src{i}", bool(fields["acc"] >> i & 1)) for i in range(2)]
    addend = name.startswith("v_mfma")
    parts.append(_source(instruction, "src2", results and addend))
    if "scale0" in fields:
        parts += [_source(instruction, "scale0"), _source(instruction, "scale1")]
        chosen = [fields["scale0_byte"], fields["scale1_byte"], 0]
        bits = (",".join(str(each >> i & 1) for each in chosen) for i in range(2))
        picks = [f"{key}:[{each}]" for key, each in zip(("op_sel", "op_sel_hi"), bits, strict=True)]
        return parts, picks + [f"{key}:{fields[key]}" for key in ("cbsz", "blgp") if fields[key]]
    return parts, [f"{key}:{fields[key]}" for key in ("cbsz", "abid", "blgp") if fields[key]]


_FORMATS: dict[str, Callable[[Instruction], _Text]] = {
    **dict.fromkeys(("SOP1", "SOP2", "SOPC"), _of_scalar),
    **dict.fromkeys(("VOP1", "VOP2", "VOPC"), _of_short_vector),
    **dict.fromkeys(("VOP3", "VOP3SD"), _of_long_vector),
    **dict.fromkeys(("FLAT", "GLOBAL", "SCRATCH"), _of_global),
    **dict.fromkeys(("MUBUF", "MTBUF"), _of_buffer),
    "SOPK": _of_scalar_constant,
    "SOPP": _of_control,
    "SMEM": _of_scalar_memory,
    "DS": _of_lds,
    "VOP3P": _of_packed,
}
