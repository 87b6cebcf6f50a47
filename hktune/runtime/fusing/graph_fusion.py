"""What Inductor does with hktune's linears in a graph that it compiles: sums behind them, and those of one input.

Across modules no forward can be read: `x + self.attention(x)[0]` adds to what a linear of another module returned, and
three linears of one input are three calls. In the graph that Inductor gets both are plain to see. There `linear + y`
becomes `hktune::linear_finished`, and linears of one input become one `hktune::linear_joined`, whose parts their users
read, where the current table has rows for it. It is one of Inductor's own passes: the graph goes on through all others,
and its caches know it.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph, Node

from hktune.runtime import activated_operator, finished_operator, operators
from hktune.runtime.fusing import joined_operator

_aten = torch.ops.aten
_VIEWS = (_aten.view.default, _aten._unsafe_view.default)
_OF_STRIDES = (_aten.as_strided.default, _aten.view.dtype)
_KNOWN = ("aten", "prims", "hktune")
"""The libraries whose operators take rows that are apart."""


@dataclass(frozen=True)
class _Linear:
    """A node of a linear, with an activation or without."""

    node: Node
    x: Node
    weight: Node
    bias: Node | None
    activation: str
    table: int
    entries: int
    place: int

    def sizes(self) -> tuple[int, int, int] | None:
        """m, n, k; None where one is known only when the graph runs."""
        x, weight = self.x.meta["val"].shape, self.weight.meta["val"].shape
        sizes = (math.prod(x[:-1]), *weight)
        return sizes if all(isinstance(each, int) for each in sizes) else None

    @property
    def ending(self) -> str:
        return f"{'' if self.bias is None else '+bias'}{f'+{self.activation}' if self.activation else ''}"


def _linear_of(node: object) -> _Linear | None:
    if not isinstance(node, Node) or node.op != "call_function" or node.kwargs:
        return None
    args: tuple[Any, ...] = node.args + (0, 0)[: 6 - len(node.args)]  # what has its default may be left out
    if node.target is operators.linear:
        x, weight, bias, table, entries, place = args
        return _Linear(node, x, weight, bias, "", table, entries, place)
    if node.target is activated_operator.linear_activated:
        x, weight, bias, activation, table, entries = args
        return _Linear(node, x, weight, bias, activation, table, entries, 0)
    return None


def fuse_sums(graph: Graph) -> int:
    """Have kernels add what is added to a linear's result, where the table has such; how many do."""
    found = 0
    for node in list(graph.nodes):
        if node.target is _aten.add.Tensor and len(node.args) == 2 and node.kwargs.get("alpha", 1) == 1:
            one, other = node.args
            found += _fused_sum(graph, node, one, other) or _fused_sum(graph, node, other, one)
    return found


def _fused_sum(graph: Graph, node: Node, product: object, residual: object) -> bool:
    linear = _linear_of(product)
    if linear is None or not isinstance(residual, Node) or residual is product or len(linear.node.users) > 1:
        return False
    of_product, added = linear.node.meta["val"], residual.meta.get("val")
    sizes, server = linear.sizes(), operators.found_table(linear.table)
    if sizes is None or server is None or not isinstance(added, torch.Tensor):
        return False
    if added.shape != of_product.shape or added.dtype is not of_product.dtype or not added.is_contiguous():
        return False
    if not server.may_serve(of_product.dtype, "nt", *sizes, ending=f"{linear.ending}+residual"):
        return False
    arguments = (linear.x, linear.weight, linear.bias, residual, linear.activation, False)
    replaced(graph, node, finished_operator.linear_finished, (*arguments, linear.table, linear.entries))
    graph.erase_node(linear.node)
    return True


def join_linears(graph: Graph) -> int:
    """Have one product in the place of several linears of one input, whose weights follow one another in memory, where
    the table has it; how many became one."""
    groups: dict[tuple[object, ...], list[_Linear]] = defaultdict(list)
    for node in graph.nodes:
        linear = _linear_of(node)
        if linear is not None and linear.place:
            groups[linear.x, linear.bias is None, linear.table, linear.entries].append(linear)
    runs = [run for group in groups.values() for run in _runs(group)]
    return sum(len(run) for run in runs if len(run) > 1 and _joined(graph, run))


