"""What a run leaves behind. May import core, objects, space, template and the other seams."""

from hktune.store.claims import Claims
from hktune.store.environment import (
    Environment,
    Mismatch,
    capture_environment,
    judge_environment,
    read_environment,
    write_environment,
)
from hktune.store.origins import Origin, SignedBy, origin_texts, read_origins
from hktune.store.shards import Merged, folder_of, merge, merged_trials, named_template
from hktune.store.trials import News, TrialStore, locked, read_frame, read_trials

__all__ = [
    "Claims",
    "Environment",
    "Merged",
    "Mismatch",
    "News",
    "Origin",
    "SignedBy",
    "TrialStore",
    "capture_environment",
    "folder_of",
    "judge_environment",
    "locked",
    "merge",
    "merged_trials",
    "named_template",
    "origin_texts",
    "read_environment",
    "read_frame",
    "read_origins",
    "read_trials",
    "write_environment",
]
