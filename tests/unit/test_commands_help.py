"""What the command line says of itself, and how it answers words that it does not know."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from hktune.cli import main, make_parser
from hktune.search import STRATEGIES

COMMANDS = {
    (): "tune explain verify bench build table report summary shapes compare export merge simulate doctor",
    ("table",): "build show diff doctor sign verify",
}
ALL = [(*group, name) for group, names in COMMANDS.items() for name in names.split() if name != "table"]


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    assert main((*command, "--help")) == 0
    return capsys.readouterr().out


def options_of(text: str) -> Iterator[tuple[str, str]]:
    """Every option of a help text, with what is said of it."""
    for entry in re.split(r"\n  (?=-)", text.partition("options:")[2].partition("\nexamples:")[0])[1:]:
        head, _, rest = entry.partition("\n\n")[0].partition("  ")
        yield head, " ".join(rest.split())


@pytest.mark.parametrize("command", [*COMMANDS, *ALL], ids=" ".join)
def test_help_fits_80_columns_and_names_its_exit_codes(
    capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    text = help_of(capsys, *command)
    assert max(map(len, text.splitlines())) <= 80
    if command in COMMANDS:
        assert all(name in text for name in COMMANDS[command].split())
    else:
        assert re.search(rf"examples:\n  hktune {' '.join(command)} ?", text)
        assert re.search(r"exit codes: 0 done; (1 .*; )?2 bad input", " ".join(text.split()))


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_every_option_is_explained(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    said = dict(options_of(help_of(capsys, *command)))
    assert said
    assert [head for head, text in said.items() if not text] == []


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_every_example_is_a_command(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    text = help_of(capsys, *command).partition("\nexamples:\n")[2].partition("\n\n")[0]
    for example in text.splitlines():
        program, *words = shlex.split(example)
        assert program == "hktune"
        assert tuple(words[: len(command)]) == command
        make_parser().parse_args(words)


def test_the_strategies_are_named_with_their_use(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, "tune").partition("strategies:\n")[2].partition("\n\n")[0]
    said = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert said.keys() == STRATEGIES.keys()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tnue",), "did you mean tune?"),
        (("verfy", "block_m=256"), "did you mean verify?"),
        (("table", "shwo", "DIR"), "did you mean show?"),
        (("tune", "--shapes", "s.yaml", "--wrokers", "2"), "did you mean --workers?"),
        (("tune", "--shapes", "s.yaml", "--stratgy=tpe"), "did you mean --strategy?"),
        (("explain", "--probelm", "1x1x1"), "did you mean --problem?"),
        (("tune", "--shapes", "s.yaml", "--device", "emulate"), "did you mean emulated?"),
        (("table", "doctor", "DIR", "--shape", "s.yaml", "--kye", "k"), "did you mean --key?"),
        (("tune", "--shapes", "s.yaml", "stray"), "unrecognized: stray; see hktune tune --help"),
        (("frobnicate",), "known are tune, explain"),
        ((), "see hktune --help"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_word_is_answered_with_the_near_one(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err
