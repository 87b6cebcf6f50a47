"""`hktune.tune`: a tuning run as a function call. The command of that name is a thin user of it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

from rich.console import Console

from hktune.core.settings import settings_here
from hktune.report.console import make_console
from hktune.report.run_progress import RunProgress
from hktune.session.given_options import functions_given, path_given, run_options, words_given
from hktune.session.given_shapes import given_shapes
from hktune.session.notebook_progress import NotebookProgress, in_notebook
from hktune.session.result import Result
from hktune.tuning.callbacks import Callback, Callbacks
from hktune.tuning.run import tune as run_tuning

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from hktune.session.given_options import TuneOptions


def tune(
    shapes: object,
    *,
    inputs: object = None,
    callbacks: Iterable[Callback] = (),
    progress: bool | RunProgress = True,
    command: Sequence[str] = ("hktune.tune",),
    **options: Unpack[TuneOptions],
) -> Result:
    """Find the fastest proved kernel of every shape, and leave trials, table and code objects in `out`.

    `shapes` is the path of a shapes file, one shape or several: texts such as "4096x4096x4096" and
    "bf16.nt 4096x4096x4096", (m, n, k) or (m, n, k, operation), mappings as in shapes.yaml, Problems and Shapes, a
    DataFrame with such columns. Or it is a model, whose calls with `inputs` are recorded: a tensor, a tuple of
    arguments, a mapping of them by name, or a list of such.

    `callbacks` are called with each trial once it is stored, from whichever thread stored it; one that raises
    hktune.StopTuning ends the search. `progress` is shown in a notebook, on a terminal or as lines on standard error;
    False: nothing is. `command` is what environment.json notes. The other keywords are `TuneOptions`: those of
    `hktune tune`.

    Ctrl-C ends the search, and the result is of what was found. (Signals are heard in the main thread alone.) Raises
    HktuneError, one line, for input that is not legal and for what this machine lacks. What a callback raises is
    raised once the table is written.
    """
    functions, words = functions_given(callbacks), words_given(command)
    found, notes = given_shapes(shapes, inputs)
    asked = run_options(found, cast("dict[str, object]", options))
    aiter = options.get("aiter")
    settings = settings_here(None if aiter is None else path_given(aiter, "aiter"))
    with _shown(progress) as heard:
        summary = run_tuning(asked, settings, words, heard, Callbacks(functions))
    return Result(summary, found, notes)


def _shown(progress: bool | RunProgress) -> RunProgress:
    """What shows how far the run is."""
    if isinstance(progress, RunProgress):
        return progress
    if not progress:
        return RunProgress(Console(quiet=True))
    return NotebookProgress() if in_notebook() else RunProgress(make_console(sys.stderr))
