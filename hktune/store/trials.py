"""trials.csv: every trial of a results directory, appended one line at a time and never lost.

A line is whole when it ends in a newline. A last line without one was torn by a crash: readers leave it out and the
next append cuts it off. Any other line that does not parse is an error that names the line and the column. A byte order
mark and carriage returns, which spreadsheets and editors leave, are read as what they mean, and kept.

A file of an older format is read as it is, and rewritten, whole or not at all, before the first append to it.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from filelock import Timeout

from hktune.core.errors import StoreError
from hktune.core.escaped import shown
from hktune.core.lock_file import lock_file
from hktune.core.outside_file import FileKind
from hktune.core.publish import publish
from hktune.core.remedy import of_a_newer, with_remedy
from hktune.core.trial import Trial
from hktune.store.cells import TYPES, CellError, NewerCellError
from hktune.store.older_formats import OLDER_FORMATS
from hktune.store.rows import COLUMNS, FORMAT, HEADER, NUMBER_AT, Decoder, Encoder

if TYPE_CHECKING:
    import pandas as pd

FILE_NAME = "trials.csv"
LOCK_TIMEOUT_S = 60  # it is held for milliseconds
FILE_BYTES_MAX = 4 << 30  # over four million rows, which take 2 GB of memory
LINE_BYTES_MAX = 4 << 20  # of any row whose cells are as long as they may be

_BOM = b"\xef\xbb\xbf"
_FILE = FileKind("trials.csv", FILE_BYTES_MAX, StoreError, "pass a directory that holds trials.csv")
_OWN_FILE = FileKind("trials.csv", FILE_BYTES_MAX, StoreError, "pass another DIR")


class News(NamedTuple):
    """Rows that were not read before. `anew`: the file is another than the one read so far, and these are all of it."""

    trials: list[Trial]
    anew: bool


class TrialStore:
    """The trials of one results directory, open for appending and for reading what is new.

    Several processes may append to one directory, and several threads through one store: a file lock orders them, and
    trial numbers are given under it. Creates the directory and the file if absent. Raises StoreError when the directory
    cannot be written or the file's columns are not hktune's.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE_NAME
        self._directory = directory
        self._encoder = Encoder()
        self._end = _Place()
        self._read = _Place()
        self._reading = threading.Lock()
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise StoreError(f"{directory}: the results directory must be a directory: pass another DIR") from None
        except OSError as error:
            raise StoreError(with_remedy(f"{directory}: cannot be written", error, "pass another DIR")) from None
        with self._opened(os.O_RDWR | os.O_CREAT) as file, self._writing():  # opening fails where a lock would wait
            self._catch_up(file)

    def append(self, trial: Trial) -> Trial:
        """Store one trial under the next free number; returns it with that number. On disk when this returns."""
        return self.extend([trial])[0]

    def extend_unless(
        self, trials: Sequence[Trial], standing: Callable[[Sequence[Trial]], Sequence[Trial | None]]
    ) -> list[Trial]:
        """`extend`, except for those that `standing`, which is asked while nobody else can append, knows a row for:
        that one is returned in its place."""
        with self._appending() as file:
            known = standing(trials)
            new = [trial for trial, stands in zip(trials, known, strict=True) if stands is None]
            written = iter(self._write(file, new) if new else [])
            return [next(written) if stands is None else stands for stands in known]

    def extend(self, trials: Iterable[Trial]) -> list[Trial]:
        """`append` for several at the price of one. Raises StoreError, and stores none, if one breaks a rule."""
        with self._appending() as file:
            return self._write(file, trials)

    def read(self) -> list[Trial]:
        """Every whole row, in order. Raises StoreError naming the first line that is not a trial."""
        return read_trials(self.path)

    def read_new(self) -> News:
        """The rows, this store's own among them, that were appended since this was last called: at first all of them.
        So a run reads its trials once. Raises as `read` does."""
        with self._reading, self._opened(os.O_RDONLY) as file:
            anew = self._read.is_of_another(file)
            if anew:
                self._read = _Place(os.fstat(file.fileno()).st_ino)
            return News(list(_rows(file, self.path, self._read)), anew)

    def _write(self, file: BinaryIO, trials: Iterable[Trial]) -> list[Trial]:
        numbered = [replace(trial, trial=self._end.next_trial + i) for i, trial in enumerate(trials)]
        newline = self._end.newline
        data = b"".join(self._encoder.line(trial)[:-1] + newline for trial in numbered)
        file.seek(self._end.offset)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        self._end.offset += len(data)
        self._end.lines += len(numbered)
        self._end.next_trial += len(numbered)
        return numbered

    @contextlib.contextmanager
    def _appending(self) -> Iterator[BinaryIO]:
        """Alone at the file, which is of today's format and was read to its end."""
        with self._writing():
            with self._opened(os.O_RDONLY) as file:
                if self._end.is_of_another(file) or self._end.format != FORMAT:
                    self._rewrite_if_old(file)
            with self._opened(os.O_RDWR) as file:
                self._catch_up(file)
                yield file

    def _rewrite_if_old(self, file: BinaryIO) -> None:
        place = _Place()
        if _read_header(file, self.path, place) and place.format != FORMAT:
            publish(self.path, _lines_of_today(file, self.path))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Alone at the file; failures of the machine are one line."""
        try:
            self.path.stat()  # fails where a lock would wait
            with locked(self._directory):
                yield
        except OSError as error:
            raise StoreError(with_remedy(f"{self.path}: cannot be appended to", error, "pass another DIR")) from None

    def _opened(self, flags: int) -> contextlib.AbstractContextManager[BinaryIO]:
        return _OWN_FILE.opened_inside(self._directory, FILE_NAME, flags)

    def _catch_up(self, file: BinaryIO) -> None:
        """Learn what other processes appended since, begin an empty file, and cut off a torn tail."""
        if self._end.is_of_another(file):  # set aside, or merged into
            self._end = _Place(os.fstat(file.fileno()).st_ino)
        if self._read.inode == self._end.inode and self._read.offset > self._end.offset:
            self._end = replace(self._read)
        if not self._end.offset and not _read_header(file, self.path, self._end):
            file.seek(0)
            file.truncate()
            file.write(HEADER)
            file.flush()
            self._end.passed(HEADER)
        for line in _lines(file, self.path, self._end):
            self._end.numbered(line)
        if self._end.offset < os.fstat(file.fileno()).st_size:
            file.truncate(self._end.offset)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Be the only one who writes `directory`'s trials.csv. Raises StoreError after a minute's wait and where something
    else has the lock's name, OSError where no lock can be made."""
    lock = lock_file(directory, f"{FILE_NAME}.lock", LOCK_TIMEOUT_S, StoreError)
    try:
        lock.acquire()
    except Timeout:
        held = f"{lock.lock_file} was held by {holder_of(lock.lock_file)} for {LOCK_TIMEOUT_S} s"
        raise StoreError(f"{held}: wait until that is done, or end it, then --resume") from None
    try:
        yield
    finally:
        lock.release()


