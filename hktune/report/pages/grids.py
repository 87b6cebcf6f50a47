"""The tables of a report on one directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hktune.core.command_words import words_of
from hktune.core.config import Config
from hktune.core.outcome import Source
from hktune.core.trial import Trial
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.report.intervals import interval, interval_meaning, millijoules
from hktune.report.pages.grid import Cell, Column, Grid, Heading, cells, gain_cell, grid_of_columns, microseconds
from hktune.report.results.clocks import Clocks
from hktune.report.results.curves import curve_of
from hktune.report.results.failure_kinds import failure_kinds
from hktune.report.results.gains import Gain
from hktune.report.results.importance import Importances
from hktune.report.results.results import Reference, Results, ShapeResult
from hktune.report.results.roofline import Roofline
from hktune.tables.breakpoints import Regret

_TIES_SHOWN = 8


def shapes_grid(results: Results, source: Source, roofline: Roofline) -> Grid:
    """Every shape whose best time is of `source`: its best kernel, and what that is compared with."""
    shapes = results.solved_by(source)
    shared = {str(shape.problem.operation) for shape in shapes}
    of = f" {shared.pop()}" if len(shared) == 1 else ""
    note = interval_meaning() if source is Source.MODELLED else "low..high: the interval of the median"
    columns = _shape_columns(results, source, {id(point.shape): point.share for point in roofline.points})
    return grid_of_columns(f"Best{of} kernel of every shape; every time is {source}", columns, note)


def _shape_columns(results: Results, source: Source, shares: Mapping[int, float | None]) -> list[Column]:
    both = [(shape, shape.best) for shape in results.solved_by(source) if shape.best]
    shapes, best = [shape for shape, _ in both], [trial for _, trial in both]
    several = len({trial.operation for trial in best}) > 1
    templates = len({trial.template for trial in best}) > 1
    weighted = bool(results.weights)
    return [
        (Heading("shape", foreign=True), [shape.name for shape in shapes]),
        (Heading("m x n x k"), [f"{trial.m} x {trial.n} x {trial.k}" for trial in best]),
        (Heading("operation"), [str(trial.operation) if several else "" for trial in best]),
        (Heading("calls", right=True), [f"{shape.weight:g}" if weighted else "" for shape in shapes]),
        (Heading("time, us", right=True), [microseconds(trial.time_us) for trial in best]),
        (Heading("low..high", right=True), [interval(trial.time_us_low, trial.time_us_high) for trial in best]),
        *(_gain_column(reference, shapes) for reference in results.references(source)),
        (Heading("table has"), [_choice(shape) for shape in shapes]),
        (Heading("TFLOP/s", right=True), [_tflops(trial) for trial in best]),
        (Heading("energy, mJ", right=True), [millijoules(trial.energy_j) for trial in best]),
        (Heading("vendor's, mJ", right=True), [millijoules(trial.baseline_energy_j) for trial in best]),
        (Heading("of limit", right=True), [_percent(shares.get(id(shape))) for shape in shapes]),
        (Heading("ties", right=True), [str(len(shape.ties) or "") for shape in shapes]),
        (Heading("trials", right=True), [str(len(shape.rows)) for shape in shapes]),
        (Heading("failed", right=True), [str(shape.failed or "") for shape in shapes]),
        (Heading("may gain", right=True), [_percent(curve_of(shape).chance_of_gain) for shape in shapes]),
        (Heading("config"), [trial.config_id[:8] for trial in best]),
        (Heading("template", foreign=True), [trial.template or "" if templates else "" for trial in best]),
    ]


def _gain_column(reference: Reference, shapes: Sequence[ShapeResult]) -> Column:
    """Gains with what they say; where rounds were not shared, nothing is said of doubt."""
    gains = [reference.gain(shape) for shape in shapes]
    cell = gain_cell if reference.shared_rounds else _plain_gain
    return Heading(f"vs {reference.name}", right=True), [cell(gain) for gain in gains]


def _plain_gain(gain: Gain | None) -> Cell:
    if gain is None:
        return Cell("")
    return Cell(f"{'at least ' if gain.at_least else ''}{gain.ratio:.2f}")


def _tflops(best: Trial) -> str:
    return f"{best.problem.flops / best.time_us * 1e-6:.0f}" if best.time_us else ""


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _choice(shape: ShapeResult) -> str:
    """What a table uses, where that is not the best kernel."""
    if shape.vendor_keeps_it:
        return "the vendor's"
    chosen = shape.chosen.trial if shape.chosen else None
    if chosen is None or shape.best is None or chosen.made_from == shape.best.made_from:
        return ""
    return f"{chosen.config_id[:8]}, a tie"


def without_kernel_grid(results: Results) -> Grid:
    """The shapes that no proved kernel serves."""
    rows = [
        cells(shape.name, shape.problem, len(shape.rows), shape.rows[0].detail if shape.rows else "nothing was tried")
        for shape in results.shapes
        if not shape.best
    ]
    headings = [Heading("shape", foreign=True), Heading("problem"), Heading("trials", right=True)]
    return Grid(
        "Shapes without a proved kernel", [*headings, Heading("first said", foreign=True)], rows
    ).without_empty()


def configs_grid(results: Results) -> Grid:
    """The whole configs of the best kernels and algorithms, by their ids."""
    best = {shape.best.made_from: shape.best for shape in results.solved if shape.best}
    rows = [
        cells(trial.config_id[:8], trial.template or trial.library, _parameters(trial))
        for trial in sorted(best.values(), key=lambda trial: (trial.template or "", trial.config_id))
    ]
    headings = [Heading("config"), Heading("template", foreign=True), Heading("parameters", foreign=True)]
    return Grid("Configs of the best kernels", headings, rows)


def _parameters(trial: Trial) -> str:
    """Of a kernel its config; of an algorithm what its library calls it."""
    config = Config.from_json(trial.config)
    return " ".join(words_of(config)) if trial.is_kernel else str(VendorAlgorithm.of_config(config))


def ties_grid(results: Results) -> Grid:
    """The shapes of which other configs may be as fast as the best."""
    rows = [
        cells(shape.name, shape.problem, len(shape.ties), _tied(shape), shape.source)
        for shape in results.solved
        if shape.ties
    ]
    headings = [Heading("shape", foreign=True), Heading("problem"), Heading("ties", right=True)]
    headings += [Heading("config and its time over the best's"), Heading("times are")]
    return Grid("Configs that may be as fast as the best", headings, rows).without_empty()


def _tied(shape: ShapeResult) -> str:
    assert shape.best is not None
    best_us = shape.best.time_us or 1.0
    shown = [
        f"{trial.config_id[:8]} {(trial.time_us or 0.0) / best_us:.3f}{_energy(trial)}"
        for trial in shape.ties[:_TIES_SHOWN]
    ]
    more = len(shape.ties) - len(shown)
    return ", ".join([*shown, *([f"and {more} more"] if more else [])])


def _energy(trial: Trial) -> str:
    return f" ({millijoules(trial.energy_j)} mJ)" if trial.energy_j is not None else ""


def regrets_grid(regrets: Sequence[Regret], source: Source) -> Grid:
    """What serving a shape with its neighbour's kernel loses, the worst first."""
    rows = [
        cells(
            each.problem,
            f"m = {each.winner_of.m}",
            each.config_id[:8] if each.config_id else "the vendor's",
            microseconds(each.time_us),
            microseconds(each.best_us),
            f"{each.regret:+.1%}",
        )
        for each in sorted(regrets, key=lambda each: -each.regret)
    ]
    headings = [Heading("problem"), Heading("served as"), Heading("with")]
    headings += [Heading(text, right=True) for text in ("its time, us", "own choice, us", "lost")]
    return Grid(f"Neighbours served by each other's choices; every time is {source}", headings, rows)


