"""Kernels of others, raced on the emulated device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hktune.cli import main
from hktune.core.errors import InputError
from hktune.core.identity import Identity
from hktune.core.operation import BF16_NT, BF16_NT_BIAS, operation_of
from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import DEFAULT_SPACE
from hktune.core.trial import Trial
from hktune.dispatch import read_table
from hktune.space import load_space
from hktune.store import Environment, capture_environment, read_trials
from hktune.tuning import rivals
from hktune.tuning.benches.emulated_bench import EmulatedBench
from hktune.tuning.rivals import AITER, FOLDER, Raced, chosen_rivals, fastest, keep_comparable, race, same_product

WIDE = operation_of("bf16.nt->f32")


@pytest.fixture(autouse=True)
def one_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "PROPOSED", 1)
    monkeypatch.delenv("HKTUNE_RIVALS")


def row(problem: Problem, time_us: float) -> Trial:
    return Trial(
        0, problem.m, problem.n, problem.k, problem.operation, "0" * 16, '{"kernel":"x"}', Status.OK, time_us=time_us
    )


def test_the_kernels_of_the_package_are_proved_and_timed_on_every_shape_that_they_take(tmp_path: Path) -> None:
    pytest.importorskip("aiter_meta", reason="pip install 'hktune[aiter]'")
    served, odd = Problem(64, 256, 512), Problem(64, 100, 512)  # 100 columns are no whole tiles
    bench = EmulatedBench(DEFAULT_SPACE, 0, Settings(tmp_path / "cache"), workers=2)
    raced = race(AITER, [served, odd], bench, tmp_path / "out")
    assert raced.trouble is None
    assert list(raced.best) == [served]
    best = raced.best[served]
    assert (best.operation, best.source, best.status) == (WIDE, Source.MODELLED, Status.OK)
    rows = read_trials(tmp_path / "out" / FOLDER / "trials.csv")
    assert best.time_us == min(each.time_us for each in rows if each.time_us)
    # Again: nothing is proved, the rows are there.
    again = race(AITER, [served, odd], bench, tmp_path / "out")
    assert again.best == raced.best
    assert len(read_trials(tmp_path / "out" / FOLDER / "trials.csv")) == len(rows)


def test_what_goes_wrong_is_the_rivals_own_trouble(tmp_path: Path) -> None:
    pytest.importorskip("aiter_meta", reason="pip install 'hktune[aiter]'")
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "trials.csv").write_text("no,trials\n1,2\n")
    bench = EmulatedBench(DEFAULT_SPACE, 0, Settings(tmp_path / "cache"))
    raced = race(AITER, [Problem(64, 256, 512)], bench, tmp_path)
    assert not raced.best
    assert str(raced.trouble).startswith("AITER is not raced to the end: ")


def test_the_same_product_may_have_a_wider_output_and_nothing_else() -> None:
    large, outf32 = (load_space(AITER.spaces[place]).template for place in (0, 3))
    bare = Problem(256, 256, 256, BF16_NT)
    assert same_product(bare, large) == bare
    assert same_product(bare, outf32) == Problem(256, 256, 256, WIDE)
    assert same_product(Problem(256, 256, 256, BF16_NT_BIAS), outf32) is None
    assert same_product(Problem(256, 256, 256, operation_of("f16.nt")), outf32) is None


def test_the_fastest_of_all_rivals_is_named() -> None:
    one, two = Problem(1, 64, 64), Problem(2, 64, 64)
    other = rivals.Rival("other", "Other", ())
    slow = Raced(AITER, {one: row(Problem(1, 64, 64, WIDE), 3.0), two: row(two, 2.0)})
    quick = Raced(other, {one: row(one, 1.5)})
    assert fastest([slow, quick]) == {
        one: ("Other: kernel=x (modelled)", 1.5),
        two: ("AITER: kernel=x (modelled)", 2.0),
    }
    assert fastest([slow])[one] == ("AITER: kernel=x, as bf16.nt->f32 (modelled)", 3.0)


def test_a_rival_that_is_not_known_or_not_here_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(tmp_path)
    assert chosen_rivals((), settings) == []
    assert chosen_rivals(None, replace(settings, rivals=())) == []
    with pytest.raises(InputError, match="no rival cutlass"):
        chosen_rivals(None, replace(settings, rivals=("cutlass",)))
    with pytest.raises(InputError, match="no rival cutlass: known are aiter, triton, or none alone"):
        chosen_rivals(("cutlass",), settings)
    monkeypatch.setattr(rivals, "is_here", lambda *_: False)
    assert chosen_rivals(None, settings) == []
    with pytest.raises(InputError, match=r"AITER is not here: pip install 'hktune\[aiter\]'"):
        chosen_rivals(("aiter",), settings)


def test_a_folder_of_aiter_that_is_not_there_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text("shapes:\n  - {m: 64, n: 256, k: 512}\n")
    missing = tmp_path / "nowhere"
    assert main(["tune", "--shapes", str(shapes), "--out", str(tmp_path / "out"), "--aiter", str(missing)]) == 2
    assert f"{missing}: no such folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_says_what_it_raced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and table name the rival's kernel with its time; the summary has a column, the mean and the worst."""
    pytest.importorskip("aiter_meta", reason="pip install 'hktune[aiter]'")
    monkeypatch.setenv("HKTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text("shapes:\n  - {m: 64, n: 256, k: 512, name: small}\n")
    out = tmp_path / "out"
    assert main(["tune", "--device", "emulated", "--shapes", str(shapes), "--trials", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "as fast as AITER's fastest kernel (vs AITER, at worst " in " ".join(printed.split())
    trials = [each for each in read_trials(out / "trials.csv") if each.status is Status.OK]
    best = min(trials, key=lambda each: each.time_us or 0)
    assert best.vendor_best is not None
    assert best.vendor_best.startswith("AITER: kernel=pf3_")
    assert best.baseline_us is None
    [entry] = read_table(out).entries
    assert (entry.vendor_best, entry.vendor_best_us) == (best.vendor_best, best.vendor_best_us)
    assert main(["table", "show", str(out)]) == 0
    assert f"{best.vendor_best_us / best.time_us:.2f}" in capsys.readouterr().out  # type: ignore[operator]


def test_rows_that_were_modelled_otherwise_are_set_aside(tmp_path: Path) -> None:
    """With another judge, or with --fresh: their times are no longer those of this run's model."""
    device = Identity("emulated", "gfx950", "emulated gfx950", 256)
    now = capture_environment(device, "clang", "judge 1", ["hktune"], 0, "2026-11-29T20:00:00+00:00")
    folder = tmp_path / FOLDER
    folder.mkdir()

    def kept(environment: Environment, fresh: bool = False) -> bool:
        (folder / "trials.csv").write_text("a header\na row\n")
        keep_comparable(tmp_path, environment, fresh)
        return (folder / "trials.csv").exists()

    assert not kept(now), "what they were modelled with is not known"
    assert kept(now)
    assert not kept(now, fresh=True)
    assert kept(replace(now, seed=1))
    assert not kept(replace(now, judge="judge 2"))
    assert len(list(folder.glob("trials-*.csv"))) == 3
