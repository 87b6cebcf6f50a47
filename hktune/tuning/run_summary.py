"""What a run came to: its rows, the best of every shape, and what tuning is said to have gained over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hktune.core.outcome import Stage
from hktune.core.problem import Problem
from hktune.core.trial import Trial, by_problem
from hktune.emulator.clock.model_error import model_error
from hktune.space import Spaces
from hktune.tables.standing import standings
from hktune.tuning.confirming.confirmation import deciding
from hktune.tuning.gain import Yardstick, first_trials, trials_of
from hktune.tuning.rivals import Raced
from hktune.tuning.searching.cost import timed_slowness
from hktune.tuning.searching.search_curve import SearchCurve
from hktune.workers.gpu_worker import Usage


@dataclass(frozen=True)
class RunSummary:
    """A finished, interrupted or stopped run. `trials` are all rows of its directory, `names` the shapes asked for, and
    `spaces` what was searched. `again` has the words of the command that proves one config again on the same device,
    `command` those of this run. `stopped` says why the run, or a part of it, could not go on; `notes` what else was
    noticed. `raced` are the kernels of others. `trials_lost`: trials.csv cannot be read any more; `no_table`: none
    could be written. `to_correct`: a mistake in a template or a space stopped it, and would stop it again.

    Seconds are wall clock; `variants` counts what was compiled and proved by this run.
    """

    names: Mapping[Problem, str]
    trials: Sequence[Trial]
    directory: Path
    elapsed_s: float
    variants: int
    interrupted: bool
    spaces: Spaces
    again: Sequence[str]
    command: Sequence[str]
    usage: Usage | None = None
    stopped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    trials_lost: bool = False
    no_table: bool = False
    to_correct: bool = False
    raced: Sequence[Raced] = ()

    @cached_property
    def rows(self) -> dict[Problem, list[Trial]]:
        """The trials of each shape asked for, in their order."""
        rows = by_problem(self.trials)
        return {problem: rows.get(problem, []) for problem in self.names}

    @property
    def others(self) -> int:
        """How many rows of the directory are of shapes that were not asked for."""
        return len(self.trials) - sum(map(len, self.rows.values()))

    @cached_property
    def best(self) -> dict[Problem, Trial]:
        """The fastest proved trial of each shape that has one, of those that decide (`confirmation.deciding`), beside
        the vendor in its rounds. Of equal ones it is the last: an energy is measured after the time."""
        timed = by_problem(trial for trial in deciding(self.trials) if trial.has_time)
        return {
            problem: min(reversed(timed[problem]), key=timed_slowness) for problem in self.names if problem in timed
        }

    @cached_property
    def ties(self) -> dict[Problem, int]:
        """Of each shape, how many other configs may be as fast as the best."""
        factor = model_error().tie_factor
        return {
            each.problem: sum(trial is not each.best for trial in each.ties(factor))
            for each in standings(deciding(self.trials))
        }

    @property
    def without_kernel(self) -> list[Problem]:
        """Shapes asked for that no proved kernel serves: they take the vendor path."""
        return [problem for problem in self.names if problem not in self.best]

    @cached_property
    def chance_of_gain(self) -> dict[Problem, float]:
        """Of each shape that has a kernel: the chance that as many trials again find one that is 1 % faster."""
        searched = {
            problem: [row for row in rows if row.stage is Stage.SCREENED and row.is_kernel]
            for problem, rows in self.rows.items()
        }
        return {
            problem: SearchCurve(map(timed_slowness, searched[problem])).chance_of_gain
            for problem in self.best
            if any(row.time_us is not None for row in searched[problem])
        }

    @cached_property
    def rivals(self) -> list[Yardstick]:
        """The kernels of others, each rival's fastest for every shape."""
        return [
            Yardstick(one.rival.name, f"{one.rival.name}'s fastest kernel", one.best) for one in self.raced if one.best
        ]

    @cached_property
    def yardsticks(self) -> list[Yardstick]:
        """What the best of each shape is compared with: trials of the space's own template."""
        space = self.spaces.own
        own = {None, space.template.sha256}
        rows = {
            problem: [row for row in rows if row.is_kernel and row.template_sha256 in own]
            for problem, rows in self.rows.items()
        }
        default = dict.fromkeys(self.names, space.config({}).id)
        found = [
            Yardstick("default", "the space's default config", trials_of(rows, default)),
            Yardstick("first", "the first trial", first_trials(rows)),
        ]
        if fixed := space.fixed_choice:
            chosen = {problem: config.id for problem in self.names if (config := fixed.of(problem))}
            found.insert(1, Yardstick("fixed", fixed.name, trials_of(rows, chosen)))
        return found
