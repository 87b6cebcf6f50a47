"""What the forward of a module does with its children, read by torch.fx; the module is left as it was."""

from __future__ import annotations

from copy import copy
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import nn

Settings = tuple[tuple[str, object], ...]
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_SIMPLE = (bool, int, float, str, type(None), FunctionType, BuiltinFunctionType)


class _Tracer(torch.fx.Tracer):
    proxy_buffer_attributes = True  # a buffer that a forward writes to would be written to now

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        del m, module_qualified_name
        return True


def traced(module: nn.Module, training: bool) -> torch.fx.Graph | None:
    """What its forward does in training or in evaluation; None where that depends on more than its children, or where
    it changes what the module holds, as one that counts its calls does."""
    was, module.training = module.training, training
    held = {name: (value, _copied(value)) for name, value in vars(module).items()}
    try:
        graph = _Tracer().trace(module)
    except Exception:  # whatever a forward raises that gets stand-ins for tensors
        graph = None
    changed = _put_back(module, held)
    module.training = was
    return None if changed else graph


def settings_of(module: nn.Module) -> Settings:
    """The numbers, words, flags and functions that `module` holds itself: a forward may do otherwise with others."""
    return tuple(
        (name, value)
        for name, value in vars(module).items()
        if name not in _OF_EVERY_MODULE and isinstance(value, _SIMPLE)
    )


def _copied(value: object) -> Any:
    """What of a container can change, by identity; None of anything else."""
    return copy(value) if isinstance(value, (list, dict, set)) else None


def _put_back(module: nn.Module, held: dict[str, tuple[object, Any]]) -> bool:
    """Give `module` what it held, and say whether it held anything else."""
    own, changed = vars(module), False
    for name in own.keys() - held.keys():
        del own[name]
        changed = True
    for name, (value, before) in held.items():
        if name not in own or own[name] is not value:
            own[name] = value
            changed = True
        if isinstance(value, (list, dict, set)) and _ids(value) != _ids(before):
            value.clear()
            value.extend(before) if isinstance(value, list) else value.update(before)
            changed = True
    return changed


def _ids(container: Any) -> list[object]:
    items = container.items() if isinstance(container, dict) else ((None, each) for each in container)
    return [(key, id(each)) for key, each in items]
