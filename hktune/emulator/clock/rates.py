"""Rates and latencies of the compute units and memories, which only the clock needs: one record per architecture,
and the shader clock of each board.

Units are in the names: `clk` is a shader clock, `bytes_per_clk` is per the unit named. Each value says
where it comes from: documented (AMD's CDNA4 ISA guide of August 2025 or white paper), measured (by whom, on gfx950
unless said otherwise), assumed (nobody publishes it), or fitted (chosen here; docs/explanation/clock.md says against
what).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from hktune.core.arch import GFX950, Arch
from hktune.core.board import MI355X, Board
from hktune.core.errors import InputError
from hktune.core.operation import Operation
from hktune.emulator.clock.board_clock import derived_curve


@dataclass(frozen=True)
class Rates:
    """What an instruction costs one compute unit (CU), what the memories behind it deliver, and the clock that power
    leaves. `clock_ghz` is a board's, all else its architecture's."""

    issue_slot_clk: int
    valu_clk: int
    transcendental_clk: int
    branch_clk: int
    sleep_unit_clk: int
    barrier_clk: int
    matrix_pass_clk: int
    mfma_flops_per_clk_cu: dict[int, int]

    lds_bus_bytes_per_clk: int
    lds_fifo_entries: int
    lds_latency_clk: int
    lds_dma_bytes_per_clk: int

    tcp_bytes_per_clk: int
    tcp_line_clk: float
    tcp_store_line_clk: int
    tcp_in_flight_bytes: int
    store_ack_clk: int
    scalar_load_clk: int

    line_bytes: int
    l2_bytes_xcd: int
    scattered_shared: float
    l2_bytes_per_clk_cu: float
    l2_write_bytes_per_clk_xcd: float
    fabric_bytes_per_clk_xcd: float
    mall_tb_per_s: float
    mall_bytes: int
    hbm_tb_per_s: float
    write_back_tb_per_s: float
    rotated_sets: int

    mall_ns: float
    hbm_ns: float
    cold_ns: float
    latency_growth: float
    overlap_power: float
    shared_add_us: float

    launch_us: float
    workgroup_start_clk: int
    clock_ghz: tuple[tuple[float, float], ...]

    def peak_flops_per_clk_cu(self, operation: Operation) -> int:
        """What the MFMAs of a compute unit can do for `operation`: the wider of its factors decides. What has more than
        16 bits may be multiplied in parts of 16."""
        widest = max(operation.a_dtype.width_bits, operation.b_dtype.width_bits)
        return self.mfma_flops_per_clk_cu[min(widest, 16)]


_GFX950 = Rates(
    issue_slot_clk=4,  # measured: tinygrad's gfx950 thread traces
    valu_clk=4,  # measured: tinygrad's gfx950 thread traces, dependent operations included
    transcendental_clk=16,  # documented as quarter rate; LLVM's scheduling model agrees
    branch_clk=16,  # assumed: a taken branch refills the wave's instruction buffer
    sleep_unit_clk=64,  # documented: ISA guide, S_SLEEP
    barrier_clk=4,  # inferred: a loop of AMD's Gluon tutorials with 8 barriers a k-step is 99.8 % MFMA: at most 12 fit
    matrix_pass_clk=4,  # documented: ISA guide, table 28, in passes of 4
    # Documented: white paper, dense, by bits of a factor.
    mfma_flops_per_clk_cu={16: 4096, 8: 8192, 6: 16384, 4: 16384},
    lds_bus_bytes_per_clk=128,  # measured: AMD's gfx950 Gluon tutorials, one bus for each pair of SIMDs
    lds_fifo_entries=8,  # measured: AMD's gfx950 Gluon tutorials, for each pair of SIMDs
    lds_latency_clk=64,  # measured: AMD's gfx950 Gluon tutorials (50 to 70)
    lds_dma_bytes_per_clk=128,  # assumed: the write port of a load that goes straight to LDS
    tcp_bytes_per_clk=64,  # documented: white paper; AMD's gfx950 Gluon tutorials measure it
    tcp_line_clk=1.52,  # fitted: HipKittens at 8192, 1.22 times as long where pieces of 32 bytes double the look-ups
    tcp_store_line_clk=4,  # assumed: a quarter wave for each line of a scattered store
    tcp_in_flight_bytes=45056,  # measured: AMD's gfx950 Gluon tutorials, 32 KB of data and 12 queued requests
    store_ack_clk=240,  # measured: tinygrad's gfx950 thread traces (200 to 280)
    scalar_load_clk=200,  # measured on MI300X as 83 ns for an L2 hit; scalar loads are in prologues only
    line_bytes=128,  # documented: white paper
    l2_bytes_xcd=4 << 20,  # documented: white paper
    scattered_shared=0.5,  # measured: HipKittens' paper has L2 hits of 55 % in row-major order, 73 % if all were shared
    l2_bytes_per_clk_cu=57.6,  # documented as 64; TensileLite's formocast takes 0.9 of it
    l2_write_bytes_per_clk_xcd=1024.0,  # documented for CDNA3: 16 channels of 64
    fabric_bytes_per_clk_xcd=1024.0,  # documented for CDNA3: 16 channels of 64
    mall_tb_per_s=17.2,  # documented for CDNA3: 128 channels of 64 bytes at 2.1 GHz; exact kernels fit 15 to 18
    mall_bytes=256 << 20,  # documented: white paper
    hbm_tb_per_s=6.9,  # measured: AITER's table has 1.24 GB of weights read in 182 us; the peak of 8.0 is documented
    write_back_tb_per_s=7.4,  # fitted: exact kernels
    rotated_sets=101,  # documented: AITER's tuner times on so many copies of the operands in turn
    mall_ns=259.0,  # measured on MI300X (256 to 262)
    hbm_ns=371.0,  # fitted: exact kernels; 341 to 353 measured on an idle MI300X
    cold_ns=1393.0,  # fitted: exact kernels; 770 measured for one wave alone (tinygrad's gfx950 thread traces)
    latency_growth=1.69,  # fitted: exact kernels; AMD's Gluon tutorials have 1000 clk at 0.55 of L2 and 1.55 GHz: 1.6
    overlap_power=3.0,  # fitted: exact kernels
    shared_add_us=0.064,  # fitted: exact kernels
    launch_us=1.3,  # fitted: exact kernels; the shortest device times in AITER's tables are 2.9 us
    workgroup_start_clk=600,  # measured: tinygrad's gfx950 thread traces (430 to 720 to the first instruction)
    clock_ghz=((0.09, 2.40), (0.52, 1.91), (0.69, 1.88), (0.82, 1.73), (1.00, 1.52)),  # fitted: exact kernels
)

_RATES = {GFX950.name: (_GFX950, MI355X)}
"""The rates of an architecture, and the board whose clock they have."""


@lru_cache(maxsize=64)
def rates_of(board: Board) -> Rates:
    """The rates of the architecture of `board`, with its own clock: measured, or derived from that of another board
    with the same chip. Raises InputError for an architecture whose rates nobody has written down here."""
    rates, measured = _rates_of(board.arch)
    if board == measured:
        return rates
    return replace(rates, clock_ghz=derived_curve(rates.clock_ghz, measured, board))


def arch_rates(arch: Arch) -> Rates:
    """The rates of `arch`, for what does not depend on the board: everything in clk. Raises InputError as `rates_of`
    does."""
    return _rates_of(arch)[0]


def _rates_of(arch: Arch) -> tuple[Rates, Board]:
    if arch.name not in _RATES:
        raise InputError(f"no clock rates for architecture {arch.name!r}: known are {', '.join(sorted(_RATES))}")
    return _RATES[arch.name]
