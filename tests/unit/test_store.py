"""trials.csv: nothing lost, nothing guessed, whatever else is happening to the file."""

from __future__ import annotations

import csv
import math
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pandas as pd
import pytest

from hktune.core.config import Config
from hktune.core.errors import StoreError
from hktune.core.operation import BF16_NT
from hktune.core.outcome import Source, Status
from hktune.core.trial import Trial
from hktune.store import TrialStore, merge, read_frame, read_trials
from hktune.store import trials as trials_module
from hktune.store.rows import FORMAT

CONFIG = Config({"block_m": 256, "pipeline": "ping-pong", "swizzle": True})
OK = Trial(
    0, 256, 512, 64, BF16_NT, CONFIG.id, CONFIG.json, Status.OK,
    source=Source.MODELLED, time_us=0.1 + 0.2, samples=3, lds_bytes=65536, seed=0, started_at="2026-11-22T18:00:00Z",
)  # fmt: skip
WRONG = replace(OK, status=Status.WRONG, source=None, time_us=None, samples=None, detail='768 of 1024, "C" unwritten\n')


def test_rows_come_back_as_they_went_numbered_in_order(tmp_path: Path) -> None:
    store = TrialStore(tmp_path / "new" / "run")
    stored = [store.append(OK), *store.extend([WRONG, OK])]
    assert stored == [OK, replace(WRONG, trial=1), replace(OK, trial=2)]
    assert TrialStore(tmp_path / "new" / "run").read() == stored


def test_every_row_is_one_line_and_absent_is_an_empty_cell(tmp_path: Path) -> None:
    TrialStore(tmp_path).append(WRONG)
    header, row = (tmp_path / "trials.csv").read_text().splitlines()
    cells = dict(zip(header.split(","), next(csv.reader([row])), strict=True))
    assert cells["detail"] == '768 of 1024, "C" unwritten\\n'
    assert cells["config"] == CONFIG.json
    assert cells["seed"] == "0"
    assert {name for name, cell in cells.items() if cell == ""} >= {"source", "time_us", "vgprs", "device"}


@pytest.mark.parametrize("begin", ["=", "+", "-", "@"])
def test_no_cell_of_text_begins_a_spreadsheets_formula(tmp_path: Path, begin: str) -> None:
    text = f'{begin}HYPERLINK("http://x", 1)'
    row = replace(WRONG, detail=text, device=text, strategy=f"a{begin}b")
    TrialStore(tmp_path).append(row)
    cells = next(csv.reader((tmp_path / "trials.csv").read_text().splitlines()[1:]))
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert TrialStore(tmp_path).read() == [row]


def test_pandas_reads_the_file_with_types_and_exact_floats(tmp_path: Path) -> None:
    digits = Config({"block_m": 1693})
    assert digits.id.isdigit()
    TrialStore(tmp_path).extend([replace(OK, config=digits.json, config_id=digits.id, detail="NA"), WRONG])
    frame = read_frame(tmp_path / "trials.csv")
    assert frame["config_id"].tolist() == [digits.id, CONFIG.id]
    assert frame["time_us"].iloc[0] == 0.1 + 0.2
    assert math.isnan(frame["time_us"].iloc[1])
    assert frame["detail"].iloc[0] == "NA"
    assert str(frame["lds_bytes"].dtype) == "Int64"
    assert frame["vgprs"].isna().all()
    plain = pd.read_csv(tmp_path / "trials.csv")
    assert plain["m"].tolist() == [256, 256]
    assert plain["operation"].tolist() == ["bf16.nt", "bf16.nt"]
    assert plain["format"].tolist() == [FORMAT, FORMAT]
    assert plain["quarantined"].tolist() == [False, False]
    assert plain["time_us"].dtype == "float64"


@pytest.mark.parametrize(
    ("trial", "says"),
    [
        (replace(OK, source=None), "status ok needs both source and time_us"),
        (replace(OK, time_us=None), "status ok needs both source and time_us"),
        (replace(WRONG, time_us=1.0), "needs a source, measured or modelled"),
        (replace(OK, time_us=0.0), "time_us must be above 0, got 0.0"),
        (replace(OK, time_us=3.0, time_us_low=3.5, time_us_high=4.0), "time_us=3.0 is not within .*, 3.5 to 4.0"),
        (replace(OK, time_us=3.0, time_us_high=2.5), "time_us=3.0 is not within its interval, None to 2.5"),
        (replace(OK, relative_error=math.nan), "column relative_error: nan is not finite"),
        (replace(OK, tflops=math.inf), "column tflops: inf is not finite"),
        (replace(OK, seed=2**63), "column seed: 9223372036854775808 does not fit 64 bits"),
        (replace(OK, detail="x" * 20_001), "column detail: has 20001 characters"),
        (replace(OK, config='{"a":\n1}'), "is not sorted compact JSON"),
        (replace(OK, config_id=""), "column config_id: is empty"),
    ],
)
def test_a_trial_that_breaks_a_rule_is_refused_and_stores_nothing(tmp_path: Path, trial: Trial, says: str) -> None:
    store = TrialStore(tmp_path)
    with pytest.raises(StoreError, match=says):
        store.extend([OK, trial])
    assert store.read() == []
    assert store.append(OK).trial == 0


