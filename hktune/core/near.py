"""The word that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def meant(word: str, known: Iterable[str]) -> str:
    """', did you mean ...?' with the one of `known` that is near `word`; empty where none is."""
    near = difflib.get_close_matches(word[:64], list(known), n=1)
    return f", did you mean {near[0]}?" if near else ""
