"""What somebody types who has not read the documentation: each is one line that says what to type instead."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hktune.cli import main, make_parser

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "results" / "gfx950-emulated"
SHAPES = str(ROOT / "shapes.yaml")


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a refused command prints."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1), err
    return err


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("tune", "--shapes", SHAPES, "--shapes", SHAPES), "--shapes"),
        (("tune", "--shapes", SHAPES, "--trials", "2", "--trials", "3"), "--trials"),
        (("tune", "--shapes", SHAPES, "-o", "a", "--out", "b"), "-o/--out"),
        (("merge", str(SHIPPED), "-o", "a", "-o", "b"), "-o/--out"),
        (("table", "verify", str(SHIPPED), "--key", "a", "--key=a"), "--key"),
    ],
)
def test_an_option_given_twice(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], option: str) -> None:
    assert f"argument {option}: is given twice: give it once" in refused(capsys, *words)


def test_options_that_may_be_given_again_and_one_parser_for_two_commands() -> None:
    parser = make_parser()
    for _ in range(2):
        words = ["bench", "--problem", "1x16x64", "--problem", "2x16x64", "--seed", "3"]
        assert len(parser.parse_args(words).problem) == 2


def test_every_command_that_writes_has_the_short_option() -> None:
    options = make_parser().parse_args(["tune", "--shapes", SHAPES, "-o", "here"])
    assert options.out == Path("here")


@pytest.mark.parametrize(
    "words",
    [
        ("tune", "--shapes", SHAPES, "--out", ""),
        ("tune", "--shapes", "", "--out", "out"),
        ("merge", "", "-o", "out"),
        ("export", str(SHIPPED), "-o", ""),
    ],
)
def test_an_empty_path_is_not_the_working_directory(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "is empty: give a path, . for the working directory" in refused(capsys, *words)
    assert not list(tmp_path.iterdir())


def test_what_is_no_file_is_not_to_be_split(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for word in ("-", os.devnull, str(tmp_path)):
        said = refused(capsys, "tune", "--shapes", word, "-o", str(tmp_path / "out"))
        assert said.endswith("pass a file like shapes.yaml\n")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * ((1 << 20) + 1))
    assert refused(capsys, "tune", "--shapes", str(large), "-o", str(tmp_path / "out")).endswith(": split it\n")


def test_merging_what_is_not_there_makes_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "nosuch" in refused(capsys, "merge", str(SHIPPED), str(tmp_path / "nosuch"), "-o", str(tmp_path / "y"))
    assert not (tmp_path / "y").exists()


def test_a_directory_with_no_config_says_what_makes_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from hktune.store.rows import HEADER

    (tmp_path / "trials.csv").write_bytes(HEADER)
    said = refused(capsys, "explain", f"{tmp_path}:026ad41d")
    assert said.endswith(f"{tmp_path} holds no config yet: let hktune tune or hktune build go on there\n")


def test_a_working_directory_that_is_gone_is_said(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = ["sh", "-c", 'cd "$1"; rmdir "$1"; shift; exec "$@"', "sh", str(gone)]
    command += [sys.executable, str(ROOT / "tune.py"), "--shapes", SHAPES, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = "hktune: the working directory is gone: cd to one that is there\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
    assert not (tmp_path / "out").exists()


def test_a_locale_that_is_not_utf_8_changes_nothing(tmp_path: Path) -> None:
    """What reads and writes the most text of hktune's own: the judge's sources, a proof, an export."""
    code = (
        "import sys\n"
        "from hktune.cli import main\n"
        "from hktune.verify.record import judge_sha256\n"
        "print(judge_sha256())\n"
        "sys.exit(main(['verify']) or main(['export', sys.argv[1], '-o', sys.argv[2]]))\n"
    )
    said = []
    for name, locale in (("utf-8", {}), ("c", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})):
        out = tmp_path / f"{name}.py"
        done = subprocess.run(
            [sys.executable, "-c", code, str(SHIPPED), str(out)],
            capture_output=True,
            encoding="utf-8",
            check=False,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | locale,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        said.append(done.stdout.replace(str(out), ""))
    assert said[0] == said[1]
    assert "no CONFIG is given: this is the default config of " in said[0]
    assert (tmp_path / "utf-8.py").read_bytes() == (tmp_path / "c.py").read_bytes()


def test_starting_afresh_beside_a_run_that_has_just_begun_leaves_no_empty_files(tmp_path: Path) -> None:
    from hktune.store.rows import HEADER
    from hktune.tuning.ledger import set_aside

    for nothing in (b"", HEADER):
        (tmp_path / "trials.csv").write_bytes(nothing)
        set_aside(tmp_path)
        assert (tmp_path / "trials.csv").read_bytes() == nothing
    shutil.copy(SHIPPED / "trials.csv", tmp_path / "trials.csv")
    set_aside(tmp_path)
    [kept] = tmp_path.glob("trials*.csv")
    assert kept.read_bytes() == (SHIPPED / "trials.csv").read_bytes()
