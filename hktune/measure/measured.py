"""The stopwatch of a real GPU: every candidate and the vendor's library, in the same rounds, on rotated operands."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from hktune.core.arch import ARCHS
from hktune.core.errors import DeviceError, KernelFault
from hktune.core.group_sizes import Tokens
from hktune.core.launch import Launch
from hktune.core.outcome import Failure, Source, Status, Timing
from hktune.core.problem import Problem
from hktune.core.sums import FLOAT32_SUMS, Sums, sums_of
from hktune.device.device import Buffer, Kernel, TimedDevice
from hktune.device.vendor_library import VendorLibrary
from hktune.measure.agreement import disagreement, mistake
from hktune.measure.algorithms import launching, library_of
from hktune.measure.arena import Arena, OperandSet
from hktune.measure.baseline import Baseline, torch_stream
from hktune.measure.comparison import Comparison, Race, compare
from hktune.measure.energy import Energies, EnergyMeter
from hktune.measure.stopping import CONFIRMING, SCREENING, STEADY, StoppingRule
from hktune.measure.stopwatch import Attempt, Confirmation
from hktune.measure.stopwatch import Side as Named
from hktune.measure.timer import LONE_US, GraphTimer, Side
from hktune.template.templates import Templates

HOPELESS = 2.0
"""A candidate whose first timed launch takes so many times as long as the vendor's is not timed further."""

GLANCES = 3
"""Launches that may show that a candidate is not hopeless: a busy host may hold up one of them."""


@dataclass
class _Bench:
    """One problem, ready to be timed: operands, and the baseline as a graph. `best` is the best ratio seen."""

    sets: list[OperandSet]
    enqueue_vendor: Callable[[OperandSet], None]
    vendor: Side
    vendor_us: float
    best: float = 0.0


