from __future__ import annotations

import pickle
import re
from dataclasses import fields
from pathlib import Path

import pytest

from hktune.core.arch import GFX950
from hktune.core.errors import SpaceError
from hktune.core.expression import Derived, Expression, Message
from hktune.core.operation import OperationFacts

SCOPE = {"block_m": 256, "stages": 3, "order": "rows", "eager": True, "arch": GFX950}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("stages * (block_m + 128) * 64 * 2", 3 * 384 * 128),
        ("block_m // 3 - -1", 86),
        ("-7 // 2 + -7 % 3", -2),
        ("2 <= stages < 4", True),
        ("order in ['rows', 'columns'] and not eager", False),
        ("stages not in (1, 2)", True),
        ("block_m if order == 'columns' else 7", 7),
        ("arch.lds_bytes // arch.wave_size", 163840 // 64),
        ("min(block_m, 8, stages) + max(1, 2) + abs(-4)", 9),
        ("ceil_div(block_m, 100) * 10 + align(block_m, 100)", 330),
        ("stages > 1 or stages // 0", True),
        ("  eager  ", True),
        (128, 128),
        (True, True),
    ],
)
def test_value(text: str | int, value: object) -> None:
    found = Expression(text).value(SCOPE)
    assert found == value
    assert type(found) is type(value)


def test_names_are_what_it_needs() -> None:
    assert Expression("min(a, b) if c else arch.lds_bytes").names == {"a", "b", "c", "arch"}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("__import__('os').system('true')", "unknown function"),
        ("open('/etc/passwd')", "unknown function 'open'"),
        ("order.__class__", "only arch and operation have fields"),
        ("arch.__class__", "unknown field arch.__class__: known are"),
        ("arch.waves_that_fit(1, 1, 1, 1)", "unknown function"),
        ("(1).__class__.__mro__", "only arch and operation have fields"),
        ("arch", "write arch.lds_bytes"),
        ("min", "call min()"),
        ("[x for x in (1, 2)]", "ListComp is not allowed"),
        ("(lambda: 1)()", "unknown function"),
        ("lambda: 1", "Lambda is not allowed"),
        ("(x := 1)", "NamedExpr is not allowed"),
        ("f'{order}'", "JoinedStr is not allowed"),
        ("order[0]", "Subscript is not allowed"),
        ("[1, 2]", "List is not allowed"),
        ("9 ** 9 ** 9", "operator Pow is not allowed"),
        ("1 << 99", "operator LShift is not allowed"),
        ("block_m / 2", "operator Div is not allowed"),
        ("~block_m", "operator Invert is not allowed"),
        ("1.5", "literal 1.5 is not allowed"),
        ("None", "literal None is not allowed"),
        ("99999999999999999999", "is not allowed: use an integer up to 2**63"),
        ("order in order", "needs a literal list"),
        ("stages is 3", "comparison Is is not allowed"),
        ("min(*[1, 2])", "min takes 2 to 8 arguments"),
        ("min(1)", "min takes 2 to 8 arguments"),
        ("abs(x=1)", "abs takes 1 arguments, by position"),
        ("stages +", "not an expression"),
        ("", "not an expression"),
        ("stages; eager", "not an expression"),
        ("a\nb", "not an expression"),
        ("\0", "not an expression"),
        ("0x10", "a number runs into a letter"),
        ("stages + 1_6", "a number runs into a letter"),
        ("1e3", "a number runs into a letter"),
        ("stages == 1in [1]", "a number runs into a letter"),
        ("\uff11", "is not ASCII"),
        ("st\u00e4ges", "is not ASCII"),
        ("order == '\\d'", "has a backslash"),
        ("1 + " * 200 + "1", "longer than 500 characters"),
        ("not " * 30 + "eager", "nested deeper than 24"),
        ("(" * 240 + ")" * 240, "not an expression"),
    ],
)
def test_refuses(text: str, rule: str) -> None:
    with pytest.raises(SpaceError) as caught:
        Expression(text, "constraint c")
    assert rule in str(caught.value)
    assert str(caught.value).startswith("constraint c: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("missing + 1", "name 'missing' has no value here: known are arch, block_m"),
        ("block_m // (stages - 3)", "divides by zero"),
        ("block_m % (stages - 3)", "divides by zero"),
        ("order * 1000000000", "'rows' is not an integer"),
        ("order < stages", "mixes kinds of values"),
        ("-order", "'rows' is not an integer"),
        ("max(order, 'z')", "'rows' is not an integer"),
        ("4611686018427387904 * 4611686018427387904", "beyond 2**63"),
    ],
)
def test_value_refuses(text: str, rule: str) -> None:
    with pytest.raises(SpaceError) as caught:
        Expression(text).value(SCOPE)
    assert rule in str(caught.value)


def test_unknown_names_are_found_before_any_value() -> None:
    with pytest.raises(SpaceError, match="unknown name 'blok_m': known are block_m, stages"):
        Expression("blok_m * arch.lds_bytes").check_names({"block_m", "stages"})


def test_the_page_of_spaces_names_every_field_of_an_operation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "spaces.md").read_text()
    said = page[page.index("The fields of `operation` are") : page.index("## template.yaml")]
    assert {field.name for field in fields(OperationFacts)} <= set(re.findall(r"`([a-z_]+)`", said))


def test_survives_pickling() -> None:
    copy = pickle.loads(pickle.dumps(Expression("block_m + 1", "here")))
    assert copy.value(SCOPE) == 257
    assert copy.where == "here"


class TestDerived:
    def test_each_sees_those_before_it(self) -> None:
        derived = Derived({"warps": "2 * stages", "threads": "warps * arch.wave_size"})
        assert derived.values(SCOPE) == {"warps": 6, "threads": 384}
        assert derived.free_names == {"stages", "arch"}

    @pytest.mark.parametrize("texts", [{"a": "b", "b": "1"}, {"a": "a + 1"}])
    def test_refuses_what_is_not_computed_yet(self, texts: dict[str, str]) -> None:
        with pytest.raises(SpaceError, match=r"derived a: needs '.', which comes later"):
            Derived(texts)


class TestMessage:
    def test_fills_names_and_fields(self) -> None:
        message = Message("{{needs}} stages={stages}, but {arch.name} has {arch.lds_bytes}")
        assert message.filled(SCOPE) == "{needs} stages=3, but gfx950 has 163840"

    @pytest.mark.parametrize(
        "text", ["{}", "{0}", "{stages!r}", "{stages:>9}", "{order.x}", "{arch.__class__}", "{a[0]}", "{1+1}", "{", "}"]
    )
    def test_refuses_anything_else_in_braces(self, text: str) -> None:
        with pytest.raises(SpaceError):
            Message(text)

    def test_unknown_names_are_found_before_any_value(self) -> None:
        with pytest.raises(SpaceError, match="unknown name 'x': known are stages"):
            Message("{x} {stages}").check_names({"stages"})
