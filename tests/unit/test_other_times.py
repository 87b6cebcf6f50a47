"""A table compared with another tool's times: who is faster by hand-made figures, and what is counted apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from naive_gemm import MI355X, published, trial

from hktune.cli import main
from hktune.core.outcome import Source
from hktune.core.problem import Problem
from hktune.exchange import read_foreign
from hktune.tables.other_times import OtherTimes, compare_times

HEADER = "gfx,cu_num,M,N,K,bias,dtype,outdtype,scaleAB,bpreshuffle,libtype,solidx,splitK,us,kernelName,err_ratio\n"
FASTER, SLOWER, TIED, ELSEWHERE, OURS = (Problem(m, 256, 64) for m in (1, 2, 3, 4, 5))


def aiter(*rows: tuple[str, int, Problem, str]) -> str:
    return HEADER + "".join(
        f"{gfx},{units},{p.m},{p.n},{p.k},False,torch.bfloat16,torch.bfloat16,False,False,asm,1,0,{us},a_kernel,0.0\n"
        for gfx, units, p, us in rows
    )


def measured(problem: Problem, time_us: float) -> object:
    fields = {"time_us_low": time_us - 0.5, "time_us_high": time_us + 0.5, "device": MI355X.name}
    return trial(problem, time_us, source=Source.MEASURED, **fields)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Measured times of 10 us, within half a us."""
    rows = [measured(problem, 10.0) for problem in (FASTER, SLOWER, TIED, ELSEWHERE, OURS)]
    published(tmp_path / "table", *rows, identity=MI355X)  # type: ignore[arg-type]
    return tmp_path / "table"


def compared(directory: Path, table: Path, text: str) -> OtherTimes:
    from hktune.dispatch import read_table

    (directory / "theirs.csv").write_text(text)
    file = read_foreign(directory / "theirs.csv")
    assert file
    return compare_times(read_table(table), file)


THEIRS = aiter(
    ("gfx950", 256, FASTER, "20.0"),
    ("gfx950", 256, FASTER, "25.0"),
    ("gfx942", 304, FASTER, "1.0"),
    ("gfx950", 256, SLOWER, "5.0"),
    ("gfx950", 256, TIED, "10.4"),
    ("gfx942", 304, ELSEWHERE, "5.0"),
    ("gfx950", 256, Problem(9, 256, 64), "7.0"),
    ("gfx950", 256, Problem(8, 256, 64), "nan"),
)


def test_of_several_times_the_fastest_on_our_own_board_counts(tmp_path: Path, table: Path) -> None:
    found = compared(tmp_path, table, THEIRS)
    assert [(each.entry.problem, each.their_us, each.faster, each.same_board) for each in found.both] == [
        (FASTER, 20.0, "ours", True),
        (SLOWER, 5.0, "theirs", True),
        (TIED, 10.4, "", True),
        (ELSEWHERE, 5.0, "theirs", False),
    ]
    assert [entry.problem for entry in found.only_ours] == [OURS]
    assert [each.problem for each in found.only_theirs] == [Problem(9, 256, 64)]
    assert [each.problem for each in found.untimed] == [Problem(8, 256, 64)]


def test_unlike_boards_are_counted_apart(tmp_path: Path, table: Path) -> None:
    own, other = compared(tmp_path, table, THEIRS).groups
    assert own.same_board
    assert own.mean_ratio == pytest.approx((2.0 * 0.5 * 1.04) ** (1 / 3))
    assert (own.count("ours"), own.count("theirs")) == (1, 1)
    assert (other.same_board, other.board, other.mean_ratio) == (False, "gfx942, 304 compute units", 0.5)


def test_modelled_and_measured_times_are_counted_apart(tmp_path: Path) -> None:
    modelled = trial(SLOWER, 10.0, device=MI355X.name)
    published(tmp_path / "table", measured(FASTER, 10.0), modelled, identity=MI355X)  # type: ignore[arg-type]
    groups = compared(tmp_path, tmp_path / "table", THEIRS).groups
    assert {(group.source, group.mean_ratio) for group in groups} == {(Source.MEASURED, 2.0), (Source.MODELLED, 0.5)}


def test_tunableop_names_the_architecture_alone(tmp_path: Path, table: Path) -> None:
    for arch, same in (("gfx950:sramecc+:xnack-", None), ("gfx942:sramecc+:xnack-", False)):
        text = f"Validator,GCN_ARCH_NAME,{arch}\nGemmTunableOp_BFloat16_TN,tn_256_1_64_ld_64_64_256,Default,0.02\n"
        [row] = compared(tmp_path, table, text).both
        assert (row.entry.problem, row.their_us, row.same_board) == (FASTER, pytest.approx(20.0), same)


def test_the_command_says_what_the_times_are_of(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "theirs.csv").write_text(THEIRS)
    assert main(["compare", str(table), str(tmp_path / "theirs.csv")]) == 0
    said = capsys.readouterr().out
    assert "1x256x64" in said
    assert "3 problems, ours measured, theirs measured on gfx950, 256 compute units" in said
    assert "1 problems, ours measured, theirs measured on gfx942, 304 compute units (another board" in said
    assert "only ours: 1 (5x256x64 bf16.nt)" in said
    assert "theirs without a time: 1" in said
    assert main(["compare", str(table), str(tmp_path / "theirs.csv"), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("faster") for line in lines[1:5]] == ["ours", "theirs", None, "theirs"]
    assert lines[1]["theirs_over_ours"] == 2.0


def test_what_is_no_file_of_times_is_one_line(tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shapes.yaml").write_text("shapes: [{m: 1, n: 1, k: 1}]\n")
    assert main(["compare", str(table), str(tmp_path / "shapes.yaml")]) == 2
    assert "is no file of times that is known here" in capsys.readouterr().err
