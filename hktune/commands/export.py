"""`hktune export`: a dispatch table as source code, or trials for other tools."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hktune.commands.arguments import add_operation, add_out, add_problem, add_table_directory, refuse_unused
from hktune.commands.parser import DONE, Command
from hktune.core.errors import InputError
from hktune.core.publish import publish
from hktune.core.remedy import with_remedy
from hktune.core.shipped import DEFAULT_SPACE

if TYPE_CHECKING:
    from hktune.core.trial import Trial

_NAMED_MAX = 4  # problems in one line


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune export`."""
    add_table_directory(parser)
    formats = "the table as one PyTorch file; the trials, as T4 results or as a cache file of Kernel Tuner; or the "
    formats += "fastest solutions of AMD's libraries, for PyTorch's TunableOp"
    choices = ("inline", "t4", "kernel-tuner", "tunableop")
    parser.add_argument("--format", choices=choices, default="inline", help=f"{formats} (default: %(default)s)")
    forms = ("matmul", "matmul-bt", "linear")
    parser.add_argument("--form", choices=forms, help="of a module, what ModelNew is (default: matmul)")
    add_operation(parser, "of a table of several the one to export, with its epilogues")
    add_problem(parser, "of trials, those of this problem alone")
    parser.add_argument(
        "--validators",
        type=Path,
        metavar="FILE",
        help="for tunableop: results that the PyTorch wrote which shall use the new ones; its validators are kept",
    )
    add_out(parser, "the file to write; trials are compressed where it ends in .gz", metavar="FILE")


def _run(options: argparse.Namespace) -> int:
    """Write the file. Raises InputError, one line, when it cannot be made or written."""
    data, what = _module(options) if options.format == "inline" else _trials(options)
    try:
        publish(options.out, data)
    except OSError as error:
        raise InputError(with_remedy(f"{options.out}: cannot be written", error, "pass another -o")) from None
    print(f"{options.out}: {what}")
    return DONE


def _module(options: argparse.Namespace) -> tuple[bytes, str]:
    """The table as a module, and how long that is."""
    from hktune.dispatch import read_table
    from hktune.export import export_inline

    if options.problem:
        raise InputError(f"--problem {options.problem}: a table is exported whole: leave it out, or --format t4")
    refuse_unused(options, ("validators",), "is for --format tunableop")
    text = export_inline(options.directory, DEFAULT_SPACE, options.form or "matmul", options.operation)
    algorithms = sum(entry.choice == "algorithm" for entry in read_table(options.directory).entries)
    left = f"; left to torch: {algorithms} shapes of algorithms of the vendor's library" if algorithms else ""
    return text.encode(), f"{len(text.splitlines())} lines{left}"


def _trials(options: argparse.Namespace) -> tuple[bytes, str]:
    """The trials in the format that was asked for, and how many there are."""
    import gzip

    from hktune.store import read_trials

    refuse_unused(options, ("form",), f"is of a module, --format inline, and {options.format} is none")
    if options.operation:
        raise InputError(f"--operation {options.operation}: trials are exported whole, or one --problem of them")
    path = options.directory / "trials.csv" if options.directory.is_dir() else options.directory
    trials = [trial for trial in read_trials(path) if options.problem in (None, trial.problem)]
    if not trials:
        of_what = f"of {options.problem} " if options.problem else ""
        raise InputError(f"{path}: has no trials {of_what}to export: pass another DIR or --problem")
    data, what = _written(options, path, trials)
    return gzip.compress(data, mtime=0) if options.out.suffix == ".gz" else data, what


def _written(options: argparse.Namespace, path: Path, trials: Sequence[Trial]) -> tuple[bytes, str]:
    from hktune.store.recordings.t4_trials import t4_json

    if options.format == "tunableop":
        return _tunableop(options.validators, trials)
    refuse_unused(options, ("validators",), "is for --format tunableop")
    return (t4_json(trials), f"{len(trials)} trials") if options.format == "t4" else _cache(path, trials)


def _tunableop(validators: Path | None, trials: Sequence[Trial]) -> tuple[bytes, str]:
    """A results file of TunableOp, and how many products it has."""
    from hktune.exchange.foreign_file import read_foreign
    from hktune.export.tunableop_results import tunableop_file
    from hktune.tuning.confirming.confirmation import deciding

    how = "let the PyTorch that shall use the file write one (PYTORCH_TUNABLEOP_ENABLED=1), and name that"
    if validators is None:
        raise InputError(f"--format tunableop: needs --validators FILE: {how}")
    foreign = read_foreign(validators)
    if foreign is None or not foreign.facts:
        raise InputError(f"--validators {validators}: has no line `Validator,NAME,VALUE`: {how}")
    made = tunableop_file(trials, deciding, foreign.facts, (product.way for product in foreign.products))
    left_out = "".join(f"; left out: {count} {reason}" for reason, count in sorted(made.left_out.items()))
    products = "product" if made.products == 1 else "products"
    return made.text.encode(), f"{made.products} {products}{left_out}"


def _cache(path: Path, trials: Sequence[Trial]) -> tuple[bytes, str]:
    """The trials as Kernel Tuner's cache, which is of one problem and one kernel."""
    from hktune.store.recordings import recordings_among
    from hktune.store.recordings.kernel_tuner_cache import cache_json

    found = list(recordings_among(str(path), trials))
    if len(found) != 1:
        rule = f"{path}: a cache file is of one problem and one template"
        has = "; ".join(each.name.removeprefix(f"{path}:") for each in found[:_NAMED_MAX]) or "none with a time"
        more = f" and {len(found) - _NAMED_MAX} more" if len(found) > _NAMED_MAX else ""
        raise InputError(f"{rule}, this has {has}{more}: choose one with --problem")
    return cache_json(found[0]), f"{len(found[0].rows)} configs"


COMMAND = Command(
    "export",
    "write a dispatch table as one PyTorch file, or trials for other tuners",
    _add_options,
    _run,
    examples=(
        "hktune export out/gfx950-emulated -o model_new.py",
        "hktune export out/gfx950-emulated --operation f16.nt -o model_new.py",
        "hktune export out/gfx950-emulated --format t4 -o trials.json.gz",
        "hktune export out/mi355x --format tunableop --validators torchs.csv -o t0.csv",
        "hktune export out/h100 --format kernel-tuner --problem 16x4096x4096 -o c.json",
    ),
)
