"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hktune.core.board import BOARDS, DEFAULT_BOARD
from hktune.core.errors import InputError
from hktune.core.escaped import escaped, shown
from hktune.core.shipped import SPACE_OF, space_file
from hktune.core.value_ranges import BUDGET_S, COUNT, GIBIBYTES, SECONDS, SEED, WORKERS

if TYPE_CHECKING:
    from hktune.core.operation import Operation
    from hktune.core.problem import Problem
    from hktune.core.settings import Settings

COUNT_MAX = COUNT.most

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}\Z")
_NUMBER = re.compile(r"[-+]?[0-9]{1,18}(\.[0-9]{1,18})?([eE][-+]?[0-9]{1,3})?\Z")


def add_space(
    parser: argparse.ArgumentParser, purpose: str, *, default: Path | None = None, required: bool = False
) -> None:
    """--space."""
    names = ", ".join(path.stem for path in SPACE_OF.values())
    parser.add_argument(
        "--space",
        type=space_file,
        default=default,
        required=required,
        metavar="FILE",
        help=f"{purpose}; a file, or the name of one that comes with hktune: {names}",
    )


def add_aiter(parser: argparse.ArgumentParser) -> None:
    """--aiter."""
    purpose = "a checkout of AITER, whose code objects are used too (default: those of the package amd-aiter)"
    parser.add_argument("--aiter", type=path_given, metavar="DIR", help=purpose)


def add_candidates(parser: argparse.ArgumentParser) -> None:
    """--candidates."""
    parser.add_argument(
        "--candidates",
        type=words,
        default=(),
        metavar="NAME,...",
        help="whose kernels a row of the table may launch too: aiter, triton, or a search space by its file or name",
    )


def words(text: str) -> tuple[str, ...]:
    """The type of an argument that is words, with commas between them."""
    return tuple(text.split(","))


def settings_of(options: argparse.Namespace) -> Settings:
    """What the environment says, and `options` in its place where they say the same. Raises InputError."""
    from hktune.core.settings import settings_here

    return settings_here(getattr(options, "aiter", None))


