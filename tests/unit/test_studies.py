"""Rows as Optuna's studies: written while a run goes, read back whole, and never at the price of a row."""

from __future__ import annotations

import errno
import json
import random
import sqlite3
import threading
import time
import urllib.request
import wsgiref.simple_server
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

import hktune
from hktune.cli import main
from hktune.core.config import Config
from hktune.core.errors import InputError, StoreError
from hktune.core.identity import Identity
from hktune.core.outcome import Source, Stage, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.session import Result
from hktune.space import Parameter, SearchSpace, Spaces, load_space
from hktune.store import merged_trials, read_trials
from hktune.store.environment import Environment
from hktune.store.recordings import load_recordings
from hktune.store.studies import study_mirror, study_place
from hktune.store.studies.study_mirror import StudyMirror
from hktune.store.studies.study_place import StudyPlace, holds_studies, studies_file, without_password
from hktune.store.studies.study_reading import read_study_trials
from hktune.store.studies.study_trials import distribution_of, frozen_of, row_of

PROBLEM = Problem(256, 512, 256)
OTHER = Problem(512, 512, 256)
BOARD = Identity("emulated", "gfx950", "emulated MI355X", 256)
ENVIRONMENT = Environment(BOARD, "clang 22", "ab" * 32, ("hktune", "tune"), 0, "2026-11-30T01:00:00+00:00", None, {})
NAMES = {PROBLEM: "down, é", OTHER: str(OTHER)}
STUDY = f"down, é {PROBLEM} on emulated MI355X"


@pytest.fixture(scope="module")
def space(toy_space_path: Path) -> SearchSpace:
    return load_space(toy_space_path)


@pytest.fixture(scope="module")
def rows(space: SearchSpace) -> list[Trial]:
    """Times of two problems that depend on the order alone; one failure, one left early, one confirmed."""
    found = []
    for problem in NAMES:
        for number, config in enumerate(configs(space, problem)):
            time_us = 100.0 + 50.0 * (config["order"] == "rows") + number / 1e9
            found.append(row(space, problem, config, time_us, started_at=f"2026-11-30T01:00:{number:02d}+00:00"))
    found[1] = replace(found[1], status=Status.WRONG, source=None, time_us=None, detail='768 of 1024, "C" é\n')
    found[2] = replace(found[2], left_early=True)
    found.append(replace(found[0], stage=Stage.CONFIRMED, time_us=111.0))
    return [replace(each, trial=number) for number, each in enumerate(found)]


def configs(space: SearchSpace, problem: Problem) -> list[Config]:
    generator, domain = random.Random(0), space.domain(problem)
    return list(dict.fromkeys(domain.sample(generator) for _ in range(50)))[:24]


def row(space: SearchSpace, problem: Problem, config: Config, time_us: float, **more: Any) -> Trial:
    return Trial(
        0, problem.m, problem.n, problem.k, problem.operation, config.id, config.json, Status.OK,
        source=Source.MODELLED, time_us=time_us, baseline_us=0.1 + 0.2, compile_s=1.5, vgprs=64, seed=0,
        template="gfx950/toy", template_sha256=space.template.sha256, **more,
    )  # fmt: skip


def places(folder: Path) -> list[StudyPlace]:
    return [StudyPlace(f"sqlite:///{folder / 'studies.db'}"), StudyPlace(str(folder / "studies.log"))]


def mirrored(place: StudyPlace, space: SearchSpace, rows: Sequence[Trial], before: Sequence[Trial] = ()) -> list[str]:
    mirror = StudyMirror(place, NAMES, Spaces([space]), ENVIRONMENT)
    mirror.begin(before)
    for each in rows:
        mirror(each)
    return mirror.finish([*before, *rows], lambda: False)


def study_in(place: StudyPlace, name: str = STUDY) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=place.opened())


