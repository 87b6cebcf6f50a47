"""Harmed files handed to what reads them, and what that must not do: raise anything but a printable line, start a
process, write elsewhere, take long or much memory."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hktune.core.errors import HktuneError

SECONDS_MAX, BYTES_MAX = 5.0, 300e6

Mutate = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Format:
    """`good` is a file that `read` takes; `mutate` harms it. `read` gets the harmed bytes and a folder of its own, in
    which it may do what it likes, and raises HktuneError or nothing."""

    name: str
    good: bytes
    mutate: Mutate
    read: Callable[[bytes], object]
    costs: int = 1  # in mutants of others, where one takes much longer


@dataclass
class Found:
    """What became of the mutants of one format, the longest time that one took, and how far memory grew."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    grown_bytes: int = 0

    def __str__(self) -> str:
        said = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.most_common())
        return f"{said}; at most {self.slowest_s:.2f} s and {self.grown_bytes / 1e6:.0f} MB"


def attack(kind: Format, folder: Path, seed: int, count: int) -> Found:
    """Read `count` mutants. Raises AssertionError for one that breaks a rule, and whatever a reader lets through, with
    the mutant left in `folder`."""
    found, rng = Found(), random.Random(f"{kind.name} {seed}")
    _outcome(kind, kind.good)
    for _ in range(count):
        data = kind.mutate(kind.good, rng)
        (folder.parent / "mutant").write_bytes(data)
        before, began = _peak_begun(), time.perf_counter()
        with watched(folder):
            outcome = _outcome(kind, data)
        took, grown = time.perf_counter() - began, _memory_bytes("VmHWM") - before
        found.outcomes[outcome] += 1
        found.slowest_s, found.grown_bytes = max(found.slowest_s, took), max(found.grown_bytes, grown)
        assert took < SECONDS_MAX, f"{kind.name}: {took:.1f} s"
        assert grown < BYTES_MAX, f"{kind.name}: {grown / 1e6:.0f} MB"
    _outcome(kind, kind.good)
    return found


def _outcome(kind: Format, data: bytes) -> str:
    try:
        kind.read(data)
    except HktuneError as refused:
        line = str(refused)
        assert line.isprintable(), line
        assert 0 < len(line) < 2000, line
        return "refused"
    return "read"


def _peak_begun() -> int:
    """Forget the most memory that this process has had, and return what it has now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory_bytes("VmRSS")


def _memory_bytes(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


_FORBIDDEN = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.spawn",
    "socket.",
    "pty.spawn",
)
_CHANGES = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.mkdir",
    "os.chmod",
    "os.truncate",
    "shutil.",
)
_watching: list[Path] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or not (event == "open" or event.startswith((*_FORBIDDEN, *_CHANGES))):
        return
    folder = _watching[-1]
    if event.startswith(_FORBIDDEN):
        raise AssertionError(f"{event} {arguments!r:.200}")
    path = arguments[0]
    if isinstance(path, int) or not isinstance(path, str | bytes | os.PathLike):
        return
    writes = event != "open" or (
        isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    )
    inside = Path(os.path.abspath(os.fsdecode(path))).is_relative_to(folder)  # noqa: PTH100 - links stay
    if writes and not inside and os.path.isabs(os.fsdecode(path)) and not os.fsdecode(path).startswith("/dev/null"):  # noqa: PTH117
        raise AssertionError(f"{event} of {path!r} is outside of {folder}")
    if b"passwd" in os.fsencode(path) and not inside:
        raise AssertionError(f"{path!r} is opened")


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[None]:
    """While it lasts nothing may be started, and nothing outside of `folder` written."""
    _watching.append(folder)
    try:
        yield
    finally:
        _watching.pop()


sys.addaudithook(_audit)
