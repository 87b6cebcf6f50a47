"""Findings that the user knows of: RULE, or RULE@PLACE with a source line or an offset in the kernel."""

from __future__ import annotations

from dataclasses import dataclass

from hktune.core.errors import InputError
from hktune.core.escaped import shown
from hktune.core.near import meant
from hktune.verify.diagnosis import Diagnosis
from hktune.verify.finding_rules import RULES


@dataclass(frozen=True)
class Waiver:
    """`place` is `file:line` of any call on the way to the instruction, `+0x44` or `symbol+0x44`; "" is anywhere."""

    rule: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.rule}@{self.place}" if self.place else self.rule

    def covers(self, diagnosis: Diagnosis) -> bool:
        """Whether it waives a finding."""
        return self.rule == diagnosis.rule.name and (not self.place or self.place in diagnosis.places)


def parse_waiver(text: str) -> Waiver:
    """Raises InputError for a rule that there is none of."""
    rule, _, place = text.partition("@")
    if rule not in RULES:
        known = ", ".join(RULES)
        raise InputError(f"--allow {shown(text)}: {shown(rule)} is no rule{meant(rule, RULES)}: the rules are {known}")
    return Waiver(rule, place)
