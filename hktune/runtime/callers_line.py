"""Warnings that point at the line of the program that called, however deep in hktune or torch the cause was found."""

from __future__ import annotations

import os
import sys
import warnings

import torch

import hktune

_INSIDE = tuple(os.path.dirname(str(package.__file__)) + os.sep for package in (hktune, torch))  # noqa: PTH120


def warn_caller(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line that is in neither hktune nor torch; a layer's call passes through both."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE):
        frame = frame.f_back
    names = frame.f_globals
    registry = names.setdefault("__warningregistry__", {})
    warnings.warn_explicit(
        text, category, frame.f_code.co_filename, frame.f_lineno, names.get("__name__"), registry, names
    )
