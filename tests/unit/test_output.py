"""What commands print on: any encoding, a full disk, a closed pipe; and nothing in a file's text acts on a terminal."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from naive_gemm import published, reseal, trial
from rich.table import Table

from hktune.cli import main
from hktune.commands.output import Printed
from hktune.core.problem import Problem
from hktune.report.console import PlainConsole

COMMAND = [sys.executable, "-m", "hktune"]
NASTY = "[/] [red] :warning: \x1b[2J\x9b31m \u202egnp.exe\u2066 \ud800"


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["explain"], ["explain", "stages=3", "block_m=256"]])
def test_a_full_disk_is_one_line_and_no_success(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([*COMMAND, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == ("hktune: standard output cannot be written (No space left on device): send it elsewhere\n")


def test_errors_that_cannot_be_written_leave_the_exit_code() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([*COMMAND, "explain", "no=1"], stdout=subprocess.PIPE, stderr=full, check=False)
    assert (ended.returncode, ended.stdout) == (2, b"")


def test_a_reader_that_has_enough_and_streams_that_are_closed_are_no_error() -> None:
    for line in (
        "exec 3>&1; (python -m hktune --help; echo $? >&3) | true",
        "python -m hktune explain >&- 2>&-; echo $?",
    ):
        shell = ["sh", "-c", line.replace("python", sys.executable)]
        ended = subprocess.run(shell, capture_output=True, text=True, check=False)
        assert (ended.stdout, ended.stderr) == ("0\n", "")


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}])
def test_any_encoding_shows_a_table_whose_device_has_another_name(tmp_path: Path, environment: dict[str, str]) -> None:
    published(tmp_path, trial(Problem(8, 128, 64)))
    reseal(
        tmp_path, lambda text: text.replace('"name": "emulated gfx950"', '"name": "Instinct \u6f22 \u00e9 \u202e[/]"')
    )
    ended = subprocess.run(
        [*COMMAND, "table", "show", str(tmp_path)], capture_output=True, env=environment, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert b"Instinct \\u6f22 " in ended.stdout
    assert b" \\u202e[/]" in ended.stdout


def test_what_is_printed_is_printable_and_a_lost_stream_ends_nothing() -> None:
    whole = io.StringIO()
    print(f"one {NASTY}\ntwo", file=Printed(whole))
    assert whole.getvalue() == "one [/] [red] :warning: \\x1b[2J\\x9b31m \\u202egnp.exe\\u2066 \\ud800\ntwo\n"

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    lost = Printed(Full())
    for _ in range(3):
        print("more", file=lost, flush=True)
    assert lost.unescaped.lost is not None


def test_a_console_prints_cells_titles_and_lines_as_they_stand() -> None:
    seen = io.StringIO()
    console = PlainConsole(file=seen, force_terminal=True, width=200, highlight=False)
    table = Table(title=NASTY, box=None)
    table.add_column(NASTY, no_wrap=True)
    table.add_row(NASTY)
    console.print(table)
    console.print(NASTY, soft_wrap=True)
    said = seen.getvalue()
    assert said.count("[/] [red] :warning: \\x1b[2J\\x9b31m \\u202egnp.exe\\u2066 \\ud800") == 4
    assert "\x1b[2J" not in said
    assert "\x9b" not in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tune", "--shapes", "s", "--seed", "-1"], "--seed: must be an integer from 0 to 4294967295, got '-1'"),
        (["tune", "--shapes", "s", "--seed", "1_0"], "--seed: must be an integer from 0 to 4294967295, got '1_0'"),
        (["verify", "--seed", "4294967296"], "--seed: must be an integer from 0 to"),
        (
            ["tune", "--shapes", "s", "--workers", "100000"],
            "--workers: must be an integer from 1 to 1024, got '100000'",
        ),
        (["build", "--space", "s", "-o", "d", "--workers", "0"], "--workers: must be an integer from 1 to 1024"),
        (["tune", "--shapes", "s", "--trials", "abc"], "--trials: must be an integer from 1 to 1000000000, got 'abc'"),
        (
            ["tune", "--shapes", "s", "--trials", "9" * 5000],
            "--trials: must be an integer from 1 to 1000000000, got '999",
        ),
        (["tune", "--shapes", "s", "--trials", "\u0663"], "--trials: must be an integer"),
        (["tune", "--shapes", "s", "--worker-memory", "1_0"], "--worker-memory: must be a number of GiB from 0.5 to"),
        (
            ["tune", "--shapes", "s", "--worker-memory", "\u0663"],
            "--worker-memory: must be a number of GiB from 0.5 to",
        ),
        (["tune", "--shapes", "s", "--time-budget", "nan"], "--time-budget: must be a number of seconds from 0.001 to"),
        (["tune", "--shapes", "s", "--time-budget", "1e999"], "--time-budget: must be a number of seconds"),
        (["build", "--space", "s", "-o", "d", "--random", "-3"], "--random: must be an integer from 0 to"),
        (["table", "build", "d", "-o", "e", "--reach", "inf"], "--reach: must be a number from 0 to 1e+09, got 'inf'"),
        (
            ["explain", "--problem", "0x10x8x8"],
            "--problem: must be MxNxK or MxNxK:OPERATION, such as 4096x4096x4096:f16.nt, got '0x10x8x8'",
        ),
        (["explain", "--problem", "64x64x64:"], "--problem: must be MxNxK or MxNxK:OPERATION, such as"),
        (["explain", "--problem", "64x64x64+bias:f16.nt"], "such as 4096x4096x4096:f16.nt, got '64x64x64+bias:f16.nt'"),
        (["explain", "--problem", "1_6x8x8"], "--problem: must be MxNxK"),
        (["explain", "--problem", "20000000000x8x8"], "--problem: must be an integer from 1 to 16777216"),
        (["explain", "--problem", "65536x65536x8"], "C[m,n] has at most 2147483648 elements"),
        (["table", "show", "d", "\t"], "unrecognized: \\t; see hktune table show --help"),
        (["table", "show", "d", ""], "unrecognized arguments: ; see hktune table show --help"),
        (["table", "show", "d", " \n", "e"], "e; see hktune table show --help"),
        (["explain", "\x1b[2J\n=3"], "unknown parameter '\\x1b[2J\\n'"),
    ],
)
def test_words_that_are_no_numbers_are_one_line(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert says in said.err
    assert said.err.startswith("hktune: ")
    assert said.err.count("\n") == 1
    assert said.err[:-1].isprintable()
    assert len(said.err) < 600, json.dumps(said.err)
