"""From trials to a table: the fewest proved configs that are best for every problem, an algorithm of the vendor's
library, or that library's own choice where nothing beats it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field

import msgspec

from hktune.core.board import device_name
from hktune.core.bounded_text import TEXT_MAX
from hktune.core.config import Config
from hktune.core.errors import TableError
from hktune.core.identity import Identity
from hktune.core.launch_rule import LaunchRule
from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.dispatch.table import NAME_CHARACTERS_MAX, TIES_MAX, DeviceIdentity, Table
from hktune.tables.breakpoints import Rows, served_rows
from hktune.tables.standing import Chosen, choose, time_us

LaunchOf = Callable[[Trial], tuple[str, LaunchRule]]
"""The kernel's symbol and launch rule of an ok trial; asked once per entry that a kernel wins."""

REACH_MAX = 4.0


@dataclass(frozen=True)
class BuildOptions:
    """`fixed_order`: the templates whose sums have a fixed order, so that their kernels are bit-reproducible;
    `reproducible_only` leaves all others out. `reach`: how far beyond the outermost tuned m of an (n, k) its kernel
    serves, as a factor; 1 is not at all. `names` is what a person calls a problem,
    `origins` what is known of the origins of merged rows, by id. `model_tie`: modelled times within
    this factor of the best are listed as its ties."""

    fixed_order: frozenset[str] = frozenset()
    reproducible_only: bool = False
    reach: float = 1.0
    names: Mapping[Problem, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    model_tie: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.reach <= REACH_MAX:
            raise TableError(f"reach must be from 1 to {REACH_MAX:g}, got {self.reach}: it is a factor on the tuned m")


def build_table(
    trials: Iterable[Trial],
    launch_of: LaunchOf,
    identity: Identity,
    compiler: str,
    version: str,
    created_at: str,
    options: BuildOptions = BuildOptions(),
) -> Table:
    """Fold trials into one entry per problem that has an ok trial.

    `choose` says which config each uses, `served_rows` which m it serves. A kernel whose time, at the upper end of its
    interval, is not below the vendor's leaves the choice to the vendor. `compiler` is `Compiler.identity`, `version`
    hktune's own, `created_at` ISO 8601. Raises TableError when trials are of another architecture than `identity`, or
    were measured on more than one device, or modelled for more than one board.
    """
    kept = [trial for trial in trials if _allowed(trial, options)]
    for trial in kept:
        _check_arch(trial, identity)
    chosen = choose(kept)
    _check_one_device(trial for each in chosen for trial in each.standing.candidates)
    rows = served_rows(chosen, options.reach)
    fields = {
        "arch": identity.arch,
        "device": _device(identity),
        "compiler": compiler,
        "hktune": version,
        "created_at": created_at,
        "entries": [_entry(each, rows[each.standing.problem], launch_of, options) for each in chosen],
    }
    try:
        return msgspec.convert(fields, Table)
    except msgspec.ValidationError as error:
        raise TableError(f"these trials make no legal table: {error}: fix that value where it is made") from None


def compilers_of(trials: Iterable[Trial], otherwise: str = "unknown") -> str:
    """What a table of `trials` calls its compiler: all that made one of them; `otherwise` where no trial says."""
    return " | ".join(sorted({trial.compiler for trial in trials if trial.compiler})) or otherwise


def _allowed(trial: Trial, options: BuildOptions) -> bool:
    """A reproducible table has no algorithm of a library: nothing says in which order it sums."""
    return not options.reproducible_only or trial.status is not Status.OK or trial.template in options.fixed_order


def _entry(chosen: Chosen, rows: Rows, launch_of: LaunchOf, options: BuildOptions) -> dict[str, object]:
    best, trial = chosen.standing.best, chosen.trial
    problem = best.problem
    entry: dict[str, object] = {"m": problem.m, "n": problem.n, "k": problem.k, "operation": str(problem.operation)}
    beside = trial if trial and trial.baseline_us is not None else best  # another may be of other rounds
    entry |= {"source": best.source, "baseline": beside.baseline, "baseline_us": beside.baseline_us}
    entry |= {"vendor_best": beside.vendor_best, "vendor_best_us": beside.vendor_best_us}
    name = options.names.get(best.problem)
    if name and name != str(best.problem):
        entry["name"] = _shortened(name)
    if row_origin := (trial or best).origin:
        entry["origins"] = [_origin(each, options.origins) for each in row_origin.split("+")]
    if trial is None:
        own = {"choice": "vendor", "time_us": chosen.time_us, "energy_j": best.baseline_energy_j}
        return {**entry, **own, **_served(best.m, rows)}
    times = {"time_us": time_us(trial), "time_us_low": trial.time_us_low, "time_us_high": trial.time_us_high}
    times |= {name: getattr(trial, name) for name in ("energy_j", "baseline_energy_j")}
    tied = chosen.standing.ties(options.model_tie)
    ties = sorted({other.config_id for other in tied[:TIES_MAX] if other is not trial})
    chosen_row = {**entry, **times, "ties": ties}
    if not trial.is_kernel:
        return {**chosen_row, "choice": "algorithm", "vendor_algorithm": dict(Config.from_json(trial.config))}
    symbol, launch = launch_of(trial)
    kernel = _kernel(trial, symbol, launch, options)
    # A launch without m in its grid is of this m alone, or of a kernel that looks like one.
    depends_on_m = any(isinstance(size, str) for size in launch.grid)
    served = _served(best.m, rows) if depends_on_m else {}
    return {**chosen_row, "choice": "kernel", "kernel": kernel, **served}


def _origin(identity: str, known: Mapping[str, str]) -> str:
    return f"{identity} {known.get(identity, 'of which nothing is known')}"[:TEXT_MAX]


def _shortened(name: str) -> str:
    """`name` as an entry may carry it: those of many shapes together can be longer."""
    return name if len(name) <= NAME_CHARACTERS_MAX else f"{name[: NAME_CHARACTERS_MAX - 3]}..."


def _served(m: int, rows: Rows) -> dict[str, int]:
    return {} if rows == (m, m) else {"m_from": rows[0], "m_to": rows[1]}


def _kernel(trial: Trial, symbol: str, launch: LaunchRule, options: BuildOptions) -> dict[str, object]:
    named = ("config_id", "template", "template_sha256", "object_sha256")
    made_from = {name: getattr(trial, name) for name in named}
    made_from["reproducible"] = trial.template in options.fixed_order
    said = {name: value for name, value in asdict(launch).items() if name != "contiguous" or value}
    return {**made_from, "config": dict(Config.from_json(trial.config)), "symbol": symbol, "launch": said}


def _check_arch(trial: Trial, identity: Identity) -> None:
    if trial.target is not None and trial.target != identity.arch:
        rule = f"trial {trial.trial} is of another architecture"
        raise TableError(f"{rule}: saved={trial.target} current={identity.arch}: merge only trials of one target")


def _check_one_device(candidates: Iterable[Trial]) -> None:
    devices: dict[Source | None, set[str]] = {source: set() for source in (*Source, None)}
    for trial in candidates:
        devices[trial.source].add(str(device_name(trial.device)))
    for source, named in devices.items():
        if source and len(named) > 1:
            raise TableError(f"trials were {source} on {' and '.join(sorted(named))}: build one table per device")


def _device(identity: Identity) -> dict[str, object]:
    """What a table says of the device: of one without a board, not that it has none."""
    said = {name: getattr(identity, name) for name in DeviceIdentity.__struct_fields__}
    return {name: value for name, value in said.items() if name != "board" or value}
