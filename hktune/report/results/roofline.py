"""Where each shape's best kernel is below what the device can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hktune.report.results.peak_rates import PeakRates, factor_bits, peak_rates
from hktune.report.results.results import Results, ShapeResult


@dataclass(frozen=True)
class RooflinePoint:
    """One shape's best kernel: floating-point operations for each byte that must be touched once, and TFLOP/s.
    `share` is of the lower of both limits there, None where the device's are not known."""

    shape: ShapeResult
    flops_per_byte: float
    tflops: float
    share: float | None


@dataclass(frozen=True)
class Roofline:
    """The shapes under the device's limits. `peak` is None where they are not known, and `why_no_peak` says why."""

    points: Sequence[RooflinePoint]
    peak: PeakRates | None
    why_no_peak: str

    @property
    def bits(self) -> list[int]:
        """The widths of factors whose limits are of use here."""
        widths = {factor_bits(point.shape.problem.operation) for point in self.points}
        return sorted(widths & set(self.peak.tflops)) if self.peak else []


def roofline(results: Results) -> Roofline:
    """Of every shape that has a kernel."""
    peak, why = _peak(results)
    return Roofline([_point(shape, peak) for shape in results.solved], peak, why)


def _peak(results: Results) -> tuple[PeakRates | None, str]:
    if results.environment is None:
        return None, "No environment.json says which device this is, so its limits are not drawn"
    if len(results.devices) > 1:
        return None, "Rows are of several devices, so no limits are drawn"
    identity = results.environment.identity
    peak = peak_rates(identity)
    return peak, "" if peak else f"The limits of {identity.name} are not known here, so none are drawn"


def _point(shape: ShapeResult, peak: PeakRates | None) -> RooflinePoint:
    assert shape.best is not None
    assert shape.best.time_us is not None
    problem = shape.problem
    flops_per_byte = problem.flops / problem.bytes
    tflops = problem.flops / shape.best.time_us * 1e-6
    most = peak.tflops_of(problem.operation) if peak else None
    share = tflops / min(most, peak.tb_per_s * flops_per_byte) if peak and most else None
    return RooflinePoint(shape, flops_per_byte, tflops, share)