# ---------------------------------------------------------------- one row


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ((1, 2, 3), IntDistribution(1, 3)),
        ((64, 128), IntDistribution(64, 128, step=64)),
        ((256, 64, 128, 192), IntDistribution(64, 256, step=64)),
        ((32, 64, 128, 256), IntDistribution(32, 256, log=True)),
        ((1, 3, 9), IntDistribution(1, 9, log=True)),
        ((0, 1, 2, 4), CategoricalDistribution((0, 1, 2, 4))),
        ((1, 2, 4, 12), CategoricalDistribution((1, 2, 4, 12))),
        ((False, True), CategoricalDistribution((False, True))),
        (("rows", "columns"), CategoricalDistribution(("rows", "columns"))),
        ((7,), CategoricalDistribution((7,))),
    ],
)
def test_values_become_what_optuna_has_for_them(values: tuple[Any, ...], wanted: object) -> None:
    made = distribution_of(Parameter("p", values, values[0], "help"))
    assert made == wanted
    assert all(made._contains(made.to_internal_repr(value)) for value in values)


def test_a_row_becomes_a_trial_and_comes_back_whole(space: SearchSpace, rows: Sequence[Trial]) -> None:
    states = [frozen_of(each, space.parameters).state for each in rows[:4]]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, TrialState.COMPLETE]
    for each in rows:
        frozen = frozen_of(each, space.parameters)
        assert frozen.params == dict(Config.from_json(each.config))
        assert frozen.value == (None if each.left_early else each.time_us)
        assert frozen.user_attrs["status"] == str(each.status)
        assert row_of(frozen) == each
    assert frozen_of(rows[2], space.parameters).intermediate_values == {0: rows[2].time_us}


def test_a_value_that_the_space_does_not_have_is_in_no_parameter(space: SearchSpace, rows: Sequence[Trial]) -> None:
    config = Config({**Config.from_json(rows[0].config), "block_m": 96})
    odd = replace(rows[0], config=config.json, config_id=config.id)
    frozen = frozen_of(odd, space.parameters)
    assert "block_m" not in frozen.params
    assert row_of(frozen) == odd


# ---------------------------------------------------------------- a storage


def test_optuna_finds_what_mattered(tmp_path: Path, space: SearchSpace, rows: list[Trial]) -> None:
    place = places(tmp_path)[1]
    assert mirrored(place, space, rows) == []
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.6)
    importances = optuna.importance.get_param_importances(study_in(place), evaluator=evaluator)
    assert max(importances, key=importances.__getitem__) == "order", "nothing else matters in these rows"


def test_rows_are_in_a_study_each_and_come_back(tmp_path: Path, space: SearchSpace, rows: list[Trial]) -> None:
    rows = [*rows[:4], *rows[-3:]]
    for place in places(tmp_path):
        assert mirrored(place, space, rows) == []
        study = study_in(place)
        own = [each for each in rows if each.problem == PROBLEM]
        assert [dict(frozen.params) for frozen in study.trials] == [dict(Config.from_json(r.config)) for r in own]
        assert study.best_value == min(each.time_us for each in own if each.time_us and not each.left_early)
        assert not study.trials[0].system_attrs
        assert study.metric_names == ["modelled time, us"]
        file = studies_file(place.text)
        assert holds_studies(file)
        assert sorted(read_study_trials(file), key=lambda each: each.trial) == rows
        assert [replace(r, trial=0) for r in merged_trials([file])] != []
        named = {recording.name.removeprefix(f"{file}:") for recording in load_recordings(file)}
        assert named == {"256x512x256:bf16.nt", "512x512x256:bf16.nt"}


def test_a_resumed_run_adds_what_is_missing_and_nothing_twice(
    tmp_path: Path, space: SearchSpace, rows: list[Trial]
) -> None:
    place = places(tmp_path)[1]
    assert mirrored(place, space, rows[:3]) == []
    assert mirrored(place, space, rows[5:], before=rows[:5]) == []
    assert mirrored(place, space, [], before=rows) == []
    found = read_study_trials(studies_file(place.text))
    assert sorted(found, key=lambda each: each.trial) == rows


