"""What looks wrong in a kernel's outputs to somebody who does not know what is right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hktune.emulator.schedules.schedule import USUAL, Schedule
from hktune.verify.diagnosis import Diagnosis, of_outputs
from hktune.verify.kernel_buffers import Numbers

_ROUNDINGS = 64
_STEPS = {"f64": 2.0**-52, "f32": 2.0**-23, "f16": 2.0**-10, "bf16": 2.0**-7, "e4m3": 2.0**-3, "e5m2": 2.0**-2}
"""The step of each type at 1; sums in another order differ by some of these, relative to the largest output."""


def differing(name: str, kind: str, usual: Numbers, other: Numbers, schedule: Schedule) -> Diagnosis | None:
    """An output of type `kind` that another schedule leaves with other values."""
    one, two = usual.reshape(-1), other.reshape(-1)
    both_nan = _is_nan(one) & _is_nan(two)
    places = np.flatnonzero((one != two) & ~both_nan)
    if not len(places):
        return None
    first = places[0]
    what = f"{name}: {len(places)} of {one.size} elements depend on the schedule, first {_index(usual, first)}: "
    rule = "rounding-order" if _by_rounding(one, two, kind) else "schedule-dependent"
    return of_outputs(rule, f"{what}{one[first]:g} with {USUAL}; {two[first]:g} with {schedule}")


def strange(name: str, values: Numbers, counts: npt.NDArray[np.bool_]) -> Diagnosis | None:
    """An output with NaN or infinity among the elements that count."""
    places = np.flatnonzero(~np.isfinite(values) & counts) if values.dtype.kind == "f" else np.zeros(0, np.intp)
    if not len(places):
        return None
    where = f"first {_index(values, places[0])}: {values.reshape(-1)[places[0]]:g}"
    what = f"{name}: {len(places)} of {values.size} elements are NaN or infinite, {where}; all inputs are finite"
    return of_outputs("not-finite", what)


def finite(values: Numbers) -> bool:
    """Whether there is no NaN and no infinity among them."""
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())


def _by_rounding(one: Numbers, two: Numbers, kind: str) -> bool:
    if kind not in _STEPS or not (np.isfinite(one).all() and np.isfinite(two).all()):
        return False
    largest = max(float(np.abs(one).max()), float(np.abs(two).max()))
    steps = _ROUNDINGS if kind in ("f32", "f64") else 2
    return bool(np.abs(one.astype(np.float64) - two).max() <= steps * _STEPS[kind] * largest)


def _is_nan(values: Numbers) -> npt.NDArray[np.bool_]:
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)


def _index(values: Numbers, at: np.intp) -> list[int]:
    return [int(part) for part in np.unravel_index(at, values.shape)]
