"""What a launch passes as an argument, where that is not an operand, a size or a row stride as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hktune.core.config import Value
from hktune.core.expression import Expression
from hktune.core.launch import Argument, operand_name
from hktune.template.template_schema import TemplateDescription

Evaluate = Callable[[Expression], Value]


@dataclass(frozen=True)
class Passed:
    """Expressions for an argument's scale and its constant value; a float is a constant already."""

    scale: Expression
    value: Expression | float | None

    @property
    def expressions(self) -> list[Expression]:
        return [self.scale, self.value] if isinstance(self.value, Expression) else [self.scale]

    def of(self, argument: Argument, evaluate: Evaluate) -> Argument:
        """`argument` with its scale and value."""
        if isinstance(self.value, Expression):
            number = int(evaluate(self.value))
            return replace(argument, constant=float(number) if argument.kind == "f32" else number)
        return replace(argument, scale=int(evaluate(self.scale)), constant=self.value)


def passed_values(description: TemplateDescription) -> dict[str, Passed]:
    """The arguments of `description` that are scaled or have a value, by name."""
    found = {}
    for each in description.arguments:
        if each.value is None and each.scale == 1:
            continue
        where = f"argument {each.name}"
        value = each.value if each.value is None or isinstance(each.value, float) else Expression(each.value, where)
        found[operand_name(each.name)] = Passed(Expression(each.scale, f"{where} scale"), value)
    return found