def test_two_runs_of_one_directory_write_each_row_once(tmp_path: Path, space: SearchSpace, rows: list[Trial]) -> None:
    rows, place = rows[-7:-1], places(tmp_path)[1]
    assert len({each.problem for each in rows}) == 1
    ours, theirs = (StudyMirror(place, NAMES, Spaces([space]), ENVIRONMENT) for _ in range(2))
    for mirror, own in ((ours, rows[:3]), (theirs, rows[3:])):
        mirror.begin(own[:1])
        while not mirror._has(own[0]):
            time.sleep(0.01)
    for mirror, own in ((ours, rows[:3]), (theirs, rows[3:])):
        mirror(own[1])
        mirror(own[2])
    assert theirs.finish(rows, lambda: False) == []
    assert ours.finish(rows, lambda: False) == []
    assert sorted(read_study_trials(studies_file(place.text)), key=lambda each: each.trial) == rows


def test_a_row_that_two_runs_added_at_once_is_read_once(tmp_path: Path, space: SearchSpace, rows: list[Trial]) -> None:
    rows, place = rows[-7:-1], places(tmp_path)[1]
    mirrored(place, space, rows[:3])
    (name,) = optuna.get_all_study_names(place.opened())
    study = study_in(place, name)
    for row in rows[1:]:
        study.add_trial(frozen_of(row, space.for_operation(row.operation).parameters))
    assert len(study.trials) == len(rows) + 2
    assert read_study_trials(studies_file(place.text)) == rows


def test_rows_of_another_set_up_and_studies_of_others_are_left_alone(
    tmp_path: Path, space: SearchSpace, rows: list[Trial]
) -> None:
    place = places(tmp_path)[0]
    mirrored(place, space, rows[:3])
    other = replace(ENVIRONMENT, compiler="clang 23")
    with pytest.raises(InputError, match=r"holds trials of another set-up \(compiler: saved=clang 22 current=clang 23"):
        StudyMirror(place, NAMES, Spaces([space]), other)
    StudyMirror(place, NAMES, Spaces([space]), replace(ENVIRONMENT, seed=3))
    alien = StudyPlace(str(tmp_path / "alien.log"))
    optuna.create_study(storage=alien.opened(), study_name=STUDY)
    with pytest.raises(InputError, match="is none that hktune made: pass another --study"):
        StudyMirror(alien, NAMES, Spaces([space]), ENVIRONMENT)


def test_a_storage_that_fails_costs_no_row_and_is_filled_later(
    tmp_path: Path, space: SearchSpace, rows: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = places(tmp_path)[1]
    add, full = optuna.Study.add_trial, threading.Event()

    def failing(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        add(study, trial)

    monkeypatch.setattr(optuna.Study, "add_trial", failing)
    mirror = StudyMirror(place, NAMES, Spaces([space]), ENVIRONMENT)
    mirror.begin(rows[:2])
    full.set()
    [note] = mirror.finish(rows, lambda: False)
    assert f"of {len(rows)} rows are not in {place} (OSError: [Errno 28] No space left on device)" in note
    full.clear()
    assert mirrored(place, space, [], before=rows) == []
    assert sorted(read_study_trials(studies_file(place.text)), key=lambda each: each.trial) == rows


def test_a_locked_database_is_a_note(
    tmp_path: Path, space: SearchSpace, rows: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_place, "LOCK_WAIT_S", 0.1)
    rows = rows[:3]
    place = places(tmp_path)[0]
    held = sqlite3.connect(tmp_path / "studies.db")
    held.execute("BEGIN EXCLUSIVE")
    [note] = mirrored(place, space, rows)
    assert f"{len(rows)} of {len(rows)} rows are not in" in note
    assert "locked" in note
    held.close()
    assert mirrored(place, space, rows) == []


def test_who_is_in_a_hurry_does_not_wait_for_a_storage(
    tmp_path: Path, space: SearchSpace, rows: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_mirror, "LAST_WORDS_S", 0.0)
    over = threading.Event()
    monkeypatch.setattr(optuna.Study, "add_trial", lambda *_: over.wait(60))
    mirror = StudyMirror(places(tmp_path)[1], NAMES, Spaces([space]), ENVIRONMENT)
    mirror.begin([])
    [note] = mirror.finish(rows, lambda: True)
    over.set()
    assert "there was no time for more" in note


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("foo://u:secret@h/x", r"foo://u:\*\*\*@h/x: is no storage"),
        ("postgresql+nothing://u:secret@h/x", r"u:\*\*\*@h/x: is no storage"),
        ("sqlite:////no-such-folder/x.db", "there is no folder /no-such-folder"),
        ("/no-such-folder/x.log", "there is no folder /no-such-folder"),
        *(
            (url, "is a database in memory, gone with the run")
            for url in ("sqlite://", "sqlite:///", "sqlite:///:memory:")
        ),
    ],
)
def test_what_can_be_no_storage_is_refused_in_one_line(text: str, said: str, space: SearchSpace) -> None:
    with pytest.raises(InputError, match=said) as refused:
        StudyMirror(StudyPlace(text), NAMES, Spaces([space]), ENVIRONMENT)
    assert "secret" not in str(refused.value)


