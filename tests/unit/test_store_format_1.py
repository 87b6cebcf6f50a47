"""trials.csv of format 1, as results/ holds it: read as what it says in words, rewritten before the first append, and
no later format taken for either."""

from __future__ import annotations

import csv
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naive_gemm import EMULATED

from hktune.core.config import Config
from hktune.core.errors import StoreError
from hktune.core.launch_rule import LaunchRule
from hktune.core.operation import BF16_NT, BF16_NT_BIAS
from hktune.core.outcome import Source, Stage, Status, Timing
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.dispatch import read_table
from hktune.dispatch.table import Table
from hktune.emulator.clock.model_error import model_error
from hktune.measure.stopwatch import Attempt
from hktune.space import load_space
from hktune.store import TrialStore, merge, read_frame, read_trials
from hktune.store import trials as trials_module
from hktune.store.rows import FORMAT, HEADER, Encoder
from hktune.tables import BuildOptions, build_table
from hktune.template import Templates
from hktune.tuning.confirming.confirmation import deciding
from hktune.tuning.ledger import Ledger
from hktune.tuning.trial_rows import RowContext

ROOT = Path(__file__).resolve().parents[2]
H100 = ROOT / "results" / "sm90a-nvidia-h100-80gb-hbm3"
MODELLED = ROOT / "results" / "gfx950-emulated"
LATER = FORMAT + 1
OLD_HEADER = (H100 / "trials.csv").read_bytes().splitlines(keepends=True)[0]
CONFIG = Config({"block_m": 256})
ONE_LINE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202e]+")


def old(detail: str = "", number: int = 0, **cells: str) -> bytes:
    """A row as hktune 0.1 wrote it, measured and right unless `cells` say otherwise."""
    names = OLD_HEADER.decode().strip().split(",")
    own = {"trial": str(number), "m": "256", "n": "512", "k": "64", "dtype": "bf16", "epilogue": "none"}
    own |= {"config_id": CONFIG.id, "config": CONFIG.json, "status": "ok", "detail": detail, "source": "measured"}
    own |= {"time_us": "10.0", "baseline_us": "12.0", "baseline": "cuBLAS", "started_at": "2026-11-22T18:00:00Z"}
    written = [{**own, **cells}.get(name, "") for name in names]
    return (",".join('"' + cell.replace('"', '""') + '"' for cell in written) + "\n").encode()


def one(path: Path, line: bytes) -> Trial:
    path.write_bytes(OLD_HEADER + line)
    [trial] = read_trials(path)
    return trial


