"""What a template's description says of a launch, and of the order of its workgroups, as expressions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hktune.core.expression import Expression
from hktune.template.template_schema import LaunchDescription, OrderDescription, Text


@dataclass(frozen=True)
class LaunchExpressions:
    """Expressions for grid (workgroups) and block (work-items), x, y and z each; for dynamic LDS and workspace (bytes);
    and for whether the kernel adds to C."""

    grid: tuple[Expression, ...]
    block: tuple[Expression, ...]
    dynamic_lds_bytes: Expression
    workspace_bytes: Expression
    adds_to_c: Expression

    @classmethod
    def of(cls, described: LaunchDescription) -> LaunchExpressions:
        """Raises InputError for an expression outside the language."""
        grid, block = _triple("launch grid", described.grid), _triple("launch block", described.block)
        names = ("dynamic_lds_bytes", "workspace_bytes", "adds_to_c")
        return cls(grid, block, *(Expression(getattr(described, name), f"launch {name}") for name in names))

    @property
    def of_problems(self) -> Iterator[Expression]:
        """Those that may name a problem's sizes."""
        yield from (*self.grid, *self.block, self.dynamic_lds_bytes, self.workspace_bytes)


def order_of(described: OrderDescription) -> tuple[Expression, Expression, Expression]:
    """Expressions for chunks of an XCD, and for groups of rows and of columns (see WorkgroupOrder)."""
    xcd_chunk, group_rows, group_columns = (
        Expression(getattr(described, name), f"order {name}") for name in ("xcd_chunk", "group_rows", "group_columns")
    )
    return xcd_chunk, group_rows, group_columns


def _triple(where: str, texts: tuple[Text, Text, Text]) -> tuple[Expression, ...]:
    return tuple(Expression(text, f"{where} {axis}") for axis, text in zip("xyz", texts, strict=True))
