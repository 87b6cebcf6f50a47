"""A results directory, read for a report."""

from __future__ import annotations

from pathlib import Path

from hktune.core.errors import StoreError
from hktune.dispatch import saved_names
from hktune.exchange import read_shapes
from hktune.report.results.results import Results
from hktune.store import folder_of, read_environment, read_trials
from hktune.store.trials import FILE_NAME


def read_results(directory: Path, shapes_file: Path | None = None) -> Results:
    """What is in `directory`, a results directory or its trials.csv. Names are those of its table, names and weights
    those of a shapes file. Raises StoreError, one line, where there are no trials, and ShapesError."""
    path = directory / FILE_NAME if directory.is_dir() else directory
    trials = read_trials(path)
    if not trials:
        raise StoreError(f"{path}: has no trials to report: pass a directory in which hktune tune has tried something")
    folder = folder_of(directory)
    shapes = read_shapes(shapes_file).shapes if shapes_file else ()
    names = saved_names(folder) | {shape.problem: shape.name for shape in shapes}
    weights = {shape.problem: shape.weight for shape in shapes}
    asked = [shape.problem for shape in shapes]
    return Results(str(directory), trials, names, weights, asked, read_environment(folder))
