"""Workgroups that run at once on all compute units: what they take, given what they share and wait for."""

from __future__ import annotations

from hktune.core.arch import Arch
from hktune.core.launch import Tile
from hktune.core.operation import Operation
from hktune.core.problem import Problem
from hktune.core.problem_tiles import ProblemTiles
from hktune.emulator.clock.memory_traffic import Round
from hktune.emulator.clock.profile import Profile
from hktune.emulator.clock.rates import Rates


def operand_bytes(operation: Operation, m: float, n: float, k: float) -> float:
    """Bytes of m x k elements of A, and of what n columns of C take of B."""
    columns = n * operation.b_columns
    return (operation.a_dtype.width_bits / 8 * m + operation.b_dtype.width_bits / 8 * columns) * k


class WorkgroupRound:
    """The rounds of one kind in a grid (`Round`), in clk of a shader clock that `settle` gets.

    `step_clk` is one k-step of every workgroup resident on a compute unit. It is what the simulation says at the
    present latency, or what the most demanded of L2, fabric, MALL and HBM delivers, where one of them is far longer
    than the others; where two are about as long, each delays the other (`overlap_power`). The latency is that of
    a miss of L2: workgroups in step wait for the slowest of them. It is longer for the part of the misses that the MALL
    lacks too, and grows with how much is used of L2 and of the way to the MALL. `cold`: the MALL has nothing of the
    operands when the launch begins. Else it has all of them, and HBM delivers nothing. `idle_share`: the part of the
    compute units' places that has no workgroup.
    """

    def __init__(
        self,
        profile: Profile,
        part: Round,
        problem: Problem,
        tile: Tile,
        tiles: ProblemTiles,
        steps: float,
        cold: bool,
        arch: Arch,
        rates: Rates,
    ) -> None:
        self._profile, self._rates = profile, rates
        self.count = part.count
        self._steps = max(steps - profile.peeled_steps, 0.0)
        self._missing_steps = max(profile.peeled_steps - steps, 0.0)
        self._per_cu = -(-part.workgroups // arch.compute_units)
        self.idle_share = 1 - part.workgroups / (self._per_cu * arch.compute_units)
        busy_xcds = min(part.workgroups, arch.xcds)
        operation = problem.operation
        # A panel has fewer rows than a tile where the last tile is not full: nothing is loaded for what is not there.
        rows, columns = problem.rows / tiles.all_rows, problem.n / tiles.columns
        missed_bytes = operand_bytes(operation, part.xcd_panels_a * rows, part.xcd_panels_b * columns, tile.k)
        fresh_bytes = operand_bytes(operation, part.fresh_panels_a * rows, part.fresh_panels_b * columns, tile.k)
        there = operand_bytes(operation, rows, columns, 1) / operand_bytes(operation, tile.m, tile.n, 1)
        fresh_bytes *= cold
        self._l2_clk = self._per_cu * there * profile.load_bytes / rates.l2_bytes_per_clk_cu
        self._l2_share = part.workgroups * arch.xcds / (busy_xcds * self._per_cu * arch.compute_units)
        self._fabric_clk = missed_bytes / busy_xcds / rates.fabric_bytes_per_clk_xcd
        self._mall_us = missed_bytes / rates.mall_tb_per_s * 1e-6
        self._hbm_us = fresh_bytes / rates.hbm_tb_per_s * 1e-6
        self._hbm_ns = (rates.hbm_ns - rates.mall_ns) * fresh_bytes / missed_bytes
        self._cold_ns = rates.cold_ns if cold else rates.mall_ns
        stored_bytes = part.workgroups / busy_xcds * profile.store_bytes
        self._store_clk = stored_bytes / rates.l2_write_bytes_per_clk_xcd
        self._idle_ns = rates.mall_ns + self._hbm_ns
        self.latency_clk = self._idle_ns * rates.clock_ghz[0][1]
        self.step_clk = 0.0
        self._load = max(part.workgroups / arch.compute_units, 1.0)

    @property
    def per_cu(self) -> int:
        """Workgroups on a compute unit that has any."""
        return self._per_cu

    @property
    def loop_clk(self) -> float:
        """Clk of the main loops of all rounds of this kind."""
        return self.count * self._steps * self.step_clk

    def clocks(self, clock_ghz: float) -> dict[str, float]:
        """Clk that one k-step of the resident workgroups holds each unit and memory level."""
        profile, per_cu = self._profile, self._per_cu
        return {
            "mfma": per_cu * profile.mfma_clk,
            "issue": profile.issue_clk,
            "lds": per_cu * profile.lds_clk,
            "tcp": per_cu * profile.tcp_clk,
            **self._memory_clocks(clock_ghz),
        }

    def settle(self, clock_ghz: float) -> None:
        """Move latency and k-step half way towards what `clock_ghz` and the traffic make of them."""
        needed = self._memory_clocks(clock_ghz)
        simulated_clk = self._simulated_clk(clock_ghz)
        power = self._rates.overlap_power
        self.step_clk = sum(clk**power for clk in (simulated_clk, *needed.values())) ** (1 / power)
        used = needed["l2"] * self._l2_share + max(needed["fabric"], needed["mall"])
        growth = 1 + self._rates.latency_growth * used / self.step_clk
        latency_ns = self._rates.mall_ns * growth + self._hbm_ns
        self.latency_clk = (self.latency_clk + latency_ns * clock_ghz) / 2

    def clk(self, clock_ghz: float, follows: bool) -> float:
        """Clk of all rounds of this kind. `follows`: other rounds run before it.

        Each begins with loads from new pages, whose first answer is cold. Those of a later round are hidden behind the
        other resident workgroups as far as these can use what it leaves free: not at all where one workgroup fits or
        where latency bounds the loop, entirely where a k-step of n workgroups takes n times as long as one alone. The
        k-steps that prologue and epilogue contain still take their units' time, hidden or not.
        """
        steps, ends = self._steps_and_ends(follows)
        return steps * self.step_clk + ends * sum(self._ends_clk(clock_ghz))

    def ends_of_steps(self, clock_ghz: float) -> float:
        """What the ends of a workgroup take, in k-steps."""
        return sum(self._ends_clk(clock_ghz)) / self.step_clk

    def parts_clk(self, clock_ghz: float, follows: bool) -> dict[str, float]:
        """What `clk` is the sum of: k-steps, and what the ends of workgroups take that is not hidden."""
        steps, ends = self._steps_and_ends(follows)
        names = ("workgroup start", "cold pages", "prologue", "epilogue")
        parts = dict(zip(names, self._ends_clk(clock_ghz), strict=True))
        return {"k-steps": steps * self.step_clk, **{name: ends * clk for name, clk in parts.items()}}

    def step_parts_clk(self, clock_ghz: float) -> dict[str, float]:
        """What `step_clk` is the sum of: what was simulated, and how much longer each memory level makes it, by what
        it adds in `overlap_power`."""
        simulated_clk = self._simulated_clk(clock_ghz)
        parts = {name: clk**self._rates.overlap_power for name, clk in self._memory_clocks(clock_ghz).items()}
        beyond_clk = max(self.step_clk - simulated_clk, 0.0) / sum(parts.values())
        longer = {name: beyond_clk * part for name, part in parts.items()}
        return {"simulated": min(simulated_clk, self.step_clk), **longer}

    def _simulated_clk(self, clock_ghz: float) -> float:
        """Clk of a k-step as simulated. Where some compute units have a workgroup more than others, memory decides with
        what it has for all of them, until those with fewer are done; but the others cannot be faster than they are with
        memory to themselves."""
        _, shared_clk, _ = self._profile.at(self._load, self.latency_clk)
        if self._load == self._per_cu:
            return shared_clk
        _, alone_clk, _ = self._profile.at(self._per_cu, min(self._idle_ns * clock_ghz, self.latency_clk))
        return max(shared_clk, alone_clk)

    def _steps_and_ends(self, follows: bool) -> tuple[float, float]:
        """K-steps of all rounds, those in a hidden prologue and epilogue included, and how often the ends are paid."""
        later, hidden = self.count if follows else self.count - 1, self._hidden()
        steps = self.count * self._steps + later * hidden * (self._profile.peeled_steps - self._missing_steps)
        return steps, (0 if follows else 1) + later * (1 - hidden)

    def _ends_clk(self, clock_ghz: float) -> tuple[float, float, float, float]:
        """Clk of a workgroup's start, cold pages, prologue and epilogue. The last two wait for memory that is idle. Of
        their k-steps, those that the problem has not are taken off, down to what one access to memory takes."""
        idle_clk = self._idle_ns * clock_ghz
        prologue_clk, _, epilogue_clk = self._profile.at(self._per_cu, idle_clk)
        epilogue_clk = max(epilogue_clk, self._store_clk)
        code_clk = prologue_clk + epilogue_clk
        walked_clk = max(code_clk - self._missing_steps * self.step_clk, min(code_clk, idle_clk))
        walked = walked_clk / code_clk if code_clk else 0.0
        cold_clk = max(self._cold_ns * clock_ghz - idle_clk, 0.0)
        return self._rates.workgroup_start_clk, cold_clk, prologue_clk * walked, epilogue_clk * walked

    def _hidden(self) -> float:
        """The part of a round's prologue and epilogue that the other resident workgroups cover."""
        if self._per_cu == 1:
            return 0.0
        _, alone_clk, _ = self._profile.at(1, self.latency_clk)
        return min(max((self.step_clk / alone_clk - 1) / (self._per_cu - 1), 0.0), 1.0)

    def _memory_clocks(self, clock_ghz: float) -> dict[str, float]:
        mall_clk, hbm_clk = self._mall_us * clock_ghz * 1e3, self._hbm_us * clock_ghz * 1e3
        return {"l2": self._l2_clk, "fabric": self._fabric_clk, "mall": mall_clk, "hbm": hbm_clk}
