"""A tuning run as a test makes one: what it prints goes nowhere."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from hktune.core.settings import Settings
from hktune.report.run_progress import RunProgress
from hktune.tuning.run import tune
from hktune.tuning.run_options import RunOptions
from hktune.tuning.run_summary import RunSummary


def run(options: RunOptions, cache: Path) -> RunSummary:
    """What `options` ask for, with `cache` as the folder of what is kept between runs."""
    with RunProgress(Console(file=io.StringIO())) as progress:
        return tune(options, Settings(cache), ["hktune", "tune"], progress)
