"""`hktune simulate`: search strategies, judged on recordings."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from hktune.commands.arguments import add_json, add_prior, add_space, integer, trials_place, words
from hktune.commands.parser import DONE, Command
from hktune.core.errors import InputError
from hktune.core.escaped import escaped

if TYPE_CHECKING:
    from hktune.store.recordings import Recording

TRIALS_MAX = 1_000_000
SEEDS_MAX = 10_000
IN_FLIGHT_MAX = 1024


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune simulate`."""
    parser.add_argument(
        "recordings",
        nargs="+",
        type=trials_place,
        metavar="RECORDING",
        help="a results directory, a trials.csv, a file of Optuna's studies (its path, or sqlite:///FILE), or one of "
        "another tuner: Kernel Tuner's cache, KTT's or T4 results",
    )
    parser.add_argument(
        "--strategy", type=words, metavar="NAME,...", help="which to judge (default: that of hktune tune)"
    )
    parser.add_argument(
        "--trials", type=integer(1, TRIALS_MAX), default=150, metavar="N", help="of each search (default: %(default)s)"
    )
    parser.add_argument(
        "--seeds", type=integer(1, SEEDS_MAX), default=10, metavar="S", help="searches of each (default: %(default)s)"
    )
    parser.add_argument(
        "--in-flight",
        type=integer(1, IN_FLIGHT_MAX),
        default=8,
        metavar="F",
        help="configs on their way when the next is asked for, that one too (default: %(default)s, as in a run)",
    )
    add_prior(
        parser, "with --space: learn from these trials what to try first, without those of a recording's own n and k"
    )
    add_space(parser, "of hktune's own rows: search them with the seeds and the estimate of their space")
    add_json(parser, "each search")


def _run(options: argparse.Namespace) -> int:
    """Simulate and print. Raises InputError, one line, before anything is searched."""
    from hktune.report.console import make_console
    from hktune.report.heartbeat import working
    from hktune.report.simulated import as_json, print_simulated
    from hktune.space import load_space
    from hktune.store.recordings import load_recordings
    from hktune.tuning.run_options import RunOptions
    from hktune.tuning.simulation import simulate

    names = tuple(dict.fromkeys(options.strategy or [RunOptions.strategy]))
    now = "reading recordings"
    found = []
    with working(lambda: now):
        recordings = [each for path in dict.fromkeys(options.recordings) for each in load_recordings(path)]
        if options.space:
            space = load_space(options.space)
            recordings = [each.within(space) for each in recordings]
        if options.prior:
            now = "learning from other shapes"
            recordings, said = _led(recordings, options)
            for line in said:
                print(f"hktune: {escaped(line)}", file=sys.stderr)
        for one in simulate(recordings, names, options.trials, options.seeds, options.in_flight):
            now = f"simulating {one.strategy} on {one.recording.name}"
            if options.json:
                print(as_json(one, options.trials), flush=True)
            else:
                found.append(one)
    if found:
        print_simulated(make_console(), found, options.trials)
    return DONE


def _led(recordings: list[Recording], options: argparse.Namespace) -> tuple[list[Recording], list[str]]:
    """The recordings, each led by what is learned from --prior, and what is said of that. Raises InputError."""
    from hktune.store import merged_trials
    from hktune.tuning.priors.transfer import NOT_INSTALLED, can_learn, led

    if not options.space:
        raise InputError("--prior needs --space: what is learned from is what the space derives for each shape")
    if not can_learn():
        raise InputError(f"--prior: {NOT_INSTALLED}")
    return led(recordings, merged_trials(options.prior))


_ABOUT = """A search is replayed: the strategy and the loop are those of hktune tune, and what became of a config \
is looked up. A trial is a config that was tried, one that fails too. Legal is what was recorded.

Of hktune's rows each problem is a recording."""

COMMAND = Command(
    "simulate",
    "judge search strategies on recorded spaces",
    _add_options,
    _run,
    examples=(
        "hktune simulate out/h100",
        "hktune simulate convolution_A100.json.gz --strategy tpe,hillclimb,random",
        "hktune simulate out/h100 --trials 96 --json",
    ),
    about=_ABOUT,
)
