"""What a person reads after a run: at any width the winner, its time and its gain; nothing is cut."""

from __future__ import annotations

import io
import re
import shlex
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from hktune.cli import make_parser
from hktune.core.config import Config
from hktune.core.escaped import escaped
from hktune.core.operation import BF16_NT_BIAS, Operation
from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.report import heartbeat as beats
from hktune.report.columns import Column, print_columns
from hktune.report.console import PlainConsole
from hktune.report.run_progress import RunProgress
from hktune.report.summary import print_summary
from hktune.space import Spaces, load_space
from hktune.tuning.run_summary import RunSummary

ROOT = Path(__file__).resolve().parents[2]
SPACE = load_space(ROOT / "search_spaces" / "gfx950_gemm_bf16.yaml")
DEFAULT = SPACE.config({})
SMALL = SPACE.config({"block_m": 128, "block_n": 128, "split": 1})
BEST = SPACE.config(
    {"slices": 2, "refill": "late", "lgkmcnt_clusters": 1, "read_across": True, "spread": 2, "xcd_chunk": 32}
)
LARGE, NARROW = Problem(4096, 4096, 4096), Problem(16, 4096, 4096)
COMMAND = ["hktune", "tune", "--shapes", "shapes.yaml"]
NAMES = {LARGE: "llama-3-70b-attention-output-projection", NARROW: "decode"}


def trial(config: Config, problem: Problem, time_us: float | None, **fields: object) -> Trial:
    ok = {"status": Status.OK, "source": Source.MODELLED, "tflops": 1.0, "detail": "bound by mfma"}
    m, n, k, operation = problem.m, problem.n, problem.k, problem.operation
    made = Trial(0, m, n, k, operation, config.id, config.json, Status.WRONG)
    return replace(made, device="emulated gfx950", time_us=time_us, **{**(ok if time_us else {}), **fields})  # type: ignore[arg-type]


TRIALS = [
    trial(SMALL, LARGE, 60.0),
    trial(DEFAULT, LARGE, 40.0),
    trial(BEST, LARGE, 20.0),
    trial(SMALL, NARROW, 90.0),
    trial(BEST, NARROW, 30.0),
    trial(DEFAULT, NARROW, 360.0),
]


def summary(trials: list[Trial], names: dict[Problem, str] = NAMES, directory: str = "out") -> RunSummary:
    return RunSummary(names, trials, Path(directory), 1.0, 3, False, Spaces([SPACE]), ["hktune", "verify"], COMMAND)


def printed(told: RunSummary, width: int) -> str:
    file = io.StringIO()
    print_summary(Console(file=file, width=width), told)
    return file.getvalue()


def row_of(text: str, size: str) -> list[str]:
    [line] = [line for line in text.splitlines() if size in line.split()]
    return line.partition(size)[2].split()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_every_width_shows_winner_time_and_gain(width: int) -> None:
    text = printed(summary(TRIALS), width)
    assert max(map(len, text.splitlines())) <= width
    large, narrow = row_of(text, "4096x4096x4096"), row_of(text, "16x4096x4096")
    assert large[0] == "20.0"
    assert narrow[0] == "30.0"
    assert BEST.id[:8] in large
    assert "2.00" in large  # 40 / 20, the default
    assert "12.00" in narrow  # 360 / 30
    if width >= 80:
        assert large[1:] == ["2.00", "2.00", "3.00", BEST.id[:8]] or width > 80
        assert narrow[1:4] == ["12.00", "3.00", "3.00"] or width > 80  # 90 / 30: the fixed choice, and the first
    assert "modelled" in text.splitlines()[0]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_configs_are_wrapped_whole_and_can_be_typed_again(width: int) -> None:
    text = printed(summary(TRIALS), width)
    words = text.partition(f"\n{BEST.id[:8]}  ")[2].partition("\none of them")[0].split()
    assert SPACE.parse(words) == BEST


def test_the_gain_in_all_is_the_geometric_mean() -> None:
    text = " ".join(printed(summary(TRIALS), 80).split())
    assert "geometric mean of 2 shapes, modelled: 4.90 times as fast as the space's default config" in text  # sqrt(24)
    assert "2.45 as the specification's choice" in text  # sqrt(2 * 3)
    assert "3.00 as the first trial" in text


def test_a_yardstick_that_was_not_tried_everywhere_says_of_how_many() -> None:
    text = " ".join(printed(summary(TRIALS[:-1]), 80).split())
    assert "2.00 times as fast as the space's default config (vs default, over 1 shape)" in text


