"""Texts that differ in a few places, written as one: `{bf16,f16}.nt{,+bias}` is bf16.nt, bf16.nt+bias, f16.nt, ..."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable

from hktune.core.errors import TemplateError
from hktune.core.escaped import shown

TEXTS_MAX = 2048
_ALTERNATIVES = re.compile(r"\{([^{}]*)\}")


def spelled_out(texts: Iterable[str]) -> list[str]:
    """Every text that `texts` stand for, in order. Raises TemplateError for more than TEXTS_MAX."""
    found: list[str] = []
    for text in texts:
        parts = _ALTERNATIVES.split(text)  # what is between braces is every other one
        choices = [part.split(",") if place % 2 else [part] for place, part in enumerate(parts)]
        if len(found) + math.prod(map(len, choices)) > TEXTS_MAX:
            raise TemplateError(f"operations: {shown(text)} makes more than {TEXTS_MAX} of them: name fewer")
        found += map("".join, itertools.product(*choices))
    return found
