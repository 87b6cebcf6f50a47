"""What a run may be asked for in Python, by the names of the command line's options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypedDict

from hktune.core.board import BOARDS
from hktune.core.errors import InputError
from hktune.core.escaped import shown
from hktune.core.near import meant
from hktune.core.shapes import ShapeList
from hktune.core.shipped import space_file
from hktune.core.value_ranges import BUDGET_S, COUNT, GIBIBYTES, SECONDS, SEED, WORKERS
from hktune.store.studies.study_place import studies_file
from hktune.tuning.callbacks import Callback
from hktune.tuning.run_options import RunOptions

StrPath = str | PathLike[str]


class TuneOptions(TypedDict, total=False):
    """The keywords of `hktune.tune`, each as the option of `hktune tune` that is called alike. None, or none at all, is
    the default."""

    space: StrPath | None
    """The search space: a file, a folder with a template and its space, or the name of one that comes with hktune."""
    device: str | None
    """auto, emulated, hip or cuda."""
    board: str | None
    strategy: str | None
    trials: int | None
    """Per shape."""
    patience: int | None
    time_budget: float | None
    """Seconds."""
    deadline: float | None
    """Seconds, of one config."""
    worker_memory: float | None
    """GiB."""
    prior: StrPath | Iterable[StrPath] | None
    out: StrPath | None
    """Where trials, table and code objects go; default out/<device>."""
    seed: int | None
    fresh: bool | None
    workers: int | None
    ray: str | None
    """A Ray cluster: HOST:PORT, or auto for the one that this machine belongs to."""
    hipkittens: StrPath | None
    gpus: int | None
    prebuilt: StrPath | None
    cache: str | None
    """cold or warm."""
    calibration: StrPath | None
    rivals: str | Iterable[str] | None
    candidates: str | Iterable[str] | None
    aiter: StrPath | None
    vendor_only: bool | None
    """No kernel is searched: the algorithms of the vendor's libraries alone are tried."""
    energy_budget: float | None
    """Seconds for measuring what energy the best take; 0 is none."""
    steady: bool | None
    """Where power holds the clock, the best are measured under loads of their own, and that decides."""
    study: StrPath | None
    """A storage of Optuna's that gets every row too: the URL of a database, or the path of a file."""


DEVICES = ("auto", "hip", "cuda", "emulated")
CACHES = ("cold", "warm")
_UNITS = {
    "time_budget": "time_budget_s",
    "deadline": "deadline_s",
    "worker_memory": "worker_memory_gib",
    "energy_budget": "energy_budget_s",
}
"""How RunOptions calls what the command line names without its unit."""


def run_options(shapes: ShapeList, options: Mapping[str, object]) -> RunOptions:
    """What `options` ask for, by the names of TuneOptions. Raises InputError, one line, for a name or a value that
    there is not."""
    given = {name: value for name, value in options.items() if value is not None}
    unknown = next((name for name in given if name not in _READ), None)
    if unknown is not None:
        known = ", ".join(sorted(OPTION_NAMES))
        raise InputError(f"tune has no option {shown(unknown)}{meant(unknown, OPTION_NAMES)}: known are {known}")
    read = {_UNITS.get(name, name): _READ[name](value, name) for name, value in given.items() if name != "aiter"}
    return RunOptions(shapes, **read)  # type: ignore[arg-type]


def functions_given(value: object) -> tuple[Callback, ...]:
    """The callbacks. Raises InputError for what is none, such as one that is in no list."""
    several = _listed(value)
    if several is None or not all(map(callable, several)):
        raise InputError(f"callbacks: must be functions, in a list, got {shown(value)}: pass [FUNCTION]")
    return several


def words_given(value: object) -> tuple[str, ...]:
    """The words of a command. Raises InputError for what is none, such as one text."""
    several = _listed(value)
    if several is None or not all(isinstance(word, str) for word in several):
        raise InputError(f"command: must be words, in a list, got {shown(value)}: pass [WORD, ...]")
    return several


def _listed(value: object) -> tuple[Any, ...] | None:
    """What a list or the like has; None for what is none, as a text is."""
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else None


def path_given(value: object, name: str) -> Path:
    """A path that the caller called `name`. Raises InputError for what is none, and for an empty one: that is not the
    working directory."""
    text = fspath(value) if isinstance(value, str | PathLike) else None
    if not isinstance(text, str) or not text:
        raise InputError(f"{name}: must be a path, got {shown(value)}")
    return Path(text).expanduser()


def _place(value: object, name: str) -> str:
    """A URL or a path, as text."""
    return value if isinstance(value, str) and value else str(path_given(value, name))


def _space(value: object, name: str) -> Path:
    return space_file(str(path_given(value, name)))


def _paths(value: object, name: str) -> tuple[Path, ...]:
    several = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    return tuple(_trials_place(each, name) for each in several)


def _trials_place(value: object, name: str) -> Path:
    return studies_file(value) if isinstance(value, str) and "://" in value else path_given(value, name)


def _words(value: object, name: str) -> tuple[str, ...]:
    """Words, with commas between them or as a list; `none` is none."""
    several = value.split(",") if isinstance(value, str) else value
    if not isinstance(several, Iterable) or not all(isinstance(word, str | PathLike) for word in several):
        raise InputError(f"{name}: must be words, got {shown(value)}")
    return tuple(str(word) for word in several if str(word) not in ("", "none"))


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{name}: must be a text, got {shown(value)}")
    return value


def _truth(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{name}: must be True or False, got {shown(value)}")
    return value


def _one_of(known: Iterable[str]) -> Callable[[object, str], str]:
    words = tuple(known)

    def read(value: object, name: str) -> str:
        if value not in words:
            raise InputError(
                f"{name}: {shown(value)} is not known{meant(str(value), words)}: known are {', '.join(words)}"
            )
        return str(value)

    return read


_READ: Mapping[str, Callable[[object, str], object]] = {
    "space": _space,
    "device": _one_of(DEVICES),
    "board": _one_of(BOARDS),
    "strategy": _text,
    "trials": COUNT.checked,
    "patience": COUNT.checked,
    "time_budget": SECONDS.checked,
    "deadline": SECONDS.checked,
    "worker_memory": GIBIBYTES.checked,
    "prior": _paths,
    "out": path_given,
    "seed": SEED.checked,
    "fresh": _truth,
    "workers": WORKERS.checked,
    "ray": _text,
    "hipkittens": path_given,
    "gpus": COUNT.checked,
    "prebuilt": path_given,
    "cache": _one_of(CACHES),
    "calibration": path_given,
    "rivals": _words,
    "candidates": _words,
    "aiter": path_given,
    "vendor_only": _truth,
    "energy_budget": BUDGET_S.checked,
    "steady": _truth,
    "study": _place,
}
OPTION_NAMES = tuple(_READ)
