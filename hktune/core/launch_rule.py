"""How a kernel is launched for any number of rows m of one (n, k): a launch whose sizes may be formulas in m.

A formula is text in the language of `hktune.core.expression` whose only name is m. Templates and spaces are known
where a table is built, not where it is used: `specialised` folds all that is known there into the text.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hktune.core.config import Value
from hktune.core.errors import SpaceError
from hktune.core.expression import Expression, Scope
from hktune.core.launch import Argument, Launch, arguments_of
from hktune.core.operation import BF16_NT, Operation

Formula = int | str

GRID_MAX = 2**31 - 1  # workgroups along an axis, HIP and CUDA
WORKSPACE_BYTES_MAX = 1 << 36
BLOCK_MAX = 1024  # work-items of a workgroup, HIP and CUDA
LDS_BYTES_MAX = 1 << 20  # of a workgroup; no architecture comes near
FORMULAS_KEPT = 16384  # parsed, of all tables of a process
SIZES_KEPT = 65536  # worked out, some 200 bytes each
_FOLDS_MAX = 10_000  # nodes of a folded formula and of all that it was made from; in use some hundred


@dataclass(frozen=True)
class LaunchRule:
    """As `launch.Launch`, with grid and workspace as formulas. `requires` are formulas that must hold for an m to be
    served: what a search space demands of the problem."""

    grid: tuple[Formula, Formula, Formula]
    block: tuple[int, int, int]
    dynamic_lds_bytes: int
    arguments: tuple[Argument, ...]
    workspace_bytes: Formula = 0
    requires: tuple[str, ...] = ()
    contiguous: bool = False

    def at(self, m: int, operation: Operation = BF16_NT) -> Launch | None:
        """The launch for m rows of `operation`; None when `requires` forbids it or a formula has no legal value."""
        sizes = _sizes(self.grid, self.workspace_bytes, self.requires, m)
        if sizes is None:
            return None
        arguments = arguments_of(self.arguments, operation)
        launch = Launch(sizes[:3], self.block, self.dynamic_lds_bytes, arguments, sizes[3], operation)
        return replace(launch, contiguous=True) if self.contiguous else launch


@functools.lru_cache(maxsize=SIZES_KEPT)
def _sizes(
    grid: tuple[Formula, Formula, Formula], workspace_bytes: Formula, requires: tuple[str, ...], m: int
) -> tuple[int, int, int, int] | None:
    """Grid and workspace for m rows, None where there are none that are legal. A table's entries share them, and each
    is asked for when the table is read and again when it is judged."""
    scope = {"m": m}
    try:
        if not all(compiled(formula).value(scope) for formula in requires):
            return None
        x, y, z, needed = [
            size if isinstance(size, int) else int(compiled(size).value(scope)) for size in (*grid, workspace_bytes)
        ]
    except SpaceError:
        return None
    legal = min(x, y, z) >= 1 and max(x, y, z) <= GRID_MAX and 0 <= needed <= WORKSPACE_BYTES_MAX
    return (x, y, z, needed) if legal else None


@functools.lru_cache(maxsize=FORMULAS_KEPT)
def compiled(text: str) -> Expression:
    """The formula `text`, parsed once. Raises SpaceError for anything outside the language, other names than m too."""
    expression = Expression(text, "formula")
    unknown = sorted(expression.names - {"m"})
    if unknown:
        raise SpaceError(f"formula `{text[:80]}`: names {unknown[0]!r}, but only m is known where it is used")
    return expression


def specialised(expression: Expression, known: Scope, definitions: Mapping[str, Expression]) -> Formula:
    """`expression` as a formula in m: names in `known` become their values (`arch` its fields), names in `definitions`
    what they stand for, and everything without m in it is computed. Truth values become 0 and 1.

    Raises SpaceError as `Expression.value` does, for a name that is neither known nor defined nor m, and where
    definitions made of one another grow without end.
    """
    try:
        node = _Folding(known, definitions, expression.where).visit(_tree(expression))
    except RecursionError:
        raise SpaceError(f"{expression.where}: its definitions are nested too deep: shorten the chain") from None
    if isinstance(node, ast.Constant):
        if not isinstance(node.value, int):
            raise SpaceError(f"{expression.where}: is {node.value!r:.40}: it must be an integer")
        return int(node.value)
    return compiled(ast.unparse(node)).text


def _tree(expression: Expression) -> ast.expr:
    return ast.parse(expression.text.strip(), mode="eval").body  # an Expression's text has been checked


class _Folding(ast.NodeTransformer):
    """Replaces what is known by its value, taking a branch or the rest of an `and` only where Python would."""

    def __init__(self, known: Scope, definitions: Mapping[str, Expression], where: str) -> None:
        self._known = known
        self._definitions = definitions
        self._where = where
        self._left = _FOLDS_MAX

    def visit(self, node: ast.AST) -> Any:
        self._left -= 1
        if self._left < 0:
            raise SpaceError(f"{self._where}: has over {_FOLDS_MAX} parts with its definitions written out: shorten it")
        folded = super().visit(node)
        operands = _operands(folded)
        if not operands or not all(isinstance(operand, ast.Constant) for operand in operands):
            return folded
        return ast.Constant(_computed(ast.unparse(folded), self._where))

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self._known:
            return ast.Constant(self._known[node.id])
        if node.id in self._definitions:
            return self.visit(_tree(self._definitions[node.id]))  # type: ignore[no-any-return]
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        assert isinstance(node.value, ast.Name)  # an Expression has no other
        return ast.Constant(getattr(self._known[node.value.id], node.attr))

    def visit_Call(self, node: ast.Call) -> ast.expr:
        return ast.Call(node.func, [self.visit(argument) for argument in node.args], [])

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        test = self.visit(node.test)
        if isinstance(test, ast.Constant):
            return self.visit(node.body if test.value else node.orelse)  # type: ignore[no-any-return]
        return ast.IfExp(test, self.visit(node.body), self.visit(node.orelse))

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        stops_on = isinstance(node.op, ast.Or)
        open_values: list[ast.expr] = []
        for value in node.values:
            folded = self.visit(value)
            if not isinstance(folded, ast.Constant):
                open_values.append(folded)
            elif bool(folded.value) is stops_on:
                open_values.append(folded)
                break
        if not open_values:
            return ast.Constant(not stops_on)
        return open_values[0] if len(open_values) == 1 else ast.BoolOp(node.op, open_values)


def _operands(node: ast.AST) -> list[ast.expr]:
    """What an operation of folded parts is computed from: constants, unless something in it is open."""
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.UnaryOp):
        return [node.operand]
    if isinstance(node, ast.Call):
        return node.args
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        return [part for side in sides for part in (side.elts if isinstance(side, ast.List | ast.Tuple) else [side])]
    return []


@functools.lru_cache(maxsize=65536)
def _computed(text: str, where: str) -> Value:
    return Expression(text, where).value({})
