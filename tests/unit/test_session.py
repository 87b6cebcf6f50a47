"""hktune.tune: values in, rows, table and served products out; the command is a user of it."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import hktune
from hktune.cli import make_parser
from hktune.core.errors import HktuneError, InputError, ShapesError, TableError
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shapes import Shape, load_shapes
from hktune.core.shipped import space_file
from hktune.core.trial import Trial
from hktune.session import Result
from hktune.session.given_options import OPTION_NAMES, TuneOptions, run_options
from hktune.session.given_shapes import given_shapes
from hktune.session.notebook_progress import NotebookProgress
from hktune.space import load_space
from hktune.tuning.run_options import RunOptions

F16 = operation_of("f16.nt")
TUNED = ("256x256x512", (128, 512, 256))


def tune(shapes: object, out: Path, **options: Any) -> Result:
    asked = {"strategy": "random", "trials": 2, "device": "emulated", "progress": False, "workers": 1, **options}
    return hktune.tune(shapes, out=out, **asked)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    pytest.importorskip("ziglang")
    return tune(TUNED, tmp_path_factory.mktemp("tuned"))


# ---------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    "value",
    [
        "16x128x64:f16.nt",
        "f16.nt 16x128x64",
        "16x128x64 f16.nt",
        (16, 128, 64, "f16.nt"),
        (16, 128, 64, F16),
        (np.int64(16), np.int32(128), 64, "f16.nt"),
        [16, 128, 64, "f16.nt"],
        {"m": 16, "n": 128, "k": np.int64(64), "operation": "f16.nt"},
        Problem(16, 128, 64, F16),
        Shape(Problem(16, 128, 64, F16), "16x128x64 f16.nt", 1.0),
        pd.DataFrame({"m": [16], "n": [128], "k": [64], "operation": ["f16.nt"], "weight": [float("nan")]}),
        {"operation": "f16.nt", "shapes": [{"m": 16, "n": 128, "k": 64}]},
    ],
    ids=repr,
)
def test_a_shape_is_written_in_many_ways(value: object) -> None:
    asked = Shape(Problem(16, 128, 64, F16), "16x128x64 f16.nt", 1.0)
    shapes, notes = given_shapes(value)
    assert list(shapes) == [asked]
    assert not notes
    if not isinstance(value, pd.DataFrame | dict):
        assert list(given_shapes([value, value])[0]) == [dataclasses.replace(asked, weight=2.0)]


def test_a_list_may_mix_them_and_a_file_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "shapes.yaml"
    file.write_text("shapes:\n  - {name: a, m: [1, 2], n: 64, k: 64, weight: 3}\n  - {m: 4, n: 64, k: 64}\n")
    values = [{"name": "a", "m": [1, 2], "n": 64, "k": 64, "weight": 3}, (4, 64, 64)]
    assert given_shapes(values)[0] == load_shapes(file) == given_shapes(file)[0] == given_shapes(str(file))[0]
    assert given_shapes(load_shapes(file))[0] == load_shapes(file)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "at least one"),
        (None, "is none"),
        (7, "is none"),
        ([7], r"shapes\[0\]: 7 is no shape"),
        ([(1, 2)], "is no shape"),
        ([(16, 128, 0)], r"shapes\[0\]: k: must be an integer from 1"),
        ([(16, 128, 64, "bf17.nt")], "bf17"),
        ([(16, 128, True)], "k: must be an integer"),
        ([{"m": 16, "n": 128}], "k missing"),
        ([{"m": 16.5, "n": 128, "k": 64}], "m: must be an integer"),
        (["16x128x64", "16x128x99999999999"], r"shapes\[1\]: must be an integer from 1"),
        ("no-such-file.yaml", "no-such-file.yaml"),
        (pd.DataFrame({"m": [16], "n": [128], "k": [64], "time_us": [1.0]}), "unknown key 'time_us'"),
        (b"16x128x64", "is no shape"),
        ("16777216x16777216x16", "has at most"),
        (Shape(Problem(16, 128, 64), "\x1b[31m", 1.0), r"name: must be printable characters, got '\\x1b"),
        ([Shape(Problem(16, 128, 64), "a", 0.0)], r"shapes\[0\]: weight: must be a number above 0"),
        (Problem(0, 128, 64), "m: must be an integer from 1"),
        ({"m": 1, "n": 1, "k": 1, "\x1b[31m": 1}, r"unknown key '\\x1b"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_shape_is_refused_in_one_line(value: object, said: str) -> None:
    with pytest.raises(ShapesError, match=said) as refused:
        given_shapes(value)
    assert str(refused.value).isprintable()


def test_a_model_is_asked_what_it_calls() -> None:
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64, bias=False)).bfloat16()
    x = torch.randn(8, 64).bfloat16()
    expected = {"8x128x64 bf16.nt+bias": 3.0, "8x64x128 bf16.nt": 3.0}
    for inputs in ([x, (x,), {"input": x}], [x[None], (x,), x]):
        shapes, notes = given_shapes(model, inputs)
        assert {str(shape.problem): shape.weight for shape in shapes} == expected
        assert not notes
    shapes, [note] = given_shapes(lambda x: (model(x), x.float() @ x.float().T), x)
    assert len(shapes) == 2
    assert "float32: 1" in note
    with pytest.raises(InputError, match="needs inputs"):
        given_shapes(model)
    with pytest.raises(InputError, match=r"'shapes\.yaml' is none"):
        given_shapes("shapes.yaml", x)
    with pytest.raises(ShapesError, match=r"the model: no .* GEMM was called \(float32: 2\)"):
        given_shapes(model.float(), x.float())


# ---------------------------------------------------------------- options


def test_every_option_of_the_command_is_a_keyword() -> None:
    options = vars(make_parser().parse_args(["tune", "--shapes", "shapes.yaml"]))
    assert set(options) - {"run", "given", "shapes", "resume"} == set(OPTION_NAMES) == set(get_type_hints(TuneOptions))
    units = {"time_budget": "s", "deadline": "s", "energy_budget": "s", "worker_memory": "gib"}
    fields = {f"{name}_{units[name]}" if name in units else name for name in OPTION_NAMES} - {"aiter"}
    assert fields == {field.name for field in dataclasses.fields(RunOptions)} - {"shapes"}


def test_keywords_mean_what_the_options_mean(tmp_path: Path) -> None:
    shapes, _ = given_shapes("64x64x64")
    said = run_options(shapes, {"rivals": "none", "candidates": "aiter", "prior": tmp_path, "space": "sm90a_gemm_bf16"})
    assert (said.rivals, said.candidates, said.prior) == ((), ("aiter",), (tmp_path,))
    assert said.space == space_file("sm90a_gemm_bf16")
    assert run_options(shapes, dict.fromkeys(OPTION_NAMES)) == RunOptions(shapes)
    assert run_options(shapes, {"trials": np.int64(5), "time_budget": 3, "prior": ["a", "b"]}) == RunOptions(
        shapes, trials=5, time_budget_s=3.0, prior=(Path("a"), Path("b"))
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trails": 3}, "no option 'trails', did you mean trials?"),
        ({"trials": 0}, "trials: must be an integer from 1"),
        ({"trials": 2.5}, "trials: must be an integer"),
        ({"trials": True}, "trials: must be an integer"),
        ({"seed": -1}, "seed: must be an integer from 0"),
        ({"time_budget": float("nan")}, "time_budget: must be a number of seconds"),
        ({"worker_memory": 0.1}, "worker_memory: must be a number of GiB"),
        ({"device": "cuad"}, "device: 'cuad' is not known, did you mean cuda?"),
        ({"cache": 3}, "cache: 3 is not known"),
        ({"out": ""}, "out: must be a path"),
        ({"out": b"x"}, "out: must be a path"),
        ({"prior": [3]}, "prior: must be a path"),
        ({"fresh": "yes"}, "fresh: must be True or False"),
        ({"rivals": [1]}, "rivals: must be words"),
        ({"strategy": 7}, "strategy: must be a text"),
    ],
    ids=str,
)
def test_a_value_that_is_not_legal_is_refused_in_one_line(options: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as refused:
        hktune.tune("64x64x64", **options)  # type: ignore[arg-type]
    assert said in str(refused.value)


def test_a_folder_with_a_template_is_a_space(own_toy_space_path: Path, tmp_path: Path) -> None:
    folder = own_toy_space_path.parent.parent / "kernels" / "gfx950" / "toy"
    with pytest.raises(HktuneError, match=r"one search space must be beside its template.yaml, got none"):
        space_file(str(folder))
    own_toy_space_path.rename(folder / "space.yaml")
    moved = folder.rename(tmp_path / "mine")
    assert load_space(space_file(str(moved))).template.name == "gfx950/toy"
    (moved / "shapes.yaml").write_text("shapes: [{m: 1, n: 1, k: 1}]\n")
    assert space_file(str(moved)) == moved / "space.yaml"
    (moved / "another.yaml").write_text("name: another\ntemplate: gfx950/toy\n")
    with pytest.raises(HktuneError, match=r"got another.yaml, space.yaml: name the file"):
        space_file(str(moved))


# ---------------------------------------------------------------- a run


def test_the_rows_the_best_and_the_table_agree_with_the_files(result: Result) -> None:
    rows = pd.read_csv(result.directory / "trials.csv")
    assert list(result.trials["config_id"]) == list(rows["config_id"])
    assert list(result.trials.columns) == ["shape", *rows.columns]
    for m, n, k in ((256, 256, 512), (128, 512, 256)):
        own = rows[(rows.m == m) & (rows.n == n) & (rows.k == k) & (rows.status == "ok")]
        best = result.best((m, n, k))
        assert best.time_us == own.time_us.min() == result.best(f"{m}x{n}x{k} bf16.nt").time_us
        [entry] = [entry for entry in result.table.entries if entry.problem == Problem(m, n, k)]
        assert entry.kernel is not None
        assert entry.kernel.config_id == best.config_id
    assert list(result.shapes["time_us"]) == [result.best(problem).time_us for problem in result.summary.names]
    assert set(result.shapes["source"]) == {"modelled"}
    for shown in (repr(result), result._repr_html_()):
        assert all(result.best(shape).config_id[:8] in shown for shape in TUNED)
        assert "modelled" in shown
        assert "vs vendor" not in shown, "nothing was compared with it"


def test_what_was_not_asked_for_has_no_best(result: Result) -> None:
    with pytest.raises(InputError, match="there are 2 shapes: name one"):
        result.best()
    with pytest.raises(InputError, match=r"64x64x64 bf16\.nt was not asked for"):
        result.best("64x64x64")


def test_what_was_found_serves_torch(result: Result) -> None:
    with pytest.raises(TableError, match="modelled"):
        result.load()
    table = result.load(allow_modelled=True)
    try:
        a, b = torch.randn(256, 512).bfloat16(), torch.randn(256, 512).bfloat16()
        exact = nn.functional.linear(a.double(), b.double())
        assert torch.allclose(hktune.linear(a, b).double(), exact, rtol=2**-8, atol=1e-3)
        assert table.stats().hits == 1
    finally:
        hktune.unload()


def test_names_are_escaped(result: Result) -> None:
    names = dict.fromkeys(result.summary.names, "<script>\x1b[31m")
    hostile = Result(dataclasses.replace(result.summary, names=names, stopped=("<b>",)), given_shapes(TUNED)[0])
    shown = hostile._repr_html_()
    assert "\x1b" not in repr(hostile)
    drawn = hostile.plot_gain("first trial").to_json() + hostile.plot_search(TUNED[0]).to_json()
    assert "u001b" not in drawn
    assert "\x1b" not in shown
    assert "<script>" not in drawn
    assert "<script>" not in shown
    assert "<b>" not in shown


def test_progress_in_a_notebook_is_escaped_too(result: Result) -> None:
    progress = NotebookProgress()
    assert "setting up" in progress.markup()
    progress.expect(dict.fromkeys(result.summary.names, "<i>"), 8)
    progress.recorded(result.best(TUNED[0]))
    assert 'value="0.1250"' in progress.markup()
    assert "&lt;i&gt;" in progress.markup()


def test_pictures_hold_what_the_rows_say(result: Result) -> None:
    pytest.importorskip("plotly")
    for shape in TUNED:
        rows = result.trials[result.trials["shape"] == str(result.best(shape).problem)]
        search = result.plot_search(shape)
        assert "modelled" in search.layout.title.text
        assert list(search.data[0].y) == pytest.approx(list(rows["time_us"] / rows["time_us"].min()), abs=1e-3)
    first = [result.trials[result.trials["shape"] == name]["time_us"].iloc[0] for name in result.shapes["shape"]]
    gains = sorted(f"{gain:.2f}" for gain in first / result.shapes["time_us"])
    for over in (None, "first trial"):
        assert sorted(text for trace in result.plot_gain(over).data for text in trace.text) == gains
    tflops = {round(2 * 256 * 256 * 512 / result.best(TUNED[0]).time_us * 1e-6, 3)}
    assert tflops <= set(result.plot_roofline().data[0].y)
    with pytest.raises(InputError, match="did you mean first trial"):
        result.plot_gain("frist trial")
    with pytest.raises(InputError, match="fewer than 50 trials"):
        result.plot_importance()


def test_a_picture_without_plotly_says_what_to_install(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(HktuneError, match=r"pip install 'hktune\[report\]'"):
        result.plot_roofline()


# ---------------------------------------------------------------- callbacks, threads, signals


def test_callbacks_hear_of_each_new_row_once_and_may_end_the_run(result: Result, tmp_path: Path) -> None:
    heard: list[Trial] = []
    again = tune(TUNED, result.directory, callbacks=[heard.append])
    assert not heard
    assert len(again.trials) == len(result.trials)

    def stop(trial: Trial) -> None:
        heard.append(trial)
        raise hktune.StopTuning

    few = tune(TUNED, tmp_path, trials=24, callbacks=[stop])
    assert [trial.config_id for trial in heard] == list(few.trials["config_id"])
    assert 1 <= len(heard) < 2 * 24
    assert not few.interrupted
    assert len(few.table.entries) == len(few.summary.best) > 0


def test_what_a_callback_raises_is_raised_once_the_table_is_written(result: Result, tmp_path: Path) -> None:
    def broken(trial: Trial) -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        tune(TUNED, tmp_path, callbacks=[broken])
    assert (tmp_path / "table.json").exists()
    assert len(tune(TUNED, tmp_path).trials) == len(result.trials), "the next run goes on"


def test_ctrl_c_ends_the_search_and_returns_what_was_found(
    result: Result, tmp_path: Path, ctrl_c: Callable[[], None]
) -> None:
    ended = tune(TUNED, tmp_path, callbacks=[lambda _: ctrl_c()])
    assert ended.interrupted
    assert ended.best(ended.trials["shape"][0]).time_us
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_runs_in_any_thread(result: Result, tmp_path: Path) -> None:
    found: list[Result] = []
    thread = threading.Thread(target=lambda: found.append(tune(TUNED, tmp_path)))
    thread.start()
    thread.join()
    assert found[0].trials["time_us"].sum() == result.trials["time_us"].sum()


SCRIPT = """
import hktune
print("begun")
result = hktune.tune({shapes!r}, trials=2, strategy="random", device="emulated", out={out!r}, workers=1, progress=False)
print(len(result.trials))
"""


def test_a_script_needs_no_guard_of_its_main_module(result: Result, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(shapes=list(TUNED), out=str(tmp_path / "out")))
    environment = os.environ | {"HKTUNE_CACHE": str(Settings.from_environment(os.environ).cache_dir)}
    run = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert (run.stdout.split(), run.stderr, run.returncode) == (["begun", str(len(result.trials))], "", 0)


@pytest.mark.parametrize("wrong", [print, 3, "print", [print, None], None])
def test_callbacks_that_are_no_list_of_functions_are_one_line(wrong: Any, tmp_path: Path) -> None:
    says = r"^callbacks: must be functions, in a list, got .*: pass \[FUNCTION\]$"
    with pytest.raises(InputError, match=says):
        tune(TUNED, tmp_path / "out", callbacks=wrong)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", ["mine.py", 3, ["a", 1], None])
def test_a_command_that_is_no_list_of_words_is_one_line(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^command: must be words, in a list, got .*: pass \[WORD, \.\.\.\]$"):
        tune(TUNED, tmp_path / "out", command=wrong)