def raw(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_measured_results_say_in_columns_what_they_said_in_words() -> None:
    """Counts as `grep -c` gives them of the file that is shipped."""
    trials, rows = read_trials(H100 / "trials.csv"), raw(H100 / "trials.csv")
    assert Counter(trial.stage for trial in trials) == {Stage.SCREENED: 12195, Stage.CONFIRMED: 417}
    assert not any(trial.quarantined for trial in trials)
    assert {trial.operation for trial in trials} == {BF16_NT}
    for trial, row in zip(trials, rows, strict=True):
        words = row["detail"].split("; ")
        assert (f"{trial.clock_mhz} MHz" in words) == (" MHz" in row["detail"])
        assert (f"{trial.power_w:.0f} W" in words) if trial.power_w is not None else not re.search(" W(;|$)", words[-1])
        assert (f"throttled: {trial.throttled}" in words) == ("throttled" in row["detail"])
        assert (trial.vendor_best is not None) == (trial.stage is Stage.CONFIRMED)
        if trial.vendor_best_us is not None:
            assert words[-1].startswith(f"the vendor's best: {trial.vendor_best} at {trial.vendor_best_us:.2f} us (")
    assert Counter(trial.throttled for trial in trials) == {None: 5984, "power cap": 6628}


def test_modelled_results_were_screened_and_saw_no_gpu() -> None:
    trials = read_trials(MODELLED / "trials.csv")
    assert {trial.stage for trial in trials} <= {Stage.SCREENED, Stage.NEIGHBOUR}
    assert {(trial.gpu, trial.clock_mhz, trial.baseline) for trial in trials} == {(None, None, None)}
    raced = {trial.problem for trial in trials if (trial.vendor_best or "").startswith("AITER: ")}
    assert {trial.problem.n for trial in trials} - {problem.n for problem in raced} == {50257}  # no whole tiles
    assert deciding(trials) == [row for problem in by_first_row(trials) for row in trials if row.problem == problem]


def by_first_row(trials: list[Trial]) -> list[object]:
    return list(dict.fromkeys(trial.problem for trial in trials))


def built_anew(shipped: Table, directory: Path) -> Table:
    """The table of the rows of `directory`. A kernel that the shipped one lacks is launched as one of its own is: that
    is not looked at."""
    kernels = {entry.kernel.config_id: entry.kernel for entry in shipped.entries if entry.kernel}
    some = next(iter(kernels.values()))

    def launch_of(trial: Trial) -> tuple[str, LaunchRule]:
        kernel = kernels.get(trial.config_id, some)
        return kernel.symbol, kernel.launch.rule

    rows, options = deciding(read_trials(directory / "trials.csv")), BuildOptions(model_tie=model_error().tie_factor)
    return build_table(rows, launch_of, shipped.identity, "clang", "0", shipped.created_at, options)


def test_the_table_of_the_modelled_rows_is_the_shipped_table() -> None:
    """Built anew, each entry has the choice, the times and the ties of the one that was built from the words."""
    shipped = read_table(MODELLED)
    timed = ("time_us", "time_us_low", "time_us_high", "baseline", "baseline_us")
    for ours, theirs in zip(built_anew(shipped, MODELLED).entries, shipped.entries, strict=True):
        for name in ("problem", "choice", "source", "ties", *timed):
            assert getattr(ours, name) == getattr(theirs, name)
        assert (ours.kernel and ours.kernel.config_id) == (theirs.kernel and theirs.kernel.config_id)


def test_a_table_of_the_measured_rows_loses_to_the_shipped_one_on_no_shape() -> None:
    """That one was built from the words, when a kernel more than 0.5 % behind the best might stand in for it."""
    shipped = read_table(H100)
    entries = list(zip(built_anew(shipped, H100).entries, shipped.entries, strict=True))
    for ours, theirs in entries:
        assert (ours.problem, ours.choice, ours.baseline) == (theirs.problem, theirs.choice, theirs.baseline)
        if ours.time_us and ours.baseline_us and theirs.time_us and theirs.baseline_us:
            assert ours.time_us / ours.baseline_us <= 1.005 * theirs.time_us / theirs.baseline_us
    assert sum(ours.time_us == theirs.time_us for ours, theirs in entries) >= 0.75 * len(entries)


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("one launch, left at less than 0.5x the vendor; GPU 3", {"stage": Stage.SCREENED, "gpu": 3}),
        (
            "screened at 0.9749x the vendor (0.9678..0.9800); left early, clearly slower; 1965 MHz; 190 W; "
            "throttled: power cap, thermal; GPU 12",
            {
                "stage": Stage.SCREENED,
                "gpu": 12,
                "clock_mhz": 1965,
                "power_w": 190.0,
                "throttled": "power cap, thermal",
            },
        ),
        (
            "confirmed at 1.1x the vendor; GPU 0; the vendor's best: cuBLASLt algorithm 1 at 9.60 us (1.2500x)",
            {"stage": Stage.CONFIRMED, "gpu": 0, "vendor_best": "cuBLASLt algorithm 1", "vendor_best_us": 9.6},
        ),
        ("confirmed; the vendor's best: no time at us (0.1x)", {"stage": Stage.CONFIRMED, "vendor_best": None}),
        ("screened; 99999999999999999999 MHz; GPU -1; throttled: a\\nb", {"clock_mhz": None, "gpu": None}),
    ],
)
def test_the_words_of_a_measured_row_are_its_columns(tmp_path: Path, words: str, fields: dict[str, object]) -> None:
    trial = one(tmp_path / "trials.csv", old(words))
    assert {name: getattr(trial, name) for name in fields} == pytest.approx(fields)
    assert trial.quarantined is False


def test_a_failure_says_whether_its_config_may_run_again(tmp_path: Path) -> None:
    lost = "no answer after 30 s; the worker was replaced; quarantined, reproduce: hktune bench block_m=256"
    failed = {"status": "timeout", "source": "", "time_us": "", "baseline_us": "", "baseline": ""}
    assert one(tmp_path / "trials.csv", old(lost, **failed)).quarantined
    assert not one(tmp_path / "trials.csv", old(lost, **{**failed, "status": "wrong"})).quarantined
    again = one(tmp_path / "trials.csv", old(f"confirmed as failing: {lost}", **failed))
    assert (again.stage, again.quarantined) == (Stage.CONFIRMED, True)