def test_gains_of_measured_times_are_relative_to_the_vendor_in_the_same_rounds() -> None:
    measured = {"source": Source.MEASURED, "baseline": "cuBLAS"}
    rows = [
        trial(DEFAULT, LARGE, 40.0, baseline_us=20.0, **measured),  # the clock was low: 2 of the vendor's
        trial(BEST, LARGE, 10.0, baseline_us=10.0, **measured),
    ]
    text = printed(summary(rows, {LARGE: "square"}), 120)
    assert row_of(text, "4096x4096x4096")[2:5] == ["1.000", "2.00", "2.00"]
    assert "every time is measured" in text.splitlines()[0]
    assert "modelled" not in text


def test_columns_without_a_word_are_left_out() -> None:
    text = printed(summary(TRIALS), 200)
    assert "vendor" not in text
    assert "failed" not in text
    failed = printed(summary([*TRIALS, trial(SMALL, LARGE, None, detail="3 elements differ")]), 200)
    assert "failed" in failed


@pytest.mark.parametrize("width", [60, 80, 120])
def test_an_operation_that_all_shapes_share_is_said_once(width: int) -> None:
    f16 = [Problem(problem.m, problem.n, problem.k, Operation("f16")) for problem in (LARGE, NARROW)]
    for problems, text in (((LARGE, NARROW), "bf16.nt"), (f16, "f16.nt")):
        trials = [trial(BEST, problem, 20.0) for problem in problems]
        shown = printed(summary(trials, {problem: str(problem) for problem in problems}), width)
        assert shown.splitlines()[0].startswith(f"best {text} kernel per shape; every time is modelled")
        assert shown.count(".nt") == 1
        assert row_of(shown, "4096x4096x4096")[0] == "20.0"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_bias_is_shown_where_one_is_and_a_shape_without_a_name_by_its_sizes(width: int) -> None:
    biased = Problem(16, 4096, 4096, BF16_NT_BIAS)
    trials = [trial(BEST, LARGE, 20.0), trial(BEST, NARROW, 30.0), trial(BEST, biased, 40.0)]
    shown = printed(summary(trials, {LARGE: "o-proj", NARROW: str(NARROW), biased: str(biased)}), width)
    assert shown.startswith("best bf16.nt kernel per shape;")
    assert shown.count("bf16.nt") == 1
    assert [row_of(shown, size)[0] for size in ("16x4096x4096", "16x4096x4096+bias")] == ["30.0", "40.0"]
    assert max(map(len, shown.splitlines())) <= width


@pytest.mark.parametrize("width", [60, 80, 120])
def test_operations_that_differ_are_a_column(width: int) -> None:
    half = Problem(4096, 4096, 4096, Operation("f16", epilogue=("bias",)))
    trials = [trial(BEST, LARGE, 20.0), trial(BEST, half, 30.0)]
    shown = printed(summary(trials, {LARGE: "o-proj", half: "o-proj"}), width)
    assert shown.startswith("best kernel per shape; every time is modelled")
    rows = [line.split() for line in shown.splitlines() if "4096x4096x4096" in line.split()]
    assert [row[1:4] for row in rows] == [
        ["4096x4096x4096", "bf16.nt", "20.0"],
        ["4096x4096x4096", "f16.nt+bias", "30.0"],
    ]
    assert max(map(len, shown.splitlines())) <= width


def test_a_failure_of_each_kind_is_shown_with_the_command_that_shows_it_again() -> None:
    failures = [
        trial(SMALL, NARROW, None, detail="3 elements differ", seed=7),
        trial(BEST, NARROW, None, detail="another"),
        trial(DEFAULT, LARGE, None, status=Status.HAZARD, detail="s_barrier missing", operation=BF16_NT_BIAS),
    ]
    names = {**NAMES, replace(LARGE, operation=BF16_NT_BIAS): "biased"}
    text = printed(summary([*TRIALS, *failures], names, "my out"), 80)
    assert f"2 wrong, for example {SMALL.id[:8]} on 16x4096x4096 bf16.nt: 3 elements differ" in " ".join(text.split())
    shown = [shlex.split(line.partition("see it: ")[2]) for line in text.splitlines() if "see it: " in line]
    assert shown == [
        ["hktune", "verify", "--problem", "4096x4096x4096+bias", f"my out:{DEFAULT.id}"],
        ["hktune", "verify", "--problem", "16x4096x4096", "--seed", "7", f"my out:{SMALL.id}"],
    ]