@pytest.mark.parametrize("kept", [1, 30, -1])
def test_a_torn_last_line_is_left_out_and_cut_off_by_the_next_append(tmp_path: Path, kept: int) -> None:
    TrialStore(tmp_path).extend([OK, WRONG])
    path = tmp_path / "trials.csv"
    *whole, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole) + last[:kept])
    assert read_trials(path) == [OK]
    assert TrialStore(tmp_path).append(WRONG).trial == 1
    assert read_trials(path) == [OK, replace(WRONG, trial=1)]


def test_a_torn_line_longer_than_the_next_row_leaves_nothing_behind(tmp_path: Path) -> None:
    TrialStore(tmp_path).append(replace(WRONG, detail="x" * 5000))
    path = tmp_path / "trials.csv"
    path.write_bytes(path.read_bytes()[:-20])
    TrialStore(tmp_path).extend([OK, WRONG])
    assert read_trials(path) == [OK, replace(WRONG, trial=1)]
    assert path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize("kept", [0, 1, 40])
def test_a_torn_header_is_written_again(tmp_path: Path, kept: int) -> None:
    TrialStore(tmp_path)
    path = tmp_path / "trials.csv"
    header = path.read_bytes()
    path.write_bytes(header[:kept])
    assert TrialStore(tmp_path).append(OK).trial == 0
    assert path.read_bytes().startswith(header)


def torn(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1][:50] + b"\n", *lines[2:]]


def overwritten(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1][:50] + lines[2], *lines[2:]]


def open_quote(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1][:-1] + b',"\n', *lines[2:]]


def other_word(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1].replace(b",modelled,", b",guessed,"), *lines[2:]]


def no_source(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1].replace(b",modelled,", b",,"), *lines[2:]]


def not_a_number(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1].replace(b",512,", b",5l2,"), *lines[2:]]


def not_text(lines: list[bytes]) -> list[bytes]:
    return [lines[0], b"\xff" + lines[1], *lines[2:]]


@pytest.mark.parametrize("damage", [torn, overwritten, open_quote, other_word, no_source, not_a_number, not_text])
def test_a_damaged_middle_line_is_an_error_that_names_it(
    tmp_path: Path, damage: Callable[[list[bytes]], list[bytes]]
) -> None:
    TrialStore(tmp_path).extend([OK, WRONG, OK])
    path = tmp_path / "trials.csv"
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(StoreError, match=r"trials\.csv: line 2 is torn or edited: .*delete that line"):
        read_trials(path)


def test_other_columns_are_an_error_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_text("trial,m,n,speed\n")
    with pytest.raises(StoreError, match=r"missing format, k, operation, .*; unknown 'speed'\).*--fresh"):
        TrialStore(tmp_path)


def test_a_file_set_aside_under_a_store_starts_numbering_again(tmp_path: Path) -> None:
    old = TrialStore(tmp_path)
    old.extend([OK, OK])
    (tmp_path / "trials.csv").rename(tmp_path / "trials-before.csv")
    assert TrialStore(tmp_path).append(WRONG).trial == 0
    assert old.append(OK).trial == 1
    assert [trial.trial for trial in read_trials(tmp_path / "trials-before.csv")] == [0, 1]


def test_a_directory_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="must be a directory"):
        TrialStore(tmp_path / "file")
    with pytest.raises(StoreError, match="cannot be written"):
        TrialStore(tmp_path / "file" / "below")
    with pytest.raises(StoreError, match="cannot be"):
        TrialStore(Path("/proc/self"))
    with pytest.raises(StoreError, match="cannot be read"):
        read_trials(tmp_path / "absent.csv")


