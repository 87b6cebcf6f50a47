"""What hktune cannot run without, asked for before anything is imported. Standard library only."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping

from hktune.core.errors import InputError, ToolchainError

PACKAGES: Mapping[str, str] = {
    "torch": "torch",
    "optuna": "optuna",
    "pandas": "pandas",
    "yaml": "pyyaml",
    "filelock": "filelock",
    "numpy": "numpy",
    "msgspec": "msgspec",
    "elftools": "pyelftools",
    "rich": "rich",
    "scipy": "scipy",
    "cmaes": "cmaes",
    "threadpoolctl": "threadpoolctl",
}
"""What each is imported as, and what it is installed as: pyproject.toml's dependencies."""


def require_working_directory() -> None:
    """Raises InputError where the directory that this process works in was removed: no other can be started there."""
    try:
        os.getcwd()  # noqa: PTH109 - pathlib only wraps it
    except FileNotFoundError:
        raise InputError("the working directory is gone: cd to one that is there") from None


def require_packages() -> None:
    """Raises ToolchainError, which names all that are missing and the line to type."""
    missing = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        names = " ".join(missing)
        raise ToolchainError(f"not installed here: {names}: pip install {names}, or scripts/setup in a checkout")
