"""Trials as T4 results, and back: every cell of a row is a measurement by its column's name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from hktune.core.config import Config
from hktune.core.errors import InputError
from hktune.core.escaped import shown
from hktune.core.operation import Operation, operation_of
from hktune.core.outcome import Status
from hktune.core.trial import Trial
from hktune.store.cells import FIELDS, TYPES
from hktune.store.recordings.document import RECORDING, read_document
from hktune.store.recordings.objective import TIME
from hktune.store.recordings.recording import BrokenRecording
from hktune.store.recordings.t4 import CORRECT, Measurement, T4File, T4Result, t4_file
from hktune.store.rows import Encoder

SCHEMA_VERSION = "1.0.0"
_US_PER_MS = 1e3
_INVALIDITY_OF = {
    Status.OK: CORRECT,
    Status.INVALID: "constraints",
    Status.OVER_BUDGET: "constraints",
    Status.COMPILE_ERROR: "compile",
    Status.WRONG: "correctness",
    Status.HAZARD: "correctness",
    Status.TIMEOUT: "timeout",
    Status.CRASHED: "runtime",
}
_UNIT_OF = {"us": "us", "s": "s", "mhz": "MHz", "w": "W", "bytes": "bytes"}
_MEASURED = tuple(name for name in FIELDS if name != "config")
_MARKS = {"m", "n", "k", "operation", "config_id"}
"""What every row has, and no other tuner's result: by these a file of hktune's own is known."""


def t4_json(trials: Iterable[Trial]) -> bytes:
    """The trials as a T4 file: `time` is the objective, in ms, and what else a row says has its column's name. There is
    a line for each; of several problems one configuration may have several."""
    results = ",\n".join(json.dumps(_result(trial)) for trial in trials)
    end = json.dumps({"schema_version": SCHEMA_VERSION, "metadata": {"timeunit": "milliseconds"}})
    return f'{{"results": [\n{results}\n], {end[1:]}\n'.encode()


def read_t4_trials(path: Path) -> list[Trial]:
    """The trials of a file that `t4_json` made, packed or not. Raises StoreError, one line, for any other."""
    try:
        return trials_of(t4_file(read_document(path)))
    except BrokenRecording as broken:
        raise RECORDING.broken(path, str(broken)) from None


def holds_trials(file: T4File) -> bool:
    """Whether a T4 file is of hktune's trials: its first result has what each of them has."""
    return bool(file.results) and {each.name for each in file.results[0].measurements} >= _MARKS


def trials_of(file: T4File) -> list[Trial]:
    """The trials of a T4 file that has some. Raises BrokenRecording where it has none, or a rule of rows is broken."""
    if not holds_trials(file):
        raise BrokenRecording("is no T4 file of hktune's trials")
    encoder = Encoder()
    return [_trial(number, result, encoder) for number, result in enumerate(file.results)]


def trial_of(config: Config, cells: Iterable[Measurement], encoder: Encoder | None = None) -> Trial:
    """The trial whose cells `cells_of` said, checked as a row of trials.csv is. Raises InputError, TypeError or
    ValueError."""
    values = {each.name: _VALUE_OF[TYPES[each.name]](each) for each in cells if each.name in _MEASURED}
    trial = Trial(config=config.json, **values)
    (encoder or Encoder()).line(trial)
    return trial


def cells_of(trial: Trial) -> Iterator[dict[str, object]]:
    """The cells of a row that are not empty, but for its config, by the names of their columns."""
    for name in _MEASURED:
        value = getattr(trial, name)
        if value is not None:
            plain = TYPES[name] in (int, float)
            said = value if plain else int(value) if TYPES[name] is bool else str(value)
            yield {"name": name, "value": said, "unit": _UNIT_OF.get(name.rpartition("_")[2], "") if plain else ""}


def _result(trial: Trial) -> dict[str, object]:
    times: dict[str, object] = {"runtimes": [] if trial.time_us is None else [trial.time_us / _US_PER_MS]}
    if trial.compile_s is not None:
        times["compilation"] = trial.compile_s * 1e3
    return {
        "timestamp": trial.started_at or "",
        "configuration": dict(Config.from_json(trial.config)),
        "times": times,
        "invalidity": _INVALIDITY_OF[trial.status],
        "correctness": 1 if trial.status is Status.OK else 0,
        "measurements": list(_measurements(trial)),
        "objectives": [TIME],
    }


def _measurements(trial: Trial) -> Iterator[dict[str, object]]:
    if trial.time_us is not None:
        yield {"name": TIME, "value": trial.time_us / _US_PER_MS, "unit": "ms"}
    yield from cells_of(trial)


def _trial(number: int, result: T4Result, encoder: Encoder) -> Trial:
    """The trial of one result, checked as a row of trials.csv is."""
    try:
        return trial_of(Config(result.configuration), result.measurements, encoder)
    except (InputError, TypeError, ValueError) as wrong:
        raise BrokenRecording(f"result {number} is no trial ({wrong})") from None


def _whole(each: Measurement) -> int:
    if isinstance(each.value, int) and not isinstance(each.value, bool):
        return each.value
    raise _other(each, "a whole number")


def _number(each: Measurement) -> float:
    if isinstance(each.value, int | float) and not isinstance(each.value, bool):
        return float(each.value)
    raise _other(each, "a number")


def _text(each: Measurement) -> str:
    if isinstance(each.value, str):
        return each.value
    raise _other(each, "text")


def _truth(each: Measurement) -> bool:
    if each.value in (0, 1):
        return bool(each.value)
    raise _other(each, "0 or 1")


def _other(each: Measurement, wanted: str) -> ValueError:
    return ValueError(f"{each.name} is {shown(each.value)}, not {wanted}")


def _operation(each: Measurement) -> Operation:
    return operation_of(_text(each))


def _of(kind: type) -> Callable[[Measurement], Any]:
    plain = {int: _whole, float: _number, str: _text, bool: _truth, Operation: _operation}
    return plain.get(kind) or (lambda each: kind(_text(each)))


_VALUE_OF = {kind: _of(kind) for kind in set(TYPES.values())}
