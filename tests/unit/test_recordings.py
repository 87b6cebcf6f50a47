"""Recordings of hktune, Kernel Tuner, KTT and T4: what is read, and what is refused in one line."""

from __future__ import annotations

import gzip
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hktune.core.config import Config
from hktune.core.errors import StoreError
from hktune.core.outcome import Status
from hktune.search import STRATEGIES, create_strategy
from hktune.store import read_trials
from hktune.store.recordings import Recording, load_recordings

ROOT = Path(__file__).resolve().parents[2]
HEAD = {
    "device_name": "a GPU",
    "kernel_name": "k",
    "problem_size": [64, 64],
    "tune_params_keys": ["tile", "order", "fast", "scale"],
    "tune_params": {"tile": [16, 1, 4], "order": ["rows", "z-curve"], "fast": [False, True], "scale": [0.5, 1, 2]},
    "objective": "time",
}
CONFIGS = [
    {"tile": tile, "order": order, "fast": fast, "scale": scale}
    for tile in (16, 1, 4)
    for order in ("rows", "z-curve")
    for fast in (False, True)
    for scale in (0.5, 1, 2)
    if not (fast and tile == 16)
]


def time_ms(config: dict[str, Any]) -> float:
    return config["tile"] * 0.25 + config["scale"] + (0.5 if config["order"] == "rows" else 0.0)


def entries() -> dict[str, dict[str, Any]]:
    """Of a cache file: the first config does not compile, the second cannot run, and so on in turn."""
    errors = ["CompilationFailedConfig", "RuntimeFailedConfig", "InvalidConfig"]
    found: dict[str, dict[str, Any]] = {}
    for number, config in enumerate(CONFIGS):
        time = errors[number] if number < len(errors) else time_ms(config)
        found[",".join(map(str, config.values()))] = {**config, "time": time, "times": [1.0, 2.0], "GFLOP/s": 3.0}
    return found


def cache_file(**changed: object) -> dict[str, Any]:
    document = {**HEAD, "cache": entries(), **changed}
    return {key: value for key, value in document.items() if value is not None}


def written(folder: Path, document: object, name: str = "space.json") -> Path:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def recording(path: Path) -> Recording:
    [one] = load_recordings(path)
    return one


def said_times(one: Recording) -> dict[str, float | None]:
    return {row.config_id: row.time_us for row in one.rows}


def test_a_cache_file_is_its_configs_and_their_times(tmp_path: Path) -> None:
    one = recording(written(tmp_path, cache_file()))
    times = said_times(one)
    assert len(times) == len(CONFIGS)
    assert [row.status for row in one.rows[:4]] == [
        Status.COMPILE_ERROR,
        Status.CRASHED,
        Status.OVER_BUDGET,
        Status.OK,
    ]
    for config in CONFIGS[3:]:
        as_read = Config({**config, "scale": float(config["scale"])})
        assert times[as_read.id] == pytest.approx(time_ms(config) * 1e3)


def test_values_keep_their_kind_and_numbers_their_order(tmp_path: Path) -> None:
    domain = recording(written(tmp_path, cache_file())).domain
    values = {parameter.name: parameter.values for parameter in domain.parameters}
    assert values == {"tile": (1, 4, 16), "order": ("rows", "z-curve"), "fast": (False, True), "scale": (0.5, 1.0, 2.0)}


def test_only_what_was_recorded_is_legal(tmp_path: Path) -> None:
    domain = recording(written(tmp_path, cache_file())).domain
    assert domain.count == len(CONFIGS)
    assert not domain.is_legal({"tile": 16, "order": "rows", "fast": True, "scale": 1.0})
    config = next(domain.enumerate())
    [*alike] = domain.neighbours(config)
    apart = [sum(config[name] != other[name] for name in config) for other in alike]
    by_hand = [sum(config[name] != other[name] for name in config) for other in domain.enumerate()]
    assert sorted(apart) == sorted(count for count in by_hand if count in (1, 2))


def kernel_tuners(document: dict[str, Any]) -> str:
    """As Kernel Tuner writes it: a line an entry, and closed at the end of a run."""
    head = json.dumps({**document, "cache": {}}, indent="")[:-3]
    return head + "".join(f"\n{json.dumps({key: entry})[1:-1]}," for key, entry in document["cache"].items())