def holder_of(path: str) -> str:
    """Who holds the lock of a file, as far as the kernel tells."""
    with contextlib.suppress(OSError):
        inode = Path(path).stat().st_ino
        for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines():
            fields = line.split()
            if "->" not in fields and fields[5].rpartition(":")[2] == str(inode):
                return f"another process (pid {fields[4]})"
    return "another process"


def read_trials(path: Path) -> list[Trial]:
    """The trials of a trials.csv that may be being written. Raises StoreError (one line, naming the bad line)."""
    with _FILE.opened(path) as file:
        return list(_rows(file, path, _Place()))


def read_frame(path: Path) -> pd.DataFrame:
    """trials.csv as pandas reads it: absent cells stay absent (nullable integers), floats keep their last bit. The
    columns are those of today, also where the file's are not."""
    import pandas as pd

    words = {int: "Int64", float: "float64", bool: "boolean"}
    types = {name: words.get(kind, "string") for name, kind in TYPES.items()}
    exact = {name: _float for name, kind in TYPES.items() if kind is float}
    texts = {name: word for name, word in types.items() if name not in exact}
    with _FILE.opened(path) as file:
        place = _Place()
        if _read_header(file, path, place) and place.format != FORMAT:
            file = io.BytesIO(b"".join(_lines_of_today(file, path)))
        file.seek(0)
        frame = pd.read_csv(file, dtype=texts, converters=exact, keep_default_na=False, na_values=[""])
    return frame.astype(types)


def _float(cell: str) -> float:
    return float(cell or "nan")


class _Numbers:
    """Whole numbers that were seen. Those that come in order from 0 on, as rows do, take no memory."""

    def __init__(self) -> None:
        self._first_unseen = 0
        self._later: set[int] = set()

    def add(self, number: int) -> bool:
        """Whether `number` is a new one."""
        if number < self._first_unseen or number in self._later:
            return False
        self._later.add(number)
        while self._first_unseen in self._later:
            self._later.remove(self._first_unseen)
            self._first_unseen += 1
        return True


@dataclass
class _Place:
    """Up to where a file was read: bytes and whole lines, the header among them, and what was learned on the way."""

    inode: int = 0
    offset: int = 0
    lines: int = 0
    next_trial: int = 0
    format: int = FORMAT
    newline: bytes = b"\n"
    numbers: _Numbers = field(default_factory=_Numbers)

    def is_of_another(self, file: BinaryIO) -> bool:
        status = os.fstat(file.fileno())
        return status.st_ino != self.inode or status.st_size < self.offset

    def passed(self, line: bytes) -> None:
        self.offset += len(line)
        self.lines += 1

    def numbered(self, line: bytes) -> None:
        """Learn the number of a row."""
        at = NUMBER_AT if self.format == FORMAT else OLDER_FORMATS[self.format].number_at
        number = b"".join(line.split(b",", at + 1)[at : at + 1])
        if number.isdigit() and len(number) <= 18:  # others are no numbers that a row can go on from
            self.next_trial = max(self.next_trial, int(number) + 1)


