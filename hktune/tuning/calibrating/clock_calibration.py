"""The clock of a board from the trials that were measured on one: `hktune calibrate` for AMD GPUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hktune.core.board import Board, board_named
from hktune.core.calibration import CLOCK, Calibration
from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.errors import InputError
from hktune.core.identity import Identity
from hktune.core.problem import Problem
from hktune.core.problem_tiles import tiles_of
from hktune.core.settings import Settings
from hktune.core.shipped import shipped_spaces
from hktune.core.trial import Trial
from hktune.emulator.clock.constants import MeasuredLaunch, clock_steps, with_constants
from hktune.emulator.clock.memory_traffic import problem_order
from hktune.emulator.clock.rates import Rates, rates_of
from hktune.measure.clock_fit import clock_fit
from hktune.measure.fitting import Values
from hktune.measure.stopwatch import Attempt
from hktune.space import SearchSpace, load_space
from hktune.tuning.benches.emulated_bench import EmulatedBench
from hktune.tuning.calibrating.measured_trials import (
    WRONG,
    Calibrated,
    Judged,
    constants_found,
    device_of,
    in_turn,
    judged_by_shape,
    made_of,
    mean_error,
    measured_rows,
    pairs_wrong,
    require_shapes,
    time_us,
)
from hktune.tuning.trial_rows import candidate_of

FREE = ("launch_us", "cold_ns", "mall_ns", "hbm_ns", "mall_tb_per_s", "hbm_tb_per_s", "write_back_tb_per_s")
"""Constants of a board that are fitted, with the steps of its clock."""

Progress = Callable[[int, int], None]
"""Hears how many kernels of how many are proved."""


@dataclass(frozen=True)
class ClockOptions:
    """How the clock is calibrated: with at most so many `kernels`, proved by `workers` processes. `space` is that of
    rows whose template does not come with hktune; `board` is the GPU's where its id does not say."""

    settings: Settings
    kernels: int = 300
    workers: int = 1
    space: Path | None = None
    board: str | None = None
    hipkittens: Path | None = None


def calibrate_clock(directory: Path, options: ClockOptions, progress: Progress) -> Calibrated:
    """Fit the clock of the GPU that the trials of `directory` were measured on. Each kernel is compiled and proved on
    the emulator, as its profile is what the clock needs. Raises HktuneError for trials that cannot be used."""
    identity = device_of(directory)
    board = _board(identity, options)
    kernels = _Kernels(identity, options)
    rows = in_turn(measured_rows(directory, kernels.left_out))
    launches = kernels.launches(rows, progress)
    problems = [one.problem for one in launches]
    if not launches:
        raise InputError(f"{directory}: no measured kernel can be proved here: {kernels.why()}")
    require_shapes(directory, problems)
    rates = rates_of(board)
    fit = clock_fit(launches, rates, board.arch, (*FREE, *clock_steps(rates)))
    names = fit.identified()
    values = fit.fitted(names)
    before, after = fit.log_ratios(fit.constants, fit.everything), fit.left_out(names, start=values)
    classes = _classes(launches, before, after)
    calibration = _calibration(identity, board, problems, with_constants(rates, values), classes[0]) if names else None
    return Calibrated(calibration, constants_found(fit, names, values), classes, kernels.notes())


def _board(identity: Identity, options: ClockOptions) -> Board:
    found = identity.known_board
    if options.board and found and found.name != options.board:
        raise InputError(f"--board {options.board}: the trials are of {found.name} ({identity}): leave it out")
    if found is None and options.board is None:
        raise InputError(f"which board {identity} is, is not known: pass --board")
    return found or board_named(options.board)


def _calibration(
    identity: Identity, board: Board, problems: Sequence[Problem], rates: Rates, judged: Judged
) -> Calibration:
    return Calibration(
        **made_of(identity, problems),  # type: ignore[arg-type]  # each value is of its field's type
        of=CLOCK,
        board=board.name,
        error_before=judged.before,
        error_after=judged.after,
        constants={name: getattr(rates, name) for name in FREE},
        clock_ghz=rates.clock_ghz,
    )


