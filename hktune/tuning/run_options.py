"""What a caller asks of a run, and the bench that it so asks for."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hktune.core.calibration import ESTIMATE, Calibration, modelled_board
from hktune.core.errors import InputError
from hktune.core.settings import Settings
from hktune.core.shapes import ShapeList
from hktune.exchange import FoundShapes, read_shapes
from hktune.space import Spaces
from hktune.tuning.benches.contract import Bench
from hktune.tuning.benches.device_choice import choose_device
from hktune.tuning.benches.emulated_bench import EmulatedBench
from hktune.tuning.benches.gpu_bench import GpuBench
from hktune.tuning.benches.gpus import choose_gpus
from hktune.tuning.candidates import candidate_spaces
from hktune.workers.executor import Limits

if TYPE_CHECKING:
    from hktune.tuning.cluster.ray_search import RemoteSearch
    from hktune.workers.ray_cluster import Cluster


@dataclass(frozen=True)
class RunOptions:
    """What a caller asks of a run. Without `out` it is out/<device> in the working directory, without `space`
    the one that comes with hktune for the device, without `gpus` all that this process sees, without `rivals` those
    that are here. `candidates` are words for spaces that are searched in addition to `space`. `board` is the one that
    the emulated device models, the usual one unless given. `calibration` has constants in place of the clock's or of
    the estimate's. `prior` are earlier results: what they favour for a shape is tried first. `study` is a storage of
    Optuna's that gets every row too. `patience` is that of `loop.Budget`. `ray` is the address of a Ray cluster whose
    nodes do the work, or auto for that of this machine. `vendor_only`: no kernel is searched, and the algorithms of the
    vendor's libraries alone are tried, on a GPU. `energy_budget_s` is what measuring energies may take, without it what
    `usual_budget_s` says. `steady`: on a GPU, what is best is decided under loads of their own, where power holds the
    clock. Without `workers` there is one for each core of this machine, or for each CPU of the
    cluster."""

    shapes: Path | ShapeList
    space: Path | None = None
    device: str = "auto"
    strategy: str = "auto"
    trials: int = 96
    patience: int | None = None
    time_budget_s: float | None = None
    out: Path | None = None
    seed: int = 0
    fresh: bool = False
    workers: int | None = None
    hipkittens: Path | None = None
    prebuilt: Path | None = None
    cache: str = "cold"
    gpus: int | None = None
    deadline_s: float | None = None
    worker_memory_gib: float | None = None
    rivals: tuple[str, ...] | None = None
    candidates: tuple[str, ...] = ()
    board: str | None = None
    calibration: Path | None = None
    prior: tuple[Path, ...] = ()
    study: str | None = None
    ray: str | None = None
    vendor_only: bool = False
    energy_budget_s: float | None = None
    steady: bool = False

    @property
    def found_shapes(self) -> FoundShapes:
        """The shapes, read where they are in a file. Raises ShapesError."""
        return FoundShapes(self.shapes) if isinstance(self.shapes, ShapeList) else read_shapes(self.shapes)

    @property
    def limits(self) -> Limits:
        """What one config may take."""
        given = self.worker_memory_gib
        return Limits(self.deadline_s, None if given is None else int(given * (1 << 30)))


def calibrated_spaces(spaces: Spaces, device: str, calibration: Calibration | None) -> Spaces:
    """`spaces` with the constants of `calibration` in the estimate of the own one, on a GPU. Raises InputError for a
    calibration of anything else."""
    if calibration is None or device == "emulated":
        return spaces
    own = spaces.own
    if calibration.of != ESTIMATE or calibration.space != own.name:
        rule = f"--calibration is of {calibration.whose}, what orders trials here is the estimate of {own.name}"
        raise InputError(f"{rule}: pass another, or leave it out")
    constants = {name: round(value) for name, value in calibration.constants.items()}
    return Spaces([own.with_estimate(constants), *spaces.others])


@contextmanager
def asked_cluster(options: RunOptions) -> Iterator[Cluster | None]:
    """The Ray cluster that `options` ask for, connected to within the block; None where they ask for none. Raises
    InputError where there is no such cluster, or no Ray."""
    if options.ray is None:
        yield None
        return
    if importlib.util.find_spec("ray") is None:
        raise InputError(f"--ray {options.ray}: Ray is not installed here: pip install 'hktune[ray]'")
    from hktune.workers.ray_cluster import connected

    own = [options.space] if options.space else []
    with connected(options.ray, [*own, *candidate_spaces(options.candidates)], options.prebuilt) as cluster:
        yield cluster


def asked_device(options: RunOptions, settings: Settings, cluster: Cluster | None) -> tuple[str, Path]:
    """The device and the space that `options` ask for, as `choose_device` has them, of `cluster` or of this machine."""
    if cluster is None:
        return choose_device(options.device, options.space, settings)
    from hktune.tuning.cluster.ray_gpus import device_of

    return device_of(cluster, options.device, options.space, settings)


def asked_bench(
    device: str,
    space: Path,
    others: tuple[Path, ...],
    options: RunOptions,
    settings: Settings,
    calibration: Calibration | None,
    cluster: Cluster | None = None,
) -> tuple[Bench, RemoteSearch | None]:
    """What `options` ask for, on a `device` that was chosen, of `cluster` or of this machine; and what searches on its
    GPUs where they are not this machine's. Raises InputError for what does not go together."""
    workers = 1 if options.vendor_only else options.workers or os.cpu_count() or 1
    if device == "emulated":
        bench = _emulated_bench(space, others, options, settings, calibration, workers)
        if cluster is None:
            return bench, None
        from hktune.tuning.cluster.ray_benches import emulated_on

        return emulated_on(cluster, bench, options.workers), None
    _check_gpu(device, options)
    gpu_bench = GpuBench(
        kind=device,
        space=space,
        seed=options.seed,
        settings=settings,
        hipkittens=options.hipkittens,
        workers=workers,
        prebuilt=options.prebuilt,
        cache=options.cache,
        gpus=choose_gpus(device, options.gpus, settings) if cluster is None else (),
        limits=options.limits,
        others=others,
        tokens=options.found_shapes.shapes.tokens,
    )
    if cluster is None:
        return gpu_bench, None
    from hktune.tuning.cluster.ray_gpus import gpus_of

    return gpus_of(cluster, gpu_bench, options.gpus, options.workers)


