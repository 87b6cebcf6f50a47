"""What a run leaves behind: trials.csv, its merging, and environment.json."""

from hktune.store.environment import (
    Environment,
    Mismatch,
    capture_environment,
    judge_environment,
    read_environment,
    write_environment,
)
from hktune.store.merge import merge, merged_trials
from hktune.store.trials import TrialStore, lock_of, read_frame, read_trials

__all__ = [
    "Environment",
    "Mismatch",
    "TrialStore",
    "capture_environment",
    "judge_environment",
    "lock_of",
    "merge",
    "merged_trials",
    "read_environment",
    "read_frame",
    "read_trials",
    "write_environment",
]
