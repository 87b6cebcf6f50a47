"""The expression evaluator against Python's own, on generated text."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from hktune.core.arch import GFX950
from hktune.core.errors import SpaceError
from hktune.core.expression import Expression, Message, align, ceil_div

NAMES = ("a", "b", "flag", "word")
TOKENS = ["a", "b", "arch", ".", "(", ")", "[", "]", ",", "**", "*", "'x'", "9", "__class__", "lambda", ":", "in", "if"]
PYTHON = {"min": min, "max": max, "abs": abs, "ceil_div": lambda a, b: -(-a // b), "align": lambda a, b: -(-a // b) * b}


def _extend(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def joined(*forms: str) -> st.SearchStrategy[str]:
        return st.tuples(st.sampled_from(forms), inner, inner, inner).map(lambda parts: parts[0].format(*parts[1:]))

    return joined(
        *(f"({{}} {operator} {{}})" for operator in ("+", "-", "*", "//", "%")),
        *(f"({{}} {operator} {{}})" for operator in ("<", "<=", "==", "!=", ">=", ">", "and", "or")),
        *(f"{function}({{}}, {{}})" for function in ("min", "max", "ceil_div", "align")),
        "(-{})",
        "(not {})",
        "abs({})",
        "({} < {} <= {})",
        "({} in [{}, {}])",
        "({} not in ({}, {}))",
        "({} if {} else {})",
    )


EXPRESSIONS = st.recursive(
    st.sampled_from([*NAMES, "arch.wave_size", "True", "'rows'"]) | st.integers(0, 9).map(str), _extend, max_leaves=9
)
SCOPES = st.fixed_dictionaries(
    {
        "a": st.integers(-8, 8),
        "b": st.integers(0, 300),
        "flag": st.booleans(),
        "word": st.sampled_from(["rows", "columns"]),
    }
)


class Word(str):
    """A string without arithmetic, as in hktune's expressions."""

    __slots__ = ()

    def _refuse(self, _other: object) -> object:
        raise TypeError

    __add__ = __radd__ = __mul__ = __rmul__ = __mod__ = __rmod__ = _refuse  # type: ignore[assignment]


def numbers_only(function: Callable[..., int]) -> Callable[..., int]:
    """Python's function, refusing strings as hktune's functions do."""

    def checked(*values: int) -> int:
        if not all(isinstance(value, int) for value in values):
            raise TypeError
        return function(*values)

    return checked


@given(EXPRESSIONS, SCOPES)
def test_equals_python(text: str, scope: dict[str, object]) -> None:
    scope = {**scope, "word": Word(scope["word"]), "arch": GFX950}
    functions = {name: numbers_only(function) for name, function in PYTHON.items()}
    names = {**functions, **scope, "__builtins__": {}, "rows": Word("rows")}
    try:
        expected = eval(text.replace("'rows'", "rows"), names)
    except (ZeroDivisionError, TypeError):
        expected = SpaceError
    try:
        found: object = Expression(text).value(scope)
    except SpaceError:
        found = SpaceError
    assert found == expected


@given(st.text(max_size=60) | st.lists(st.sampled_from(TOKENS)).map(" ".join))
def test_any_text_is_a_plain_value_or_a_space_error(text: str) -> None:
    try:
        value = Expression(text).value({"a": 1, "b": 2, "arch": GFX950})
    except SpaceError:
        return
    assert type(value) in (int, str, bool)


@given(st.text(max_size=40))
def test_any_message_is_filled_or_a_space_error(text: str) -> None:
    try:
        filled = Message(text).filled({"a": 1})
    except SpaceError:
        return
    assert filled == text.format(a=1)


@given(st.integers(-1000, 1000), st.integers(1, 64))
def test_rounding_up(value: int, granule: int) -> None:
    assert 0 <= align(value, granule) - value < granule
    assert align(value, granule) == ceil_div(value, granule) * granule
