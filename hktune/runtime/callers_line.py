"""Warnings that point at the line of the program that called, however deep in hktune or torch the cause was found."""

from __future__ import annotations

import sys
import warnings
from types import FrameType


def warn_caller(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line that is in neither hktune nor torch nor code that torch generated. A call of a layer
    or of a compiled function passes through frames of them all.

    Its source is left to the file's name. Asked for it, the loaders of some modules raise: that of `python -c` and of a
    script on stdin is one for built-in modules.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_inside(frame):
        frame = frame.f_back
    names = frame.f_globals
    registry = names.setdefault("__warningregistry__", {})
    warnings.warn_explicit(text, category, frame.f_code.co_filename, frame.f_lineno, _module(frame), registry)


def _is_inside(frame: FrameType) -> bool:
    """Generated code is in a module without a name, or in one of torch's."""
    name = _module(frame)
    return name is None or name.partition(".")[0] in ("hktune", "torch")


def _module(frame: FrameType) -> str | None:
    """The name of a frame's module; None where it has none, or what a program has put there is no text."""
    name = frame.f_globals.get("__name__")
    return name if isinstance(name, str) else None