def _runs(group: Sequence[_Linear]) -> Iterator[list[_Linear]]:
    """Those of places that follow one another. A place that comes again is another module's."""
    modules: list[dict[int, _Linear]] = [{}]
    for each in group:
        if each.place in modules[-1]:
            modules.append({})
        modules[-1][each.place] = each
    for module in modules:
        run: list[_Linear] = []
        for place in sorted(module):
            if run and place != run[-1].place + 1:
                yield run
                run = []
            run.append(module[place])
        yield run


def _joined(graph: Graph, run: Sequence[_Linear]) -> bool:
    first, *_ = run
    server, known = operators.found_table(first.table), [each.sizes() for each in run]
    sizes = [each for each in known if each is not None]
    operands = [each for linear in run for each in (linear.weight, linear.bias) if each is not None]
    are_inputs = all(each.op in ("placeholder", "get_attr") for each in operands)
    if server is None or len(sizes) < len(run) or not are_inputs or any(_shows_rows(each.node) for each in run):
        return False
    m, _, k = sizes[0]
    columns = [n for _, n, _ in sizes]
    dtype = first.weight.meta["val"].dtype
    if not server.has_entry(dtype, first.ending, m, sum(columns), k):
        return False
    weights, biases = [each.weight for each in run], [each.bias for each in run if each.bias is not None]
    arguments = (first.x, weights, biases, "", False, first.table, first.entries)
    earliest = next(node for node in graph.nodes if any(node is each.node for each in run))
    with graph.inserting_before(earliest):
        whole = called(graph, joined_operator.linear_joined, arguments)
        last = len(first.x.meta["val"].shape) - 1
        ends = list(itertools.accumulate(columns))
        spans = [(end - n, end) for end, n in zip(ends, columns, strict=True)]
        parts = [called(graph, _aten.slice.Tensor, (whole, last, *span)) for span in spans]
    for linear, part in zip(run, parts, strict=True):
        _use_instead(graph, linear.node, part)
    return True


def _shows_rows(node: Node) -> bool:
    """Whether anything depends on whether the rows of `node` follow one another: who gets it or a view of it, such as
    an operator of others, or the caller."""
    return any(
        user.op == "output"
        or user.target in _OF_STRIDES
        or (getattr(user.target, "namespace", None) not in _KNOWN and user.target is not operator.getitem)
        or (_is_view(user) and _shows_rows(user))
        for user in node.users
    )


def _is_view(node: Node) -> bool:
    return node.target in (operator.getitem, *_VIEWS) or bool(getattr(node.target, "is_view", False))


def _use_instead(graph: Graph, old: Node, part: Node) -> None:
    """`part` is not contiguous, as `old` was: a view of that, or of a view, is a copy where it must be."""
    _make_reshapes(old)
    old.replace_all_uses_with(part)
    graph.erase_node(old)


def _make_reshapes(node: Node) -> None:
    for user in node.users:
        if _is_view(user):
            _make_reshapes(user)
        if user.target in _VIEWS:
            user.target = _aten.reshape.default


def replaced(graph: Graph, node: Node, target: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Have `target` of these in the place of `node`."""
    with graph.inserting_before(node):
        new = called(graph, target, arguments)
    node.replace_all_uses_with(new)
    graph.erase_node(node)


def called(graph: Graph, target: Callable[..., Any], arguments: tuple[Any, ...]) -> Node:
    """A new node, with what it makes of stand-ins."""
    node = graph.call_function(target, arguments)
    values = torch.fx.map_arg(arguments, lambda each: each.meta["val"])
    mode = next(value.fake_mode for value in torch.utils._pytree.tree_leaves(values) if hasattr(value, "fake_mode"))
    with mode:
        node.meta["val"] = target(*values)
    return node


def fuse(graph: Graph) -> None:
    """Both, in a graph of Inductor's."""
    if any(node.target in (operators.linear, activated_operator.linear_activated) for node in graph.nodes):
        fuse_sums(graph)
        join_linears(graph)
        graph.lint()
