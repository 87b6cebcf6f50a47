"""What trials of other shapes say to try first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, islice

from hktune.core.config import Config
from hktune.core.errors import InputError, StoreError
from hktune.core.outcome import Source
from hktune.core.trial import Trial
from hktune.space import Domain, SearchSpace
from hktune.space.listed import ListedDomain
from hktune.store.recordings import Recording, recordings_among
from hktune.tuning.priors.learned_order import FIRST, Judged, LearnedModel, Measured, judge, thinned
from hktune.tuning.searching.cost import slowness

FAVOURITES = 12
"""So many configs are tried first for what was learned."""

_POOL_MAX = 1024  # configs among which favourites are sought; each costs some 0.2 ms


class Transfer:
    """An Order (`space.domain`) for one search space, learned from trials of its template. Until it has learned it
    knows nothing. What it learned is used only if it is better than the estimate on shapes that it did not learn from.
    `said` is one line about that.

    Recordings may be of other GPUs of the architecture, and of other versions of the template: what counts are the
    configs that are legal in the space now. A parameter that is younger than the rows has its default.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._model: LearnedModel | None = None
        self._judged: Judged | None = None
        self._pool: tuple[Config, ...] = ()
        self.said: str | None = None

    def learn(self, trials: Iterable[Trial], source: Source) -> None:
        """Learn from the trials whose times are of this source. Needs LightGBM."""
        of_device: defaultdict[str | None, list[Trial]] = defaultdict(list)
        for trial in trials:
            if trial.template == self._space.template.name and trial.source is source:
                of_device[trial.device].append(trial)
        recordings = chain.from_iterable(recordings_among(str(device), own) for device, own in of_device.items())
        shapes = [shape for each in recordings for shape in _shape(each, self._space)]
        if not shapes:
            return
        self._pool = _fastest_somewhere(shapes)
        few = thinned(shapes)
        self._judged = judge(few)
        if self._judged is not None and self._judged.weight:
            self._model = LearnedModel(few)
        self.said = self._in_words(shapes)

    def favourites(self, domain: Domain) -> list[Config]:
        """See Order."""
        if self._model is None:
            return []
        listed = domain.enumerate() if isinstance(domain, ListedDomain) else filter(domain.is_legal, self._pool)
        return domain.in_order(list(islice(listed, _POOL_MAX)))[:FAVOURITES]

    def slowness(self, domain: Domain, configs: Sequence[Config]) -> Sequence[float] | None:
        """See Order."""
        if self._model is None or self._judged is None:
            return None
        return self._model.slowness(domain, configs, self._judged.weight)

    def _in_words(self, shapes: Sequence[Measured]) -> str:
        trials = sum(len(shape.costs) for shape in shapes)
        name = self._space.name
        what = f"{name}: learned from {trials} trials of {len(shapes)} shapes measured before"
        if self._judged is None:
            return f"{what}: of one n and k, or too few configs of each, so no order of theirs can be judged"
        judged = self._judged
        best = min(judged.by_weight.values())
        other = "by the estimate" if self._space.estimate.expressions else "at random"
        use = "used" if judged.weight else "not used"
        return (
            f"{what}: on shapes left out, the best of its first {FIRST} is {best:.1%} slower than the best of all, "
            f"{judged.without:.1%} {other}: {use}"
        )


NOT_INSTALLED = "nothing is learned of other shapes: LightGBM is not here: pip install 'hktune[learn]'"


def can_learn() -> bool:
    """Whether LightGBM is installed, and finds what it needs of the system."""
    try:
        import lightgbm  # noqa: F401
    except (ImportError, OSError):  # the second where libgomp is absent
        return False
    return True


def led(recordings: Sequence[Recording], trials: Sequence[Trial]) -> tuple[list[Recording], list[str]]:
    """The recordings, each led by what is learned from `trials` of another n and k; and what is said of that. Without
    its space a recording is left as it is."""
    transfers: dict[tuple[str, int, int, Source | None], Transfer] = {}
    found = []
    for recording in recordings:
        if recording.space is None:
            found.append(recording)
            continue
        n, k = recording.rows[0].n, recording.rows[0].k
        source = next(row.source for row in recording.rows if row.time_us is not None)
        key = (recording.space.name, n, k, source)
        if key not in transfers and source is not None:
            transfers[key] = Transfer(recording.space)
            transfers[key].learn((trial for trial in trials if (trial.n, trial.k) != (n, k)), source)
        found.append(replace(recording, order=transfers[key]))
    return found, [
        f"n = {n}, k = {k}: {transfer.said}" for (_, n, k, _), transfer in transfers.items() if transfer.said
    ]


def _shape(recording: Recording, space: SearchSpace) -> list[Measured]:
    """What of a recording can be learned from: nothing, or one shape."""
    try:
        within = recording.within(space)
    except (InputError, StoreError):  # another operation, or nothing that is legal
        return []
    timed = [
        (config, slowness(row))
        for config, row in zip(within.configs, within.rows, strict=True)
        if row.time_us is not None
    ]
    if len(timed) < 2:
        return []
    configs, costs = zip(*timed, strict=True)
    problem = recording.rows[0].problem
    return [Measured(space.for_operation(problem.operation).domain(problem), configs, costs)]


def _fastest_somewhere(shapes: Sequence[Measured]) -> tuple[Config, ...]:
    """The configs, those first that came nearest to the best of a shape."""
    nearest: dict[Config, float] = {}
    for shape in shapes:
        for config, log in zip(shape.configs, shape.logs, strict=True):
            nearest[config] = min(float(log), nearest.get(config, float("inf")))
    return tuple(sorted(nearest, key=lambda config: nearest[config])[:_POOL_MAX])