class MeasuredStopwatch:
    """Stopwatch over one device, in the process that owns it. A KernelFault passes through: the device is lost then.

    `loaded` gives the kernel of an attempt, `libraries` are those that others are algorithms of, by name.
    `baselines`[0] is what candidates are compared with. `problems` are all that will be timed, which sizes the arena.
    `cache` is `cold` or `warm`, see `operands.set_count`; `tokens` are the sizes that groups have, where that is known.
    """

    source = Source.MEASURED

    def __init__(
        self,
        device: TimedDevice,
        templates: Templates,
        loaded: Callable[[Attempt], Kernel],
        baselines: Sequence[Baseline],
        problems: Iterable[Problem],
        cache: str = "cold",
        seed: int = 0,
        libraries: Mapping[str, VendorLibrary] = MappingProxyType({}),
        tokens: Mapping[Problem, Tokens] = MappingProxyType({}),
    ) -> None:
        self._libraries = libraries
        self._device = device
        self._templates = templates
        self._loaded = loaded
        self._baseline, *self._other_ways = baselines
        self._arena = Arena(problems, cache, device.last_level_cache_bytes, seed, tokens)
        self.timer = GraphTimer(device)
        self._benches: dict[Problem, _Bench] = {}

    def time(self, attempt: Attempt, problem: Problem) -> Timing | Failure:
        """Screen one candidate: few rounds, and fewer if it is clearly slower than the best one of `problem`."""
        bench = self._bench(problem)
        side = self._candidate(attempt, problem, bench, hopeless_us=HOPELESS * bench.vendor_us + LONE_US)
        if not isinstance(side, Side):
            return side
        [comparison] = self._compared([side], bench, SCREENING, Race(best=bench.best))
        if not comparison.lost_race:
            bench.best = max(bench.best, comparison.ratio.median)
        return self._timing(comparison, comparison.baseline_us.median)

    def confirm(
        self, attempts: Sequence[Attempt], problem: Problem, others: Sequence[Named] = (), steady: bool = False
    ) -> Confirmation:
        """Fresh rounds of the best candidates, together with all baselines and `others`, on a device that is warm.

        Every output is checked again after.
        """
        bench = self._bench(problem)
        sides = [self._sound(attempt, problem, bench) for attempt in attempts]
        good = [side for side in sides if isinstance(side, Side)]
        ways = {} if steady else self._other_sides(problem, bench)
        rivals = {**ways, **self._sides_of(others, problem, bench)}
        self.timer.heat(bench.vendor)
        rule = STEADY if steady else CONFIRMING
        compared = self._compared([*good, *rivals.values()], bench, rule, Race(rivals=len(rivals)), steady)
        # Whoever left early saw other rounds: one baseline time for all, so that times order as ratios do.
        base_us = max(compared, key=lambda comparison: comparison.rounds).baseline_us.median
        comparisons = iter(compared)
        outcomes = [
            side if isinstance(side, Failure) else self._still_right(side, next(comparisons), problem, bench, base_us)
            for side in sides
        ]
        ratios = {name: next(comparisons).ratio.median for name in rivals}
        all_ways = {**ratios, **_algorithm_ratios(attempts, outcomes)}
        return Confirmation(tuple(_beside_the_best_of(all_ways, outcome) for outcome in outcomes), ratios)

    def energies(self, attempts: Sequence[Attempt], problem: Problem, windows: int) -> Energies:
        """See EnergyStopwatch. A candidate that is wrong has none."""
        bench = self._bench(problem)
        if self._device.energy_j() is None:
            return Energies(None, tuple(None for _ in attempts))
        sides = [self._sound(attempt, problem, bench) for attempt in attempts]
        good = [side for side in sides if isinstance(side, Side)]
        baseline, *found = self._meter.measure([bench.vendor, *good], [1, *(windows for _ in good)])
        each = iter(found)
        return Energies(baseline, tuple(next(each) if isinstance(side, Side) else None for side in sides))

    @functools.cached_property
    def _meter(self) -> EnergyMeter:
        """One for all: it learns the pace of the counter."""
        return EnergyMeter(self._device, self.timer)

    def compared_graphs(self, sides: Sequence[Side], rule: StoppingRule) -> list[Comparison]:
        """The first side as the baseline of the others, by `rule`: how the stopwatch itself is examined."""
        return compare(lambda orders: self.timer.play(sides, orders), len(sides) - 1, rule)

    def side(self, attempt: Attempt, problem: Problem) -> Side:
        """The graph of one candidate. Raises DeviceError when it is wrong."""
        side = self._sound(attempt, problem, self._bench(problem))
        if isinstance(side, Failure):
            raise DeviceError(f"{attempt.config.id} on {problem}: {side.detail}")
        return side

    def _bench(self, problem: Problem) -> _Bench:
        if problem not in self._benches:
            sets = self._arena.sets(problem)
            enqueue = self._baseline.prepare(problem, sets[0], self.timer.stream)
            vendor = self._vendor_side(enqueue, sets)
            self._benches[problem] = _Bench(sets, enqueue, vendor, self.timer.launch_us(vendor))
        return self._benches[problem]

    def _side(self, enqueue: Callable[[OperandSet], None], sets: Sequence[OperandSet]) -> Side:
        def enqueue_set(index: int) -> None:
            enqueue(sets[index])

        return self.timer.side(enqueue_set, len(sets))

    def _vendor_side(self, enqueue: Callable[[OperandSet], None], sets: Sequence[OperandSet]) -> Side:
        for operands in sets:  # a baseline may store some of them otherwise at its first call
            enqueue(operands)
        return self._side(enqueue, sets)

    def _sound(self, attempt: Attempt, problem: Problem, bench: _Bench) -> Side | Failure:
        """The graph of a candidate that is right."""
        side = self._candidate(attempt, problem, bench, hopeless_us=float("inf"))
        assert not isinstance(side, Timing), "nothing is hopeless here"
        return side

    def _candidate(
        self, attempt: Attempt, problem: Problem, bench: _Bench, hopeless_us: float
    ) -> Side | Timing | Failure:
        """The graph of a candidate whose first output is what the vendor's is; its time, if one launch took longer than
        `hopeless_us`."""
        try:
            enqueue = self._enqueuing(attempt, problem)
            wrong = self._checked(lambda: enqueue(bench.sets[0]), problem, bench)
            if wrong:
                return Failure(Status.WRONG, f"{problem}: {wrong}")
            glance_us = self._glance_us(enqueue, bench, hopeless_us)
            if glance_us > hopeless_us:
                return self._hopeless(glance_us, bench)
            return self._side(enqueue, bench.sets)
        except KernelFault:
            raise
        except DeviceError as refused:
            return Failure(Status.CRASHED, str(refused))

    def _glance_us(self, enqueue: Callable[[OperandSet], None], bench: _Bench, hopeless_us: float) -> float:
        """The time of one launch, the least of several where it is hopeless."""
        least_us = float("inf")
        for _ in range(GLANCES):
            least_us = min(least_us, self.timer.glance_us(lambda index: enqueue(bench.sets[index]), bench.vendor))
            if least_us <= hopeless_us:
                break
        return least_us

    def _checked(self, run: Callable[[], None], problem: Problem, bench: _Bench) -> str | None:
        """What is wrong with C of the first set after `run`."""
        import torch

        c, stream = bench.sets[0]["c"], torch_stream(self.timer.stream)
        with torch.cuda.stream(stream):
            unwritten = float("nan") if c.dtype.is_floating_point else problem.operation.c_dtype.poison_bits
            before = c.clone() if problem.operation.accumulates else torch.full_like(c, unwritten)
            bench.enqueue_vendor(bench.sets[0])
            reference = c.clone()
            c.copy_(before)
            run()
            wrong = disagreement(c, reference, problem.k, problem.operation.c_dtype)
            if wrong and mistake(problem, bench.sets[0], before, self._sums(problem)) is None:
                wrong = None
        stream.synchronize()
        return wrong

    def _sums(self, problem: Problem) -> Sums:
        arch = ARCHS.get(self._device.identity.arch)
        return sums_of(problem.operation, arch) if arch else FLOAT32_SUMS

    def _enqueuing(self, attempt: Attempt, problem: Problem) -> Callable[[OperandSet], None]:
        """What puts one launch of a candidate on the timer's stream."""
        if attempt.algorithm:
            library = library_of(attempt.algorithm, self._libraries)
            return launching(library, attempt.algorithm, problem, self.timer.stream)
        launch = self._templates.of(attempt.template).launch(attempt.config, problem)
        return self._enqueue(self._loaded(attempt), launch, problem)

    def _enqueue(self, kernel: Kernel, launch: Launch, problem: Problem) -> Callable[[OperandSet], None]:
        import torch

        shared: dict[str, Buffer | int] = {**problem.numbers()}
        if launch.workspace_bytes:
            shared["workspace"] = self._device.borrow(
                torch.zeros(launch.workspace_bytes, dtype=torch.uint8, device="cuda")
            )

        def enqueue(operands: OperandSet) -> None:
            buffers = {name: self._device.borrow(tensor) for name, tensor in operands.items()}
            self._device.launch(kernel, launch, launch.bound({**shared, **buffers}), self.timer.stream)

        return enqueue

    def _sides_of(self, others: Sequence[Named], problem: Problem, bench: _Bench) -> dict[str, Side]:
        """The graphs of `others` that are right here."""
        sides = {name: self._sound(attempt, problem, bench) for name, attempt in others}
        return {name: side for name, side in sides.items() if isinstance(side, Side)}

    def _other_sides(self, problem: Problem, bench: _Bench) -> dict[str, Side]:
        """The vendor's other ways to compute `problem`; those that it does not have are left out."""
        sides: dict[str, Side] = {}
        for way in self._other_ways:
            try:
                enqueue = way.prepare(problem, bench.sets[0], self.timer.stream)
            except KernelFault:
                raise
            except DeviceError:
                continue
            sides[way.name] = self._vendor_side(enqueue, bench.sets)
        return sides

    def _compared(
        self, sides: Sequence[Side], bench: _Bench, rule: StoppingRule, race: Race, steady: bool = False
    ) -> list[Comparison]:
        contestants = [bench.vendor, *sides]
        play = self.timer.take_turns if steady else self.timer.play
        return compare(lambda orders: play(contestants, orders), len(sides), rule, race)

    def _still_right(
        self, side: Side, comparison: Comparison, problem: Problem, bench: _Bench, base_us: float
    ) -> Timing | Failure:
        wrong = self._checked(lambda: self._device.replay(side.graph, self.timer.stream), problem, bench)
        if wrong:
            return Failure(Status.WRONG, f"{problem}, after {comparison.rounds} rounds: {wrong}")
        return self._timing(comparison, base_us)

    def _hopeless(self, time_us: float, bench: _Bench) -> Timing:
        """The time of a candidate that one launch was enough for."""
        return Timing(
            source=self.source,
            time_us=time_us,
            left_early=True,
            samples=1,
            cache=self._arena.cache,
            baseline=self._baseline.name,
            baseline_us=bench.vendor_us,
            note=f"one launch, left at less than {1 / HOPELESS:g}x the vendor",
        )

    def _timing(self, comparison: Comparison, base_us: float) -> Timing:
        """The candidate's time as the baseline's over their ratio: clocks drift between rounds, not within one."""
        ratio, clocks = comparison.ratio, self.timer.clocks
        left = "; left early, clearly slower" if comparison.lost_race else ""
        return Timing(
            source=self.source,
            time_us=base_us / ratio.median,
            time_us_low=base_us / ratio.high,
            time_us_high=base_us / ratio.low,
            left_early=comparison.lost_race,
            samples=comparison.rounds,
            cache=self._arena.cache,
            baseline=self._baseline.name,
            baseline_us=base_us,
            clock_mhz=clocks.sm_mhz,
            power_w=clocks.power_w,
            throttled=", ".join(clocks.throttled) or None,
            note=f"{ratio.median:.4f}x the vendor ({ratio.low:.4f}..{ratio.high:.4f}){left}",
        )


def _algorithm_ratios(attempts: Sequence[Attempt], outcomes: Sequence[Timing | Failure]) -> dict[str, float]:
    """Of the finalists that are algorithms of the vendor's libraries, the baseline's time over theirs."""
    return {
        str(attempt.algorithm): outcome.baseline_us / outcome.time_us
        for attempt, outcome in zip(attempts, outcomes, strict=True)
        if attempt.algorithm and isinstance(outcome, Timing) and outcome.baseline_us is not None
    }


def _beside_the_best_of(ratios: dict[str, float], outcome: Timing | Failure) -> Timing | Failure:
    """`outcome` with the fastest of the other ways, whose `ratios` are the baseline's time over theirs."""
    if not ratios or not isinstance(outcome, Timing) or outcome.baseline_us is None:
        return outcome
    name, ratio = max(ratios.items(), key=lambda rival: rival[1])
    return replace(outcome, vendor_best=name, vendor_best_us=outcome.baseline_us / ratio)
