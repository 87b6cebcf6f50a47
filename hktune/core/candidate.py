"""A candidate: what is compiled and proved once, and then timed on many problems."""

from __future__ import annotations

from dataclasses import dataclass

from hktune.core.config import Config
from hktune.core.operation import BF16_NT, Operation


@dataclass(frozen=True)
class Candidate:
    """A config as the code of one operation. Operations that differ only in what a launch passes share their code, and
    then their candidates: `operation` is the one that `Template.code_operation` names. `template` is the sha256 of its
    template where there are several; None is the only one there is, or the first."""

    config: Config
    operation: Operation = BF16_NT
    template: str | None = None

    @property
    def id(self) -> str:
        """One word for it, which can be part of a file's name."""
        whose = f"-{self.template[:12]}" if self.template else ""
        return f"{self.config.id}-{self.operation}{whose}"
