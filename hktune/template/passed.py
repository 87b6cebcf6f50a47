"""What a launch passes as an argument, where that is not an operand, a size or a row stride as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from hktune.core.argument_rules import check_argument, check_places
from hktune.core.config import Value
from hktune.core.errors import TemplateError
from hktune.core.escaped import shown
from hktune.core.expression import Expression
from hktune.core.launch import Argument, operand_name
from hktune.core.operand import operands_of
from hktune.core.operation import COUNTED, Operation
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
        """`argument` with its scale and value. Raises TemplateError for one that no launch can pass."""
        constant = self.value
        if isinstance(constant, Expression):
            number = _integer(constant, evaluate)
            constant = float(number) if argument.kind == "f32" else number
        return _checked(replace(argument, scale=_integer(self.scale, evaluate), constant=constant))


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


def arguments_in_order(description: TemplateDescription, passed: dict[str, Passed]) -> tuple[Argument, ...]:
    """The kernel's arguments, before what they are passed is worked out for a config. Raises TemplateError where any
    config would have some that no launch can pass."""
    arguments = tuple(
        Argument(operand_name(each.name), each.kind, offset_bytes=each.offset_bytes) for each in description.arguments
    )
    try:
        check_places(arguments)
    except ValueError as wrong:
        raise TemplateError(str(wrong)) from None
    for argument in arguments:
        own = passed.get(argument.name)
        if own is None or own.value is None:
            _checked(argument)
        if own is not None and not any(expression.names for expression in own.expressions):
            own.of(argument, lambda expression: expression.value({}))
    return arguments


def only_of_some(description: TemplateDescription) -> dict[str, str]:
    """What an operation must have for its kernels to take an argument, by the names of those that not all kernels
    take."""
    return {operand_name(each.name): each.only for each in description.arguments if each.only}


def is_taken(argument: Argument, only: Mapping[str, str], operation: Operation) -> bool:
    """Whether kernels of `operation` take `argument`."""
    return argument.name not in only or _has(operation, only[argument.name])


def check_only(only: Mapping[str, str], code_of: Mapping[Operation, Operation]) -> None:
    """Raises TemplateError for an argument that no operation has, or that one has while another, whose code it shares,
    has not. `code_of`: each operation of a template, and the one whose code it has."""
    for name, word in only.items():
        if not any(_has(operation, word) for operation in code_of):
            raise TemplateError(f"argument {name} is only for {word}: no operation has one, drop the argument")
        for operation, code in code_of.items():
            if _has(operation, word) != _has(code, word):
                raise TemplateError(f"argument {name} is only for {word}: {operation} and {code} share their code")


def _has(operation: Operation, word: str) -> bool:
    """Whether `word` is an operand, a stride, an increment or a step of `operation`, or groups, which several products
    have."""
    return word in _words(operation)


@lru_cache(maxsize=4096)  # a template has hundreds of operations, and asks for each argument of every one
def _words(operation: Operation) -> frozenset[str]:
    operands = operands_of(operation)
    strides = (name for each in operands.values() for name in each.strides)
    counted = ("groups",) if operation.kind in COUNTED else ()
    return frozenset((*operation.epilogue, *operands, *strides, *counted))


def _integer(expression: Expression, evaluate: Evaluate) -> int:
    value = evaluate(expression)
    if not isinstance(value, int):
        raise TemplateError(f"{expression.where} is {shown(value)}: it must be an integer")
    return int(value)


def _checked(argument: Argument) -> Argument:
    try:
        check_argument(argument)
    except ValueError as wrong:
        raise TemplateError(str(wrong)) from None
    return argument