def _check_gpu(device: str, options: RunOptions) -> None:
    """Raises InputError for what is for the emulated device or another vendor's GPU."""
    if options.board:
        raise InputError(f"--board {options.board} is for the emulated device: a GPU says itself which one it is")
    if device == "cuda" and options.hipkittens:
        raise InputError(f"--hipkittens {options.hipkittens}: is for kernels of AMD's GPUs: leave it out")


def check_vendor_only(options: RunOptions) -> None:
    """Raises InputError for what is for kernels where none is searched."""
    if not options.vendor_only:
        return
    of_kernels = ("strategy", "patience", "hipkittens", "prebuilt", "rivals", "candidates", "calibration", "prior")
    for name in of_kernels:
        if getattr(options, name) not in (getattr(RunOptions, name), ()):
            raise InputError(f"--vendor-only searches no kernel, and --{name} is for one: leave one of them out")


def _emulated_bench(
    space: Path,
    others: tuple[Path, ...],
    options: RunOptions,
    settings: Settings,
    calibration: Calibration | None,
    workers: int,
) -> EmulatedBench:
    """Raises InputError for what is for a GPU."""
    if options.vendor_only:
        rule = "--vendor-only: the emulated device has no vendor library"
        raise InputError(f"{rule}: run it where the GPU is, or leave it out")
    if options.steady:
        raise InputError("--steady: the emulated device has no power limit: leave it out")
    if options.prebuilt:
        raise InputError("--prebuilt objects are for a GPU: the emulated device keeps its own cache")
    if options.gpus and options.gpus > 1:
        raise InputError(f"--gpus {options.gpus}: the emulated device is one; leave it out")
    if options.cache != "cold":
        raise InputError(f"--cache {options.cache}: the emulated device models cold caches: leave it out")
    if options.energy_budget_s:
        raise InputError(f"--energy-budget {options.energy_budget_s:g}: the emulated device takes none: leave it out")
    return EmulatedBench(
        space,
        options.seed,
        settings,
        options.hipkittens,
        workers,
        options.limits,
        others,
        board=modelled_board(options.board, calibration),
        calibration=calibration,
        tokens=options.found_shapes.shapes.tokens,
    )