@pytest.mark.parametrize("end", [lambda text: text, lambda text: text[:-1], lambda text: text + "\n\n"])
def test_a_cache_file_may_be_open(tmp_path: Path, end: Callable[[str], str]) -> None:
    whole = recording(written(tmp_path, cache_file()))
    opened = recording(written(tmp_path, end(kernel_tuners(cache_file())), "open.json"))
    assert said_times(opened) == said_times(whole)


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    torn = recording(written(tmp_path, kernel_tuners(cache_file())[:-60]))
    assert len(torn.rows) == len(CONFIGS) - 1


def packed(folder: Path, data: bytes) -> list[Path]:
    (folder / "a.json.gz").write_bytes(gzip.compress(data))
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", data)
    return [folder / "a.json.gz", folder / "a.zip"]


def test_files_may_be_compressed(tmp_path: Path) -> None:
    whole = said_times(recording(written(tmp_path, cache_file())))
    for path in packed(tmp_path, json.dumps(cache_file()).encode()):
        assert said_times(recording(path)) == whole


@pytest.mark.parametrize(
    "older",
    [
        {"objective": None},
        {"device_name": None, "kernel_name": None, "problem_size": None},
        {"tune_params_keys": None},
        {"tune_params_keys": None, "tune_params": None},
        {"objective": ["time", "energy"]},
        {"objective": "power"},  # of which no config has a value
    ],
)
def test_older_files_lack_keys(tmp_path: Path, older: dict[str, object]) -> None:
    whole = said_times(recording(written(tmp_path, cache_file())))
    assert said_times(recording(written(tmp_path, cache_file(**older)))) == whole


def test_entries_may_lack_what_their_key_says(tmp_path: Path) -> None:
    whole = said_times(recording(written(tmp_path, cache_file())))
    bare = {key: {"time": entry["time"]} for key, entry in entries().items()}
    assert said_times(recording(written(tmp_path, cache_file(cache=bare)))) == whole


@pytest.mark.parametrize("error", [{"time": 1e20}, {"__error__": "RuntimeFailedConfig"}, {"time": "OutOfMemoryError"}])
def test_failures_of_older_and_newer_files(tmp_path: Path, error: dict[str, object]) -> None:
    first, *others = entries().items()
    failed = {**{name: first[1][name] for name in HEAD["tune_params_keys"]}, **error}  # type: ignore[attr-defined]
    one = recording(written(tmp_path, cache_file(cache=dict([(first[0], failed), *others]))))
    assert (one.rows[0].status, one.rows[0].time_us) == (Status.CRASHED, None)


def test_of_an_objective_where_more_is_better_the_inverse_is_kept(tmp_path: Path) -> None:
    cache = {key: {**entry, "GFLOP/s": 100.0 + n} for n, (key, entry) in enumerate(entries().items())}
    rows = recording(written(tmp_path, cache_file(objective="GFLOP/s", cache=cache))).rows
    best = min((row for row in rows if row.time_us), key=lambda row: row.time_us or 0)
    assert best is rows[-1]
    assert best.time_us == pytest.approx(1 / (100.0 + len(rows) - 1))


def test_no_numbers_beside_the_time_do_no_harm(tmp_path: Path) -> None:
    cache = {key: {**entry, "GFLOP/s": float("nan")} for key, entry in entries().items()}
    assert len(recording(written(tmp_path, cache_file(cache=cache))).rows) == len(CONFIGS)


def t4_result(config: dict[str, Any], value: object, **changed: object) -> dict[str, Any]:
    return {
        "configuration": config,
        "times": {"compilation": 1.0, "runtimes": [2.0, 4.0]},
        "invalidity": "correct",
        "correctness": 1,
        "measurements": [{"name": "energy", "value": 9.0, "unit": "J"}, {"name": "time", "value": value, "unit": ""}],
        "objectives": ["time"],
        **changed,
    }


def t4_file(results: list[dict[str, Any]], **changed: object) -> dict[str, Any]:
    return {"results": results, "schema_version": "1.0.0", "metadata": {"timeunit": "miliseconds"}, **changed}


def test_t4_says_the_same_as_the_cache_file(tmp_path: Path) -> None:
    invalidity = ["compile", "runtime", "constraints"]
    results = [
        t4_result(config, "InvalidConfig", invalidity=invalidity[number])
        if number < len(invalidity)
        else t4_result(config, time_ms(config))
        for number, config in enumerate(CONFIGS)
    ]
    whole = recording(written(tmp_path, cache_file()))
    t4 = recording(written(tmp_path, t4_file(results), "t4.json"))
    assert said_times(t4) == said_times(whole)
    assert [row.status for row in t4.rows] == [row.status for row in whole.rows]


