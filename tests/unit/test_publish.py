"""Temporary files: whole ones appear, those of a crash are swept, those being written are not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hktune.core.publish import publish, scratch_folder, sweep, sweep_below

# Dies by signal 9 in the middle of what it writes.
KILLED = """
import os, signal, sys
from pathlib import Path
from hktune.core import publish
folder = Path(sys.argv[1])
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "file":
    os.fsync = die
    publish.publish(folder / "table.json", b"half")
with publish.scratch_folder(folder) as scratch:
    (scratch / "kernel.o").write_bytes(b"half")
    die()
"""
# Holds a scratch folder until its stdin closes.
HOLDS = """
import sys
from pathlib import Path
from hktune.core.publish import scratch_folder
with scratch_folder(Path(sys.argv[1])) as scratch:
    print(scratch, flush=True)
    sys.stdin.read()
"""


def leave_behind(folder: Path, what: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), what], check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_a_killed_writer_left_is_swept(tmp_path: Path, what: str) -> None:
    inner = tmp_path / "objects" / "ab"
    inner.mkdir(parents=True)
    leave_behind(inner, what)
    [left] = inner.iterdir()
    (inner / ".mine").write_text("a dot file of somebody else")
    publish(inner / "kept", b"whole")
    sweep_below(tmp_path)
    assert {path.name for path in inner.iterdir()} == {".mine", "kept"}
    assert not left.exists()


def test_what_is_being_written_is_not_swept(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout
        folder = Path(holder.stdout.readline().strip())
        sweep(tmp_path)
        assert folder.is_dir()
        holder.communicate()
    assert not folder.exists()


def test_writers_and_sweepers_do_not_disturb_each_other(tmp_path: Path) -> None:
    stop = threading.Event()

    def go_on_sweeping() -> None:
        while not stop.is_set():
            sweep(tmp_path)

    sweeper = threading.Thread(target=go_on_sweeping)
    sweeper.start()
    try:
        for number in range(200):
            publish(tmp_path / f"{number % 3}", str(number).encode())
            with scratch_folder(tmp_path) as folder:
                (folder / "x").write_text("x")
    finally:
        stop.set()
        sweeper.join()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    swept = tmp_path / "swept"
    swept.mkdir()
    (swept / ".link.part").symlink_to(precious)
    os.mkfifo(swept / ".pipe.part")
    sweep(swept)
    assert (precious / "file").read_text() == "kept"


@pytest.mark.parametrize("what", ["pipe", "folder", "link to a device"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, what: str) -> None:
    """As root, renaming over /dev/null would take it from everybody."""
    path = tmp_path / "file"
    {"pipe": os.mkfifo, "folder": Path.mkdir, "link to a device": lambda path: path.symlink_to("/dev/full")}[what](path)
    before = path.lstat()
    with pytest.raises(OSError, match=r"is a (pipe|directory|device), not a file to replace"):
        publish(path, b"data")
    assert path.lstat() == before
    assert list(tmp_path.iterdir()) == [path]