def _classes(launches: Sequence[MeasuredLaunch], before: Values, after: Values) -> tuple[Judged, ...]:
    m, k = (np.array([getattr(one.problem, name) for one in launches]) for name in ("m", "k"))
    split = np.array([tiles_of(one.problem, one.tile).shares(one.launch) for one in launches]) > 1
    chosen = {
        "all": m > 0,
        "m at most 64": m <= 64,
        "m of 65 to 1024": (m > 64) & (m <= 1024),
        "m above 1024": m > 1024,
        "k at most 1024": k <= 1024,
        "k shared by workgroups": split,
    }
    found = [
        Judged(name, int(own.sum()), mean_error(before[own]), mean_error(after[own]))
        for name, own in chosen.items()
        if own.any()
    ]
    problems, times_us = [one.problem for one in launches], [one.time_us for one in launches]
    order = judged_by_shape(WRONG, pairs_wrong, problems, times_us, (before, after))
    return (*found, *([order] if order.rows else []))


@dataclass
class _Kernels:
    """The kernels of measured rows, proved here. `left_out` counts rows by why they were."""

    identity: Identity
    options: ClockOptions
    left_out: Counter[str] = field(default_factory=Counter)

    def launches(self, rows: Sequence[Trial], progress: Progress) -> list[MeasuredLaunch]:
        """What can be modelled of `rows`, in their order, for as many kernels as are asked for."""
        spaces = self._spaces({str(row.template_sha256) for row in rows})
        own = [row for row in rows if row.template_sha256 in spaces]
        self.left_out["of a template that is not here"] += len(rows) - len(own)
        if not own:
            return []
        candidates = {_key(row): candidate_of(_space(spaces, row).template, row) for row in own}
        chosen = dict(list(candidates.items())[: self.options.kernels])
        self.left_out[f"of more kernels than --kernels {self.options.kernels}"] += sum(
            _key(row) not in chosen for row in own
        )
        attempts = self._attempts([path for path, _ in spaces.values()], list(chosen.values()), progress)
        found = [self._launch(_space(spaces, row), row, attempts) for row in own if _key(row) in chosen]
        return [one for one in found if one is not None]

    def notes(self) -> tuple[str, ...]:
        """A line for each reason for which rows were left out."""
        return tuple(f"{count} trials are left out: {why}" for why, count in self.left_out.items() if count)

    def why(self) -> str:
        """The reasons in one line."""
        return "; ".join(f"{count} {why}" for why, count in self.left_out.items() if count)

    def _spaces(self, templates: set[str]) -> dict[str, tuple[Path, SearchSpace]]:
        """The spaces here whose template is among `templates`, by its sha256."""
        paths = [*([self.options.space] if self.options.space else []), *shipped_spaces()]
        found: dict[str, tuple[Path, SearchSpace]] = {}
        for path in paths:
            space = load_space(path)
            if space.arch.name == self.identity.arch and space.template.sha256 in templates:
                found.setdefault(space.template.sha256, (path, space))
        return found

    def _attempts(
        self, paths: Sequence[Path], candidates: Sequence[Candidate], progress: Progress
    ) -> dict[Candidate, Attempt]:
        first, *others = paths
        options = self.options
        bench = EmulatedBench(first, 0, options.settings, options.hipkittens, options.workers, others=tuple(others))
        work = bench.open([], {})
        done: dict[Candidate, Attempt] = {}
        waiting = list(reversed(candidates))
        try:
            while waiting or work.executor.pending:
                while waiting and work.executor.pending < work.executor.capacity:
                    work.executor.submit(waiting.pop())
                for attempt in work.executor.collect(1.0):
                    done[attempt.candidate] = attempt
                progress(len(done), len(candidates))
        finally:
            work.close()
        return done

    def _launch(self, space: SearchSpace, row: Trial, attempts: dict[Candidate, Attempt]) -> MeasuredLaunch | None:
        attempt = attempts[candidate_of(space.template, row)]
        if attempt.profile is None:
            self.left_out["of kernels that fail their proof here, or do not compile"] += 1
            return None
        if row.object_sha256 not in (None, attempt.object_sha256):
            self.left_out[f"of other code than {attempt.compiler} makes here, so use the compiler of the run"] += 1
            return None
        config, template = Config.from_json(row.config), space.template.for_operation(row.operation)
        launch, tile = template.launch(config, row.problem), template.tile(config)
        order = problem_order(template.order(config), tiles_of(row.problem, tile), space.arch)
        return MeasuredLaunch(attempt.profile, row.problem, launch, tile, order, time_us(row))


def _key(row: Trial) -> object:
    return (row.made_from, row.operation.code)


def _space(spaces: dict[str, tuple[Path, SearchSpace]], row: Trial) -> SearchSpace:
    return spaces[str(row.template_sha256)][1]
