"""What Inductor does with scaled products of torch's in a graph that it compiles, and what is behind them.

Models with float8 weights call `torch._scaled_mm` in modules of any class, and apply gates or add a residual in
another. In the graph that Inductor gets, `silu(gate) * up` and `product + y` are plain to see. They become one
`hktune::scaled_finished` where the table has a kernel for it: the one that is enabled, or the current one for
`hktune.scaled_mm`. What has another user stays as it is.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch.fx import Graph, Node

from hktune.core.operation import ACTIVATIONS
from hktune.runtime import enabled, operators, scaled_operator
from hktune.runtime.calls.forms import activated
from hktune.runtime.calls.scaled_call import OPERATIONS, ScaledCall, call_of_operator, call_of_recipes
from hktune.runtime.fusing.graph_fusion import called, replaced
from hktune.runtime.fusing.scaled_finished_operator import ENABLED, scaled_finished
from hktune.runtime.loaded import LoadedTable

_aten = torch.ops.aten
_VIEWS = (_aten.view.default, _aten._unsafe_view.default, _aten.reshape.default)
_TRANSPOSES = (_aten.t.default, _aten.permute.default, _aten.transpose.int)
_SPLITS = (_aten.split.Tensor, _aten.split_with_sizes.default)
_OUTPUTS = (torch.bfloat16, torch.float16)
_SAME_MAX = 64  # nodes that are compared before two are taken for different ones


@dataclass(frozen=True)
class _Product:
    """A scaled product, as a `call` of nodes in the place of tensors, and the `last` of the views of it that lead to
    what is behind it: each is all that is made of the one before."""

    node: Node
    call: Any
    table: int
    last: Node

    def server(self) -> LoadedTable | None:
        """The table that serves it, if there is one now."""
        if self.table == ENABLED:
            return enabled.table_on(self.node.meta["val"].device)
        found = operators.found_table(self.table)
        return found if isinstance(found, LoadedTable) else None


def _call_of(node: Node) -> tuple[Any, int] | None:
    """A scaled product as a call of nodes, and the table that it asks."""
    arguments: Any = node.args
    named: Any = node.kwargs
    call: ScaledCall | None
    if node.op != "call_function":
        return None
    out_dtype = arguments[6] if len(arguments) > 6 else named.get("out_dtype")
    if node.target is scaled_operator._operator:
        call, table = ScaledCall(*arguments, **named), operators.CURRENT
    elif node.target is _aten._scaled_mm.default and out_dtype in _OUTPUTS:
        call, table = call_of_operator(*arguments, **named), ENABLED
    elif hasattr(_aten, "_scaled_mm_v2") and node.target is _aten._scaled_mm_v2.default:
        call, table = call_of_recipes(*arguments, **named), ENABLED
    else:
        return None
    return None if call is None or call.out_dtype not in _OUTPUTS else (call, table)


def _product_of(value: object) -> _Product | None:
    """What ends in `value`, as it is or as a view whose rows are the product's."""
    node = value
    while isinstance(node, Node) and node.target in _VIEWS:
        node = node.args[0]
        if isinstance(node, Node) and len(node.users) > 1:
            return None
    found = _call_of(node) if isinstance(node, Node) else None
    if not isinstance(node, Node) or not isinstance(value, Node) or found is None:
        return None
    if value.meta["val"].shape[-1:] != node.meta["val"].shape[-1:]:
        return None
    return _Product(node, *found, value)


def _behind_views(value: object) -> Node | None:
    """What `value` is or is a view of; None where anything else is made of one of them."""
    node = value
    while isinstance(node, Node) and len(node.users) == 1:
        if node.target not in _VIEWS:
            return node
        node = node.args[0]
    return None


def fuse(graph: Graph) -> int:
    """Have one kernel do a scaled product and what is behind it, where the table has such; how many do."""
    if not any(_call_of(node) for node in graph.nodes):
        return 0
    found = sum(_each(graph, fused) for fused in (_fused_gates, _fused_sum, _fused_activation))
    graph.lint()
    return found


def _each(graph: Graph, fused: Callable[[Graph, Node], bool]) -> int:
    found = sum(fused(graph, node) for node in list(graph.nodes))
    if found:
        graph.eliminate_dead_code()  # what led to what was replaced
    return found


def _turns(node: Node, target: object) -> Iterator[tuple[object, object]]:
    """The two operands of a product or a sum, and the other way round."""
    if node.target is target and len(node.args) == 2 and node.kwargs.get("alpha", 1) == 1:
        one, other = node.args
        yield one, other
        yield other, one


def _fused_gates(graph: Graph, node: Node) -> bool:
    return any(_is_fused_gate(graph, node, *each) for each in _turns(node, _aten.mul.Tensor))


def _is_fused_gate(graph: Graph, node: Node, gate: object, up: object) -> bool:
    found = _activated(_behind_views(gate))
    if found is None:
        return False
    activation, of_gate = found
    pair = _halves(of_gate, up) or _pair(of_gate, up)
    return pair is not None and _fused(graph, node, pair, activation, None, is_gated=True)