def refuse_unused(options: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Raises InputError for the first of these options that was given, where it would change nothing."""
    for name in names:
        if value := getattr(options, name):
            raise InputError(f"--{name} {escaped(str(value))}: {why}: leave it out")


def add_operation(parser: argparse.ArgumentParser, purpose: str) -> None:
    """--operation."""
    parser.add_argument("--operation", type=operation, metavar="TEXT", help=f"{purpose}, such as f16.nt")


def add_shapes(parser: argparse.ArgumentParser, purpose: str, *, required: bool = False) -> None:
    """--shapes."""
    parser.add_argument("--shapes", type=path_given, required=required, metavar="FILE", help=purpose)


def add_out(parser: argparse.ArgumentParser, purpose: str, *, required: bool = True, metavar: str = "DIR") -> None:
    """-o, --out."""
    parser.add_argument("-o", "--out", type=path_given, required=required, metavar=metavar, help=purpose)


def add_json(parser: argparse._ActionsContainer, of: str) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help=f"print {of} as one JSON object on a line")


def add_table_directory(parser: argparse.ArgumentParser) -> None:
    """The directory that has the table."""
    parser.add_argument("directory", type=path_given, metavar="DIR", help="the results directory with the table")


def add_results_directories(parser: argparse.ArgumentParser) -> None:
    """One results directory, or two to be compared."""
    purpose = "a results directory, or its trials.csv"
    parser.add_argument("directory", type=path_given, metavar="DIR", help=purpose)
    parser.add_argument(
        "second", nargs="?", type=path_given, metavar="DIR2", help="another one, which is compared with the first"
    )


def add_trials(parser: argparse.ArgumentParser) -> None:
    """Where trials are read from, at least one place."""
    parser.add_argument(
        "trials",
        nargs="+",
        type=trials_place,
        metavar="DIR_OR_CSV",
        help="results directories, their trials.csv, trials that were exported as T4, or files of Optuna's studies",
    )


def add_device(parser: argparse.ArgumentParser, kinds: Sequence[str], purpose: str) -> None:
    """--device, one of `kinds` or the best one here."""
    parser.add_argument("--device", choices=("auto", *kinds), default="auto", help=purpose)


def add_board(parser: argparse.ArgumentParser, purpose: str, default: str | None = DEFAULT_BOARD.name) -> None:
    """--board; `default` is what it says, None for what has none."""
    said = f" (default: {default})" if default else ""
    parser.add_argument("--board", choices=tuple(BOARDS), help=f"{purpose}{said}")


def add_calibration(parser: argparse.ArgumentParser, purpose: str) -> None:
    """--calibration."""
    parser.add_argument(
        "--calibration", type=path_given, metavar="FILE", help=f"{purpose}: what hktune calibrate wrote"
    )


def add_prebuilt(parser: argparse.ArgumentParser, purpose: str) -> None:
    """--prebuilt."""
    parser.add_argument("--prebuilt", type=path_given, metavar="DIR", help=purpose)


PRIOR_OF_A_RUN = (
    "results of an earlier run, emulated or not: the configs that may be as fast as a shape's best are tried first, in "
    "the order of their times"
)


def add_prior(parser: argparse.ArgumentParser, purpose: str = PRIOR_OF_A_RUN) -> None:
    """--prior."""
    parser.add_argument(
        "--prior",
        type=trials_place,
        action="append",
        default=[],
        metavar="DIR",
        help=f"{purpose}; may be given again",
    )


def add_cache(parser: argparse.ArgumentParser) -> None:
    """--cache."""
    purpose = "of a GPU, when timing (default: %(default)s)"
    parser.add_argument("--cache", choices=("cold", "warm"), default="cold", help=purpose)


def add_key(parser: argparse.ArgumentParser, purpose: str, *, required: bool = True) -> None:
    """--key."""
    parser.add_argument("--key", type=path_given, required=required, metavar="FILE", help=purpose)


def add_config(parser: argparse.ArgumentParser) -> None:
    """--space and the words of a config."""
    add_space(parser, "the search space (default: that of DIR:ID, else gfx950's)")
    add_config_words(parser)


def add_config_words(parser: argparse.ArgumentParser) -> None:
    """The words that name a config."""
    parser.add_argument(
        "config",
        nargs="*",
        metavar="CONFIG",
        help="PARAMETER=VALUE words for what differs from the space's defaults; or DIR:ID, a config of that "
        "directory's trials, table or build by the first digits of its id, and words for what differs from it",
    )


def add_problem(parser: argparse.ArgumentParser, purpose: str) -> None:
    """--problem, once."""
    parser.add_argument(
        "--problem",
        type=problem,
        metavar="MxNxK",
        help=f"{purpose}; also MxNxK+bias, MxNxK:f16.nt",
    )


def add_seed(parser: argparse.ArgumentParser, of: str) -> None:
    """--seed."""
    kind = integer(SEED.least, SEED.most)
    parser.add_argument("--seed", type=kind, default=0, metavar="N", help=f"of {of} (default: %(default)s)")


def add_hipkittens(parser: argparse.ArgumentParser) -> None:
    """--hipkittens."""
    parser.add_argument(
        "--hipkittens", type=path_given, metavar="DIR", help="HipKittens' headers (default: pinned ones, fetched once)"
    )


def add_workers(
    parser: argparse._ActionsContainer, default: int | None = os.cpu_count() or 1, of: str = "processes that compile"
) -> None:
    """--workers; without it `default`."""

    parser.add_argument(
        "--workers",
        type=integer(WORKERS.least, WORKERS.most),
        default=default,
        metavar="N",
        help=f"{of} (default: one per core)",
    )


def trials_place(text: str) -> Path:
    """The type of an argument that is where trials are: a path, or the URL of a file of Optuna's studies."""
    if "://" not in text:
        return path_given(text)
    from hktune.store.studies.study_place import studies_file

    return studies_file(text)


def path_given(text: str) -> Path:
    """The type of an argument that is a path. An empty one, of a variable that is not set, is not the working
    directory."""
    if not text:
        raise argparse.ArgumentTypeError("is empty: give a path, . for the working directory")
    return Path(text)


def integer(least: int, most: int) -> Callable[[str], int]:
    """The type of an argument that is an integer in decimal digits from `least` to `most`, both included."""

    def read(text: str) -> int:
        if not _INTEGER.match(text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be an integer from {least} to {most}, got {shown(text)}")
        return int(text)

    return read


def number(least: float, most: float, unit: str = "") -> Callable[[str], float]:
    """The type of an argument that is a decimal number from `least` to `most`, both included, of some `unit`."""

    def read(text: str) -> float:
        if not _NUMBER.match(text) or not least <= float(text) <= most:
            rule = f"must be a number{f' of {unit}' if unit else ''} from {least:g} to {most:g}"
            raise argparse.ArgumentTypeError(f"{rule}, got {shown(text)}")
        return float(text)

    return read


positive = integer(COUNT.least, COUNT.most)
seconds = number(SECONDS.least, SECONDS.most, SECONDS.unit)
budget_seconds = number(BUDGET_S.least, BUDGET_S.most, BUDGET_S.unit)


def gibibytes(text: str) -> float:
    """What a worker may have."""
    try:
        return GIBIBYTES.checked(float(text if _NUMBER.match(text) else "nan"), "memory")
    except InputError:
        ends = f"{GIBIBYTES.least:g} to {GIBIBYTES.most:.0f}"
        raise argparse.ArgumentTypeError(f"must be a number of GiB from {ends}, got {shown(text)}") from None


def operation(text: str) -> Operation:
    """An operation by its text."""
    from hktune.core.errors import InputError
    from hktune.core.operation import operation_of

    try:
        return operation_of(text)
    except InputError as unknown:
        raise argparse.ArgumentTypeError(str(unknown)) from None


def problem(text: str) -> Problem:
    """A problem as MxNxK, MxNxK+STEP (both of bf16.nt) or MxNxK:OPERATION, of what a shapes file may ask for."""
    from hktune.core.errors import ShapesError
    from hktune.core.problem_text import problem_of

    try:
        return problem_of(text)
    except ShapesError as broken:
        raise argparse.ArgumentTypeError(str(broken)) from None
