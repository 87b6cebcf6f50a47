"""JSON from outside: typed, each key once, bounded in depth and in what it makes."""

from __future__ import annotations

import tracemalloc

import msgspec
import pytest

from hktune.core.json_file import decoded


class Point(msgspec.Struct, forbid_unknown_fields=True):
    x: int
    names: dict[str, int] = {}


class Loose(msgspec.Struct):
    x: int


def test_a_whole_value_comes_back_with_or_without_a_mark() -> None:
    assert decoded(b'{"x": 3, "names": {"a": 1}}\r\n', Point) == Point(3, {"a": 1})
    assert decoded('{"x": 3}'.encode("utf-8-sig"), Point) == Point(3)


BAD = [
    b"", b"{", b"1", b"[]", b"null", b'"x"', b'{"x": 1.5}', b'{"x": "1"}', b'{"x": NaN}', b'{"x": 1e400}',
    b'{"x": 1} 2', b'{"x": 1, "x": 1}', b"\xff", b'{"x": 1, "\xff": 2}', b'{"x": 1, "\\ud800": 2}', b"[" * 100_000,
    b'{"x":' * 100_000, b'{"y":' + b"[" * 100_000, b'{"x": ' + b"9" * 5000 + b"}",
]  # fmt: skip
BAD_HERE = [
    b'{"x": 1, "y": 2}', b'{"x": 1, "names": {"a": 1, "a": 2}}', b'{"x": 1, "names": {"a": 1, "\\u0061": 2}}',
    b'{"x": 1, "names": {"\\u001b[2J\\n": "\\u202e"}}', b'{"x": 1, "\\u001b[2J\\n\\u202e": 2}',
]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "kind"), [*((data, Point) for data in BAD + BAD_HERE), *((data, Loose) for data in BAD)]
)
def test_anything_else_is_one_printable_line(data: bytes, kind: type) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - any of them
        decoded(data, kind)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 200


def test_what_the_type_does_not_ask_for_is_never_built() -> None:
    """8 MiB of nested lists where no list may be: some 500 MB as Python's own reader makes them."""
    nested = b"[" + b"[],[[]]," * (1 << 20) + b"[]]"
    for data in (nested, b'{"x": ' + nested + b"}", b'{"y": ' + nested + b', "x": 1}'):
        tracemalloc.start()
        with pytest.raises(ValueError):  # noqa: PT011 - any of them
            decoded(data, Point)
        assert tracemalloc.get_traced_memory()[1] < 50e6
        tracemalloc.stop()
