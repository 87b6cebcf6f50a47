"""Arithmetic that templates and search spaces write as text: a small, bounded part of Python's expression syntax.

Text is parsed with `ast` and compiled once to closures; it is never passed to `eval`. Integers, booleans and strings;
names, `arch.<field>` and `operation.<field>`; `+ - * // %`; comparisons, chained too; `in` over a literal list or
tuple; `and or not`; `x if c else y`; and the functions `min max abs ceil_div align`. Meanings are Python's.
"""

from __future__ import annotations

import ast
import dataclasses
import operator
import re
from collections.abc import Callable, Collection, Mapping
from string import Formatter
from typing import Any

from hktune.core.arch import Arch
from hktune.core.config import Value
from hktune.core.errors import SpaceError
from hktune.core.operation import OperationFacts

Scope = Mapping[str, Any]
"""Values, and records by name, whose fields an expression may ask for."""
_Closure = Callable[[Scope], object]
_Comparison = Callable[[Any, Any], bool]

_LONGEST = 500  # characters: constraints are one line of YAML; beyond that a derived name reads better
_DEEPEST = 24  # nested nodes
_LARGEST = 2**63  # of any literal and any result, so that no text can ask for unbounded work
_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?")
_RUN_ON = re.compile(r"(?<!\w)[0-9]+[A-Za-z_]")  # 0x10, 1_6, 1e3, 1in: Python reads them, YAML here does not
_FIELDS = {
    record: frozenset(field.name for field in dataclasses.fields(kind))
    for record, kind in {"arch": Arch, "operation": OperationFacts}.items()
}
RECORDS = frozenset(_FIELDS)
"""Names that no parameter may have: they are read by field."""


def ceil_div(value: int, divisor: int) -> int:
    """`value / divisor`, rounded up."""
    return -(-value // divisor)


def align(value: int, granule: int) -> int:
    """`value` rounded up to a multiple of `granule`."""
    return ceil_div(value, granule) * granule


_BINARY: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: dict[type[ast.cmpop], _Comparison] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
}
_FUNCTIONS: dict[str, tuple[Callable[..., int], int, int]] = {  # function, fewest and most arguments
    "min": (min, 2, 8),
    "max": (max, 2, 8),
    "abs": (abs, 1, 1),
    "ceil_div": (ceil_div, 2, 2),
    "align": (align, 2, 2),
}


