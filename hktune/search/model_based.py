"""Optuna's samplers as strategies.

Every parameter is an integer, the position of its value in the space's list, because the lists are ordered; a list
of three or more strings has no order and is a category. Costs go in as log2: the samplers then see ratios. A
failure counts as twice the worst cost so far, once there is one: Optuna drops failed trials, and would propose their
surroundings again. The first configs are uniform draws: a sampler's own start would favour nothing legal.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from hktune.core.config import Config, Value
from hktune.search.strategy import Outcome
from hktune.search.unique import UniqueStrategy
from hktune.space import Domain, Parameter

if TYPE_CHECKING:
    import optuna

_STARTUP_TRIALS = 10  # outcomes before a model is believed; Optuna's own default
_FAILURE_FACTOR_LOG2 = 1.0  # a failure counts as twice the worst cost


class ModelBasedStrategy(UniqueStrategy, ABC):
    """Proposals from an Optuna sampler; legality, uniqueness and seeds from the base class."""

    has_categories = True
    has_uniform_start = True

    def __init__(self, domain: Domain, seed: int) -> None:
        super().__init__(domain, seed)
        self._seed = seed
        self._pending: dict[str, int] = {}
        self._asked: optuna.Trial | None = None
        self._failures: list[Config] = []
        self._worst: float | None = None
        self._told = 0

    @cached_property
    def _study(self) -> optuna.Study:
        """Made at the first ask or tell: a run over thousands of shapes begins without."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.create_study(sampler=self._sampler(self._seed))

    @cached_property
    def _free(self) -> list[Parameter]:
        return [parameter for parameter in self.domain.parameters if len(parameter.values) > 1]

    @cached_property
    def _distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        return {parameter.name: self._distribution(parameter) for parameter in self._free}

    @abstractmethod
    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler: ...

    def _distribution(self, parameter: Parameter) -> optuna.distributions.BaseDistribution:
        from optuna.distributions import CategoricalDistribution, IntDistribution

        last = len(parameter.values) - 1
        if self.has_categories and isinstance(parameter.values[0], str) and last > 1:
            return CategoricalDistribution(range(last + 1))
        return IntDistribution(0, last)

    def _propose(self) -> Mapping[str, Value] | None:
        if self._told < _STARTUP_TRIALS and self.has_uniform_start:
            return None
        self._asked = self._study.ask(self._distributions)
        positions = self._asked.params
        return {p.name: p.values[positions.get(p.name, 0)] for p in self.domain.parameters}

    def _dropped(self) -> None:
        from optuna.trial import TrialState

        assert self._asked is not None
        self._study.tell(self._asked, state=TrialState.FAIL)
        self._asked = None

    def _chosen(self, config: Config) -> None:
        if self._asked is not None:  # else it is a seed or a draw, and added once it is known
            self._pending[config.id] = self._asked.number
            self._asked = None

    def _learn(self, outcome: Outcome) -> None:
        self._told += 1
        if outcome.cost is None:
            self._failures.append(outcome.config)
        else:
            value = math.log2(outcome.cost.value)
            self._worst = value if self._worst is None else max(value, self._worst)
            self._record(outcome.config, value)
        if self._worst is not None:
            for config in self._failures:
                self._record(config, self._worst + _FAILURE_FACTOR_LOG2)
            self._failures.clear()

    def _record(self, config: Config, value: float) -> None:
        from optuna.trial import create_trial

        number = self._pending.pop(config.id, None)
        if number is None:
            positions = {parameter.name: parameter.index(config[parameter.name]) for parameter in self._free}
            self._study.add_trial(create_trial(value=value, params=positions, distributions=self._distributions))
        else:
            self._study.tell(number, value)


class TpeStrategy(ModelBasedStrategy):
    """Tree-structured Parzen estimator over all parameters jointly; configs in flight count as bad, so that a batch
    spreads out (Bergstra et al., NeurIPS 2011)."""

    name = "tpe"

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        from optuna.samplers import TPESampler

        return TPESampler(seed=seed, n_startup_trials=_STARTUP_TRIALS, multivariate=True, constant_liar=True)


class GpStrategy(ModelBasedStrategy):
    """Gaussian process with expected improvement. Needs torch and SciPy.

    Its matrices are small, and the cores are busy compiling. Beside other busy processes, OpenBLAS's own threads made
    28 asks take 43 to 92 s in place of 4 to 15 (2-core x86-64, NumPy 2.4, SciPy 1.17): linear algebra stays on one.
    """

    name = "gp"
    proposals_max = 2  # the next one is much like the last, and takes as long

    def _propose(self) -> Mapping[str, Value] | None:
        import scipy.optimize  # noqa: F401  the limit finds only libraries that are loaded
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        with threadpool_limits(limits=1):
            return super()._propose()

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        from optuna.samplers import GPSampler

        return GPSampler(seed=seed, n_startup_trials=_STARTUP_TRIALS, warn_independent_sampling=False)


class CmaEsStrategy(ModelBasedStrategy):
    """CMA-ES with margin over the ordered parameters; categories come from TPE. Needs the package cmaes."""

    name = "cmaes"
    has_uniform_start = False  # it begins with its own distribution

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        from optuna.samplers import CmaEsSampler, TPESampler

        return CmaEsSampler(
            seed=seed,
            n_startup_trials=1,
            with_margin=True,
            warn_independent_sampling=False,
            independent_sampler=TPESampler(seed=seed, n_startup_trials=_STARTUP_TRIALS),
        )


class QmcStrategy(ModelBasedStrategy):
    """Scrambled Sobol points: even coverage, learns nothing. Needs SciPy."""

    name = "qmc"
    has_uniform_start = False
    has_categories = False  # coverage needs no order, and the sampler draws categories at random

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        from optuna.samplers import QMCSampler

        return QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False, warn_asynchronous_seeding=False)
