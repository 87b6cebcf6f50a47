"""What a function was given in the place of tensors, numbers, words and paths: TypeErrors as torch's own are, before
anything is asked of it."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from hktune.core.errors import InputError

_NUMBERS = (int, float, numbers.Real, torch.SymInt, torch.SymFloat)


def check_tensors(by_torch: Callable[[], object], *needed: object, perhaps: tuple[object, ...] = ()) -> None:
    """Raises what torch's own function raises where an operand is no tensor, nor stands for one: a TypeError that names
    the argument. `by_torch` calls that function; of `perhaps`, operands may be None."""
    if not all(map(_is_tensor, needed)) or not all(each is None or _is_tensor(each) for each in perhaps):
        by_torch()


def check_linear(name: str, x: object, weight: object, bias: object, residual: object = None) -> None:
    """`check_tensors` of a linear called `name`. Raises TypeError for a residual that is no tensor too: torch would add
    a number."""
    check_tensors(lambda: functional.linear(x, weight, bias), x, weight, perhaps=(bias,))  # type: ignore[arg-type]
    if residual is not None and not _is_tensor(residual):
        raise TypeError(f"{name}(): argument 'residual' must be Tensor, not {type(residual).__name__}")


def check_number(name: str, argument: str, value: object) -> None:
    """Raises TypeError for what is no real number."""
    if not isinstance(value, _NUMBERS):
        step = f": pass {argument}.item()" if isinstance(value, Tensor) else ""
        raise TypeError(f"{name}(): argument '{argument}' must be a number, not {type(value).__name__}{step}")


def check_bool(name: str, argument: str, value: object) -> None:
    """Raises TypeError for what is no bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}(): argument '{argument}' must be bool, not {type(value).__name__}")


def check_bools(name: str, **flags: object) -> None:
    """`check_bool` of each of `flags`, by its argument."""
    for argument, value in flags.items():
        check_bool(name, argument, value)


def check_path(name: str, argument: str, value: object) -> Path:
    """Raises TypeError for what is no path, and InputError for an empty one: that is not the working directory."""
    text = fspath(value) if isinstance(value, str | PathLike) else value
    if not isinstance(text, str):
        raise TypeError(f"{name}(): argument '{argument}' must be a path, not {type(value).__name__}")
    if not text:
        raise InputError(f"{name}: {argument} is empty: pass a path")
    return Path(text)


def check_dtype(name: str, argument: str, value: object) -> None:
    """Raises TypeError for what is neither a dtype nor None."""
    if value is not None and not isinstance(value, torch.dtype):
        raise TypeError(f"{name}(): argument '{argument}' must be torch.dtype, not {type(value).__name__}")


def _is_tensor(value: object) -> bool:
    """Whether torch's functions take it as one: with a `__torch_function__` it says itself what they are to do."""
    return isinstance(value, Tensor) or hasattr(type(value), "__torch_function__")
