"""The class of a module that `patch` fused: one before its own, of which its own does not hear."""

from __future__ import annotations

import copyreg
import inspect
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any, Protocol

from torch import Tensor, nn

from hktune.runtime.torch_state import compiling, exporting, is_jit_trace


class Plan(Protocol):
    """What a module does in place of its forward."""

    def holds(self, module: nn.Module, given: tuple[Any, ...]) -> bool:
        """Whether a call with these arguments may be done so."""

    def run(self, module: nn.Module, given: tuple[Tensor, ...]) -> Tensor: ...


class FusedModule:
    """Before its own class in the order of a module that `patch` fused. A copy or a pickle of it is of that class. What
    a program makes of its class, as nn.Sequential does of a slice, has no plan, and is as if of that class."""

    _plan: Plan
    _fused_from: type[nn.Module]

    def __init_subclass__(cls, **named: object) -> None:
        """Nothing: the class behind this one may register its subclasses, or want words of them."""

    def forward(self, *args: Any, **named: Any) -> Any:
        module: Any = self
        own: dict[str, Any] = self.__dict__
        # A jit trace is checked by another one without gradients, and both must be alike.
        is_traced = exporting() or (not compiling() and is_jit_trace())
        if "_plan" not in own or named or is_traced or not self._plan.holds(module, args):
            return super().forward(*args, **named)  # type: ignore[misc]
        return self._plan.run(module, args)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As its own class has it."""
        reduced = super().__reduce_ex__(protocol)
        if not isinstance(reduced, tuple):
            return reduced
        function, args, *rest = reduced
        if function is copyreg.__newobj_ex__:  # type: ignore[attr-defined]
            _, args_of_new, named = args
            function, args = partial(_blank, **named), (self._fused_from, *args_of_new)
        elif function is copyreg.__newobj__:  # type: ignore[attr-defined]
            function, args = _blank, (self._fused_from, *args[1:])
        else:
            args = tuple(self._fused_from if each is type(self) else each for each in args)
        return (function, args, *map(_without_plan, rest[:1]), *rest[1:])


def _without_plan(state: Any) -> Any:
    """What a module holds, with slots or without, but for its plan; or whatever its own class made of that."""
    if isinstance(state, tuple):
        return tuple(map(_without_plan, state))
    return {name: each for name, each in state.items() if name != "_plan"} if isinstance(state, dict) else state


def _blank(kind: type[nn.Module], *args: Any, **named: Any) -> nn.Module:
    """A module of this class before its state is there."""
    return kind.__new__(kind, *args, **named)


def fused_class(kind: type[nn.Module]) -> Any:
    """`kind` with FusedModule before it. No metaclass is asked, and `kind` is not told."""
    body = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "_fused_from": kind}
    body["forward"] = _with_signature_of(kind.forward)
    return type.__new__(type(kind), kind.__name__, (FusedModule, kind), body)


def _with_signature_of(forward: Callable[..., Any]) -> FunctionType:
    """The forward of FusedModule, for whoever asks which arguments a module takes, as torch.export does."""
    own = FusedModule.forward
    found = FunctionType(own.__code__, own.__globals__, own.__name__, closure=own.__closure__)
    found.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    return found
