"""KTT's own result files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from hktune.core.escaped import shown
from hktune.core.outcome import Status
from hktune.store.recordings.document import typed
from hktune.store.recordings.objective import TIME, cost, us_of
from hktune.store.recordings.recording import BrokenRecording, Result

_OK = "Ok"
_STATUS_OF = {
    "CompilationFailed": Status.COMPILE_ERROR,
    "ComputationFailed": Status.CRASHED,
    "ValidationFailed": Status.WRONG,
    "DeviceLimitsExceeded": Status.OVER_BUDGET,
}


class Metadata(msgspec.Struct, frozen=True):
    time_unit: str = msgspec.field(name="TimeUnit", default="Microseconds")


class Setting(msgspec.Struct, frozen=True):
    name: str = msgspec.field(name="Name")
    value: Any = msgspec.field(name="Value")


class KttResult(msgspec.Struct, frozen=True):
    configuration: list[Setting] = msgspec.field(name="Configuration")
    status: str = msgspec.field(name="Status")
    duration: Any = msgspec.field(name="TotalDuration", default=None)


class KttFile(msgspec.Struct, frozen=True):
    results: list[KttResult] = msgspec.field(name="Results")
    metadata: Metadata = msgspec.field(name="Metadata", default=Metadata())


def ktt_results(document: dict[str, object]) -> Iterator[Result]:
    """What is in KTT's result file `document`. Raises BrokenRecording for what is no such file."""
    file = typed(document, KttFile, "result file of KTT")
    unit_us = us_of(file.metadata.time_unit)
    for result in file.results:
        values = {setting.name: setting.value for setting in result.configuration}
        if len(values) < len(result.configuration):
            raise BrokenRecording(f"config {shown(values)} has a parameter twice")
        if result.status == _OK:
            yield Result(values, Status.OK, cost(TIME, result.duration, unit_us, values))
        else:
            yield Result(values, _STATUS_OF.get(result.status, Status.CRASHED))
