"""Recorded search spaces: hktune's own rows, and the files of other tuners."""

from hktune.store.recordings.reading import load_recordings, recordings_among
from hktune.store.recordings.recording import Recording

__all__ = ["Recording", "load_recordings", "recordings_among"]
