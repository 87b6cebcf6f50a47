"""What `hktune.tune` returns: the rows of a run, the best of each shape, the table, and pictures of them."""

from __future__ import annotations

import html
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hktune.core.errors import InputError
from hktune.core.escaped import escaped
from hktune.core.problem import Problem
from hktune.core.shapes import ShapeList
from hktune.core.trial import Trial
from hktune.report.results.results import Results
from hktune.session import plots
from hktune.session.given_shapes import problem_given
from hktune.store import read_frame
from hktune.store.trials import FILE_NAME
from hktune.tuning.run_summary import RunSummary

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure as PlotlyFigure

    from hktune.dispatch import Table
    from hktune.runtime import LoadedTable


_ROWS_SHOWN = 60  # of more shapes the first and the last


class Result:
    """A run that finished, was stopped, or was interrupted; `summary` has all that is known of it.

    Times are in us, and each row says whether its time is measured or modelled.
    """

    def __init__(self, summary: RunSummary, asked: ShapeList, notes: tuple[str, ...] = ()) -> None:
        """`notes` are what was noticed before the run began."""
        self.summary = summary
        self._asked = asked
        self.notes = (*notes, *summary.notes)

    @property
    def directory(self) -> Path:
        """Where trials.csv, table.json, objects/ and environment.json are."""
        return self.summary.directory

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C, or another signal, ended the search."""
        return self.summary.interrupted

    @property
    def stopped(self) -> tuple[str, ...]:
        """Why the run, or a part of it, could not go on: a line each; empty where it could."""
        return self.summary.stopped

    @cached_property
    def trials(self) -> pd.DataFrame:
        """The rows of the shapes asked for, earlier runs' too: trials.csv's columns, after the `shape` by its name.
        Raises StoreError where the file cannot be read any more."""
        frame = read_frame(self.directory / FILE_NAME)
        names = {problem.key: name for problem, name in self.summary.names.items()}
        keys = zip(frame["m"], frame["n"], frame["k"], frame["operation"], strict=True)
        frame.insert(0, "shape", [names.get((int(m), int(n), int(k), str(text))) for m, n, k, text in keys])
        return frame[frame["shape"].notna()].reset_index(drop=True)

    @cached_property
    def table(self) -> Table:
        """The dispatch table that was written. Raises TableError where there is none."""
        from hktune.dispatch import read_table

        return read_table(self.directory)

    @cached_property
    def shapes(self) -> pd.DataFrame:
        """One row for each shape: its best time, where that comes from, and how many times as fast it is as what it is
        compared with. Cells of a shape without a kernel are empty."""
        import pandas as pd

        frame = pd.DataFrame([self._row(problem, name) for problem, name in self.summary.names.items()])
        numbers = [name for name in frame.columns if name == "time_us" or name.startswith("vs ")]
        return frame.astype(dict.fromkeys(numbers, "float64"))

    def best(self, problem: object = None) -> Trial:
        """The row of the fastest proved kernel of `problem`: a name of a shape, or whatever `hktune.tune` takes as one;
        of the only shape, if there is one. Raises InputError where it was not asked for or has no kernel."""
        asked = self._problem(problem)
        if asked not in self.summary.best:
            raise InputError(f"{asked} has no proved kernel: {self._why_none(asked)}")
        return self.summary.best[asked]

    def load(self, allow_modelled: bool = False, **options: Any) -> LoadedTable:
        """`hktune.load` of the table, with its keywords. Modelled times must be allowed. Raises TableError."""
        from hktune.runtime import load

        return load(self.directory, allow_modelled, **options)

    def plot_search(self, problem: object = None) -> PlotlyFigure:
        """Every trial of the search of `problem`, as in `best`, and the best so far. Figures are plotly's; without it
        they raise ToolchainError."""
        return plots.search_plot(self._results, self._problem(problem))

    def plot_gain(self, over: str | None = None) -> PlotlyFigure:
        """How many times as fast each shape's best is as `over`: "vendor", "best other" or "first trial"; without it
        as the first of these that there is. Raises InputError where there is none."""
        return plots.gain_plot(self._results, over)

    def plot_roofline(self) -> PlotlyFigure:
        """TFLOP/s of each shape's best over its operations for each byte, under the device's limits."""
        return plots.roofline_plot(self._results)

    def plot_importance(self) -> PlotlyFigure:
        """Which parameters mattered. Raises InputError of too few trials."""
        return plots.importance_plot(self._results)

    @cached_property
    def _results(self) -> Results:
        return plots.results_of(self.summary, self._asked)

    def __repr__(self) -> str:
        rows = self._shown.to_string(index=False, na_rep="", float_format="{:.4g}".format, max_rows=_ROWS_SHOWN)
        return "\n".join([self._headline, *self.stopped, *self.notes, rows])

    def _repr_html_(self) -> str:
        """For a notebook. Names come from files and are escaped."""
        rows = self._shown.to_html(index=False, na_rep="", float_format="{:.4g}".format, border=0, max_rows=_ROWS_SHOWN)
        lines = "".join(f"<br>{html.escape(line)}" for line in (*self.stopped, *self.notes))
        return f"<p>{html.escape(self._headline)}{lines}</p>{rows}"

    @property
    def _shown(self) -> pd.DataFrame:
        """The shapes without what says nothing: comparisons with what has no time, names that are the sizes again."""
        frame = self.shapes.dropna(axis="columns", how="all")
        named = any(name != str(problem) for problem, name in self.summary.names.items())
        return frame.assign(shape=frame["shape"].map(escaped)) if named else frame.drop(columns="shape")

    @property
    def _headline(self) -> str:
        sources = sorted({str(trial.source) for trial in self.summary.best.values()})
        times = f"{' and '.join(sources)} times" if sources else "no times"
        ended = "interrupted" if self.interrupted else "stopped" if self.stopped else "done"
        found = f"{len(self.summary.best)} of {len(self.summary.names)} shapes have a kernel"
        return f"hktune.tune, {ended}: {found}, {times}, in {self.directory}"

    def _row(self, problem: Problem, name: str) -> dict[str, object]:
        best = self.summary.best.get(problem)
        row: dict[str, object] = {"shape": name, "m": problem.m, "n": problem.n, "k": problem.k}
        row |= {"operation": str(problem.operation), "tried": len(self.summary.rows[problem])}
        row |= {"time_us": best and best.time_us, "source": best and str(best.source)}
        row["vs vendor"] = best.baseline_us / best.time_us if best and best.baseline_us and best.time_us else None
        for yardstick in (*self.summary.rivals, *self.summary.yardsticks):
            row[f"vs {yardstick.name}"] = yardstick.gain(best) if best else None
        return row | {"config": best and best.config_id[:8]}

    def _problem(self, asked: object) -> Problem:
        names = self.summary.names
        if asked is None and len(names) == 1:
            return next(iter(names))
        called = [problem for problem, name in names.items() if name == asked]
        if len(called) == 1:
            return called[0]
        known = ", ".join(map(str, list(names)[:4]))
        if asked is None or called:
            which = f"{asked!r} names {len(called)} shapes" if called else f"there are {len(names)} shapes"
            raise InputError(f"{which}: name one by its sizes: {known}")
        problem = problem_given(asked)
        if problem not in names:
            raise InputError(f"{problem} was not asked for: there are {known}")
        return problem

    def _why_none(self, problem: Problem) -> str:
        rows = self.summary.rows[problem]
        return rows[0].detail or str(rows[0].status) if rows else "nothing was tried for it"