@pytest.mark.parametrize("operation", [Operation("f16"), Operation("f16", epilogue=("bias",)), BF16_NT_BIAS])
def test_the_command_that_shows_a_failure_again_is_read_as_that_problem(operation: Operation) -> None:
    problem = Problem(16, 4096, 4096, operation)
    text = printed(summary([trial(SMALL, problem, None, detail="3 elements differ")], {problem: "o-proj"}), 200)
    assert f"for example {SMALL.id[:8]} on 16x4096x4096 {operation}: 3 elements differ" in text
    [words] = [shlex.split(line.partition("see it: ")[2]) for line in text.splitlines() if "see it: " in line]
    options = make_parser().parse_args(words[1:])
    assert (options.problem, options.config) == (problem, [f"out:{SMALL.id}"])


@pytest.mark.parametrize("name", ["[/]", "[bold red]x", "\\[/x]", "a" * 100, "名前" * 20, "[link=https://x]y[/link]"])
def test_a_name_is_no_markup_and_never_cut(name: str) -> None:
    text = printed(summary(TRIALS, {LARGE: name}), 80)
    cells = text.partition("config")[2].partition("\n")[2].partition("\n(")[0].splitlines()
    assert "".join("".join(line.split("4096x4096x4096")[0].split()) for line in cells) == "".join(name.split())


@pytest.mark.parametrize(
    "nasty", ["[/]", "[bold]x[/bold] :smile:", "\x1b[2J\x1b]0;x\x07", "a\u202egnp.exe", "\x9b2J\ud800"]
)
def test_names_and_details_from_files_are_text_to_the_terminal(nasty: str) -> None:
    """A shape's name, a cell of trials.csv, a device: as rows of somebody else's directory have them."""
    failed = trial(SMALL, LARGE, None, detail=nasty)
    told = summary(
        [*TRIALS, failed, trial(SMALL, Problem(1, 64, 64), None, detail=nasty)], {LARGE: nasty, NARROW: "decode"}
    )
    file = io.StringIO()
    print_summary(PlainConsole(file=file, width=160, force_terminal=True, color_system=None), told)
    said = file.getvalue()
    assert said.replace("\n", "").isprintable()
    assert said.count(escaped(nasty)) >= 2


def test_names_of_wide_characters_fold_where_the_column_is_full() -> None:
    """A terminal gives each of them two cells."""
    file = io.StringIO()
    names = ["注意力输出投影" * 6, "decode 的 注意力 输出 投影 与 a-b-c", "plain-hyphenated-name-of-a-projection"]
    columns = [Column("name", names, folds=True), Column("more", ["x" * 16] * 3)]
    print_columns(Console(file=file, width=40), columns)
    _, *lines = file.getvalue().splitlines()
    cells = [line.partition("  x")[0].rstrip() for line in lines]
    assert max(map(cell_len, cells)) <= 22
    assert "".join(cells).replace(" ", "") == "".join(names).replace(" ", "")
    full, last = cells[: 84 // 22], cells[84 // 22]
    assert [cell_len(cell) for cell in full] == [22] * 3
    assert cell_len(last) == 84 - 3 * 22
    assert cells[4:] == ["decode 的 注意力 输出", "投影 与 a-b-c", "plain-hyphenated-name-", "of-a-projection"]


def test_next_is_quoted_for_a_shell() -> None:
    for directory in ("my out", "it's", "$(rm)", "out"):
        last = printed(summary(TRIALS, directory=directory), 60).splitlines()[-1]
        assert shlex.split(last.partition("next: ")[2]) == ["hktune", "table", "show", directory]


def test_nothing_found_is_said() -> None:
    text = printed(summary([], {LARGE: "square"}), 80)
    assert "nothing was tried yet for 1 of 1 shape\n" in text
    assert text.endswith("next: hktune tune --shapes shapes.yaml\n")
    assert "geometric" not in text


def test_the_least_important_columns_go_first() -> None:
    columns = [
        Column("name", ["x" * 30], folds=True),
        Column("kept", ["12345678"]),
        Column("second", ["12345678"], rank=1),
        Column("first", ["12345678"], rank=2),
    ]
    heads = {}
    for width in (30, 40, 50, 80):
        file = io.StringIO()
        print_columns(Console(file=file, width=width), columns)
        heads[width] = file.getvalue().splitlines()[0].split()
    assert heads == {
        30: ["name", "kept"],
        40: ["name", "kept", "second"],
        50: ["name", "kept", "second", "first"],
        80: ["name", "kept", "second", "first"],
    }


def test_in_a_file_there_are_signs_of_life_in_every_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beats, "LINE_EVERY_S", 0.01)
    file = io.StringIO()

    def wait_for(pattern: str) -> None:
        until = time.monotonic() + 30
        while not re.search(pattern, file.getvalue()):
            assert time.monotonic() < until, file.getvalue()
            time.sleep(0.01)

    with RunProgress(Console(file=file, width=80)) as progress:
        wait_for("setting up, 0 s so far\n")
        progress.expect(NAMES, 6)
        progress.phase("searching")
        listener = progress.listener()
        listener.recorded(TRIALS[0])
        listener.recorded(trial(BEST, LARGE, None))
        wait_for(r"searching: 2/6 trials, \d+ s.*; newest best llama-3-70b.* 60.0 us modelled; failed: 1 wrong\n")
        progress.phase("building the table")
        wait_for("building the table: 2/6")
        listener.recorded(replace(trial(BEST, LARGE, 70.0), library="cublasLt 1"))
        wait_for("building the table: 2/6 trials, 1 of the vendor's algorithms, ")
    length = len(file.getvalue())
    time.sleep(0.05)
    assert len(file.getvalue()) == length