def test_passwords_are_not_repeated() -> None:
    assert without_password("mysql://me:secret@h:3306/d") == "mysql://me:***@h:3306/d"
    assert without_password("sqlite:///a@b:c.db") == "sqlite:///a@b:c.db"
    with pytest.raises(InputError, match=r"'postgresql://me:\*\*\*@h/d': only files of studies are read"):
        studies_file("postgresql://me:secret@h/d")


# ---------------------------------------------------------------- others' files


def test_a_study_of_somebody_else_is_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name="theirs")
    tile, how = IntDistribution(16, 64, step=16), CategoricalDistribution(("a", "b"))
    space = {"x": FloatDistribution(0, 1), "tile": tile, "how": how}
    for number in range(6):
        params = {"x": number / 10, "tile": 16 + 16 * (number % 3), "how": "ab"[number % 2]}
        state = TrialState.FAIL if number == 2 else TrialState.COMPLETE
        value = None if number == 2 else 10.0 + number
        study.add_trial(optuna.trial.create_trial(state=state, value=value, params=params, distributions=space))
    study.add_trial(study.trials[0])
    study.ask()
    optuna.create_study(storage=f"sqlite:///{path}", study_name="most", direction="maximize")
    [recording] = load_recordings(path)
    assert recording.name == f"{path}:theirs"
    assert [each.time_us for each in recording.rows] == [10.0, 11.0, None, 13.0, 14.0, 15.0]
    assert recording.configs[3] == Config({"x": 0.3, "tile": 16, "how": "b"})


def test_hostile_files_are_one_line(tmp_path: Path, space: SearchSpace, rows: list[Trial]) -> None:
    generator = random.Random(0)
    for place in places(tmp_path):
        mirrored(place, space, rows[:3])
        whole = studies_file(place.text).read_bytes()
        for number in range(10):
            path = tmp_path / f"{number}-{studies_file(place.text).name}"
            path.write_bytes(mutant(whole, generator))
            assert refusal(path).isprintable()
    empty = tmp_path / "empty.db"
    sqlite3.connect(empty).execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(StoreError, match=r"empty.db"):
        load_recordings(empty)


def refusal(path: Path) -> str:
    """The line that refuses the recordings at `path`; empty where there are some."""
    try:
        return "" if all(each.rows for each in load_recordings(path)) else "\n"
    except StoreError as refused:
        return str(refused)


def mutant(data: bytes, generator: random.Random) -> bytes:
    """`data` with its head kept: cut, with bytes changed, or with a number or a word in another's place."""
    cut = generator.randrange(100, len(data))
    kind = generator.randrange(4)
    if kind == 0:
        return data[:cut]
    if kind == 1:
        return data[:cut] + generator.randbytes(64) + data[cut + 64 :]
    if kind == 2:
        data = data.replace(b'"time_us": ', b'"time_us": "\\u001b[31m", "x": ').replace(b'"time_us":', b'"time_us":"",')
        return data.replace(b'"status": "ok"', b'"status": "x"')
    return data.replace(b'"op_code":4', b'"op_code":99').replace(b"config", b"c\xffnfig")