def test_a_directory_removed_under_a_run_is_one_line(tmp_path: Path) -> None:
    store = TrialStore(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(StoreError, match=r"cannot be appended to \(No such file"):
        store.append(OK)


def test_the_longest_text_comes_back(tmp_path: Path) -> None:
    worst = replace(WRONG, detail="\0" * 20_000)
    assert TrialStore(tmp_path).append(worst) == worst
    assert read_trials(tmp_path / "trials.csv") == [worst]


APPENDER = """
import sys
from pathlib import Path
from hktune.core.config import Config
from hktune.core.operation import BF16_NT
from hktune.core.outcome import Status
from hktune.core.trial import Trial
from hktune.store import TrialStore
none = Config({})
store = TrialStore(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for step in range(int(sys.argv[3])):
    row = Trial(
        0, 1, 1, 1, BF16_NT, none.id, none.json, Status.INVALID, detail="x" * 3000, seed=int(sys.argv[2])
    )
    store.append(row)
    print(step, flush=True)
"""


def appender(directory: Path, seed: int, rows: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", APPENDER, str(directory), str(seed), str(rows)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_two_processes_on_one_directory_keep_every_row_and_every_number_once(tmp_path: Path) -> None:
    processes = [appender(tmp_path, seed, 150) for seed in (1, 2)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    assert [process.communicate() and process.returncode for process in processes] == [0, 0]
    trials = read_trials(tmp_path / "trials.csv")
    assert [trial.trial for trial in trials] == list(range(300))
    assert sorted(trial.seed or 0 for trial in trials) == [1] * 150 + [2] * 150


def test_threads_of_one_store_keep_every_row_and_every_number_once(tmp_path: Path) -> None:
    store = TrialStore(tmp_path)
    threads = [threading.Thread(target=lambda: [store.append(OK) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [trial.trial for trial in store.read()] == list(range(200))


def test_a_run_killed_while_appending_loses_nothing_that_append_returned_for(tmp_path: Path) -> None:
    process = appender(tmp_path, 1, 1_000_000)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"go\n")
    process.stdin.flush()
    done = [int(process.stdout.readline()) for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    tail = process.communicate()[0].splitlines()
    acknowledged = len(done) + len(tail)
    with (tmp_path / "trials.csv").open("ab") as file:  # what a kill between two pages of a write leaves
        file.write(b"2,99,1,1,1,bf16.n")
    store = TrialStore(tmp_path)
    kept = len(store.read())
    assert acknowledged <= kept <= acknowledged + 1
    assert store.append(OK).trial == kept
    assert [trial.trial for trial in store.read()] == list(range(kept + 1))


def test_what_is_new_is_read_once_whoever_wrote_it(tmp_path: Path) -> None:
    ours, theirs = TrialStore(tmp_path), TrialStore(tmp_path)
    assert ours.read_new() == ([], True)
    first, second = ours.append(OK), theirs.append(WRONG)
    assert ours.read_new() == ([first, second], False)
    assert ours.read_new() == ([], False)
    third = theirs.append(OK)
    with (tmp_path / "trials.csv").open("ab") as file:  # another process is in the middle of a row
        file.write(b"2,3,256,512")
    assert ours.read_new() == ([third], False)
    assert ours.append(WRONG).trial == 3
    assert [trial.trial for trial in ours.read_new().trials] == [3]


def test_a_file_put_in_the_place_of_the_one_read_is_read_anew(tmp_path: Path) -> None:
    store = TrialStore(tmp_path / "a")
    store.append(OK)
    store.read_new()
    TrialStore(tmp_path / "b").append(replace(OK, started_at="2026-11-22T01:00:00Z"))
    merged = merge([tmp_path / "b"], tmp_path / "a")
    assert store.read_new() == (merged.trials, True)


def test_what_was_read_is_not_read_again_to_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of rows are learned with the rows: a run begins with one pass over its file."""
    TrialStore(tmp_path).extend([OK] * 50)
    lines: list[int] = []
    whole_lines = trials_module._lines

    def counted(file: BinaryIO, path: Path, place: trials_module._Place) -> Iterator[bytes]:
        for line in whole_lines(file, path, place):
            lines.append(place.lines)
            yield line

    store = TrialStore(tmp_path)
    store.read_new()
    monkeypatch.setattr(trials_module, "_lines", counted)
    assert store.append(OK).trial == 50
    store.read_new()
    assert lines == [52], "only the row that was appended is read"


def test_shards_merge_to_the_same_bytes_in_any_order_and_again(tmp_path: Path) -> None:
    early, late = replace(OK, started_at="2026-11-22T17:00:00Z"), replace(WRONG, started_at="2026-11-22T19:00:00Z")
    together = [replace(OK, detail=detail) for detail in "abcdef"]
    TrialStore(tmp_path / "a").extend([late, *together[:4]])
    TrialStore(tmp_path / "b").extend([*reversed(together[2:]), early])
    merged = merge([tmp_path / "a", tmp_path / "b" / "trials.csv"], tmp_path / "ab")
    assert [replace(trial, trial=0, origin=None) for trial in merged.trials] == [early, *together, late]
    assert [trial.trial for trial in merged.trials] == list(range(8))
    assert merge([tmp_path / "b", tmp_path / "a", tmp_path / "b"], tmp_path / "ba").trials == merged.trials
    first = (tmp_path / "ab" / "trials.csv").read_bytes()
    assert (tmp_path / "ba" / "trials.csv").read_bytes() == first
    assert merge([tmp_path / "a"], tmp_path / "ab").trials == merged.trials
    assert (tmp_path / "ab" / "trials.csv").read_bytes() == first


def test_a_store_that_is_merged_into_goes_on_after_the_merged_rows(tmp_path: Path) -> None:
    """The merged file's last row begins before the place up to which the store had read."""
    store = TrialStore(tmp_path / "a")
    store.append(replace(OK, detail="x" * 500))
    TrialStore(tmp_path / "b").append(replace(OK, started_at="2026-11-22T01:00:00Z"))
    merge([tmp_path / "b"], tmp_path / "a")
    assert store.append(WRONG).trial == 2
    assert [trial.trial for trial in store.read()] == [0, 1, 2]


def test_a_merge_with_a_bad_shard_writes_nothing(tmp_path: Path) -> None:
    TrialStore(tmp_path / "a").append(OK)
    with pytest.raises(StoreError, match="cannot be read"):
        merge([tmp_path / "a", tmp_path / "absent"], tmp_path / "out")
    assert not (tmp_path / "out" / "trials.csv").exists()
