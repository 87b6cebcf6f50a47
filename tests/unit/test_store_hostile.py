"""A trials.csv from a stranger, a spreadsheet or an editor: read as what it means, or refused in one line that names
file, line, column, rule and next step."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hktune.core.config import Config
from hktune.core.errors import StoreError
from hktune.core.operation import BF16_NT
from hktune.core.outcome import Source, Status
from hktune.core.trial import Trial
from hktune.store import TrialStore, merge, read_frame, read_trials
from hktune.store.rows import COLUMNS, FORMAT, HEADER, Decoder, Encoder

CONFIG = Config({"block_m": 256, "pipeline": "ping-pong", "swizzle": True})
OK = Trial(
    0, 256, 512, 64, BF16_NT, CONFIG.id, CONFIG.json, Status.OK, detail='bound by "mfma", then',
    source=Source.MODELLED, time_us=0.1 + 0.2, samples=3, seed=0, started_at="2026-11-22T18:00:00Z",
)  # fmt: skip
BOM = b"\xef\xbb\xbf"
# One line, ended by a next step, with nothing that a terminal acts on.
ONE_LINE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202e]+(delete that line|--fresh to start it again)")


def cells_of(**cells: str) -> list[str]:
    """The cells of `OK` with some replaced."""
    [own] = csv.reader([Encoder().line(OK).decode()])
    return [cells.get(name, cell) for name, cell in zip(COLUMNS, own, strict=True)]


def row(**cells: str) -> bytes:
    """The line of `OK` with some of its cells replaced as they stand."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells_of(**cells))
    return out.getvalue().encode()


def refused(path: Path, content: bytes) -> str:
    """What reading says of `content`, which it must refuse as every reader of trials.csv does."""
    path.write_bytes(content)
    with pytest.raises(StoreError) as error:
        read_trials(path)
    assert ONE_LINE.fullmatch(str(error.value)), str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("column", "cell", "says"),
    [
        ("config", "{", r"column config: '{' is not a config as JSON"),
        ("config", "1", r"column config: '1' is not a config as JSON"),
        ("config", "[" * 9000, r"column config: '\[+\.\.\. is not a config as JSON"),
        ("config", '{"a":' * 3000, "column config: .* is not a config as JSON"),
        ("config", "9" * 6000, "column config: .* is not a config as JSON"),
        ("config", '{"a":[1]}', "column config: .* is not sorted compact JSON of integers, words and true or false"),
        ("config", '{"a":1.5}', "column config: .* is not sorted compact JSON"),
        ("config", '{"a":1,"a":1}', "column config: .* is not sorted compact JSON"),
        ("config", '{"a": 1}', "column config: .* is not sorted compact JSON"),
        (
            "config",
            Config({"block_m": 128}).json,
            f"column config_id: '{CONFIG.id}' is not the id of the row's config",
        ),
        ("config_id", "0" * 16, f"column config_id: '0{{16}}' is not the id of the row.s config, .* {CONFIG.id}"),
        ("config_id", "5.87E+15", "column config_id: '5.87E[+]15' is not the id"),
        ("detail", "\x1b[2J", r"column detail: '\\x1b\[2J' holds the character U\+001B, which is written as an escape"),
        ("device", "\x9b31m", r"column device: .* holds the character U\+009B"),
        ("compiler", "a\u2028b", r"column compiler: .* holds the character U\+2028"),
        ("detail", "x" * 20_001, "column detail: has 20001 characters, at most 20000 are kept"),
        (
            "device",
            "a\\nnext: curl evil",
            "column device: .* is not text of 1 to 4096 printable characters on one",
        ),
        ("template", "t\\ndone: forged", "column template: .* is not text of 1 to 4096 printable"),
        ("compiler", "t\\u001b[2J", "column compiler: .* is not text of 1 to 4096 printable"),
        ("strategy", "x" * 4097, "column strategy: .* is not text of 1 to 4096 printable"),
        ("trial", "-1", "column trial: -1 numbers no row: rows count from 0 to"),
        ("trial", "9223372036854775807", "column trial: 9223372036854775807 numbers no row"),
        ("trial", "1000000000000001", "column trial: 1000000000000001 numbers no row"),
        ("trial", "0", "column trial: 0 is the number of an earlier row"),
        ("m", "1_6", "column m: '1_6' is not an integer of 64 bits in plain digits"),
        ("m", " 16", "column m: ' 16' is not an integer"),
        ("m", "+16", "column m: '[+]16' is not an integer"),
        ("m", "016", "column m: '016' is not an integer"),
        ("m", "16.0", "column m: '16.0' is not an integer"),
        ("m", "\u0661\u0666", "column m: .* is not an integer"),
        ("m", "9" * 5000, r"column m: '9+\.\.\. is not an integer"),
        ("m", "0", "column m: 0 x 512 x 64 is no size"),
        ("k", "-64", "column m: 256 x 512 x -64 is no size"),
        ("seed", "9223372036854775808", "column seed: 9223372036854775808 does not fit 64 bits"),
        ("time_us", "1_0.5", "column time_us: '1_0.5' is not a finite number"),
        ("time_us", "nan", "column time_us: 'nan' is not a finite number"),
        ("time_us", "1e999", "column time_us: '1e999' is not a finite number"),
        ("time_us", "-1", "column time_us: time_us must be above 0, got -1.0"),
        ("status", "done", "column status: 'done' is none of ok, invalid"),
        ("source", "", "column status: status ok needs both source and time_us"),
        ("stage", "doubted", "column stage: 'doubted' is none of screened, confirmed, neighbour"),
        ("stage", "", "column stage: is empty"),
        ("format", "1", f"column format: '1' is another than {FORMAT}, which the columns are of"),
        ("format", "", "column format: is empty"),
        ("format", "2.0", f"column format: '2.0' is another than {FORMAT}"),
        ("format", "9" * 5000, rf"column format: '9+\.\.\. is another than {FORMAT}"),
        ("gpu", "-1", "column gpu: gpu must be 0 or more, got -1"),
        ("samples", "-3", "column samples: samples must be 0 or more, got -3"),
        ("power_w", "-0.5", "column power_w: power_w must be 0 or more, got -0.5"),
        ("vendor_best_us", "-1", "column vendor_best_us: vendor_best_us must be above 0, got -1.0"),
        ("baseline_us", "0", "column baseline_us: baseline_us must be above 0, got 0.0"),
        ("quarantined", "true", "column quarantined: a trial with status ok is not quarantined"),
        ("quarantined", "1", "column quarantined: '1' is neither true nor false"),
        ("gpu", "one", "column gpu: 'one' is not an integer"),
        ("power_w", "inf", "column power_w: 'inf' is not a finite number"),
        ("throttled", "power cap\\n\\n", "column throttled: .* is not text of 1 to 4096 printable"),
        ("vendor_best", "a\\u001b[2J", "column vendor_best: .* is not text of 1 to 4096 printable"),
        ("object_sha256", "../" * 21 + "a", "column object_sha256: .* is not 64 hex digits"),
    ],
)
def test_a_cell_that_breaks_a_rule_is_one_line_that_names_it(tmp_path: Path, column: str, cell: str, says: str) -> None:
    said = refused(tmp_path / "trials.csv", HEADER + row() + row(**{column: cell}))
    assert re.search(rf"trials\.csv: line 3 is torn or edited: {says}", said), said


