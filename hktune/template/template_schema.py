"""The schema of template.yaml. Unknown keys are errors."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from hktune.core.argument_rules import FILLED_NAMES, NEVER_CONSTANT
from hktune.core.expression import RECORDS
from hktune.core.launch import operand_name
from hktune.core.operand import NUMBERS
from hktune.core.operation import KINDS
from hktune.core.problem import Rounding
from hktune.core.storage import STORAGES

Text = Annotated[str, Meta(max_length=500)] | int | bool
"""An expression; see `hktune.core.expression`."""

Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_]{1,64}\Z")]
FileName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}\Z")]
_FOLDER = "[A-Za-z0-9_][A-Za-z0-9_.+-]*"
FolderPath = Annotated[str, Meta(pattern=rf"\A({_FOLDER}(/{_FOLDER})*)?\Z", max_length=200)]
Symbol = Annotated[str, Meta(pattern=r"\A[A-Za-z_][A-Za-z0-9_]{0,199}\Z")]
Kind = Annotated[str, Meta(pattern=rf"\A({'|'.join(KINDS)})\Z")]
Texts = Annotated[dict[Name, Text], Meta(max_length=256)]


class ArgumentDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """An argument of the kernel, in order. `name` says what fills it: an operand, a size or a row stride, passed
    `scale` times; or, under any other name, `value`. Both are expressions that know no problem, but an f32's value is a
    number. `offset_bytes` is its place in the argument struct: all have one, and the rest of the struct is zero, or
    none has, and they are the kernel's own in order. `only` names an operand, a stride or a step: kernels of
    operations without it do not have the argument."""

    name: Name
    kind: Literal["pointer", "u32", "i32", "u64", "f32"]
    scale: Text = 1
    value: Text | float | None = None
    offset_bytes: Annotated[int, Meta(ge=0, lt=4096)] | None = None
    only: Name | None = None

    def __post_init__(self) -> None:
        if self.value is not None and operand_name(self.name) in NEVER_CONSTANT:
            raise ValueError(f"argument {self.name} has a value: a launch fills what is called so, take another name")
        if self.scale != 1 and (self.kind == "pointer" or self.value is not None):
            raise ValueError(f"argument {self.name} has a scale: only a number that each launch gives has one")


class Extent(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Expressions for an m x n x k box: a tile, or the problem of a proof."""

    m: Text
    n: Text
    k: Text


class ProofDescription(Extent, forbid_unknown_fields=True, frozen=True):
    """A problem to prove a variant on. `epilogue` names steps, joined by +; `padding` is how many elements separate the
    rows of each matrix; an operation of several products has `groups` of them there. `kinds` are the kinds of operation
    that it is for."""

    epilogue: Annotated[str, Meta(max_length=100)] = "none"
    padding: Text = 0
    groups: Text = 5
    kinds: Annotated[tuple[Kind, ...], Meta(min_length=1)] = KINDS


class OrderDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Expressions for the order in which workgroups take tiles, as `hktune.core.launch.WorkgroupOrder` has it."""

    xcd_chunk: Text = 1
    group_rows: Text = 1
    group_columns: Text = 0


class LaunchDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Expressions for a launch; only here may a problem's m, n, k and its number of products, `groups`,
    be named."""

    grid: tuple[Text, Text, Text]
    block: tuple[Text, Text, Text]
    dynamic_lds_bytes: Text = 0
    workspace_bytes: Text = 0
    adds_to_c: Text = False


class ObjectDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A code object: its file, the sha256 of its bytes, its kernel, and what is known of it, under names that
    expressions may use as they use derived ones."""

    file: FileName
    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    symbol: Symbol
    facts: Annotated[dict[Name, int | bool | Name], Meta(max_length=32)] = {}


class ObjectsDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Code objects that others have built. The config's `parameter` names one of `files`. They are in `folder` of the
    Python package `distribution`, or in `checkout` of a folder that the user has; `extra` is the extra of hktune that
    installs the package, and the word for that folder."""

    parameter: Name
    files: Annotated[dict[Name, ObjectDescription], Meta(min_length=1, max_length=1024)]
    licence: Annotated[str, Meta(min_length=1, max_length=100)]
    distribution: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._-]{0,100}\Z")] = ""
    extra: Annotated[str, Meta(pattern=r"\A[a-z0-9_-]{0,40}\Z")] = ""
    folder: FolderPath = ""
    checkout: FolderPath = ""

    def __post_init__(self) -> None:
        first, *others = self.files.values()
        taken = sorted(first.facts.keys() & {*FILLED_NAMES, *RECORDS, self.parameter})
        if taken:
            raise ValueError(f"fact {taken[0]!r} has a name that expressions know as something else: rename it")
        for each in others:
            if each.facts.keys() != first.facts.keys():
                unlike = min(each.facts.keys() ^ first.facts.keys())
                raise ValueError(f"objects do not all have the fact {unlike!r}: say it of each, or of none")


class TemplateDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`operations` are the texts of what the template can do, the usual one first; `{a,b}` in one stands for either of
    them (`alternatives`). Without them it does bf16.nt and, if
    it takes a bias, bf16.nt+bias. `source` is a file in the folder of template.yaml, whose includes of files there are
    followed, or several that make one translation unit in this order. `fixed_order`: no sum depends on the order in
    which workgroups finish; one that adds with atomics must say false. `strict_hazards`: what the checker has only a
    note for, since hardware is known to run it, fails a proof too. `contiguous`: the kernel may read what is between
    the end of a row and the beginning of the next, so that only matrices without padding are given to it. `rounding` is
    the kernel's of C, and `storage` names operands that it takes in another storage than row by row
    (`hktune.core.storage`).

    A template of the language `object` has no source, symbol and fields, but `objects`."""

    name: Name
    arch: Name
    language: Literal["hip", "cuda", "triton", "object"]
    arguments: Annotated[tuple[ArgumentDescription, ...], Meta(max_length=96)]
    tile: Extent
    launch: LaunchDescription
    proof: Annotated[tuple[ProofDescription, ...], Meta(min_length=1, max_length=16)]
    operations: Annotated[tuple[Annotated[str, Meta(max_length=200)], ...], Meta(max_length=256)] = ()
    derived: Texts = {}
    order: OrderDescription = OrderDescription()
    fixed_order: bool = True
    strict_hazards: bool = True
    contiguous: bool = False
    rounding: Rounding = "half_even"
    storage: dict[Name, Name] = {}
    source: FileName | Annotated[tuple[FileName, ...], Meta(min_length=1, max_length=64)] = ()
    symbol: Symbol | None = None
    fields: Texts = {}
    objects: ObjectsDescription | None = None

    def __post_init__(self) -> None:
        if (self.language == "object") != (self.objects is not None):
            raise ValueError(f"language {self.language} and its objects must agree: objects are of the language object")
        if self.objects is not None and (self.source or self.symbol or self.fields):
            raise ValueError("a template of objects has no source, symbol or fields: drop them")
        if self.objects is None and not (self.source and self.symbol):
            raise ValueError("a template needs source and symbol: name them")
        if self.contiguous and any(proof.padding != 0 for proof in self.proof):
            raise ValueError("a contiguous template has no proof with padding: drop one of them")
        for name, word in self.storage.items():
            if word not in STORAGES or f"ld{name}" not in NUMBERS or name == "c":
                known = ", ".join(STORAGES)
                raise ValueError(
                    f"storage of {name} is {word!r}: it must be of an input that is a matrix: one of {known}"
                )

    @property
    def sources(self) -> tuple[str, ...]:
        """The files of `source`."""
        return (self.source,) if isinstance(self.source, str) else self.source
