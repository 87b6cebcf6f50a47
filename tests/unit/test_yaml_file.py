"""YAML from outside: what a plain scalar means, and that a file says no more than it holds."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import yaml

from hktune.core import yaml_file
from hktune.core.errors import SpaceError
from hktune.core.outside_file import FileKind
from hktune.core.yaml_file import DEPTH_MAX, Malformed, parsed, read_yaml


@pytest.fixture(autouse=True, params=["CSafeLoader", "SafeLoader"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """libyaml's scanner, and PyYAML's own for where that is not built in."""
    if not hasattr(yaml, request.param):
        pytest.skip("PyYAML was built without libyaml")
    monkeypatch.setattr(yaml_file, "_LOADER", getattr(yaml, request.param))


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("16", 16),
        ("-5", -5),
        ("0", 0),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("-2.5E-3", -0.0025),
        ("true", True),
        ("False", False),
        ("NULL", None),
        ("~", None),
        ("", None),
        # What YAML 1.1 and 1.2 read as something else is text here, and so is what no JSON number looks like.
        *((text, text) for text in ("1_6", "0x10", "0o17", "010", "0b1", "+5", ".5", "5.", "1:30", "yes", "no")),
        *((text, text) for text in ("tRUE", ".nan", "nan", "2026-11-29", "\u0661\u0662", "\uff11", "1e", "--1")),
        ('"16"', "16"),
        ("'true'", "true"),
    ],
)
def test_a_scalar_is_what_json_would_read_or_text(scalar: str, value: object) -> None:
    found = parsed(f"key: {scalar}")["key"]
    assert found == value
    assert type(found) is type(value)


def test_crlf_a_mark_and_blocks_are_read() -> None:
    assert parsed("\ufeffa: 1\r\nb:\r\n- x\r\n- |\r\n  two\r\n  lines\r\n") == {"a": 1, "b": ["x", "two\nlines\n"]}


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: 1\nb: 2\na: 3", 3, "key 'a' is repeated"),
        ("1: a\n'1': b", 2, "key '1' is repeated"),
        ('true: a\n"true": b', 2, "key 'true' is repeated"),
        ("? [1, 2]\n: 3", 1, "a key must be one word"),
        ("? {a: 1}\n: 3", 1, "a key must be one word"),
        ("a: &x 1", 1, "anchors and aliases"),
        ("? &x a\n: 1", 1, "anchors and aliases"),
        ("a: 1\nb: *x", 2, "anchors and aliases"),
        ("<<: {a: 1}", 1, "merge keys"),
        ("a: !!python/name:os.system x", 1, "tags such as"),
        ("a: !!int 3", 1, "tags such as"),
        ("!!map {a: 1}", 1, "tags such as"),
        ("--- 1\n--- 2", 2, "a second document"),
        ("a: 1\nb: [1, }", 2, "not YAML ("),
        ("a: 1\nb: \x07", 2, "not YAML ("),
        ("a: " + "9" * 41, 1, "over 40 digits"),
        ("a: 1e999", 1, "beyond a float"),
        ("[" * (DEPTH_MAX + 2), 1, "nested deeper than 32"),
        ("- " * (DEPTH_MAX + 2), 1, "nested deeper than 32"),
        ("? " * (DEPTH_MAX + 2), 1, "a key must be one word"),
    ],
)
def test_what_is_not_read_names_its_line(text: str, line: int, says: str) -> None:
    with pytest.raises(Malformed) as caught:
        parsed(text)
    assert says in str(caught.value)
    assert caught.value.line == line


def test_values_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_file, "NODES_MAX", 1000)
    assert parsed("- x\n" * 999) == ["x"] * 999
    with pytest.raises(Malformed, match="over 1000 values in one file") as caught:
        parsed("- x\n" * 1000)
    assert caught.value.line == 1000


def test_thirty_thousand_keys_are_read_in_one_pass() -> None:
    keys = [f"key{number}" for number in range(30_000)]
    assert list(parsed("\n".join(f"{key}: 1" for key in keys))) == keys


def test_a_billion_laughs_is_no_key() -> None:
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))
    for text in (
        f"a0: &a0 [lol]\n{levels}\n? *a9\n: 1",
        f"? {{a0: &a0 [lol, lol], {levels.replace(chr(10), ', ')}}}\n: 1",
    ):
        with pytest.raises(Malformed):
            parsed(text)


class Point(msgspec.Struct, forbid_unknown_fields=True):
    x: int


def test_a_file_is_a_struct_or_one_line(tmp_path: Path) -> None:
    kind = FileKind("a point", 100, SpaceError, "draw it again")
    path = tmp_path / "point.yaml"
    path.write_text("x: 3")
    assert read_yaml(path, kind, Point) == Point(3)
    for text, says in (
        ("x: 1_6", "Expected `int`, got `str` - at `$.x`: fix that key"),
        ("x: 1.5", "Expected `int`, got `float`"),
        ('x: 1\n"y\\n\\u202e[/]\\e[2J": 2', "unknown field"),
        ("x: [", "not YAML ("),
        ("x: 1" + " " * 100, "a point has at most 100 bytes, this has more: draw it again"),
    ):
        path.write_text(text)
        with pytest.raises(SpaceError) as caught:
            read_yaml(path, kind, Point)
        assert says in str(caught.value)
        assert str(caught.value).isprintable()