def test_an_operation_that_is_not_known_is_one_line_that_names_the_row(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    for text, says in (
        ("bf8.nt", "operation 'bf8.nt': dtype 'bf8' is not known: known are bf16"),
        ("bf16.nt+mish", "is not known"),
        ("f16*f16.nt", "operation 'f16[*]f16.nt' must be written f16.nt"),
        ("bf16", "operation 'bf16' must read like bf16.nt"),
        ("x" * 5000, "must read like bf16.nt"),
    ):
        said = refused(path, HEADER + row() + row(trial="1", operation=text))
        assert re.search(rf"line 3 is of a newer hktune, or edited: column operation: .*{says}.*; upgrade, or", said)


def test_rows_in_any_order_are_read_and_no_number_twice(tmp_path: Path) -> None:
    path, numbers = tmp_path / "trials.csv", ["7", "0", "2", "1", "1000", "3"]
    path.write_bytes(HEADER + b"".join(row(trial=number) for number in numbers))
    assert [str(trial.trial) for trial in read_trials(path)] == numbers
    for again in numbers:
        said = refused(path, HEADER + b"".join(row(trial=number) for number in [*numbers, again]))
        assert f"line 8 is torn or edited: column trial: {again} is the number of an earlier row" in said


def test_a_row_that_is_appended_after_it_was_read_under_its_number_is_refused(tmp_path: Path) -> None:
    store = TrialStore(tmp_path)
    store.append(OK)
    assert len(store.read_new().trials) == 1
    with store.path.open("ab") as file:
        file.write(row(trial="0"))
    with pytest.raises(StoreError, match=r"line 3 .* column trial: 0 is the number of an earlier row"):
        store.read_new()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"x" * 131_073 + b"\n", "unknown 'x+"),
        (b"x" * 131_073, "unknown 'x+"),
        (b'"' + b"x" * 200_000 + b'"\n', "unknown"),
        (b"trial,\x1b[2Jm\n", r"unknown '\\x1b\[2Jm'"),
        (b"\xff\xfet\0r\0i\0a\0l\0", "its columns are not hktune's"),
        (HEADER.replace(b",", b";"), "its columns are not hktune's"),
        (HEADER.replace(b"m,n,", b"n,m,"), "in other order"),
        (HEADER.replace(b"\n", b",m\n"), "in other order"),
        (HEADER + b"\n", f"line 2 is torn or edited: 0 cells, not {len(COLUMNS)}"),
        (HEADER + row() + b'"' + row(), "line 3 is torn or edited"),
        (HEADER + b'"' + b"x" * 200_000 + b"\n", "line 2 is torn or edited: field larger than field limit"),
        (HEADER + row() + b"x" * (5 << 20), "line 3 is torn or edited: no newline within"),
        (HEADER + row()[:-1] + b",\n", f"line 2 is torn or edited: {len(COLUMNS) + 1} cells, not {len(COLUMNS)}"),
        (HEADER + row().replace(b"bf16", b"bf\xff16"), r"line 2 is torn or edited: byte \d+ is not UTF-8"),
    ],
)
def test_a_line_that_is_no_row_is_one_line_that_names_it(tmp_path: Path, content: bytes, says: str) -> None:
    assert re.search(says, refused(tmp_path / "trials.csv", content))


