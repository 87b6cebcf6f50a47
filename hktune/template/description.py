"""The schema of template.yaml. Unknown keys are errors."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Text = str | int | bool


class ArgumentDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: Literal["a", "bt", "c", "bias", "workspace", "m", "n", "k", "lda", "ldb", "ldc"]
    kind: Literal["pointer", "u32", "i32", "u64", "f32"]


class Extent(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Expressions for an m x n x k box: a tile, or the problem of a proof."""

    m: Text
    n: Text
    k: Text


class ProofDescription(Extent, forbid_unknown_fields=True, frozen=True):
    """A problem to prove a variant on; `padding` is how many elements lie between the rows of each matrix."""

    epilogue: Literal["none", "bias"] = "none"
    padding: Text = 0


class OrderDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Expressions for the order in which workgroups take tiles, as `hktune.model.WorkgroupOrder` has it."""

    xcd_chunk: Text = 1
    group_rows: Text = 1


class LaunchDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Expressions for a launch; only here may a problem's m, n and k be named."""

    grid: tuple[Text, Text, Text]
    block: tuple[Text, Text, Text]
    dynamic_lds_bytes: Text = 0
    workspace_bytes: Text = 0


class TemplateDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`fixed_order` is the rule for templates: no sum depends on the order in which workgroups finish. One that adds
    with atomics must say false."""

    name: str
    arch: str
    language: Literal["hip", "cuda"]
    source: str
    symbol: str
    arguments: tuple[ArgumentDescription, ...]
    fields: dict[str, Text]
    tile: Extent
    launch: LaunchDescription
    proof: Annotated[tuple[ProofDescription, ...], msgspec.Meta(min_length=1)]
    derived: dict[str, Text] = {}
    order: OrderDescription = OrderDescription()
    fixed_order: bool = True
