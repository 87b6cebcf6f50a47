"""The stopwatch of the emulated device: times are modelled, and say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from hktune.core.board import DEFAULT_BOARD, Board
from hktune.core.group_sizes import Tokens
from hktune.core.launch import Launch
from hktune.core.outcome import Failure, Source, Timing
from hktune.core.problem import Problem
from hktune.core.problem_tiles import ProblemTiles, tiles_of
from hktune.emulator.clock import launch_time
from hktune.emulator.clock.memory_traffic import problem_order
from hktune.emulator.clock.model_error import model_error
from hktune.emulator.clock.rates import Rates
from hktune.measure.stopwatch import Attempt
from hktune.template.templates import Templates


class ModelledStopwatch:
    """Applies the clock of `board` to the profile that the proof of a variant left. Deterministic; runs nothing.
    `others` are the fastest kernels of others by problem, with their modelled time in us, which every time then
    names. `rates` are those of the board unless given; `tokens` are the sizes that groups of a problem have, where that
    is known."""

    source = Source.MODELLED

    def __init__(
        self,
        templates: Templates,
        others: Mapping[Problem, tuple[str, float]] | None = None,
        board: Board = DEFAULT_BOARD,
        rates: Rates | None = None,
        tokens: Mapping[Problem, Tokens] = MappingProxyType({}),
    ) -> None:
        self._templates = templates
        self._others = others or {}
        self._board = board
        self._rates = rates
        self._tokens = tokens

    def time(self, attempt: Attempt, problem: Problem) -> Timing | Failure:
        assert attempt.profile is not None, "only proved variants are timed"
        template = self._templates.of(attempt.template).for_operation(problem.operation)
        launch, tile = template.launch(attempt.config, problem), template.tile(attempt.config)
        tiles = tiles_of(problem, tile, self._tokens.get(problem, ()))
        order = problem_order(template.order(attempt.config), tiles, self._board.arch)
        what = (attempt.profile, problem, launch, tile, self._board, order, self._rates, tiles)
        modelled = launch_time.modelled_time(*what)
        timing = with_interval(modelled.timing, problem, launch, tiles)
        name, time_us = self._others.get(problem, (None, None))
        return replace(timing, bound=modelled.bound, vendor_best=name, vendor_best_us=time_us)


def with_interval(timing: Timing, problem: Problem, launch: Launch, tiles: ProblemTiles) -> Timing:
    """`timing`, modelled for `launch` on the `tiles` of `problem`, with where a measured time is expected."""
    low_us, high_us = model_error().interval_us(timing.time_us, problem.m, tiles.shares(launch), tiles.count)
    return replace(timing, time_us_low=low_us, time_us_high=high_us)
