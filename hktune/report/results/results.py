"""A results directory as values: what became of every shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from hktune.core.outcome import Source, Stage, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial, by_problem
from hktune.emulator.clock.model_error import model_error
from hktune.report.results.gains import Gain, Totals, Weighed, gain_over_time, gain_over_trial, totals
from hktune.store import Environment
from hktune.tables.standing import Chosen, choose
from hktune.tuning.confirming.confirmation import deciding


@dataclass(frozen=True)
class ShapeResult:
    """What became of one shape. `weight` is its calls per step of the model, 1 where nobody said. `rows` are all its
    trials, in their order. `best` is the fastest proved kernel, `ties` are others that may be as fast, and `chosen` is
    what a table uses of them; all are None or empty where no kernel was proved."""

    problem: Problem
    name: str
    weight: float
    rows: Sequence[Trial]
    best: Trial | None = None
    ties: tuple[Trial, ...] = ()
    chosen: Chosen | None = None

    @property
    def label(self) -> str:
        """What a person calls it, and its sizes."""
        return f"{self.name} {self.problem}" if self.name else str(self.problem)

    @property
    def source(self) -> Source | None:
        return self.best.source if self.best else None

    @property
    def failed(self) -> int:
        return sum(row.status is not Status.OK for row in self.rows)

    @cached_property
    def searched(self) -> list[Trial]:
        """The trials of the search: of the source that decides, and those without a time. Algorithms of the vendor's
        libraries are none."""
        rows = (row for row in self.rows if row.stage is Stage.SCREENED and row.is_kernel)
        return [row for row in rows if row.time_us is None or self.source in (None, row.source)]

    @property
    def vendor_keeps_it(self) -> bool:
        """Whether a table leaves the shape to the vendor's library."""
        return self.chosen is not None and self.chosen.trial is None


@dataclass(frozen=True)
class Reference:
    """What kernels are compared with: its short name, what it is in words, and the gain of a shape's best over it.
    `shared_rounds`: both were timed in the same rounds, or in one model, so that wins and losses can be counted."""

    name: str
    meaning: str
    gain: Callable[[ShapeResult], Gain | None]
    shared_rounds: bool = True


@dataclass(frozen=True)
class Results:
    """The trials of one results directory. `label` names it. `names` and `weights` are what a person calls problems and
    how often a model calls them; `asked` are problems that should be there, with trials or without. `environment` is
    None where nothing says what the trials were made with."""

    label: str
    trials: Sequence[Trial]
    names: Mapping[Problem, str] = field(default_factory=dict)
    weights: Mapping[Problem, float] = field(default_factory=dict)
    asked: Sequence[Problem] = ()
    environment: Environment | None = None

    @cached_property
    def deciding(self) -> list[Trial]:
        """The rows that a table is made of."""
        return deciding(self.trials)

    @cached_property
    def shapes(self) -> list[ShapeResult]:
        """Every shape, those asked for first, in their order."""
        rows = by_problem(self.trials)
        chosen = {each.standing.problem: each for each in choose(self.deciding)}
        problems = dict.fromkeys((*self.asked, *sorted(rows)))
        return [self._shape(problem, rows.get(problem, []), chosen.get(problem)) for problem in problems]

    def _shape(self, problem: Problem, rows: Sequence[Trial], chosen: Chosen | None) -> ShapeResult:
        name, weight = self.names.get(problem, ""), self.weights.get(problem, 1.0)
        name = "" if name == str(problem) else name
        if chosen is None:
            return ShapeResult(problem, name, weight, rows)
        best = chosen.standing.best
        ties = tuple(each for each in chosen.standing.ties(model_error().tie_factor) if each is not best)
        return ShapeResult(problem, name, weight, rows, best, ties, chosen)

    @property
    def solved(self) -> list[ShapeResult]:
        """The shapes that a proved kernel serves."""
        return [shape for shape in self.shapes if shape.best]

    def solved_by(self, source: Source) -> list[ShapeResult]:
        """Those of them whose times are of `source`: no figure is of both kinds."""
        return [shape for shape in self.solved if shape.source is source]

    @cached_property
    def sources(self) -> list[Source]:
        """Where the times of the best kernels come from."""
        return [source for source in Source if self.solved_by(source)]

    @property
    def devices(self) -> list[str]:
        """The devices that rows name."""
        return sorted({row.device for row in self.trials if row.device})

    def references(self, source: Source) -> list[Reference]:
        """What the best of some shape whose time is of `source` can be compared with, what matters most first."""
        shapes = self.solved_by(source)
        known = (
            Reference("vendor", _vendors_name(shapes), _over_vendor),
            Reference("best other", _OTHERS[source], _over_others),
            Reference("first trial", "the first trial of the search that has a time", _over_first, False),
        )
        return [each for each in known if any(each.gain(shape) for shape in shapes)]

    def totals(self, reference: Reference, source: Source) -> Totals | None:
        """What the gains of all shapes over `reference` come to; None where no shape has one."""
        return totals([each for shape in self.solved_by(source) if (each := _weighed(shape, reference.gain(shape)))])

    def table_totals(self, source: Source) -> Totals | None:
        """As `totals` over the vendor's library, of what a table uses: where that is the library, its gain is 1."""
        return totals([each for shape in self.solved_by(source) if (each := _of_table(shape))])


def _vendors_name(shapes: Sequence[ShapeResult]) -> str:
    names = sorted({shape.best.baseline for shape in shapes if shape.best and shape.best.baseline})
    return ", ".join(names) or "the vendor's library"


_OTHERS = {
    Source.MEASURED: "the fastest other way that was timed in the same rounds",
    Source.MODELLED: "the fastest kernel of others, in the same model",
}


def _over_vendor(shape: ShapeResult) -> Gain | None:
    return gain_over_time(shape.best, shape.best.baseline_us) if shape.best else None


def _over_others(shape: ShapeResult) -> Gain | None:
    best = shape.best
    if best is None or best.vendor_best_us is None:
        return None
    return gain_over_time(best, min(best.vendor_best_us, best.baseline_us or best.vendor_best_us))


def _over_first(shape: ShapeResult) -> Gain | None:
    first = next((row for row in shape.searched if row.time_us is not None), None)
    return gain_over_trial(shape.best, first) if shape.best else None


def _weighed(shape: ShapeResult, gain: Gain | None) -> Weighed | None:
    if gain is None or shape.best is None or shape.best.time_us is None:
        return None
    return Weighed(shape.weight, shape.best.time_us, gain)


def _of_table(shape: ShapeResult) -> Weighed | None:
    if shape.chosen is None or shape.chosen.standing.vendor_us is None:
        return None
    if shape.chosen.trial is None:
        return Weighed(shape.weight, shape.chosen.time_us, Gain(1.0, 1.0, 1.0))
    trial = shape.chosen.trial
    gain = gain_over_time(trial, trial.baseline_us or shape.chosen.standing.vendor_us)
    return Weighed(shape.weight, shape.chosen.time_us, gain) if gain else None
