"""The schema of a search space's YAML. Unknown keys are errors."""

from __future__ import annotations

import msgspec

Scalar = int | str | bool


class ParameterDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    values: list[Scalar]
    default: Scalar
    help: str


class ConstraintDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    require: Scalar
    reason: str


class FixedCaseDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    when: Scalar
    config: dict[str, Scalar]


class FixedChoiceDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    cases: list[FixedCaseDescription]


class SpaceDescription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`estimate` are named expressions, the last of which says about how long a config takes for m, n and k, in any
    unit: it orders what a search tries first, and is never reported as a time. `fixed_choice` is what a summary
    compares the best with, beside the defaults."""

    name: str
    template: str
    parameters: dict[str, ParameterDescription]
    constraints: list[ConstraintDescription] = []
    derived: dict[str, Scalar] = {}
    seeds: list[dict[str, Scalar]] = []
    estimate: dict[str, Scalar] = {}
    fixed_choice: FixedChoiceDescription | None = None
