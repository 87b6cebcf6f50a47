"""What shapes are called stays with the table, and decides nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from naive_gemm import EMULATED, OBJECT, OBJECTS, SHA256, launch_of, trial

from hktune.cli import main
from hktune.core.errors import TableError
from hktune.core.operation import BF16_NT_BIAS, Operation
from hktune.core.problem import Problem
from hktune.dispatch import Table, content_sha256, read_table, saved_names, write_table
from hktune.dispatch.table import NAME_CHARACTERS_MAX
from hktune.tables import BuildOptions, build_table

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "results" / "gfx950-emulated"
SMALL, LARGE = Problem(8, 128, 64), Problem(64, 128, 64)


def named(names: dict[Problem, str]) -> Table:
    trials = [trial(SMALL), trial(LARGE, 3.0)]
    options = BuildOptions(names=names)
    return build_table(trials, launch_of, EMULATED, "clang", "0.1.0", "2026-11-29T00:00:00+00:00", options)


def test_names_are_kept_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {SMALL: "llama-3-8b-attention-output-decode", LARGE: "[/] [bold]prefill"}
    write_table(named(names), {SHA256: OBJECT}, tmp_path)
    assert saved_names(tmp_path) == names
    for columns in (60, 80, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert main(["table", "show", str(tmp_path)]) == 0
        out = capsys.readouterr().out
        hashes = "content_sha256: "  # one word, to be copied
        assert max(len(line) for line in out.splitlines() if not line.startswith(hashes)) <= columns
        shown = "".join(out.split())
        assert "".join(names[LARGE].split()) in shown
        assert "llama-3-8b-" in shown


def test_a_shape_without_a_name_has_none(tmp_path: Path) -> None:
    table = named({SMALL: str(SMALL)})
    assert [entry.name for entry in table.entries] == [None, None]
    write_table(table, {SHA256: OBJECT}, tmp_path)
    assert '"name": null' not in (tmp_path / "table.json").read_text()


def test_a_name_changes_no_other_field_and_no_other_tables_sha256() -> None:
    plain, called = named({}), named({SMALL: "small"})
    assert [replace_name(entry) for entry in called.entries] == [replace_name(entry) for entry in plain.entries]
    assert content_sha256(plain) != content_sha256(called)


def replace_name(entry: object) -> dict[str, object]:
    fields = {name: getattr(entry, name) for name in entry.__struct_fields__}  # type: ignore[attr-defined]
    return {name: value for name, value in fields.items() if name != "name"}


def test_a_table_from_before_there_were_names_reads_as_it_did() -> None:
    saved = json.loads((SHIPPED / "table.json").read_text())["content_sha256"]
    assert content_sha256(read_table(SHIPPED)) == saved


def test_long_names_are_shortened_and_bad_ones_refused(tmp_path: Path) -> None:
    table = named({SMALL: "x" * 300, LARGE: "y" * NAME_CHARACTERS_MAX})
    assert [len(entry.name or "") for entry in table.entries] == [NAME_CHARACTERS_MAX, NAME_CHARACTERS_MAX]
    write_table(table, {SHA256: OBJECT}, tmp_path)
    for bad in ("", "\\u001b[31m", "a\\nb", "z" * 257):
        write_table(table, {SHA256: OBJECT}, tmp_path)
        text = (tmp_path / "table.json").read_text()
        (tmp_path / "table.json").write_text(text.replace("y" * NAME_CHARACTERS_MAX, bad))
        with pytest.raises(TableError, match="name"):
            read_table(tmp_path)


def test_an_edited_name_is_an_edited_table(tmp_path: Path) -> None:
    write_table(named({SMALL: "small"}), {SHA256: OBJECT}, tmp_path)
    path = tmp_path / "table.json"
    path.write_text(path.read_text().replace('"small"', '"other"'))
    with pytest.raises(TableError, match="damaged or edited"):
        read_table(tmp_path)
    assert saved_names(tmp_path) == {}
    assert saved_names(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(
    ("others", "heading", "shown"),
    [
        ([], "2 bf16.nt shapes, made", ["8x128x64", "64x128x64"]),
        ([BF16_NT_BIAS], "3 bf16.nt shapes, made", ["8x128x64", "8x128x64+bias", "64x128x64"]),
        ([Operation("f16")], "3 shapes, made", ["8x128x64 bf16.nt", "64x128x64 bf16.nt", "8x128x64 f16.nt"]),
    ],
)
def test_an_operation_is_shown_once_or_beside_each_shape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], others: list[Operation], heading: str, shown: list[str]
) -> None:
    problems = [SMALL, LARGE, *(replace(SMALL, operation=operation) for operation in others)]
    table = build_table(map(trial, problems), launch_of, EMULATED, "clang", "0.1.0", "2026-11-29T00:00:00+00:00")
    write_table(table, OBJECTS, tmp_path)
    assert main(["table", "show", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert heading in out.splitlines()[0]
    rows = [" ".join(line.split()) for line in out.splitlines() if line.partition("x128x64")[0].isdigit()]
    assert sorted(row.partition(" m=")[0].partition(" 1.0 ")[0] for row in rows) == sorted(shown)
