"""A recording: of one search space, what became of each config."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from hktune.core.config import Config, Value, compact_json
from hktune.core.errors import SpaceError, StoreError
from hktune.core.escaped import shown
from hktune.core.operation import BF16_NT
from hktune.core.outcome import Source, Status
from hktune.core.trial import Trial
from hktune.space import Domain, Order, SearchSpace
from hktune.space.listed import ListedDomain
from hktune.space.recorded import recorded_domain

CONFIGS_MAX = 1_000_000
PARAMETERS_MAX = 256
VALUE_CHARACTERS_MAX = 1024
_INTEGER_BITS_MAX = 63


class BrokenRecording(ValueError):
    """What is in a recording breaks a rule; the text says which, on one line."""


@dataclass(frozen=True)
class Result:
    """What another tuner recorded of one config. `time_us` is in us where the file says a unit of time, else in the
    objective's own unit, and less is better."""

    values: Mapping[str, object]
    status: Status
    time_us: float | None = None


@dataclass(frozen=True)
class Recording:
    """One row for each config that was tried, failed ones too; at least one has a time.

    Rows of other tuners' files have m = n = k = 1: hktune knows their problem by `name` alone. With `space`, a strategy
    has its seeds and its estimate; with `order` too, that leads.
    """

    name: str
    rows: tuple[Trial, ...]
    space: SearchSpace | None = None
    order: Order | None = None

    @cached_property
    def configs(self) -> tuple[Config, ...]:
        """The configs, in the order of the rows."""
        return tuple(Config.from_json(row.config) for row in self.rows)

    @cached_property
    def domain(self) -> Domain:
        """The configs as a strategy sees them: legal is what was recorded."""
        if self.space is None:
            return recorded_domain(self.name, self.configs)
        domain = ListedDomain(self.space, self.rows[0].problem, self.configs)
        return domain.led_by(self.order) if self.order else domain

    def within(self, space: SearchSpace) -> Recording:
        """What of it is legal in `space`, to be searched as a run would. A parameter that is younger than the rows has
        its default. Raises InputError for an operation that the space's template cannot do, and StoreError where no
        config that has a time is legal."""
        problem = self.rows[0].problem
        own = space.for_operation(problem.operation)
        completed = [_completed(row, config, own) for row, config in zip(self.rows, self.configs, strict=True)]
        rows = {row.config_id: row for row in completed if row is not None}
        if all(row.time_us is None for row in rows.values()):
            raise StoreError(f"{self.name}: none of its configs is legal in {space.name}: leave out --space")
        return Recording(self.name, tuple(rows.values()), own)


def _completed(row: Trial, config: Config, space: SearchSpace) -> Trial | None:
    """`row` with every parameter of `space`; None where its config is not legal there."""
    try:
        whole = space.config(config)
    except SpaceError:
        return None
    return replace(row, config_id=whole.id, config=whole.json) if space.is_legal(whole, row.problem) else None


def recording_of(name: str, results: Iterable[Result]) -> Recording:
    """The recording of another tuner's results. Of those that say the same twice one is kept. Raises BrokenRecording
    where two contradict each other, and where there is nothing to search."""
    listed = list(results)
    columns = _columns([result.values for result in listed])
    found: dict[str, Trial] = {}
    for number, (result, values) in enumerate(zip(listed, columns, strict=True)):
        row = _row(number, Config(values), result)
        earlier = found.setdefault(row.config_id, row)
        if (earlier.status, earlier.time_us) != (row.status, row.time_us):
            raise BrokenRecording(f"config {shown(dict(result.values))} is recorded twice, and not alike")
    if all(row.time_us is None for row in found.values()):
        raise BrokenRecording(f"none of its {len(found)} configs has a time")
    return Recording(name, tuple(found.values()))


def _row(number: int, config: Config, result: Result) -> Trial:
    return Trial(
        trial=number,
        m=1,
        n=1,
        k=1,
        operation=BF16_NT,
        config_id=config.id,
        config=config.json,
        status=result.status,
        source=None if result.time_us is None else Source.MEASURED,
        time_us=result.time_us,
    )


def _columns(rows: Sequence[Mapping[str, object]]) -> list[dict[str, Value]]:
    """The rows with each parameter's values of one type. What a row lacks is the word `null`."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:
        raise BrokenRecording("no config has a parameter")
    if len(names) > PARAMETERS_MAX or len(rows) > CONFIGS_MAX:
        most = f"at most {CONFIGS_MAX} of {PARAMETERS_MAX}"
        raise BrokenRecording(f"has {len(rows)} configs of {len(names)} parameters, {most} are read")
    columns = [_of_one_type(name, [row.get(name) for row in rows]) for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _of_one_type(name: str, column: Sequence[object]) -> Sequence[Value]:
    """`column` itself where its values are whole numbers, truths or words; as floats where all are numbers; else as
    words, each as JSON has it."""
    kinds = {_kind(name, value) for value in column}
    if kinds in ({int}, {bool}, {str}):
        return column  # type: ignore[return-value]  # that is what was asked
    if kinds <= {int, float}:
        return [float(value) for value in column]  # type: ignore[arg-type]
    return [value if isinstance(value, str) else compact_json(value) for value in column]


def _kind(name: str, value: object) -> type:
    """The type of a parameter's value. Raises BrokenRecording for what can be none."""
    if isinstance(value, int) and value.bit_length() > _INTEGER_BITS_MAX:
        raise BrokenRecording(f"parameter {shown(name)}: {shown(value)} does not fit 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise BrokenRecording(f"parameter {shown(name)}: {value} is no value")
    if isinstance(value, str | list | dict) and len(str(value)) > VALUE_CHARACTERS_MAX:
        raise BrokenRecording(f"parameter {shown(name)}: a value has over {VALUE_CHARACTERS_MAX} characters")
    return type(value)
