"""Linears of a recorded model as a compiled graph has them after `patch(model, fuse=True)`: see graph_fusion.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hktune.runtime.calls.forms import Form, finished_form
from hktune.runtime.fusing.adjacent_weights import joined

Note = Callable[[Form, Tensor, Tensor, Tensor | None], None]


@dataclass(frozen=True)
class _Called:
    form: Form
    weight: Tensor
    bias: Tensor | None
    out: Tensor


class GraphLinears:
    """Holds the linears of one input until another comes, since only then it is known what they become."""

    def __init__(self, note: Note) -> None:
        """`note` counts a product."""
        self._note = note
        self._x: Tensor | None = None
        self._held: list[_Called] = []

    def called(self, form: Form, x: Tensor, weight: Tensor, bias: Tensor | None, out: object) -> None:
        """A linear without gates or a residual."""
        if x is not self._x:
            self.end()
        self._x = x
        if isinstance(out, Tensor):
            self._held.append(_Called(form, weight, bias, out))

    def added(self, one: object, other: object) -> None:
        """A sum of two tensors, or of other things."""
        for each in self._held:
            if each.out is one or each.out is other:
                to = other if each.out is one else one
                is_fused = isinstance(to, Tensor) and to is not each.out and _fits(to, each.out)
                if is_fused and self._x is not None:
                    form = finished_form(each.bias, each.form.activation or None, is_gated=False)
                    self._note(form, self._x, each.weight, each.bias)
                    self._held.remove(each)
                return

    def end(self) -> None:
        """Count what is held: as one product where weights follow one another in memory."""
        held, x, self._held, self._x = self._held, self._x, [], None
        if x is None or not held:
            return
        biases = [each.bias for each in held if each.bias is not None]
        is_plain = len(biases) in (0, len(held)) and not any(each.form.activation for each in held)
        weight = joined([each.weight for each in held]) if len(held) > 1 and is_plain else None
        if weight is not None:
            self._note(held[0].form, x, weight, torch.cat(biases) if biases else None)
            return
        for each in held:
            self._note(each.form, x, each.weight, each.bias)


def _fits(added: Tensor, out: Tensor) -> bool:
    return added.shape == out.shape and added.dtype is out.dtype and added.is_contiguous()
