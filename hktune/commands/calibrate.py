"""`hktune calibrate`: the model's constants from times that were measured on one GPU."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hktune.commands.arguments import (
    COUNT_MAX,
    add_aiter,
    add_board,
    add_hipkittens,
    add_out,
    add_space,
    add_workers,
    integer,
    path_given,
    refuse_unused,
    settings_of,
)
from hktune.commands.parser import DONE, FAILED, Command

if TYPE_CHECKING:
    from hktune.tuning.calibrating.measured_trials import Calibrated

_KERNELS, _ROWS = 300, 1000


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune calibrate`."""
    parser.add_argument("directory", type=path_given, metavar="DIR", help="what hktune tune left on the GPU")
    add_out(parser, "where to (default: DIR/calibration.json)", required=False, metavar="FILE")
    add_space(parser, "the search space of the trials, where it does not come with hktune")
    add_board(parser, "of an AMD GPU whose id does not say: which board it is", default=None)
    count = integer(1, COUNT_MAX)
    parser.add_argument(
        "--kernels", type=count, metavar="N", help=f"of an AMD GPU: so many are proved (default: {_KERNELS})"
    )
    parser.add_argument(
        "--rows", type=count, metavar="N", help=f"of an NVIDIA GPU: so many trials are fitted to (default: {_ROWS})"
    )
    add_workers(parser)
    add_hipkittens(parser)
    add_aiter(parser)


def _run(options: argparse.Namespace) -> int:
    """Fit, print what it came to, and write it; 1 where the trials identify no constant."""
    from hktune.core.calibration import FILE_NAME, write_calibration
    from hktune.report.calibrated_model import print_calibrated, print_written
    from hktune.report.console import make_console

    console = make_console()
    path: Path = options.out or options.directory / FILE_NAME
    found = _calibrated(options)
    print_calibrated(console, found)
    if found.calibration is None:
        return FAILED
    write_calibration(found.calibration, path)
    print_written(console, found.calibration, path)
    return DONE


def _calibrated(options: argparse.Namespace) -> Calibrated:
    from hktune.core.arch import GFX950
    from hktune.report.heartbeat import working
    from hktune.tuning.calibrating.clock_calibration import ClockOptions, calibrate_clock
    from hktune.tuning.calibrating.estimate_calibration import calibrate_estimate
    from hktune.tuning.calibrating.measured_trials import device_of

    arch = device_of(options.directory).arch
    if arch != GFX950.name:
        names: tuple[str, ...] = ("kernels", "board", "hipkittens", "aiter")
        refuse_unused(options, names, f"is for trials of an AMD GPU, these are of {arch}")
        with working(lambda: "fitting the estimate"):
            return calibrate_estimate(options.directory, options.space, options.rows or _ROWS)
    refuse_unused(options, ("rows",), f"is for trials of an NVIDIA GPU, these are of {arch}")
    proved = [0, 0]

    def hear(done: int, count: int) -> None:
        proved[:] = [done, count]

    names = ("workers", "space", "board", "hipkittens")
    chosen = ClockOptions(
        settings_of(options), options.kernels or _KERNELS, **{name: getattr(options, name) for name in names}
    )
    with working(lambda: f"{proved[0]}/{proved[1]} kernels proved; then the clock is fitted"):
        return calibrate_clock(options.directory, chosen, hear)


_ABOUT = """Of an AMD GPU, the constants of the clock: shader clock, memories, launch. The measured kernels are \
compiled and proved on the emulator first, some 2 s each. Of an NVIDIA GPU, the constants of the search space's \
estimate, which orders what is tried first.

Constants that the trials do not identify stay as they are. Says how far the model was off before and after, on shapes \
that were left out of the fit."""

COMMAND = Command(
    "calibrate",
    "fit the model to times measured on one GPU",
    _add_options,
    _run,
    examples=(
        "hktune calibrate out/gfx950-amd-instinct-mi350x",
        "hktune calibrate out/sm90a-nvidia-h200 -o h200.json",
    ),
    failed="the trials identify no constant",
    about=_ABOUT,
)
