"""What a device can do at most: the two lines of a roofline."""

from __future__ import annotations

from dataclasses import dataclass

from hktune.core.arch import GFX950
from hktune.core.identity import Identity
from hktune.core.operation import Operation
from hktune.emulator.clock.rates import arch_rates


@dataclass(frozen=True)
class PeakRates:
    """Of one product: dense TFLOP/s by the bits of an operation's wider factor, and TB/s of its memory. `source` says
    where the figures are from."""

    product: str
    tflops: dict[int, float]
    tb_per_s: float
    source: str

    def tflops_of(self, operation: Operation) -> float | None:
        """The most for `operation`; None where its factors are of formats that have no figure here."""
        return self.tflops.get(factor_bits(operation))


def factor_bits(operation: Operation) -> int:
    """The bits of the wider factor, which decides the rate of a matrix unit."""
    return max(operation.a_dtype.width_bits, operation.b_dtype.width_bits)


def _nvidia(product: str, tflops_16_bit: float, tb_per_s: float) -> PeakRates:
    """Both data sheets say twice as many operations of 8 bits as of 16, and figures with sparsity, which are halved."""
    source = f"NVIDIA's data sheet of the {product}, without sparsity"
    return PeakRates(product, {16: tflops_16_bit, 8: 2 * tflops_16_bit}, tb_per_s, source)


# The words of a device's name that are its product's, what tells most first.
_NVIDIA = {
    ("H100", "PCIE"): _nvidia("H100 PCIe", 756.5, 2.0),
    ("H100", "NVL"): _nvidia("H100 NVL", 835.5, 3.9),
    ("H100", "HBM3"): _nvidia("H100 SXM", 989.5, 3.35),
    ("H200", "NVL"): _nvidia("H200 NVL", 835.5, 4.8),
    ("H200",): _nvidia("H200 SXM", 989.5, 4.8),
}
_CDNA4_TB_PER_S = 8.0  # AMD's data sheets of the MI350X and the MI355X, 2025


def peak_rates(identity: Identity) -> PeakRates | None:
    """Of the device; None where it is none whose figures are known here, or a part of one."""
    board = identity.known_board
    if board is not None and board.arch == GFX950 and identity.compute_units == GFX950.compute_units:
        per_clk = arch_rates(board.arch).mfma_flops_per_clk_cu
        clk_per_us = board.max_clock_ghz * 1e3 * board.arch.compute_units
        source = f"AMD's CDNA4 white paper and data sheets, at {board.max_clock_ghz:g} GHz"
        tflops = {bits: rate * clk_per_us * 1e-6 for bits, rate in per_clk.items()}
        return PeakRates(board.product, tflops, _CDNA4_TB_PER_S, source)
    words = set(identity.name.upper().split())
    return next((rates for named, rates in _NVIDIA.items() if words.issuperset(named)), None)
