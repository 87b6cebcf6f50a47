"""table.json and its objects: published whole, read strictly, trusted row by row."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from naive_gemm import EMULATED, MI355X, OBJECT, SHA256, published, reseal, table_of, trial

from hktune.core.errors import TableError
from hktune.core.operation import BF16_NT_BIAS
from hktune.core.outcome import Source
from hktune.core.problem import Problem
from hktune.dispatch import Table, files, read_table, table_json, validate, write_table
from hktune.dispatch.layout import TABLE_FILE
from hktune.tables import describe

SMALL = Problem(8, 128, 64)
BIASED = Problem(8, 128, 64, BF16_NT_BIAS)

Edit = Callable[[dict[str, Any]], object]


def edited(directory: Path, edit: Edit) -> None:
    path = directory / "table.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def resealed(directory: Path, edit: Edit) -> Table:
    """The edited table as its author would publish it."""

    def edited_text(text: str) -> str:
        document = json.loads(text)
        edit(document)
        return json.dumps(document)

    return reseal(directory, edited_text)


def test_a_table_comes_back_as_it_went_with_a_line_per_entry(tmp_path: Path) -> None:
    table = published(tmp_path, trial(SMALL), trial(BIASED), trial(Problem(4, 64, 32)))
    assert read_table(tmp_path) == table
    lines = (tmp_path / "table.json").read_text().splitlines()
    assert [json.loads(line.rstrip(","))["m"] for line in lines if line.startswith("  {")] == [4, 8, 8]
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        f"{SHA256}.hsaco",
        "objects",
        "table.json",
        "table.json.lock",
    ]


def test_objects_no_longer_named_go_and_others_in_the_folder_stay(tmp_path: Path) -> None:
    published(tmp_path, trial(SMALL))
    (tmp_path / "objects" / "README").write_text("mine")
    write_table(table_of(), {}, tmp_path)
    assert [path.name for path in (tmp_path / "objects").iterdir()] == ["README"]
    assert read_table(tmp_path).entries == ()


def test_a_crash_before_the_new_table_leaves_the_old_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = published(tmp_path, trial(SMALL))
    data = OBJECT + b"\0"
    sha256 = hashlib.sha256(data).hexdigest()
    new = table_of(trial(SMALL, object_sha256=sha256))

    rename = Path.replace

    def full(source: Path, target: Path) -> None:
        if target.name == "table.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(TableError, match=r"table cannot be written \(No space left on device\)"):
        write_table(new, {sha256: data}, tmp_path)
    assert read_table(tmp_path) == old
    assert validate(old, tmp_path, EMULATED, allow_modelled=True).skipped == ()
    assert not list(tmp_path.glob(".table.json*"))
    monkeypatch.undo()
    write_table(new, {}, tmp_path)
    assert [path.stem for path in (tmp_path / "objects").iterdir()] == [sha256]


def test_an_object_already_there_need_not_be_given_again_but_must_be_the_right_one(tmp_path: Path) -> None:
    table = published(tmp_path, trial(SMALL))
    write_table(table, {}, tmp_path)
    before = (tmp_path / "table.json").read_bytes()
    with pytest.raises(TableError, match=r"sha256: saved=.* current=.*: build it again"):
        write_table(table, {SHA256: OBJECT + b"\0"}, tmp_path)
    (tmp_path / "objects" / f"{SHA256}.hsaco").unlink()
    with pytest.raises(TableError, match="was not given: build it first"):
        write_table(table, {}, tmp_path)
    assert (tmp_path / "table.json").read_bytes() == before


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TableError, match="table cannot be written"):
        write_table(table_of(), {}, tmp_path / "file")


def test_a_missing_table_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"cannot be read \(No such file or directory\)"):
        read_table(tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 0.5, -3])
def test_a_truncated_table_is_one_line(tmp_path: Path, kept: float) -> None:
    published(tmp_path, trial(SMALL))
    path = tmp_path / "table.json"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept) if kept == 0.5 else int(kept)])
    with pytest.raises(TableError, match="truncated, malformed or not JSON") as caught:
        read_table(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"[]", "Expected `object`, got `array`"),
        (b'{"version": NaN}', "JSON is malformed: invalid character"),
        (b"[" * 100_000, "not JSON"),
        (b'{"format": ' + b"[" * 100_000, "not JSON"),
        (b'{"other": ' + b"[" * 100_000, "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b'{"version": 1, "entries": []}', "table version saved=1 current=3"),
    ],
)
def test_bytes_that_are_no_table_are_one_line(tmp_path: Path, text: bytes, says: str) -> None:
    (tmp_path / "table.json").write_bytes(text)
    with pytest.raises(TableError, match=says) as caught:
        read_table(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_key_that_stands_twice_is_an_error_wherever_it_stands(tmp_path: Path) -> None:
    published(tmp_path, trial(SMALL))
    path = tmp_path / "table.json"
    text = path.read_text()
    for once in ('"arch": "gfx950"', '"m": 8', '"variant": 0', '"kind": "pointer"', '"name": "emulated gfx950"'):
        path.write_text(text.replace(once, f"{once}, {once}", 1))
        with pytest.raises(TableError, match="a key is twice in one object"):
            read_table(tmp_path)


def kernel(document: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = document["entries"][0]["kernel"]
    return fields


def argument(document: dict[str, Any], at: int) -> dict[str, Any]:
    fields: dict[str, Any] = kernel(document)["launch"]["arguments"][at]
    return fields


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda table: table.update(colour="red"), "unknown field `colour`"),
        (lambda table: kernel(table).update(path="/bin/sh"), "unknown field `path`"),
        (lambda table: table.pop("arch"), "missing required field `arch`"),
        (lambda table: table.update(format="csv"), "format"),
        (lambda table: table.update(format="\ud800"), "surrogate"),
        (lambda table: table["device"].update(name="\ud800"), "malformed"),
        (lambda table: table["device"].update(name="\x1b[2J"), "device.name"),
        (lambda table: table["entries"].append(table["entries"][0]), "8x128x64 bf16.nt has two entries"),
        (lambda table: table["entries"][0].update(m=2**24 + 1), "<= 16777216"),
        (lambda table: table["entries"][0].update(m=-8), ">= 1"),
        (lambda table: table["entries"][0].update(m=8.5), "Expected `int`"),
        (lambda table: table["entries"][0].update(m=True), "Expected `int`"),
        (lambda table: table["entries"][0].update(time_us=0), "time_us"),
        (lambda table: table["entries"][0].update(source="guessed"), "source"),
        (lambda table: table["entries"][0].update(choice="vendor"), "choice 'vendor' and its kernel must agree"),
        (lambda table: table["entries"][0].pop("kernel"), "choice 'kernel' and its kernel must agree"),
        (
            lambda table: table["entries"][0].update(operation="bf16.nt+bias"),
            r"bf16\.nt\+bias needs a kernel that takes bias",
        ),
        (
            lambda table: table["entries"][0].update(operation="bf16.nt+silu+gated+residual"),
            r"bf16\.nt\+silu\+gated\+residual needs a kernel that takes residual",
        ),
        (
            lambda table: table["entries"][0].update(operation="bf16.nt+residual+bias"),
            r"must be written \+bias\+residual",
        ),
        (
            lambda table: argument(table, 3).update(name="ldresidual"),
            r"operation bf16\.nt has no ldresidual: its kernel takes one",
        ),
        (lambda table: table["entries"][0].update(operation="bf16"), "operation 'bf16' must read like bf16.nt"),
        (lambda table: table["entries"][0].update(operation="e9m9.nt"), "'e9m9' is not known"),
        (
            lambda table: table["entries"][0].update(operation="grouped.bf16.nt"),
            "say how many, such as grouped8.bf16.nt",
        ),
        (lambda table: table["entries"][0].update(operation="grouped8.bf16.tt"), "its operands are not known"),
        (lambda table: table["entries"][0].update(operation="bf16.nt->bf16"), "must be written bf16.nt"),
        (lambda table: table["entries"][0].update(operation="\x1b[2J"), "operation"),
        (lambda table: table["entries"][0].update(operation="f16" * 99), "operation"),
        (lambda table: table["entries"][0].update(operation=None), "operation"),
        (lambda table: table["entries"][0].pop("operation"), "missing required field `operation`"),
        (lambda table: table["entries"][0].update(dtype="bf16"), "unknown field `dtype`"),
        (lambda table: kernel(table)["launch"].update(workspace_bytes=64), "must agree on a workspace"),
        (lambda table: kernel(table)["launch"].update(workspace_bytes=-1), "workspace_bytes"),
        (lambda table: kernel(table).update(object_sha256="../../../etc/passwd"), "object_sha256"),
        (lambda table: kernel(table).update(object_sha256="../" * 21 + "a"), "object_sha256"),
        (lambda table: kernel(table).update(object_sha256=SHA256 + "\n"), "object_sha256"),
        (lambda table: kernel(table).update(object_sha256=SHA256.upper()), "object_sha256"),
        (lambda table: kernel(table).update(symbol="a b"), "symbol"),
        (lambda table: kernel(table)["launch"].update(grid=[1, 1]), "grid"),
        (lambda table: kernel(table)["launch"].update(grid=[2**31, 1, 1]), "grid"),
        (lambda table: kernel(table)["launch"].update(block=[0, 1, 1]), "block"),
        (lambda table: kernel(table)["launch"].update(dynamic_lds_bytes=1 << 30), "dynamic_lds_bytes"),
        (lambda table: argument(table, 3).update(name="stream"), "argument 'stream' is not known: known are a, b, c"),
        (
            lambda table: argument(table, 3).update(kind="pointer"),
            "argument n is a pointer: it must be a u32",
        ),
        (lambda table: argument(table, 0).update(kind="u64"), "argument a is a u64: it must be a pointer"),
        (lambda table: argument(table, 3).update(name="k"), "argument k is there twice"),
    ],
)
def test_a_malformed_table_is_one_line_that_names_the_place(tmp_path: Path, edit: Edit, says: str) -> None:
    published(tmp_path, trial(SMALL))
    edited(tmp_path, edit)
    with pytest.raises(TableError, match=says) as caught:
        read_table(tmp_path)
    assert "\n" not in str(caught.value)
    assert "build it again" in str(caught.value)


@pytest.mark.parametrize("operation", ["bf16.nt+mish", "f16.nt+mish", "fp8.nt.block", "batched8.bf16.nt+bias"])
@pytest.mark.parametrize("at", [0, 1])
def test_an_operation_of_a_later_hktune_is_called_that(tmp_path: Path, operation: str, at: int) -> None:
    """As in trials.csv: it may be a whole table of another version."""
    published(tmp_path, trial(SMALL), trial(BIASED))
    edited(tmp_path, lambda table: table["entries"][at].update(operation=operation))
    says = rf"table\.json: is of a newer hktune, or edited: .*{re.escape(operation)}.*; upgrade, or build it again with"
    with pytest.raises(TableError, match=says):
        read_table(tmp_path)


def test_a_full_file_of_nested_lists_is_refused_without_being_built(tmp_path: Path) -> None:
    """As much as a table may hold: 1.7 GB as Python's own reader makes it."""
    lists = b"[[],[[]],[]]," * (2 << 20)
    for begin in (b"[", b'{"entries": [', b'{"format": "hktune-table", "extra": [', b'{"version": 2, "compiler": ['):
        (tmp_path / "table.json").write_bytes(begin + lists)
        tracemalloc.start()
        with pytest.raises(TableError, match="truncated, malformed or not JSON"):
            read_table(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 80e6
        tracemalloc.stop()


def test_formulas_are_bounded_in_their_volume_before_any_is_parsed(tmp_path: Path) -> None:
    """300 rows of four different formulas, each nearly as long as one may be."""
    table = published(tmp_path, *(trial(Problem(8, 128, 64 * k)) for k in range(1, 301)))
    path = tmp_path / "table.json"
    document = json.loads(path.read_bytes())
    for row, entry in enumerate(document["entries"]):
        texts = [f"m + {row * 4 + each} + {'m + ' * 115}1 > 0" for each in range(4)]
        entry["kernel"]["launch"]["requires"] = texts
    path.write_bytes(json.dumps(document).encode())
    with pytest.raises(TableError, match="its formulas have over 524288 characters: split the table"):
        read_table(tmp_path)
    for entry in document["entries"]:
        entry["kernel"]["launch"]["requires"] = ["m > 0" + " " * 400] * 5
    del document["content_sha256"]
    path.write_bytes(table_json(msgspec.convert(document, Table)))
    assert len(read_table(tmp_path).entries) == len(table.entries), "the same few, however often"


def test_another_configs_id_is_an_error_and_so_are_ids_all_alike(tmp_path: Path) -> None:
    published(tmp_path, *(trial(Problem(m, 128, 64), variant=m) for m in (8, 64, 512)))
    path = tmp_path / "table.json"
    good = json.loads(path.read_bytes())
    ids = [entry["kernel"]["config_id"] for entry in good["entries"]]
    for given in ([ids[1], ids[1], ids[2]], [ids[0]] * 3, ["0" * 16, *ids[1:]], [ids[2], ids[0], ids[1]]):
        document = json.loads(json.dumps(good))
        for entry, config_id in zip(document["entries"], given, strict=True):
            entry["kernel"]["config_id"] = config_id
        path.write_bytes(json.dumps(document).encode())
        with pytest.raises(
            TableError, match=r"config_id saved=[0-9a-f]{16} current=[0-9a-f]{16}: the config is another"
        ):
            read_table(tmp_path)


def test_everything_is_usable_where_it_was_made(tmp_path: Path) -> None:
    table = published(tmp_path, trial(SMALL), trial(BIASED))
    judged = validate(table, tmp_path, EMULATED, allow_modelled=True)
    assert judged.usable == table.entries
    assert judged.objects == {SHA256: OBJECT}
    assert judged.skipped == ()


def test_another_architecture_refuses_the_whole_table(tmp_path: Path) -> None:
    table = published(tmp_path, trial(SMALL, target="gfx942"), identity=replace(EMULATED, arch="gfx942"))
    with pytest.raises(TableError, match="another architecture: saved=gfx942 current=gfx950: pass a table tuned for"):
        validate(table, tmp_path, EMULATED, allow_modelled=True)


def test_modelled_rows_are_skipped_unless_allowed_and_measured_ones_stay(tmp_path: Path) -> None:
    measured = trial(BIASED, source=Source.MEASURED)
    table = published(tmp_path, trial(SMALL), measured, identity=MI355X)
    judged = validate(table, tmp_path, MI355X, allow_modelled=False)
    assert [entry.problem for entry in judged.usable] == [BIASED]
    assert judged.skipped_by_reason == {"modelled": 1}
    rows = describe(table, judged.skipped)
    assert [(row.source, row.skipped.split(":")[0]) for row in rows] == [("modelled", "modelled"), ("measured", "")]


@pytest.mark.parametrize("field", [{"pci_id": "0x75a2"}, {"compute_units": 304}, {"partition": "CPX"}])
def test_rows_measured_on_another_sku_are_skipped(tmp_path: Path, field: dict[str, Any]) -> None:
    table = published(tmp_path, trial(SMALL, source=Source.MEASURED), identity=MI355X)
    other = replace(MI355X, **field)
    judged = validate(table, tmp_path, other, allow_modelled=False)
    assert judged.skipped_by_reason == {"other device": 1}
    assert "saved=compute_units:256 pci_id:0x75a3 partition:SPX current=" in judged.skipped[0].detail
    same = validate(table, tmp_path, replace(MI355X, name="MI355X"), allow_modelled=False)
    assert same.skipped == ()


def object_file(directory: Path) -> Path:
    return directory / "objects" / f"{SHA256}.hsaco"


def flip_a_bit(directory: Path) -> None:
    data = bytearray(OBJECT)
    data[len(data) // 2] ^= 1
    object_file(directory).write_bytes(data)


def make_it_a_directory(directory: Path) -> None:
    object_file(directory).unlink()
    object_file(directory).mkdir()


@pytest.mark.parametrize(
    ("damage", "reason", "detail"),
    [
        (flip_a_bit, "object changed", f"sha256 saved={SHA256} current="),
        (lambda directory: object_file(directory).write_bytes(OBJECT[:100]), "object changed", "current="),
        (lambda directory: object_file(directory).unlink(), "object missing", "is not there"),
        (make_it_a_directory, "object unreadable", "is a directory, not a code object"),
    ],
)
def test_an_object_that_is_not_the_named_bytes_skips_its_rows(
    tmp_path: Path, damage: Callable[[Path], None], reason: str, detail: str
) -> None:
    table = published(tmp_path, trial(SMALL), trial(BIASED))
    damage(tmp_path)
    judged = validate(table, tmp_path, EMULATED, allow_modelled=True)
    assert judged.usable == ()
    assert judged.objects == {}
    assert judged.skipped_by_reason == {reason: 2}
    assert detail in judged.skipped[0].detail


@pytest.mark.parametrize(
    ("edit", "reason", "detail"),
    [
        (lambda table: kernel(table).update(symbol="gemm_kernel"), "symbol missing", "has no kernel gemm_kernel"),
        (lambda table: kernel(table).update(symbol="naive_gemm_bias"), "arguments", "takes 6 arguments, the launch"),
        (lambda table: argument(table, 3).update(kind="u64"), "arguments", "at offset 24"),
        (lambda table: kernel(table)["launch"].update(block=[512, 1, 1]), "resources", "512 work-items"),
    ],
)
def test_a_row_that_its_object_cannot_serve_is_skipped(tmp_path: Path, edit: Edit, reason: str, detail: str) -> None:
    published(tmp_path, trial(SMALL))
    judged = validate(resealed(tmp_path, edit), tmp_path, EMULATED, allow_modelled=True)
    assert judged.skipped_by_reason == {reason: 1}
    assert detail in judged.skipped[0].detail


def test_an_object_of_the_right_sha256_that_is_no_code_object_is_skipped(tmp_path: Path) -> None:
    sha256 = hashlib.sha256(b"not an ELF").hexdigest()
    write_table(table_of(trial(SMALL, object_sha256=sha256)), {sha256: b"not an ELF"}, tmp_path)
    judged = validate(read_table(tmp_path), tmp_path, EMULATED, allow_modelled=True)
    assert judged.skipped_by_reason == {"object unreadable": 1}


def test_a_table_that_no_reader_would_take_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(trial(SMALL))
    monkeypatch.setattr(files, "TABLE_FILE", replace(TABLE_FILE, bytes_max=1000))
    with pytest.raises(TableError, match=r"1 entries are \d+ bytes, a table has 1000: make two tables of them"):
        write_table(table, {}, tmp_path / "new")
    assert not (tmp_path / "new").exists()
