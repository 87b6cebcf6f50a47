"""What a kernel's outputs should hold, as a Python function of its inputs' values that a file defines."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from hktune.core.errors import InputError
from hktune.core.escaped import shown
from hktune.core.outside_file import FileKind
from hktune.verify.kernel_buffers import Numbers
from hktune.verify.kernel_file import Reference

REFERENCE_FILE = FileKind("a Python file", 1 << 20, InputError, "write --reference FILE.py:FUNCTION")


def reference_of(text: str, numbers: Mapping[str, int | float], outputs: list[str]) -> Reference:
    """The function that `FILE.py:FUNCTION` names: called with the buffers and numbers that its parameters name, it
    returns the only output, or a mapping of outputs by name. Raises InputError."""
    file, _, name = text.rpartition(":")
    if not file or not name.isidentifier():
        raise InputError(f"--reference {shown(text)}: write --reference FILE.py:FUNCTION")
    function = _loaded(Path(file), name)

    def reference(buffers: dict[str, Numbers]) -> Mapping[str, Numbers]:
        known: dict[str, Any] = {**numbers, **buffers}
        try:
            parameters = inspect.signature(function).parameters.values()
            takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters)
            given = {each: value for each, value in known.items() if takes_all or each in {p.name for p in parameters}}
            found = function(**given)
        except Exception as error:
            raise InputError(f"--reference {text}: {type(error).__name__}: {error}") from error
        if isinstance(found, Mapping):
            return {str(each): np.asarray(value) for each, value in found.items()}
        if len(outputs) != 1:
            rule = f"the kernel has {len(outputs)} outputs ({', '.join(outputs)})"
            raise InputError(f"--reference {text}: {rule}: return a dict of them by name")
        return {outputs[0]: np.asarray(found)}

    return reference


def _loaded(path: Path, name: str) -> Any:
    """The function `name` of the Python file at `path`, executed as a module of its own."""
    source = REFERENCE_FILE.read_text(path)
    module = ModuleType("hktune_reference")
    module.__file__ = str(path)
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except Exception as error:
        raise InputError(f"--reference {path}: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"--reference {path}: it has no function {shown(name)}")
    return function