@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode(errors="replace")), st.integers(0))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_in_a_row_are_a_traceback(tmp_path: Path, junk: bytes, at: int) -> None:
    line = row()[:-1]
    at %= len(line)
    path = tmp_path / "trials.csv"
    path.write_bytes(HEADER + line[:at] + junk + line[at:] + b"\n" + row())
    try:
        read_trials(path)
    except StoreError as error:
        assert ONE_LINE.fullmatch(str(error)), str(error)  # noqa: PT017
    assert TrialStore(tmp_path).append(OK).trial >= 1, "what a row says keeps no other row out"


CELLS = st.text(max_size=50) | st.sampled_from(["1_6", "{", "[" * 9000, "\x1b", "nan", "1e999", "\\u001b", "9" * 5000])


@given(st.lists(CELLS, min_size=len(COLUMNS), max_size=len(COLUMNS)) | st.dictionaries(st.sampled_from(COLUMNS), CELLS))
@settings(max_examples=300, deadline=None)
def test_any_cells_are_a_trial_that_comes_back_or_a_value_error(cells: list[str] | dict[str, str]) -> None:
    try:
        trial = Decoder().trial(cells_of(**cells) if isinstance(cells, dict) else cells)
    except ValueError:
        return
    [again] = csv.reader([Encoder().line(trial).decode()])
    assert Decoder().trial(again) == trial


def test_equal_cells_of_many_rows_are_one_object() -> None:
    decoder = Decoder()
    first, second = (decoder.trial(next(csv.reader([row().decode()]))) for _ in range(2))
    assert first == second
    shared = [name for name in ("config", "detail", "started_at") if getattr(first, name) is getattr(second, name)]
    assert shared == ["config", "detail", "started_at"]


def with_crlf(content: bytes) -> bytes:
    return content.replace(b"\n", b"\r\n")


def with_bom(content: bytes) -> bytes:
    return BOM + content


def as_a_spreadsheet(content: bytes) -> bytes:
    return BOM + with_crlf(content)


@pytest.mark.parametrize("saved", [with_crlf, with_bom, as_a_spreadsheet])
def test_a_file_that_an_editor_saved_is_read_and_appended_to_as_it_is(
    tmp_path: Path, saved: Callable[[bytes], bytes]
) -> None:
    TrialStore(tmp_path / "a").extend([OK, replace(OK, status=Status.WRONG, detail="a\r\nb")])
    path = tmp_path / "a" / "trials.csv"
    plain = path.read_bytes()
    rows = read_trials(path)
    path.write_bytes(saved(plain))
    assert read_trials(path) == rows
    assert read_frame(path)["time_us"].tolist() == [row.time_us for row in rows]
    store = TrialStore(tmp_path / "a")
    assert store.read_new().trials == rows
    assert store.append(OK).trial == 2
    assert path.read_bytes() == saved(plain + Encoder().line(replace(OK, trial=2)))
    merge([tmp_path / "a"], tmp_path / "b")
    assert (tmp_path / "b" / "trials.csv").read_bytes().startswith(HEADER), "a merged file is hktune's own again"


def test_lines_of_either_end_may_stand_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    path.write_bytes(HEADER + with_crlf(row()) + row(trial="1") + with_crlf(row(trial="2")))
    assert read_trials(path) == [replace(OK, trial=number) for number in range(3)]


def test_a_torn_row_of_a_file_with_carriage_returns_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    path.write_bytes(with_crlf(HEADER + row()) + row()[:-1] + b"\r")
    assert TrialStore(tmp_path).append(OK).trial == 1
    assert path.read_bytes() == with_crlf(HEADER + row() + row(trial="1"))


@pytest.mark.parametrize("number", ["9" * 5000, "999999999999999999999", "1_0"])
def test_a_number_that_is_none_keeps_no_row_from_being_stored(tmp_path: Path, number: str) -> None:
    (tmp_path / "trials.csv").write_bytes(HEADER + row() + row(trial=number))
    assert TrialStore(tmp_path).append(OK).trial == 1


def test_what_is_no_plain_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "trials.csv")
    with pytest.raises(StoreError, match=r"trials\.csv: is a pipe, not trials\.csv: pass another DIR"):
        TrialStore(tmp_path)
    with pytest.raises(StoreError, match=r"is a pipe, not trials\.csv: pass a directory that holds"):
        read_trials(tmp_path / "trials.csv")
    with pytest.raises(StoreError, match="is a device, not"):
        merge([Path("/dev/zero")], tmp_path / "out")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "trials.csv").symlink_to(tmp_path / "elsewhere.csv")
    with pytest.raises(StoreError, match="is a symbolic link, or is reached through one"):
        TrialStore(tmp_path / "linked")
    assert not (tmp_path / "elsewhere.csv").exists()