@pytest.mark.parametrize(
    ("unit", "times_us"), [("us", 1.0), ("microseconds", 1.0), ("ns", 1e-3), ("s", 1e6), ("ms", 1e3), ("", 1e3)]
)
def test_t4_measurements_have_units(tmp_path: Path, unit: str, times_us: float) -> None:
    measured = [{"name": "time", "value": 5.0, "unit": unit}]
    one = recording(written(tmp_path, t4_file([t4_result({"a": 1}, 0, measurements=measured)])))
    assert one.rows[0].time_us == pytest.approx(5.0 * times_us)


@pytest.mark.parametrize("result", [t4_result({"a": 1}, 0, measurements=[]), t4_result({"a": 1}, [2, 4.0])])
def test_t4_may_have_all_runs_and_means_their_mean(tmp_path: Path, result: dict[str, Any]) -> None:
    [row] = recording(written(tmp_path, t4_file([result]))).rows
    assert row.time_us == pytest.approx(3e3)


def test_t4_configs_may_have_parameters_that_others_lack(tmp_path: Path) -> None:
    domain = recording(written(tmp_path, t4_file([t4_result({"a": 1}, 1.0), t4_result({"a": 1, "b": 2}, 2.0)]))).domain
    assert {parameter.name: parameter.values for parameter in domain.parameters} == {"a": (1,), "b": ("null", "2")}


def test_ktts_own_files_are_read(tmp_path: Path) -> None:
    def result(tile: int, **rest: object) -> dict[str, object]:
        setting = {"Name": "TILE", "Value": tile, "ValueType": "UnsignedInt"}
        return {"Configuration": [setting], "Status": "Ok", "TotalDuration": 7.5 * tile, **rest}

    results = [result(1), result(2), result(4, Status="ComputationFailed")]
    one = recording(written(tmp_path, {"Metadata": {"TimeUnit": "Microseconds"}, "Results": results}))
    assert [row.time_us for row in one.rows] == [7.5, 15.0, None]
    assert one.rows[2].status is Status.CRASHED


def test_of_hktunes_rows_each_problem_is_a_recording() -> None:
    folder = ROOT / "results/sm90a-nvidia-h100-80gb-hbm3/two-shapes-1100-configs"
    found = load_recordings(folder)
    trials = read_trials(folder / "trials.csv")
    assert len(found) == len({trial.problem for trial in trials}) == 2
    for one in found:
        problem = one.rows[0].problem
        assert {row.config_id for row in one.rows} == {row.config_id for row in trials if row.problem == problem}
        assert one.name == f"{folder}:{problem.m}x{problem.n}x{problem.k}:{problem.operation}"
        assert one.domain.count == len(one.rows)
    assert [one.rows for one in load_recordings(folder / "trials.csv")] == [one.rows for one in found]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_searches_a_recording(tmp_path: Path, name: str) -> None:
    domain = recording(written(tmp_path, cache_file())).domain
    asked = create_strategy(name, domain, seed=1).ask(len(CONFIGS) + 5)
    assert {config.id for config in asked} == {config.id for config in domain.enumerate()}
    assert domain.is_legal(domain.sample(random.Random(0)))


CLEAN = cache_file()
KEY = next(key for key, entry in CLEAN["cache"].items() if not isinstance(entry["time"], str))


def with_time(value: object) -> dict[str, Any]:
    return cache_file(cache={**entries(), KEY: {**entries()[KEY], "time": value}})


def without_time() -> dict[str, Any]:
    changed = cache_file()
    del changed["cache"][KEY]["time"]
    return changed


