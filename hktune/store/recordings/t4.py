"""T4 results, the auto-tuning community's format: schema 1.0.0, of Kernel Tuner, BAT and others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec

from hktune.core.escaped import shown
from hktune.core.outcome import Status
from hktune.store.recordings.document import typed
from hktune.store.recordings.objective import NO_TIME, TIME, cost, us_of
from hktune.store.recordings.recording import BrokenRecording, Result

CORRECT = "correct"
STATUS_OF = {
    "compile": Status.COMPILE_ERROR,
    "runtime": Status.CRASHED,
    "timeout": Status.TIMEOUT,
    "correctness": Status.WRONG,
    "constraints": Status.OVER_BUDGET,
}
_MILLISECONDS = "milliseconds"


class Measurement(msgspec.Struct, frozen=True):
    """`unit` is empty, or absent, where the file's own holds."""

    name: str
    value: Any = None
    unit: str = ""


class Times(msgspec.Struct, frozen=True):
    runtimes: list[Any] = []


class T4Result(msgspec.Struct, frozen=True):
    """`measurements` and `objectives` may be absent: then the mean of the runs is meant."""

    configuration: dict[str, Any]
    invalidity: str = CORRECT
    measurements: list[Measurement] = []
    objectives: tuple[str, ...] = (TIME,)
    times: Times = Times()


class T4File(msgspec.Struct, frozen=True):
    results: list[T4Result]
    metadata: dict[str, Any] = {}


def t4_file(document: dict[str, object]) -> T4File:
    """`document` as a T4 file. Raises BrokenRecording for what is none."""
    return typed(document, T4File, "T4 file of results")


def t4_results(file: T4File) -> Iterator[Result]:
    """The results of `file`. Raises BrokenRecording where there are none, or one breaks a rule."""
    if not file.results:
        raise BrokenRecording("has no results")
    unit = str(file.metadata.get("timeunit") or _MILLISECONDS)
    return (_result(result, unit) for result in file.results)


def _result(result: T4Result, unit: str) -> Result:
    if result.invalidity != CORRECT:
        return Result(result.configuration, STATUS_OF.get(result.invalidity, Status.CRASHED))
    objective = next(iter(result.objectives), TIME)
    measured = next((each for each in result.measurements if each.name == objective), None)
    if measured is None:
        measured = Measurement(objective, result.times.runtimes or None)
    value = _mean(measured.value) if isinstance(measured.value, list) else measured.value
    if objective == TIME and value == NO_TIME:
        return Result(result.configuration, Status.CRASHED)
    if value is None:
        raise BrokenRecording(f"config {shown(result.configuration)} is correct, but no measurement is its objective")
    unit_us = us_of(measured.unit or unit)
    return Result(result.configuration, Status.OK, cost(objective, value, unit_us, result.configuration))


def _mean(runs: list[Any]) -> object:
    """Of several runs; `runs` itself, which no cost is, where there are none or one is no number."""
    if not runs or not all(isinstance(run, int | float) for run in runs):
        return runs
    try:
        return sum(map(float, runs)) / len(runs)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf
