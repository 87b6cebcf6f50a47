"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hktune.shipped import DEFAULT_SPACE, space_file

if TYPE_CHECKING:
    from hktune.model import Problem


def add_config(parser: argparse.ArgumentParser) -> None:
    """--space and the words of a config."""
    parser.add_argument(
        "--space", type=space_file, default=DEFAULT_SPACE, metavar="FILE", help="the search space (default: gfx950's)"
    )
    parser.add_argument("config", nargs="*", metavar="PARAMETER=VALUE", help="what differs from the space's defaults")


def add_problem(parser: argparse.ArgumentParser, purpose: str) -> None:
    """--problem, once."""
    parser.add_argument("--problem", type=problem, metavar="MxNxK", help=purpose)


def add_seed(parser: argparse.ArgumentParser, of: str) -> None:
    """--seed."""
    parser.add_argument("--seed", type=int, default=0, metavar="N", help=f"of {of} (default: %(default)s)")


def add_hipkittens(parser: argparse.ArgumentParser) -> None:
    """--hipkittens."""
    parser.add_argument(
        "--hipkittens", type=Path, metavar="DIR", help="HipKittens' headers (default: pinned ones, fetched once)"
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    """--workers."""
    import os

    parser.add_argument(
        "--workers",
        type=positive,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes that compile (default: one per core)",
    )


def positive(text: str) -> int:
    """An integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def seconds(text: str) -> float:
    """A positive, finite number of seconds."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, got {text}")
    return value


def gibibytes(text: str) -> float:
    """A positive, finite number of GiB."""
    value = float(text)
    if not 0 < value < 1 << 20:
        raise argparse.ArgumentTypeError(f"must be a positive number of GiB, got {text}")
    return value


def problem(text: str) -> Problem:
    """A problem as MxNxK."""
    from hktune.model import Problem

    try:
        m, n, k = (positive(part) for part in text.split("x"))
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(f"must be MxNxK such as 4096x4096x4096, got {text!r}") from None
    return Problem(m, n, k)