def _rows(file: BinaryIO, path: Path, place: _Place) -> Iterator[Trial]:
    """The trials of the whole lines from `place` on, which moves behind each row as it is given."""
    if not place.offset and not _read_header(file, path, place):
        return
    trial_of = _reader_of(place.format)
    rows = csv.reader((line.decode() for line in _lines(file, path, place)), strict=True)
    while True:
        number = place.lines + 1
        try:
            trial = trial_of(next(rows))
            if place.lines != number:
                raise CellError(None, "a quote is left open")
            if not place.numbers.add(trial.trial):
                raise CellError("trial", f"{trial.trial} is the number of an earlier row")
        except StopIteration:
            return
        except (csv.Error, ValueError) as broken:
            raise _bad_line(path, number, broken) from None
        place.next_trial = max(place.next_trial, trial.trial + 1)
        yield trial


def _reader_of(format_: int) -> Callable[[Sequence[str]], Trial]:
    """How a row of a format is read. It raises CellError."""
    decoder = Decoder()
    if format_ == FORMAT:
        return decoder.trial
    older = OLDER_FORMATS[format_]
    return lambda cells: decoder.trial(older.cells_of_today(cells))


def _lines_of_today(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """What the file would be in the format of today."""
    encoder = Encoder()
    return chain([HEADER], map(encoder.line, _rows(file, path, _Place())))


def is_without_rows(path: Path) -> bool:
    """Whether the file has a header at most."""
    headers = _headers()
    return path.stat().st_size <= max(map(len, headers)) and path.read_bytes() in (*headers, b"")


def _headers() -> tuple[bytes, ...]:
    """The first line of a file of each format."""
    return (HEADER, *(older.header for older in OLDER_FORMATS.values()))


def _lines(file: BinaryIO, path: Path, place: _Place) -> Iterator[bytes]:
    """The whole lines from `place` on, without their ends; it moves behind each."""
    file.seek(place.offset)
    while True:
        line = file.readline(LINE_BYTES_MAX)
        if not line.endswith(b"\n"):
            if len(line) == LINE_BYTES_MAX:
                raise _bad_line(path, place.lines + 1, ValueError(f"no newline within {LINE_BYTES_MAX} bytes"))
            return
        place.passed(line)
        yield line[:-1].removesuffix(b"\r")


def _bad_line(path: Path, number: int, broken: Exception) -> StoreError:
    if isinstance(broken, NewerCellError):
        return StoreError(of_a_newer(f"{path}: line {number}", str(broken), "delete that line"))
    rule = f"byte {broken.start} is not UTF-8" if isinstance(broken, UnicodeDecodeError) else str(broken)
    return StoreError(f"{path}: line {number} is torn or edited: {rule}; correct it, or delete that line")


def _read_header(file: BinaryIO, path: Path, place: _Place) -> bool:
    """Check the first line; False where there is none yet, or a torn one."""
    file.seek(0)
    line = file.readline(LINE_BYTES_MAX)
    text = line.removeprefix(_BOM).removesuffix(b"\n").removesuffix(b"\r")
    whole = line.endswith(b"\n")
    if whole or not any(header.startswith(text) for header in _headers()):
        place.format = _format_of(text, file, path)
    if not whole:
        return False
    place.newline = b"\r\n" if line.endswith(b"\r\n") else b"\n"
    place.passed(line)
    return True


def _format_of(line: bytes, file: BinaryIO, path: Path) -> int:
    """The format that a header is of; the first row follows in `file`. Raises StoreError for any other."""
    if line == HEADER[:-1]:
        return FORMAT
    text = line[:4096].decode(errors="replace")
    found = text.replace('"', "").split(",")
    of_columns = {COLUMNS: FORMAT, **{older.columns: number for number, older in OLDER_FORMATS.items()}}
    known = of_columns.get(tuple(found)) if len(line) < 4096 else None
    if known:
        return known
    if found[0] == COLUMNS[0]:
        row = file.readline(LINE_BYTES_MAX).partition(b",")[0]
        if row.isdigit() and len(row) < 10 and int(row) > FORMAT:
            rule = f"{path} is of format {int(row)}, this hktune reads formats 1 to {FORMAT}"
            raise StoreError(f"{rule}: upgrade hktune, or pass another DIR")
    missing = ", ".join(name for name in COLUMNS if name not in found)
    unknown = ", ".join(shown(name) for name in found if name not in COLUMNS)
    what = f"missing {missing or 'none'}; unknown {unknown[:200] or 'none'}" if missing or unknown else "in other order"
    raise StoreError(f"{path}: its columns are not hktune's ({what}): pass another DIR, or --fresh to start it again")