# ---------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path, list[list[dict[str, Any]]]]:
    """A run, its database, and what optuna-dashboard said of it meanwhile."""
    pytest.importorskip("ziglang")
    folder = tmp_path_factory.mktemp("run")
    database, seen = folder / "studies.db", []

    def look(_: Trial) -> None:
        if not seen:
            seen.append(shown_while_running(database))

    result = hktune.tune(
        [{"name": "square", "m": 256, "n": 256, "k": 512}, (128, 512, 256)],
        device="emulated",
        strategy="random",
        trials=2,
        workers=1,
        progress=False,
        out=folder / "out",
        study=f"sqlite:///{database}",
        callbacks=[look],
    )
    return result, database, seen


def shown_while_running(database: Path) -> list[dict[str, Any]]:
    """What the dashboard shows as soon as there is a trial: the answer of its interface about each study."""
    dashboard = pytest.importorskip("optuna_dashboard")
    until = time.monotonic() + 60
    while not database.exists() or not optuna.get_all_study_names(f"sqlite:///{database}"):
        assert time.monotonic() < until
        time.sleep(0.05)
    with Served(dashboard.wsgi(f"sqlite:///{database}")) as ask:
        while True:
            ids = [each["study_id"] for each in ask("/api/studies")["study_summaries"]]
            studies = [ask(f"/api/studies/{each}?after=0") for each in ids]
            if any(study["trials"] for study in studies) or time.monotonic() > until:
                return studies
            time.sleep(0.1)


def test_the_dashboard_shows_a_run_while_it_goes(tuned: tuple[Result, Path, list[list[dict[str, Any]]]]) -> None:
    result, _, seen = tuned
    if not seen:
        pytest.skip("no optuna-dashboard here")
    studies = {study["name"]: study for study in seen[0]}
    assert set(studies) <= {"square 256x256x512 bf16.nt on emulated MI355X", "128x512x256 bf16.nt on emulated MI355X"}
    shown = [trial for study in studies.values() for trial in study["trials"]]
    assert 0 < len(shown) < len(result.trials), "the run goes on"
    times = set(result.trials["time_us"])
    assert {value for trial in shown if trial["state"] == "Complete" for value in trial["values"]} <= times


def test_a_run_s_rows_are_in_its_studies(tuned: tuple[Result, Path, object]) -> None:
    result, database, _ = tuned
    rows = pd.read_csv(result.directory / "trials.csv")
    studies = [
        optuna.load_study(study_name=name, storage=f"sqlite:///{database}")
        for name in optuna.get_all_study_names(f"sqlite:///{database}")
    ]
    assert sorted(trial.value for study in studies for trial in study.trials) == sorted(rows["time_us"])
    again = read_study_trials(database)
    assert sorted(again, key=lambda each: each.trial) == read_trials(result.directory / "trials.csv")
    assert result.notes == ()


def test_the_command_writes_reads_and_simulates_them(
    tuned: tuple[Result, Path, object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result, database, _ = tuned
    printed = []
    for place in (f"sqlite:///{database}", str(result.directory)):
        assert main(["simulate", place, "--trials", "2", "--seeds", "1", "--strategy", "random", "--json"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        printed.append([(each["optimum"], each["configs"], each["share"]) for each in lines])
    assert printed[0] == printed[1] != []
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text("shapes:\n  - {m: 256, n: 256, k: 512}\n")
    words = ["tune", "--shapes", str(shapes), "--device", "emulated", "--trials", "1", "--workers", "1"]
    more = ["--out", str(tmp_path / "out"), "--prior", f"sqlite:///{database}", "--study", str(tmp_path / "s.log")]
    assert main([*words, *more]) == 0
    [row] = read_study_trials(tmp_path / "s.log")
    assert row.config_id == result.best("256x256x512").config_id, "what the earlier run favours is tried first"
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "o"), "--study", "x://u:secret@h/y"]) == 2
    assert capsys.readouterr().err.startswith("hktune: x://u:***@h/y: is no storage")


# ---------------------------------------------------------------- serving


class Served:
    """A WSGI application on this machine's own address; what asks it for JSON."""

    def __init__(self, application: Any) -> None:
        class Quiet(wsgiref.simple_server.WSGIRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

        self._server = wsgiref.simple_server.make_server("127.0.0.1", 0, application, handler_class=Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Callable[[str], dict[str, Any]]:
        self._thread.start()
        return self._ask

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _ask(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._server.server_port}{path}", timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
