"""Scaled products of a recorded model as a compiled graph has them after `patch(model, fuse=True)`: see
scaled_fusion.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hktune.runtime.calls.scaled_call import ScaledCall

Note = Callable[[ScaledCall], None]
_aten = torch.ops.aten
_VIEWS = (_aten.view, _aten._unsafe_view, _aten.reshape)
_SPLITS = (_aten.split, _aten.split_with_sizes, _aten.chunk)
_ACTIVATIONS = {_aten.silu: "silu", _aten.relu: "relu", _aten.gelu: "gelu"}
_HELD_MAX = 8
"""Products behind which something may still come: as many as an attention layer and gates have, and a few."""


@dataclass(eq=False)
class _Behind:
    """A product, or one half of it, and what is behind it. `last` is the result so far, and views of it; `before` what
    that was made of. Once something else is made of `last` no more is behind it. Where something is made of `before`
    too there is no one call, but the `products`; else it is `finished`."""

    products: list[ScaledCall]
    last: list[Tensor]
    half: int | None = None
    activation: str = ""
    finished: ScaledCall | None = None
    before: list[Tensor] = field(default_factory=list)
    is_done: bool = False
    is_spoiled: bool = False

    @property
    def call(self) -> ScaledCall:
        return self.products[0]

    def step(self, out: Tensor, finished: ScaledCall) -> None:
        self.before += self.last
        self.last = [out]
        self.finished = finished if has_finish(finished) and self.half is None else None


def has_finish(call: ScaledCall) -> bool:
    """Whether a template for the device of a call does what is behind it: NVIDIA's does in bfloat16, but no gates with
    scales of blocks. A shapes file with what a template cannot do is refused as a whole."""
    is_nvidia = call.a.is_cuda and torch.version.hip is None
    is_of_blocks = call.scale_a is not None and call.scale_a.dim() == 2 and call.scale_a.shape[1] > 1
    is_known = call.problem is not None and call.out_dtype is torch.bfloat16
    return is_nvidia and is_known and not (is_of_blocks and call.is_gated)


class GraphScaled:
    """Holds scaled products until it is known what is behind them."""

    def __init__(self, note: Note) -> None:
        """`note` counts a product."""
        self._note = note
        self._held: list[_Behind] = []

    def called(self, call: ScaledCall | None, out: object) -> None:
        if call is not None and isinstance(out, Tensor):
            self._held.append(_Behind([call], [out]))
            while len(self._held) > _HELD_MAX:
                self._end(self._held[0])

    def seen(self, packet: object, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: object) -> None:
        """An operator of torch's, which may be what is behind one."""
        operands = [each for each in args if isinstance(each, Tensor)]
        found = [each for each in self._held if any(_has(each.last, one) for one in operands)]
        for each in self._held:
            each.is_spoiled |= any(_has(each.before, one) for one in operands)
        if not found or any(each.is_done for each in found):
            return
        if packet in _VIEWS and isinstance(out, Tensor) and out.shape[-1] == found[0].last[0].shape[-1]:
            found[0].last.append(out)
        elif packet in _SPLITS and not isinstance(out, Tensor) and found[0].half is None:
            self._split(found[0], out)
        elif packet in _ACTIVATIONS and isinstance(out, Tensor) and not found[0].activation:
            tanh = "_tanh" if kwargs.get("approximate") == "tanh" else ""
            found[0].activation = f"{_ACTIVATIONS[packet]}{tanh}"
            found[0].step(out, found[0].call._replace(activation=found[0].activation))
        elif packet is _aten.mul and len(found) == 2 and isinstance(out, Tensor):
            gate, up = sorted(found, key=lambda each: not each.activation)
            self._gated(gate, up, out)
        elif packet is _aten.add and len(operands) == 2 and kwargs.get("alpha", 1) == 1 and isinstance(out, Tensor):
            _added(found[0], operands, out)
        for each in found:
            each.is_done |= packet not in (*_VIEWS, *_SPLITS, *_ACTIVATIONS)

    def _split(self, product: _Behind, out: Any) -> None:
        if len(out) == 2 and 2 * out[0].shape[-1] == product.last[0].shape[-1] and not product.activation:
            at = self._held.index(product)
            self._held[at : at + 1] = [_Behind(product.products, [out[half]], half) for half in (0, 1)]

    def _gated(self, gate: _Behind, up: _Behind, out: Tensor) -> None:
        if up.activation or not gate.activation or gate.is_spoiled or up.is_spoiled:
            return
        is_one = gate.products is up.products and (gate.half, up.half) == (0, 1)
        if not is_one and (gate.half is not None or up.half is not None):
            return
        whole = gate.call if is_one else _beside(gate.call, up.call)
        if whole is None:
            return
        self._held.remove(up)
        if not is_one:
            gate.products = [*gate.products, *up.products]
        gate.before += [*up.before, *up.last]
        gate.half = None
        gate.step(out, whole._replace(activation=gate.activation, is_gated=True))

    def _end(self, product: _Behind) -> None:
        self._held.remove(product)
        if product.half is not None and any(each.products is product.products for each in self._held):
            return  # with its other half
        finished = None if product.is_spoiled else product.finished
        for call in product.products if finished is None else [finished]:
            self._note(call)

    def end(self) -> None:
        """Count what is held."""
        while self._held:
            self._end(self._held[0])


def _added(product: _Behind, operands: list[Tensor], out: Tensor) -> None:
    last, (one, other) = product.last, operands
    residual = other if _has(last, one) else one
    fits = residual.shape == last[-1].shape and residual.dtype is last[-1].dtype and residual.is_contiguous()
    if fits and not _has(last, residual) and product.half is None and not product.activation:
        product.step(out, product.call._replace(residual=residual.reshape(last[0].shape)))


def _has(tensors: list[Tensor], one: Tensor) -> bool:
    return any(each is one for each in tensors)


def _beside(gate: ScaledCall, up: ScaledCall) -> ScaledCall | None:
    """One call in the place of two of one input, whose columns may be one matrix's; None where there is none."""
    scales = (gate.scale_b, up.scale_b)
    if gate.b.shape != up.b.shape or gate.a.shape != up.a.shape or gate.out_dtype is not up.out_dtype:
        return None
    if (gate.bias is None) != (up.bias is None) or any(each is None or each.dim() != 2 for each in scales):
        return None
    scale_b, bias = (None if each is None else _twice_as_wide(each) for each in (gate.scale_b, gate.bias))
    return gate._replace(b=_twice_as_wide(gate.b), scale_b=scale_b, bias=bias)


def _twice_as_wide(tensor: Tensor) -> Tensor:
    """What says shape and format of two, and holds nothing."""
    return torch.empty(*tensor.shape[:-1], 2 * tensor.shape[-1], dtype=tensor.dtype, device="meta")
