"""Commands as a person types them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from hktune.core.config import Value
from hktune.core.operation import BF16_NT
from hktune.core.problem import Problem


def command_line(*words: str | Path) -> str:
    """`words` as one line for a shell: what holds a space, a quote or another special character is quoted."""
    return shlex.join(map(str, words))


def spelled(problem: Problem) -> str:
    """`problem` as --problem takes it."""
    operation = problem.operation
    said = str(operation).removeprefix(str(BF16_NT)) if operation.bare == BF16_NT else f":{operation}"
    return f"{problem.m}x{problem.n}x{problem.k}{said}"


def words_of(values: Mapping[str, Value]) -> list[str]:
    """`values`, such as a config, as PARAMETER=VALUE words."""
    return [f"{name}={typed(value)}" for name, value in values.items()]


def typed(value: Value) -> str:
    """A parameter's value as a person types it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