def test_an_earlier_runs_quarantine_holds(tmp_path: Path, context: RowContext) -> None:
    lost = old(
        "died; quarantined, reproduce: hktune bench x",
        status="crashed", source="", time_us="", template_sha256=context.templates.own.sha256,
    )  # fmt: skip
    (tmp_path / "trials.csv").write_bytes(OLD_HEADER + lost)
    [(candidate, failure)] = Ledger(tmp_path, context, fresh=False).quarantine().items()
    assert (candidate.config, failure.status, failure.quarantined) == (CONFIG, Status.CRASHED, True)
    assert failure.detail == "died; quarantined, reproduce: hktune bench x"


def test_a_run_goes_on_from_the_old_rows(tmp_path: Path, context: RowContext) -> None:
    """What was tried is not recorded again, before the file is rewritten and after."""
    sha256 = context.templates.own.sha256
    (tmp_path / "trials.csv").write_bytes(OLD_HEADER + old("screened at 1.2x the vendor", 4, template_sha256=sha256))
    ledger, problem = Ledger(tmp_path, context, fresh=False), Problem(256, 512, 64)
    [before] = ledger.rows()
    timing = Timing(Source.MEASURED, 9.0)
    assert ledger.record(Attempt(CONFIG), problem, timing) == before
    added = ledger.record(Attempt(Config({"block_m": 128})), problem, timing)
    assert (added.trial, added.stage, added.time_us) == (5, Stage.SCREENED, 9.0)
    assert ledger.record(Attempt(CONFIG), problem, timing) == before
    assert ledger.rows() == [before, added]
    assert Ledger(tmp_path, context, fresh=True).rows() == []
    [aside] = tmp_path.glob("trials-*.csv")
    assert read_trials(aside) == [before, added]


@pytest.fixture
def context(toy_space_path: Path) -> RowContext:
    return RowContext(Templates(load_space(toy_space_path).template), EMULATED, "random", 0)


def as_it_was(content: bytes) -> bytes:
    return content


def of_a_spreadsheet(content: bytes) -> bytes:
    return b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n")


def torn(content: bytes) -> bytes:
    return content + old()[:40]


@pytest.mark.parametrize("saved", [as_it_was, of_a_spreadsheet, torn])
def test_the_first_append_rewrites_the_file_and_loses_nothing(tmp_path: Path, saved: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "trials.csv"
    path.write_bytes(saved(OLD_HEADER + old("screened", 0) + old("confirmed", 7, epilogue="bias")))
    before = read_trials(path)
    assert [(trial.trial, trial.operation) for trial in before] == [(0, BF16_NT), (7, BF16_NT_BIAS)]
    store = TrialStore(tmp_path)
    assert (store.read(), path.read_bytes()[:40].count(b"format")) == (before, 0), "reading changes nothing"
    added = store.append(replace(before[0], stage=Stage.NEIGHBOUR))
    assert added.trial == 8
    expected = [*before, added]
    assert path.read_bytes() == HEADER + b"".join(map(Encoder().line, expected))
    assert TrialStore(tmp_path).read() == expected
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_a_run_that_read_the_old_file_reads_the_new_one_whole(tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_bytes(OLD_HEADER + old("screened"))
    ours, theirs = TrialStore(tmp_path), TrialStore(tmp_path)
    first = ours.read_new().trials
    added = theirs.append(replace(first[0], status=Status.WRONG, time_us=None))
    assert ours.read_new() == ([*first, added], True)
    assert ours.append(first[0]).trial == 2


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, content = tmp_path / "trials.csv", OLD_HEADER + old("screened")
    path.write_bytes(content)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trials_module, "publish", full)
    with pytest.raises(StoreError, match=r"cannot be appended to \(No space left"):
        TrialStore(tmp_path).append(read_trials(path)[0])
    assert path.read_bytes() == content


def test_a_damaged_row_is_named_and_the_file_stays(tmp_path: Path) -> None:
    path, content = tmp_path / "trials.csv", OLD_HEADER + old() + old(number=1, m="5l2") + old(number=2)
    path.write_bytes(content)
    store = TrialStore(tmp_path)
    for use in (store.read, lambda: store.append(one(tmp_path / "other.csv", old()))):
        with pytest.raises(StoreError, match=r"line 3 is torn or edited: column m: '5l2' is not an integer"):
            use()
    assert path.read_bytes() == content
    path.write_bytes(OLD_HEADER + old()[:-1] + b",\n")
    with pytest.raises(StoreError, match="line 2 is torn or edited: 38 cells, not 37"):
        read_trials(path)


def test_rows_of_either_format_merge_and_equal_ones_are_one(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trials.csv").write_bytes(OLD_HEADER + old("screened", 5) + old("confirmed", 6))
    TrialStore(tmp_path / "new").extend([])
    assert (tmp_path / "new" / "trials.csv").read_bytes().startswith(HEADER)
    merged = merge([tmp_path / "old", tmp_path / "new"], tmp_path / "out").trials
    assert [(trial.trial, trial.stage) for trial in merged] == [(0, Stage.CONFIRMED), (1, Stage.SCREENED)]
    assert read_trials(tmp_path / "out" / "trials.csv") == merged
    assert merge([tmp_path / "new"], tmp_path / "old").trials == merged, "into a directory of format 1 too"
    assert (tmp_path / "old" / "trials.csv").read_bytes() == (tmp_path / "out" / "trials.csv").read_bytes()


def test_pandas_gets_the_columns_of_today(tmp_path: Path) -> None:
    shutil.copy(H100 / "two-shapes-1100-configs" / "trials.csv", tmp_path / "trials.csv")
    before = read_frame(tmp_path / "trials.csv")
    TrialStore(tmp_path).extend([])
    after = read_frame(tmp_path / "trials.csv")
    assert before.equals(after)
    assert before["stage"].value_counts().to_dict() == {"screened": 2200, "confirmed": 12}
    assert str(before["quarantined"].dtype) == "boolean"
    assert set(before["format"]) == {FORMAT}


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ({"dtype": "fp7"}, "column dtype: 'fp7' is none of bf16"),
        ({"dtype": "f16"}, "column dtype: 'f16' is none of bf16"),
        ({"dtype": ""}, "column dtype: is empty"),
        ({"epilogue": "swish"}, "column epilogue: 'swish' is none of none, bias"),
        ({"epilogue": "relu"}, "column epilogue: 'relu' is none of none, bias"),
        ({"epilogue": ""}, "column epilogue: is empty"),
    ],
)
def test_an_operation_that_is_not_known_is_one_line(tmp_path: Path, cells: dict[str, str], says: str) -> None:
    path = tmp_path / "trials.csv"
    path.write_bytes(OLD_HEADER + old() + old(number=1, **cells))
    with pytest.raises(StoreError, match=rf"line 3 is torn or edited: {says}; correct it, or delete") as told:
        read_trials(path)
    assert ONE_LINE.fullmatch(str(told.value))