TWICE = '{"tune_params_keys": ["a"], "cache": {"1": {"a": 1, "time": 1.0}, "1": {"a": 1, "time": 2.0}}}'
BAD = {
    "empty": ("", "is empty"),
    "no JSON": ("tile,time\n1,2\n", "is no JSON"),
    "an array": ("[1, 2]", "not of an object"),
    "another's JSON": ('{"a": 1}', "none of the keys cache, results, Results"),
    "deep": ("[" * 200_000, "nested too deep"),
    "deep inside": ('{"cache": {"1": {"a": ' + "[" * 100_000, "nested too deep"),
    "no configs": (cache_file(cache={}), "no config in its cache"),
    "a cache of numbers": (cache_file(cache={"1": 2}), "no cache file of Kernel Tuner"),
    "a key twice": (TWICE, "has the key '1' twice"),
    "NaN": (with_time(float("nan")), "'time' is nan, not a number above 0"),
    "infinity": (with_time(float("inf")), "'time' is inf, not a number above 0"),
    "negative": (with_time(-1.0), "'time' is -1.0, not a number above 0"),
    "zero": (with_time(0), "'time' is 0, not a number above 0"),
    "a truth": (with_time(True), "'time' is True, not a number above 0"),
    "a list": (with_time([1.0]), "not a number above 0"),
    "no number": (with_time(None), "'time' is None, not a number above 0"),
    "too long": (with_time(10**400), "not a number above 0"),
    "digits": ('{"cache": {"1": {"a": 1, "time": ' + "1" * 5000 + "}}}", "4300 digits"),
    "out of range": (with_time(1e306), "out of range"),
    "no time": (without_time(), "has neither 'time' nor an error"),
    "no parameters": (cache_file(tune_params_keys=["absent"], tune_params=None), "has no 'absent'"),
    "parameters unknown": ({"cache": {"a=1": {"tile": 1, "time": 1.0}}}, "names no parameters"),
    "all fail": (t4_file([t4_result({"a": 1}, 0, invalidity="compile")]), "none of its 1 configs has a time"),
    "no results": (t4_file([]), "has no results"),
    "T4 of no objects": (t4_file([{"a": 1}]), "no T4 file"),
    "contradicting": (t4_file([t4_result({"a": 1}, 1.0), t4_result({"a": 1}, 2.0)]), "recorded twice, and not alike"),
    "no such measurement": (t4_file([t4_result({"a": 1}, 1.0, measurements=[], times={})]), "no measurement is its"),
    "no parameter at all": (t4_file([t4_result({}, 1.0)]), "no config has a parameter"),
    "a value of no size": (t4_file([t4_result({"a": 2**70}, 1.0)]), "does not fit 64 bits"),
    "a value that is none": (t4_file([t4_result({"a": float("nan")}, 1.0)]), "nan is no value"),
    "a long value": (t4_file([t4_result({"a": "x" * 5000}, 1.0)]), "over 1024 characters"),
    "runs of no numbers": (t4_file([t4_result({"a": 1}, 1.0, measurements=[], times={"runtimes": ["x"]})]), "['x']"),
    "runs without end": (t4_file([t4_result({"a": 1}, [10**400])]), "'time' is inf"),
    "half a character": (t4_file([t4_result({"a": 1}, 1.0, **{"\ud800": 1})]), "no T4 file"),
    "KTT of no objects": ({"Results": [1]}, "no result file of KTT"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_line(tmp_path: Path, name: str) -> None:
    document, rule = BAD[name]
    path = written(tmp_path, document)
    with pytest.raises(StoreError) as refused:
        load_recordings(path)
    said = str(refused.value)
    assert said.startswith(f"{path}: ")
    assert rule in said
    assert "\n" not in said
    assert len(said) < 1600


def test_what_says_the_same_twice_is_kept_once(tmp_path: Path) -> None:
    assert len(recording(written(tmp_path, t4_file([t4_result({"a": 1}, 1.0)] * 2))).rows) == 1


def test_bad_archives_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "torn.gz").write_bytes(gzip.compress(b'{"cache": {}}')[:-6])
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.json", "{}")
        archive.writestr("b.json", "{}")
    (tmp_path / "torn.zip").write_bytes((tmp_path / "two.zip").read_bytes()[:-30])
    for name, rule in {"torn.gz": "cannot be unpacked", "two.zip": "2 files", "torn.zip": "cannot be unpacked"}.items():
        with pytest.raises(StoreError, match=rule):
            load_recordings(tmp_path / name)


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hktune.store.recordings.document.BYTES_MAX", 1000)
    for path in packed(tmp_path, b" " * 5000):
        with pytest.raises(StoreError, match="more than 1000 bytes when unpacked"):
            load_recordings(path)


def test_what_is_no_file_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.json", tmp_path / "absent.csv", Path("/dev/zero")):
        with pytest.raises(StoreError):
            load_recordings(path)
