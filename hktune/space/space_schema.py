"""The schema of a search space's YAML. Unknown keys are errors."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Scalar = int | Annotated[str, Meta(max_length=500)] | bool
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Prose = Annotated[str, Meta(max_length=500)]
Scalars = Annotated[dict[Name, Scalar], Meta(max_length=256)]


class ParameterDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    values: Annotated[list[Scalar], Meta(max_length=1024)]
    default: Scalar
    help: Prose


class ConstraintDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: Name
    require: Scalar
    reason: Prose


class ForemostDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    varied: Annotated[list[Name], Meta(min_length=1, max_length=8)]
    bases: Annotated[list[Scalars], Meta(min_length=1, max_length=16)]
    least: Annotated[list[Scalar], Meta(min_length=1, max_length=8)]
    when: Scalar = True
    require: Scalar = True
    held: Annotated[list[Name], Meta(max_length=8)] = []
    most: Annotated[list[Name], Meta(max_length=8)] = []
    first: Annotated[int, Meta(ge=1, le=16)] = 1


class FixedCaseDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    when: Scalar
    config: Scalars


class FixedChoiceDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: Prose
    cases: Annotated[list[FixedCaseDescription], Meta(min_length=1, max_length=64)]


class SpaceDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`estimate` are named expressions, and plain numbers, which are its constants. The last one says about how long a
    config takes for m, n and k, in any unit. It orders what a search tries first, and is never reported as a time.
    `seeds` are tried first, and before them those `of_8_bits`, or `of_fewer_bits`, where elements of A have so many.
    With an estimate, each of `foremost` adds the configs whose numbers are least of all combinations of a few
    parameters, the `first` of them.
    `fixed_choice` is what a summary compares the best with, in addition to the defaults."""

    name: Name
    template: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_]{1,64}/[A-Za-z0-9_]{1,64}\Z")]
    parameters: Annotated[dict[Name, ParameterDescription], Meta(max_length=256)]
    constraints: Annotated[list[ConstraintDescription], Meta(max_length=256)] = []
    derived: Scalars = {}
    seeds: Annotated[list[Scalars], Meta(max_length=1024)] = []
    seeds_of_8_bits: Annotated[list[Scalars], Meta(max_length=1024)] = []
    seeds_of_fewer_bits: Annotated[list[Scalars], Meta(max_length=1024)] = []
    estimate: Scalars = {}
    foremost: Annotated[list[ForemostDescription], Meta(max_length=8)] = []
    fixed_choice: FixedChoiceDescription | None = None

    def seeds_of(self, width_bits: int) -> list[Scalars]:
        """All of them where elements of A have `width_bits`, in order."""
        own = self.seeds_of_8_bits if width_bits == 8 else self.seeds_of_fewer_bits if width_bits < 8 else []
        return [*own, *self.seeds]