class Expression:
    """One expression. `names` are the names it needs, with those of RECORDS whose fields it reads.

    Raises SpaceError, starting with `where` (a file and field), for anything outside the language.
    """

    def __init__(self, text: str | int | bool, where: str = "expression") -> None:
        self.text = str(text)
        self.where = where
        self._names: set[str] = set()
        self._evaluate = self._compile(self._parse(), 1)
        self.names = frozenset(self._names)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def __reduce__(self) -> tuple[type[Expression], tuple[str, str]]:
        return (Expression, (self.text, self.where))

    def value(self, scope: Scope) -> Value:
        """The value over `scope`. Raises SpaceError for an absent name, a zero divisor, or text in arithmetic."""
        try:
            return self._evaluate(scope)  # type: ignore[return-value]  # lists are on the right of `in` alone
        except KeyError as absent:
            raise self._error(f"name {absent} has no value here: known are {', '.join(sorted(scope))}") from None
        except ZeroDivisionError:
            raise self._error("divides by zero: guard it, as in `x // y if y else 0`") from None
        except TypeError as wrong:
            raise self._error(f"mixes kinds of values ({wrong}): compare and combine integers only") from None

    def check_names(self, known: Collection[str]) -> None:
        """Raises SpaceError if the expression needs a name that is not `known`."""
        unknown = sorted(self.names - set(known) - RECORDS)
        if unknown:
            raise self._error(f"unknown name {unknown[0]!r}: known are {', '.join(sorted(known))}")

    def _error(self, rule: str) -> SpaceError:
        return SpaceError(f"{self.where}: `{' '.join(self.text.split())[:80]}`: {rule}")

    def _parse(self) -> ast.expr:
        if len(self.text) > _LONGEST:
            raise self._error(f"longer than {_LONGEST} characters: name its parts under `derived`")
        if not self.text.isascii() or "\\" in self.text:
            raise self._error("not an expression (it has a backslash, or is not ASCII): write it plainly")
        if _RUN_ON.search(self.text):
            raise self._error("not an expression (a number runs into a letter or _): write numbers in decimal digits")
        try:
            return ast.parse(self.text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = getattr(error, "msg", None) or "cannot be parsed"
            raise self._error(
                f"not an expression ({reason}): use integers, names, + - * // % and comparisons"
            ) from None

    def _compile(self, node: ast.expr, depth: int) -> _Closure:
        if depth > _DEEPEST:
            raise self._error(f"nested deeper than {_DEEPEST}: name its parts under `derived`")
        rule = _RULES.get(type(node))
        if rule is None:
            raise self._error(f"{type(node).__name__} is not allowed: use integers, names, + - * // % and comparisons")
        return rule(self, node, depth + 1)

    def _constant(self, node: ast.Constant, _depth: int) -> _Closure:
        value = node.value
        if not isinstance(value, int | str) or (isinstance(value, int) and value > _LARGEST):
            raise self._error(
                f"literal {value!r:.40} is not allowed: use an integer up to 2**63, a string or a boolean"
            )
        return lambda _scope: value

    def _name(self, node: ast.Name, _depth: int) -> _Closure:
        name = node.id
        if name in RECORDS or name in _FUNCTIONS:
            field = f"{name}.{'lds_bytes' if name == 'arch' else 'a_bytes'}"
            raise self._error(f"{name!r} is not a value: write {field}" if name in RECORDS else f"call {name}()")
        self._names.add(name)
        return operator.itemgetter(name)

    def _record_field(self, node: ast.Attribute, _depth: int) -> _Closure:
        if not (isinstance(node.value, ast.Name) and node.value.id in RECORDS):
            raise self._error(f"only arch and operation have fields, so .{node.attr} is not allowed")
        record, field = node.value.id, node.attr
        if field not in _FIELDS[record]:
            raise self._error(f"unknown field {record}.{field}: known are {', '.join(sorted(_FIELDS[record]))}")
        self._names.add(record)
        return lambda scope: getattr(scope[record], field)

    def _binary(self, node: ast.BinOp, depth: int) -> _Closure:
        function = _BINARY.get(type(node.op))
        if function is None:
            raise self._error(f"operator {type(node.op).__name__} is not allowed: use + - * // %")
        return self._of_two(function, self._compile(node.left, depth), self._compile(node.right, depth))

    def _of_two(self, function: Callable[[int, int], int], left: _Closure, right: _Closure) -> _Closure:
        """Nearly all of what is computed when a table is loaded, so it calls as little as it can."""

        def compute(scope: Scope) -> int:
            first, second = left(scope), right(scope)
            if isinstance(first, int) and isinstance(second, int):
                value = function(first, second)
                return value if -_LARGEST <= value <= _LARGEST else self._bounded(value)
            return min(_number(first), _number(second))  # one of them says that it is none

        return compute

    def _unary(self, node: ast.UnaryOp, depth: int) -> _Closure:
        operand = self._compile(node.operand, depth)
        if isinstance(node.op, ast.Not):
            return lambda scope: not operand(scope)
        if isinstance(node.op, ast.USub):
            return lambda scope: -_number(operand(scope))
        raise self._error(f"operator {type(node.op).__name__} is not allowed: use - or not")

    def _boolean(self, node: ast.BoolOp, depth: int) -> _Closure:
        operands = [self._compile(value, depth) for value in node.values]
        stops_on = isinstance(node.op, ast.Or)

        def short_circuit(scope: Scope) -> object:
            value: object = None
            for operand in operands:
                value = operand(scope)
                if bool(value) is stops_on:
                    break
            return value

        return short_circuit

    def _comparison(self, node: ast.Compare, depth: int) -> _Closure:
        first = self._compile(node.left, depth)
        links = [self._link(kind, right, depth) for kind, right in zip(node.ops, node.comparators, strict=True)]

        def chain(scope: Scope) -> bool:
            left = first(scope)
            for function, operand in links:
                right = operand(scope)
                if not function(left, right):
                    return False
                left = right
            return True

        return chain

    def _link(self, kind: ast.cmpop, right: ast.expr, depth: int) -> tuple[_Comparison, _Closure]:
        if type(kind) not in _COMPARE:
            raise self._error(f"comparison {type(kind).__name__} is not allowed: use == != < <= > >= in")
        if not isinstance(kind, ast.In | ast.NotIn):
            return _COMPARE[type(kind)], self._compile(right, depth)
        if not isinstance(right, ast.List | ast.Tuple):
            raise self._error("`in` needs a literal list on its right, as in `stages in [2, 3]`")
        items = [self._compile(item, depth) for item in right.elts]
        return _COMPARE[type(kind)], lambda scope: [item(scope) for item in items]

    def _choice(self, node: ast.IfExp, depth: int) -> _Closure:
        test, yes, no = (self._compile(part, depth) for part in (node.test, node.body, node.orelse))
        return lambda scope: yes(scope) if test(scope) else no(scope)

    def _call(self, node: ast.Call, depth: int) -> _Closure:
        name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)[:40]
        if name not in _FUNCTIONS:
            raise self._error(f"unknown function {name!r}: known are {', '.join(sorted(_FUNCTIONS))}")
        function, fewest, most = _FUNCTIONS[name]
        if node.keywords or not fewest <= len(node.args) <= most:
            count = str(fewest) if fewest == most else f"{fewest} to {most}"
            raise self._error(f"{name} takes {count} arguments, by position")
        operands = [self._compile(argument, depth) for argument in node.args]
        if len(operands) == 2:
            return self._of_two(function, *operands)
        return lambda scope: self._bounded(function(*[_number(operand(scope)) for operand in operands]))

    def _bounded(self, value: int) -> int:
        if -_LARGEST <= value <= _LARGEST:
            return value
        raise self._error("a result is beyond 2**63: check the parameters' units")


