"""What a caller asks of a run, and the bench that it so asks for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hktune.core.calibration import ESTIMATE, Calibration, modelled_board
from hktune.core.errors import InputError
from hktune.core.settings import Settings
from hktune.core.shapes import ShapeList
from hktune.exchange import FoundShapes, read_shapes
from hktune.space import Spaces
from hktune.tuning.benches import Bench, EmulatedBench, GpuBench
from hktune.tuning.gpus import choose_gpus
from hktune.workers.executor import Limits


@dataclass(frozen=True)
class RunOptions:
    """What a caller asks of a run. Without `out` it is out/<device> in the working directory, without `space`
    the one that comes with hktune for the device, without `gpus` all that this process sees, without `rivals` those
    that are here. `candidates` are words for spaces that are searched in addition to `space`. `board` is the one that
    the emulated device models, the usual one unless given. `calibration` has constants in place of the clock's or of
    the estimate's. `prior` are earlier results: what they favour for a shape is tried first. `patience` is that of
    `loop.Budget`."""

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
    workers: int = os.cpu_count() or 1
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


def asked_bench(
    device: str,
    space: Path,
    others: tuple[Path, ...],
    options: RunOptions,
    settings: Settings,
    calibration: Calibration | None,
) -> Bench:
    """What `options` ask for, on a `device` that was chosen. Raises InputError for what does not go together."""
    if device == "emulated":
        if options.prebuilt:
            raise InputError("--prebuilt objects are for a GPU: the emulated device keeps its own cache")
        if options.gpus and options.gpus > 1:
            raise InputError(f"--gpus {options.gpus}: the emulated device is one; leave it out")
        return EmulatedBench(
            space,
            options.seed,
            settings,
            options.hipkittens,
            options.workers,
            options.limits,
            others,
            board=modelled_board(options.board, calibration),
            calibration=calibration,
        )
    if options.board:
        raise InputError(f"--board {options.board} is for the emulated device: a GPU says itself which one it is")
    return GpuBench(
        kind=device,
        space=space,
        seed=options.seed,
        settings=settings,
        hipkittens=options.hipkittens,
        workers=options.workers,
        prebuilt=options.prebuilt,
        cache=options.cache,
        gpus=choose_gpus(device, options.gpus, settings),
        limits=options.limits,
        others=others,
    )