def _fused_sum(graph: Graph, node: Node) -> bool:
    return any(_is_fused_sum(graph, node, *each) for each in _turns(node, _aten.add.Tensor))


def _is_fused_sum(graph: Graph, node: Node, product: object, residual: object) -> bool:
    found = _product_of(product)
    if found is None or not isinstance(residual, Node) or residual is product or len(found.last.users) > 1:
        return False
    of_product, added = found.last.meta["val"], residual.meta.get("val")
    if not isinstance(added, torch.Tensor) or not added.is_contiguous():
        return False
    if added.shape != of_product.shape or added.dtype is not of_product.dtype:
        return False
    return _fused(graph, node, [found], "", residual, is_gated=False)


def _fused_activation(graph: Graph, node: Node) -> bool:
    found = _activated(node)
    product = None if found is None else _product_of(found[1])
    if found is None or product is None:
        return False
    return _fused(graph, node, [product], found[0], None, is_gated=False)


def _fused(
    graph: Graph, node: Node, products: Sequence[_Product], activation: str, residual: Node | None, is_gated: bool
) -> bool:
    """`node` is what is behind `products`: one, or gates and what they gate."""
    first, *_ = products
    server = first.server()
    calls = [each.call for each in products]
    biases = [each.bias for each in calls if each.bias is not None]
    bs, scale_bs = [each.b for each in calls], [each.scale_b for each in calls]
    if server is None or not _has_kernel(server, calls, activation, residual, is_gated):
        return False
    call, rows, shape = calls[0], first.node.meta["val"].shape, node.meta["val"].shape
    columns = sum(b.meta["val"].shape[1] for b in bs) // (2 if is_gated else 1)
    if node.meta["val"].dtype is not call.out_dtype or math.prod(shape) != rows[0] * columns:
        return False  # it is cast as well, or its operands are expanded
    with graph.inserting_before(node):
        if residual is not None and residual.meta["val"].dim() != 2:
            residual = called(graph, _aten.reshape.default, (residual, list(rows)))
        ends = (call.out_dtype, call.use_fast_accum, activation, is_gated, first.table)
        arguments = (call.a, bs, call.scale_a, scale_bs, biases, residual, *ends)
        out = called(graph, scaled_finished, arguments)
    replaced(graph, node, _aten.reshape.default, (out, list(shape)))
    return True


def _has_kernel(
    server: LoadedTable, calls: Sequence[Any], activation: str, residual: Node | None, is_gated: bool
) -> bool:
    """Whether the table has one for these very sizes, as the nodes' stand-ins have them."""
    call = calls[0]
    nodes = [each for each in (*call.tensors, residual) if each is not None]
    values = [each.meta["val"] for each in nodes]
    if not all(isinstance(size, int) for value in values for size in value.shape):
        return False
    with next(value.fake_mode for value in values if hasattr(value, "fake_mode")):
        b, scale_b, bias = (_beside([part.meta["val"] for part in parts]) for parts in _columns(calls))
        whole = ScaledCall(
            call.a.meta["val"], b, call.scale_a.meta["val"], scale_b, bias, call.out_dtype, call.use_fast_accum,
            activation=activation, is_gated=is_gated, residual=None if residual is None else residual.meta["val"],
        )  # fmt: skip
        sizes = whole.sizes
        words = None if sizes is None else whole.words(*sizes)
    operations = None if words is None else OPERATIONS.get(words)
    return sizes is not None and operations is not None and server.has_kernel(*sizes, operations)


def _columns(calls: Sequence[Any]) -> Iterator[list[Node]]:
    """The b, the scales of it and the biases, of each call."""
    for name in ("b", "scale_b", "bias"):
        parts = (getattr(call, name) for call in calls)
        yield [each for each in parts if each is not None]


def _beside(parts: Sequence[torch.Tensor]) -> Any:
    return None if not parts else parts[0] if len(parts) == 1 else torch.cat(list(parts), -1)


def _halves(gate: Node, up: object) -> list[_Product] | None:
    """One product, whose first half is gates and the other what they gate."""
    one, other = _half(gate), _half(up)
    if one is None or other is None or one[0] is not other[0] or (one[1], other[1]) != (0, 1):
        return None
    whole, users = one[0], set[Node]()
    for each in whole.users:
        users |= set(each.users) if each.target in _SPLITS else {each}
    product = _product_of(whole)
    return None if product is None or users != {gate, up} or len(other[2].users) > 1 else [product]


def _half(node: object) -> tuple[Node, int, Node] | None:
    """What `node` is the first or the second half of, by its columns, and which; and `node`."""
    if not isinstance(node, Node) or "val" not in node.meta:
        return None
    source, columns = node.args[0] if node.args else None, node.meta["val"].shape[-1]
    at: object
    if not isinstance(source, Node):
        return None
    last = node.meta["val"].dim() - 1
    if node.target is _aten.slice.Tensor:
        _, dim, start, *_ = (*node.args, 0, 0)[:3]
        is_whole_step = len(node.args) < 5 or node.args[4] == 1
        at = {0: 0, columns: 1}.get(start) if is_whole_step and dim in (-1, last) else None
    elif node.target is operator.getitem and source.target in _SPLITS:
        dim = source.args[2] if len(source.args) > 2 else source.kwargs.get("dim", 0)
        at, source = (node.args[1] if dim in (-1, last) else None), source.args[0]
    else:
        return None
    if not isinstance(source, Node) or not isinstance(at, int) or source.meta["val"].shape[-1] != 2 * columns:
        return None
    return source, at, node


