"""The clock as a model that is fitted to measured launches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hktune.core.arch import Arch
from hktune.emulator.clock.constants import MeasuredLaunch, constants_of, log_ratios, with_constants
from hktune.emulator.clock.rates import Rates
from hktune.measure.fitting import PRIOR_SIGMA, Constants, Fit, Rows, Values

SIGMA = 0.05
"""Of log(modelled / measured) of one launch: about what the clock errs by on AMD's own kernels."""

PEAKS = {"hbm_tb_per_s": 8.0}
"""What no board exceeds: documented in AMD's data sheets of MI350X and MI355X."""


def clock_fit(
    launches: Sequence[MeasuredLaunch],
    rates: Rates,
    arch: Arch,
    names: Sequence[str],
    sigma: Values | None = None,
    prior_sigma: float = PRIOR_SIGMA,
) -> Fit:
    """A fit of the constants `names` of `rates`; `sigma` of each launch is SIGMA unless given."""

    def logs(constants: Constants, rows: Rows) -> Values:
        return log_ratios([launches[row] for row in rows], with_constants(rates, constants), arch)

    each = np.full(len(launches), SIGMA) if sigma is None else sigma
    problems = [one.problem for one in launches]
    return Fit(constants_of(rates, names), logs, each, problems, prior_sigma, most=PEAKS)