_RULES: dict[type[ast.expr], Callable[[Expression, Any, int], _Closure]] = {
    ast.Constant: Expression._constant,
    ast.Name: Expression._name,
    ast.Attribute: Expression._record_field,
    ast.BinOp: Expression._binary,
    ast.UnaryOp: Expression._unary,
    ast.BoolOp: Expression._boolean,
    ast.Compare: Expression._comparison,
    ast.IfExp: Expression._choice,
    ast.Call: Expression._call,
}


def _number(value: object) -> int:
    if isinstance(value, int):
        return value
    raise TypeError(f"{value!r:.40} is not an integer")


class Lookup(Expression):
    """The value that belongs to the word which `key` has. `text` says the same in the language of expressions; it may
    be longer and nested deeper than what a person may write."""

    def __init__(self, key: str, values: Mapping[str, Value], where: str) -> None:
        *cases, last = [(repr(word), repr(value)) for word, value in values.items()]
        self.text = "".join(f"{value} if {key} == {word} else " for word, value in cases) + last[1]
        self.where = where
        self.names = frozenset({key})
        self._key, self._values = key, dict(values)

    def __reduce__(self) -> tuple[type[Expression], tuple[Any, ...]]:
        return (Lookup, (self._key, self._values, self.where))

    def value(self, scope: Scope) -> Value:
        """See Expression. A word that is not known has no value either."""
        word = scope.get(self._key)
        if word not in self._values:
            raise self._error(f"{self._key} is {word!r}: it must be one of {', '.join(self._values)}")
        return self._values[word]


class Derived:
    """Named expressions evaluated in order, each over the scope and the names before it."""

    def __init__(self, texts: Mapping[str, str | int | bool | Expression], where: str = "derived") -> None:
        self.expressions = {
            name: text if isinstance(text, Expression) else Expression(text, f"{where} {name}")
            for name, text in texts.items()
        }
        later = set(self.expressions)
        for name, expression in self.expressions.items():
            if expression.names & later:
                needed = min(expression.names & later)
                raise SpaceError(f"{where} {name}: needs {needed!r}, which comes later: move {needed!r} above it")
            later.discard(name)

    @property
    def free_names(self) -> frozenset[str]:
        """What the scope has to give: names that the expressions need and do not define."""
        needed = frozenset().union(*(expression.names for expression in self.expressions.values()))
        return needed - self.expressions.keys()

    def reduced_to(self, *names: str) -> Derived:
        """Only what `names` need, the last of them last."""
        kept, open_names = {*names}, [*names]
        while open_names:
            needed = self.expressions[open_names.pop()].names & self.expressions.keys() - kept
            kept |= needed
            open_names += needed
        return Derived({each: expression for each, expression in self.expressions.items() if each in kept})

    def values(self, scope: Scope) -> dict[str, Value]:
        """The derived values alone, in order. Raises SpaceError as `Expression.value` does."""
        full = dict(scope)
        for name, expression in self.expressions.items():
            full[name] = expression.value(full)
        return {name: full[name] for name in self.expressions}


class Message:
    """Text with `{name}`, `{arch.field}` and `{operation.field}` in it, filled from a scope. Nothing else may be in
    braces."""

    def __init__(self, text: str, where: str = "message") -> None:
        self.text = text
        self.where = where
        try:
            parts = [
                (literal, field, spec or conversion) for literal, field, spec, conversion in Formatter().parse(text)
            ]
        except ValueError as error:
            raise SpaceError(f"{where}: `{text[:80]}`: {error}: write a literal brace twice") from None
        self._parts: list[tuple[str, Expression | None]] = []
        for literal, field, dressing in parts:
            if field is not None and (dressing or not _REFERENCE.fullmatch(field)):
                raise SpaceError(f"{where}: `{text[:80]}`: {{{field}}} is not a name: use {{name}} or {{arch.field}}")
            self._parts.append((literal, None if field is None else Expression(field, where)))

    def __reduce__(self) -> tuple[type[Message], tuple[str, str]]:
        return (Message, (self.text, self.where))

    def check_names(self, known: Collection[str]) -> None:
        """Raises SpaceError if the text names something that is not `known`."""
        for _, field in self._parts:
            if field is not None:
                field.check_names(known)

    def filled(self, scope: Scope) -> str:
        """The text over `scope`. Raises SpaceError for an absent name."""
        return "".join(literal + (str(field.value(scope)) if field else "") for literal, field in self._parts)