def _pair(gate: Node, up: object) -> list[_Product] | None:
    """Two products of one a with weights of one shape, whose columns may be one matrix's."""
    one, other = _product_of(gate), _product_of(up)
    if one is None or other is None or len(other.last.users) > 1 or one.node is other.node:
        return None
    these, those = one.call, other.call
    if one.table != other.table or (these.bias is None) != (those.bias is None):
        return None
    if (these.out_dtype, these.use_fast_accum) != (those.out_dtype, those.use_fast_accum):
        return None
    if not (_is_weight(these.b) and _is_weight(those.b) and _are_alike(these, those)):
        return None
    return [one, other] if _is_same(these.a, those.a) and _is_same(these.scale_a, those.scale_a) else None


def _are_alike(these: Any, those: Any) -> bool:
    """Whether weights and scales are of one shape and dtype, and there is a scale for some columns each."""
    for one, other in ((these.b, those.b), (these.scale_b, those.scale_b)):
        mine, its = one.meta["val"], other.meta["val"]
        if mine.dim() != 2 or mine.shape != its.shape or mine.dtype is not its.dtype:
            return False
    return bool(these.scale_b.meta["val"].numel() > 1)


def _is_weight(b: Node) -> bool:
    """Whether it is a transposed view of what the graph is given: what it computes has memory of its own."""
    while b.target in _TRANSPOSES and isinstance(b.args[0], Node):
        b = b.args[0]
    return b.op in ("placeholder", "get_attr")


def _is_same(one: object, other: object) -> bool:
    """Whether two nodes are computed alike from the same, as a and its scale are in modules that quantise one input
    each for itself."""
    left, pairs = _SAME_MAX, [(one, other)]
    while pairs:
        one, other = pairs.pop()
        if one is other:
            continue
        left -= 1
        if isinstance(one, Node) and isinstance(other, Node):
            if left < 0 or not _are_one_function(one, other):
                return False
            pairs += zip(one.args, other.args, strict=True)
            pairs += [(one.kwargs[name], other.kwargs[name]) for name in one.kwargs]
        elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
            pairs += zip(one, other, strict=True)
        elif type(one) is not type(other) or one != other:
            return False
    return True


def _are_one_function(one: Node, other: Node) -> bool:
    if (one.op, one.target, len(one.args)) != (other.op, other.target, len(other.args)) or one.op != "call_function":
        return False
    is_random = torch.Tag.nondeterministic_seeded in getattr(one.target, "tags", ())
    return one.kwargs.keys() == other.kwargs.keys() and not is_random and not one.is_impure()


def _activated(node: object) -> tuple[str, Node] | None:
    """An activation that ends in `node`, and what it is of, of which nothing else is made."""
    if not isinstance(node, Node) or not isinstance(node.meta.get("val"), torch.Tensor):
        return None
    for activation in ACTIVATIONS:
        for pattern in _patterns(activation, node.meta["val"].dtype):
            found = _matched(pattern, node)
            if found is not None:
                return activation, found
    return None


@lru_cache
def _patterns(activation: str, dtype: torch.dtype) -> tuple[Graph, ...]:
    """torch's function of that name as a graph has it: whole, and as Inductor takes it apart."""
    if dtype not in _OUTPUTS:
        return ()
    from torch._inductor.decomposition import select_decomp_table
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.utils._python_dispatch import _disable_current_modes

    make: Any = make_fx
    with _disable_current_modes():
        example = torch.zeros(2, 2, dtype=dtype)
        tables: tuple[Any, ...] = ({}, select_decomp_table())
        return tuple(make(partial(activated, activation), table)(example).graph for table in tables)


def _matched(pattern: Graph, root: Node) -> Node | None:
    """What the function that `pattern` is would be of, where it ends in `root` and nobody has its parts."""
    *_, output = pattern.nodes
    bound: dict[Node, Node] = {}
    pairs: list[tuple[Any, Any]] = [(output.args[0], root)]
    while pairs:
        mine, its = pairs.pop()
        if not isinstance(mine, Node):
            if type(mine) is not type(its) or mine != its:
                return None
        elif mine in bound:
            if bound[mine] is not its:
                return None
        elif not isinstance(its, Node):
            return None
        else:
            bound[mine] = its
            if mine.op == "call_function":
                if mine.target is not its.target or len(mine.args) != len(its.args) or mine.kwargs != its.kwargs:
                    return None
                pairs += zip(mine.args, its.args, strict=True)
    (of,) = (its for mine, its in bound.items() if mine.op == "placeholder")
    parts = set(bound.values())
    is_ours = all(user in parts for each in parts - {root} for user in each.users)
    return of if is_ours and of is not root else None
