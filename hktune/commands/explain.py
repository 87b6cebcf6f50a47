"""`hktune explain`: what a config is, or which rules it breaks."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from hktune.commands.arguments import (
    add_aiter,
    add_board,
    add_calibration,
    add_config,
    add_hipkittens,
    add_operation,
    add_problem,
    refuse_unused,
    settings_of,
)
from hktune.commands.parser import DONE, FAILED, Command
from hktune.core.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from hktune.core.config import Config
    from hktune.space import SearchSpace


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune explain`."""
    add_config(parser)
    add_problem(parser, "judge the config for this problem too")
    add_operation(parser, "as the code of this operation (default: that of --problem, else the first)")
    parser.add_argument(
        "--time",
        action="store_true",
        help="prove it, and say where its modelled time on the problem goes: by cause, and what it is without each",
    )
    add_board(parser, "whose clock and power the time is modelled with")
    add_calibration(parser, "constants of the clock")
    add_hipkittens(parser)
    add_aiter(parser)


def _run(options: argparse.Namespace) -> int:
    """Print the config, or the rules that it breaks (then 1); without a config the parameters that there are."""
    from hktune.commands.asked_code import space_for
    from hktune.commands.config_words import ConfigWords
    from hktune.report.console import make_console
    from hktune.report.explained import print_config, print_parameters
    from hktune.space import explain, load_space

    if options.time and options.problem is None:
        raise InputError("--time is of a config on a problem: pass --problem MxNxK too")
    if not options.time:
        refuse_unused(options, ("board", "calibration", "hipkittens", "aiter"), "is of --time, which is not asked for")
    words = ConfigWords(options.config)
    file = options.space or words.space_file()
    space = load_space(file)
    if not options.config and options.problem is None and options.operation is None:
        print_parameters(make_console(), space, file)
        return DONE
    space = space_for(space, options.operation, [options.problem] if options.problem else [])
    config = words.config(space)
    if note := words.note(space):
        print(note)
    if lines := explain(space, config, options.problem):
        print("\n".join(lines))
        return FAILED
    if options.time:
        return _explain_time(options, space, file, config)
    print_config(make_console(), space, file, config, options.problem)
    return DONE


def _explain_time(options: argparse.Namespace, space: SearchSpace, file: Path, config: Config) -> int:
    """Prove the config, and print where its time goes; 1 when it fails. Raises InputError for a device whose times are
    measured."""
    from hktune.core.calibration import modelled_board, read_calibration
    from hktune.core.candidate import Candidate
    from hktune.core.outcome import Failure
    from hktune.core.problem_tiles import tiles_of
    from hktune.emulator.clock.breakdown import breakdown
    from hktune.emulator.clock.calibrated import calibrated_rates
    from hktune.emulator.clock.memory_traffic import problem_order
    from hktune.report.console import make_console
    from hktune.report.heartbeat import working
    from hktune.report.time_breakdown import print_time
    from hktune.tuning.benches.emulated_bench import EmulatedBench

    template = space.template
    if template.language == "cuda":
        raise InputError(
            f"the clock is gfx950's, and {space.name} is for {space.arch.name}: hktune bench measures there"
        )
    calibration = read_calibration(options.calibration) if options.calibration else None
    board = modelled_board(options.board, calibration)
    rates = calibrated_rates(board, calibration)
    settings = settings_of(options)
    bench = EmulatedBench(file, 0, settings, options.hipkittens, board=board, calibration=calibration)
    prover = bench.prover()
    candidate = Candidate(config, template.operation)
    with working(lambda: f"compiling and proving {config.id[:8]}"):
        attempt = prover(candidate)
        specimen = attempt.failure or prover.specimen(candidate)
    if isinstance(specimen, Failure):
        print(f"{specimen.status}: {specimen.detail}")
        return FAILED
    launch = template.launch(config, options.problem)
    with working(lambda: f"modelling {options.problem} without each cause"):
        order = problem_order(template.order(config), tiles_of(options.problem, specimen.tile), space.arch)
        found = breakdown(specimen, options.problem, launch, order, rates)
    print_time(make_console(), options.problem, launch, specimen.tile, found, bench.identity)
    return DONE


COMMAND = Command(
    "explain",
    "say what a config is, or which rules it breaks",
    _add_options,
    _run,
    examples=(
        "hktune explain",
        "hktune explain block_m=256 stages=3",
        "hktune explain block_m=128 block_n=128 split=1 --problem 256x4096x4096",
        "hktune explain block_m=128 block_n=128 split=1 --problem 256x4096x4096:f16.nt",
        "hktune explain block_m=256 --problem 4096x4096x4096 --time",
        "hktune explain out/gfx950-emulated:5357f7f5",
    ),
    failed="the config breaks a rule, or fails its proof",
    about="Without a config: the operations of the space, its parameters, their values and what they mean.",
)
