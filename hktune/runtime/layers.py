"""nn.Linear by the current table."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hktune.runtime import current, operators
from hktune.runtime.torch_state import compiling

_LOOKUPS = ("weight", "bias", "__getattr__", "__getattribute__")


class Linear(nn.Linear):
    """torch.nn.Linear by the current table, in bfloat16 unless `dtype` is float16: weight [out, in], as it is stored,
    bias fused.

    Initialised as nn.Linear is: weight by kaiming_uniform_(a=sqrt(5)), bias uniform within 1/sqrt(in). It can be
    made, and recorded (hktune.record), before a table is loaded; another call raises TableError then.
    """

    _looks_up_itself = False  # whether a subclass may find another weight or bias than nn.Module does

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = torch.bfloat16,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)

    def __init_subclass__(cls, **named: object) -> None:
        super().__init_subclass__(**named)
        others = set(cls.__mro__) - set(Linear.__mro__)
        cls._looks_up_itself = any(name in vars(other) for other in others for name in _LOOKUPS)

    def forward(self, input: Tensor) -> Tensor:
        # As attributes, which nn.Module looks up in Python, they cost a call 1.3 us more.
        own: dict[str, Any] = self.__dict__
        if "weight" in own or "bias" in own or self._looks_up_itself:
            return current.linear(input, self.weight, self.bias)
        parameters = own["_parameters"]
        try:
            weight, bias = parameters["weight"], parameters["bias"]
        except KeyError:  # a parametrization, pruning or the like has put something else in their place
            weight, bias = self.weight, self.bias
        if "_place" in own and compiling():
            return operators.traced_linear(input, weight, bias, operators.CURRENT, own["_place"])
        return current.linear(input, weight, bias)


class PatchedLinear(Linear):
    """An nn.Linear that `patch` changed, and `unpatch` changes back (see patching.py).

    With `_place`, its weight is the first, the second, ... of several that follow one another in memory."""
