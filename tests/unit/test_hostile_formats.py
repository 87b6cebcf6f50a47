"""A few hundred harmed files of every format; benchmarks/hostile.py runs the same over 50,000. And what the watcher of
those readers itself would let pass."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import attack
import hostile_formats
import pytest

from hktune.core.errors import HktuneError, StoreError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "folder"
    folder.mkdir()
    return folder


def test_no_harmed_file_of_any_format_is_more_than_a_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography")
    monkeypatch.chdir(folder)
    kinds = hostile_formats.formats(folder)
    assert len(kinds) >= 20
    for kind in kinds:
        found = attack.attack(kind, folder, 1, 25 // kind.costs)
        assert found.outcomes["refused"], (kind.name, found)


def _raises(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    "read",
    [
        lambda data: _raises(ValueError("a traceback")),
        lambda data: _raises(StoreError("x" * 10) if data == b"good" else KeyError("k")),
        lambda data: subprocess.run([sys.executable, "-c", ""], check=True),
        lambda data: os.system("true"),
        lambda data: Path("/tmp/hktune-hostile-outside").write_text(""),
        lambda data: Path("/etc/passwd").read_text(),
    ],
)
def test_the_watcher_sees_what_a_reader_must_not_do(folder: Path, read: object) -> None:
    def guarded(data: bytes) -> object:
        return None if data == b"good" else read(data)  # type: ignore[operator]

    kind = attack.Format("made up", b"good", lambda good, rng: b"harmed", guarded)
    with pytest.raises((AssertionError, ValueError, KeyError)):
        attack.attack(kind, folder, 0, 1)
    assert not Path("/tmp/hktune-hostile-outside").exists()


def test_a_line_that_acts_on_a_terminal_is_no_refusal(folder: Path) -> None:
    error = HktuneError("fine")
    error.args = ("two\nlines",)
    kind = attack.Format("made up", b"good", lambda good, rng: b"harmed", lambda data: _raises(error))
    with pytest.raises(AssertionError, match="two\nlines"):
        attack.attack(kind, folder, 0, 1)