def test_a_later_format_is_one_line(tmp_path: Path) -> None:
    path, row = tmp_path / "trials.csv", Encoder().line(one(tmp_path / "old.csv", old()))
    later = HEADER.replace(b"format,", b"format,joules,") + row.replace(b"%d," % FORMAT, b"%d,1.5," % LATER, 1)
    path.write_bytes(later)
    says = rf"trials\.csv is of format {LATER}, this hktune reads formats 1 to {FORMAT}: upgrade hktune, or pass"
    for use in (lambda: read_trials(path), lambda: TrialStore(tmp_path), lambda: merge([path], tmp_path / "out")):
        with pytest.raises(StoreError, match=says):
            use()
    path.write_bytes(HEADER + row + row.replace(b"%d,0," % FORMAT, b"%d,1," % LATER, 1))
    newer = f"line 3 is of a newer hktune, or edited: column format: '{LATER}' is another than {FORMAT}"
    with pytest.raises(StoreError, match=newer):
        read_trials(path)
    path.write_bytes(later.replace(b"%d,1.5," % LATER, b"x,1.5,"))
    with pytest.raises(StoreError, match=r"columns are not hktune's .*unknown 'joules'"):
        read_trials(path)


NOTES = st.lists(
    st.sampled_from(["confirmed", "screened at 1x", "1 MHz", "1e9 W", "GPU 99999999999", "throttled: ", "quarantined"])
    | st.text(max_size=20).filter(lambda text: text.isprintable() and "\\" not in text),
    max_size=6,
).map("; ".join)


@given(NOTES, st.sampled_from(["1.0", "0.0", "1e308", "", "nan"]), st.sampled_from(["measured", "modelled", ""]))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_words_are_a_row_that_comes_back_or_one_line(
    tmp_path: Path, words: str, baseline_us: str, source: str
) -> None:
    path = tmp_path / "trials.csv"
    path.write_bytes(OLD_HEADER + old(words, baseline_us=baseline_us, source=source))
    try:
        [trial] = read_trials(path)
    except StoreError as error:
        assert ONE_LINE.fullmatch(str(error)), str(error)  # noqa: PT017
        return
    assert trial.detail == (words or None)
    assert trial.source in Source
    TrialStore(tmp_path).extend([])
    assert read_trials(path) == [trial]
