"""The schema of template.yaml. Unknown keys are errors."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from hktune.core.launch import operand_name
from hktune.core.operand import NUMBERS, POINTERS

Text = Annotated[str, Meta(max_length=500)] | int | bool
"""An expression; see `hktune.core.expression`."""

Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_]{1,64}\Z")]
FileName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}\Z")]
Symbol = Annotated[str, Meta(pattern=r"\A[A-Za-z_][A-Za-z0-9_]{0,199}\Z")]
Texts = Annotated[dict[Name, Text], Meta(max_length=256)]


class ArgumentDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """An argument of the kernel, in order. `name` says what fills it."""

    name: Name
    kind: Literal["pointer", "u32", "i32", "u64", "f32"]

    def __post_init__(self) -> None:
        known = (*POINTERS, *NUMBERS)
        if operand_name(self.name) not in known:
            raise ValueError(f"argument {self.name!r} is not known: known are {', '.join(known)}")


class Extent(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Expressions for an m x n x k box: a tile, or the problem of a proof."""

    m: Text
    n: Text
    k: Text


class ProofDescription(Extent, forbid_unknown_fields=True, frozen=True):
    """A problem to prove a variant on. `epilogue` names steps, joined by +; `padding` is how many elements separate the
    rows of each matrix."""

    epilogue: Annotated[str, Meta(max_length=100)] = "none"
    padding: Text = 0


class OrderDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Expressions for the order in which workgroups take tiles, as `hktune.core.launch.WorkgroupOrder` has it."""

    xcd_chunk: Text = 1
    group_rows: Text = 1


class LaunchDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Expressions for a launch; only here may a problem's m, n and k be named."""

    grid: tuple[Text, Text, Text]
    block: tuple[Text, Text, Text]
    dynamic_lds_bytes: Text = 0
    workspace_bytes: Text = 0


class TemplateDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`operations` are the texts of what the template can do, the usual one first. Without them it does bf16.nt and, if
    it takes a bias, bf16.nt+bias. `source` is a file in the folder of template.yaml, whose includes of files there are
    followed, or several that make one translation unit in this order. `fixed_order`: no sum depends on the order in
    which workgroups finish; one that adds with atomics must say false."""

    name: Name
    arch: Name
    language: Literal["hip", "cuda", "triton"]
    source: FileName | Annotated[tuple[FileName, ...], Meta(min_length=1, max_length=64)]
    symbol: Symbol
    arguments: Annotated[tuple[ArgumentDescription, ...], Meta(max_length=32)]
    fields: Texts
    tile: Extent
    launch: LaunchDescription
    proof: Annotated[tuple[ProofDescription, ...], Meta(min_length=1, max_length=16)]
    operations: Annotated[tuple[Annotated[str, Meta(max_length=100)], ...], Meta(max_length=256)] = ()
    derived: Texts = {}
    order: OrderDescription = OrderDescription()
    fixed_order: bool = True