def test_other_commands_tell_standard_error_that_they_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(beats, "LINE_EVERY_S", 0.01)
    with beats.working(lambda: "compiling [/] 3/7"):
        time.sleep(0.1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("compiling [/] 3/7, 0 s so far\n")


def test_a_shape_without_a_kernel_says_why_and_the_others_are_counted() -> None:
    rows = [trial(SMALL, LARGE, None, detail="no config is legal")]
    text = printed(summary(rows, {LARGE: "square", NARROW: "decode", Problem(1, 64, 64): "tiny"}), 120)
    assert "no kernel for square (4096x4096x4096 bf16.nt), it takes the vendor path: no config is legal\n" in text
    assert "nothing was tried yet for 2 of 3 shapes\n" in text


def test_rows_of_shapes_that_were_not_asked_for_are_counted_apart() -> None:
    other = [trial(SMALL, Problem(1, 64, 64), None, detail="of another run") for _ in range(4)]
    text = printed(summary([*TRIALS, *other]), 120)
    assert "done: 6 trials of 2 shapes and 4 of other shapes; 3 new variants" in text
    assert "of another run" not in text
    assert "done: 6 trials of 2 shapes; 3 new variants" in printed(summary(TRIALS), 120)
    assert "done: 3 trials of 1 shape and 3 of other shapes;" in printed(summary(TRIALS, {LARGE: "square"}), 120)


@pytest.mark.parametrize(
    ("trials_lost", "no_table", "left"),
    [
        (False, False, "trials, table and code objects are in out\nnext: hktune table show out\n"),
        (False, True, "trials are in out, no table was written\nnext: hktune tune --shapes shapes.yaml\n"),
        (True, False, "table and code objects are in out\nnext: hktune table show out\n"),
        (True, True, "nothing is in out, no table was written\nnext: hktune tune --shapes shapes.yaml\n"),
    ],
)
def test_what_is_not_there_is_not_claimed(trials_lost: bool, no_table: bool, left: str) -> None:
    told = replace(summary(TRIALS), stopped=("why",), trials_lost=trials_lost, no_table=no_table)
    text = printed(told, 120)
    assert text.endswith(left)
    assert ("everything so far is kept" in text) is not trials_lost


def test_what_a_mistake_stopped_is_not_said_to_go_on_by_itself() -> None:
    stopped = replace(summary(TRIALS), stopped=("constraint fits: divides by zero",))
    assert "stopped, everything so far is kept; run the same command to go on: 6 trials" in printed(stopped, 120)
    text = printed(replace(stopped, to_correct=True), 120).replace("\n", " ")
    assert "kept; correct what is said below, then run the same command to go on: 6 trials" in text


def test_what_ties_is_counted_where_the_fastest_may_be_behind_the_vendor() -> None:
    """The fastest swings, and the table takes the other, which may be as fast."""
    rounds = {"source": Source.MEASURED, "baseline": "vendor", "baseline_us": 200.0}
    swinging = trial(BEST, LARGE, 188.0, time_us_low=175.0, time_us_high=201.0, **rounds)
    steady = trial(SMALL, LARGE, 189.0, time_us_low=184.0, time_us_high=194.0, **rounds)
    slow = trial(DEFAULT, LARGE, 210.0, time_us_low=205.0, time_us_high=215.0, **rounds)
    told = summary([swinging, steady, slow], {LARGE: "square"})
    assert told.best[LARGE] == swinging
    assert told.ties == {LARGE: 1}
    assert summary([steady, slow], {LARGE: "square"}).ties == {LARGE: 0}
    assert summary(TRIALS).ties == {LARGE: 0, NARROW: 0}