def failures_grid(results: Results) -> Grid:
    """What failed, by kind."""
    rows = [
        cells(
            *(kind.status, kind.trials, kind.configs, kind.shapes, kind.quarantined or None),
            *(f"{kind.first.config_id[:8]} on {kind.first.problem}", kind.first.detail or "no detail"),
        )
        for kind in failure_kinds(results.trials)
    ]
    headings = [Heading("how"), *(Heading(text, right=True) for text in ("trials", "configs", "shapes", "quarantined"))]
    headings += [Heading("for example"), Heading("which said", foreign=True)]
    return Grid("Trials that failed, by kind", headings, rows).without_empty()


def clocks_grid(clocks: Clocks) -> Grid:
    """The clock and power of each shape's measured rows."""
    rows = [
        cells(
            *(each.shape.name, each.shape.problem, each.rows, f"{each.clock_mhz:.0f}"),
            *(None if each.power_w is None else f"{each.power_w:.0f}", f"{each.throttled:.0%}"),
        )
        for each in clocks.shapes
    ]
    headings = [Heading("shape", foreign=True), Heading("problem")]
    headings += [Heading(text, right=True) for text in ("rows", "clock, MHz", "power, W", "held down")]
    return Grid("Medians of the measured rows of each shape", headings, rows).without_empty()


def importance_grid(found: Importances) -> Grid:
    """The shares of importance of every parameter."""
    names = list(found.groups[0].shares)
    headings = [Heading("parameter", foreign=True)]
    headings += [
        Heading(f"{group.name}: {group.trials} trials of {group.shapes}", right=True) for group in found.groups
    ]
    rows = [cells(name, *(_share(group.shares.get(name)) for group in found.groups)) for name in names]
    return Grid(f"Importance of the parameters of {found.template}", headings, rows)


def _share(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"


def environment_grid(results: Results) -> Grid:
    """What the trials were made with."""
    rows = [*_of_environment(results), *_of_rows(results)]
    return Grid("What the times were made with", [Heading("what"), Heading("value", foreign=True)], rows)


def _of_environment(results: Results) -> list[list[Cell]]:
    environment = results.environment
    if environment is None:
        return [cells("environment.json", "there is none; the lines below are what the rows themselves say")]
    versions = [cells(f"version of {name}", text) for name, text in sorted(environment.versions.items())]
    return [
        cells("device", environment.identity),
        cells("compiler", environment.compiler),
        *([cells("judge of proofs and modelled times", environment.judge)] if environment.judge else []),
        cells("command", " ".join(environment.command)),
        cells("started at", environment.started_at),
        cells("commit", environment.commit or "not known"),
        *versions,
    ]


def _of_rows(results: Results) -> list[list[Cell]]:
    said = {
        "directory": [results.label],
        "devices that rows name": results.devices,
        "vendor's library": _distinct(results, "baseline"),
        "templates": _distinct(results, "template"),
        "compilers": _distinct(results, "compiler"),
        "strategies": _distinct(results, "strategy"),
        "seeds": _distinct(results, "seed"),
        "caches while timing": _distinct(results, "cache"),
        "GPUs": _distinct(results, "gpu"),
    }
    started = [row.started_at for row in results.trials if row.started_at]
    times = [cells("rows were made", f"{min(started)} to {max(started)}")] if started else []
    return [cells(what, ", ".join(values)) for what, values in said.items() if values] + times


def _distinct(results: Results, field: str) -> list[str]:
    values = {getattr(row, field) for row in results.trials}
    return sorted(str(value) for value in values if value is not None)
