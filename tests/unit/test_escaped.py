"""Text from outside, before a terminal sees it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hktune.core.errors import HktuneError, KernelFault, ShapesError
from hktune.core.escaped import escaped, shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("llama-3, 50 % é 漢 [/]", "llama-3, 50 % é 漢 [/]"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b31m", "\\x9b31m"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2066\u200b\ufeff", "\\u2066\\u200b\\ufeff"),
        ("\u2028\x85", "\\u2028\\x85"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("\x00\x7f", "\\x00\\x7f"),
        ("\\n stays", "\\n stays"),
    ],
)
def test_what_does_not_print_as_itself_is_written_out(text: str, said: str) -> None:
    assert escaped(text) == said
    assert escaped(said) == said


@given(st.text(st.characters()))
def test_nothing_is_left_that_a_terminal_acts_on(text: str) -> None:
    assert escaped(text).isprintable()
    escaped(text).encode()
    assert shown(text).isprintable()
    assert len(shown(text)) <= 60


def test_an_error_is_one_printable_line_whatever_it_quotes() -> None:
    for error in (HktuneError("a\n\x1b[31mb"), ShapesError("a\n\x1b[31mb")):
        assert str(error) == "a\\n\\x1b[31mb"
    assert str(KernelFault("hazard", "a\u202eb")) == "a\\u202eb"
    assert shown([1] * 100).endswith("...")
