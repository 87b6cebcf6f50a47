"""What writing rows to Optuna's studies costs, by storage: processor and wall-clock time of a row.

    python benchmarks/study_storages.py [TRIALS_CSV] [--rows N]

The rows are a recorded run's, written as a run writes them. They are of one shape, so one study has them all.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from hktune.core.shipped import SPACE_OF
from hktune.core.trial import Trial
from hktune.space import SearchSpace, load_space
from hktune.store import read_trials
from hktune.store.studies.study_place import StudyPlace
from hktune.store.studies.study_trials import frozen_of

RECORDED = Path(__file__).resolve().parents[1] / "results" / "gfx950-emulated" / "trials.csv"


def written(place: StudyPlace, rows: Sequence[Trial], space: SearchSpace) -> str:
    """Write `rows` to a new study; what one cost."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=place.opened(), study_name="one", direction="minimize")
    began_s, used_s = time.monotonic(), time.process_time()
    for row in rows:
        study.add_trial(frozen_of(row, space.parameters))
    used_ms = (time.process_time() - used_s) / len(rows) * 1e3
    wall_ms = (time.monotonic() - began_s) / len(rows) * 1e3
    return f"{used_ms:6.1f} ms of processor time, {wall_ms:6.1f} ms in all"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("trials", nargs="?", type=Path, default=RECORDED)
    parser.add_argument("--rows", type=int, default=200)
    options = parser.parse_args()
    rows = read_trials(options.trials)[: options.rows]
    space = load_space(SPACE_OF["gfx950"])
    with tempfile.TemporaryDirectory() as folder:
        for name, place in (("SQLite", f"sqlite:///{folder}/studies.db"), ("journal", f"{folder}/studies.log")):
            print(f"{name:8} {written(StudyPlace(place), rows, space)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
