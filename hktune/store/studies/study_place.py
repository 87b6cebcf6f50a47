"""Where Optuna keeps studies: a database by its URL, or one file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from hktune.core.errors import InputError, StoreError
from hktune.core.escaped import shown
from hktune.core.outside_file import FileKind

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

LOCK_WAIT_S = 3
"""So long SQLite waits for another program's lock; Optuna tries five times."""

STUDIES = FileKind("a file of Optuna's studies", 1 << 30, StoreError, "pass an SQLite database or a journal of Optuna")
_SQLITE, _JOURNAL = b"SQLite format 3\0", b'{"op_code":'
_SQLITE_URL = re.compile(r"sqlite(?:\+pysqlite)?:///(?P<path>.+)\Z", re.DOTALL)
_IN_MEMORY = re.compile(r"sqlite(?:\+pysqlite)?://(?:/?|/:memory:)\Z")
_PASSWORD = re.compile(r"(?<=://)(?P<user>[^:@/\s]*):[^@/\s]*@")


def without_password(text: str) -> str:
    """`text` with what may be a password in a URL replaced by stars."""
    return _PASSWORD.sub(r"\g<user>:***@", text)


@dataclass(frozen=True)
class StudyPlace:
    """A storage of Optuna's by what a person typed: the URL of a database; or a path, which is an SQLite database where
    it is one already, else a journal, that many processes may append to."""

    text: str

    def __str__(self) -> str:
        return without_password(self.text)

    def opened(self) -> BaseStorage:
        """The storage, made where there is none. Raises InputError for what can be none, and whatever its library
        raises where it cannot be reached now."""
        from optuna.storages import JournalStorage, RDBStorage
        from optuna.storages.journal import JournalFileBackend
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError

        file = self.sqlite_file
        path = file or self.path
        if path is not None and not path.absolute().parent.is_dir():
            raise InputError(f"{self}: there is no folder {path.absolute().parent}: make it")
        if path is not None and file is None:
            return JournalStorage(JournalFileBackend(str(path)))
        waits = {"connect_args": {"timeout": LOCK_WAIT_S}} if file else {}
        try:
            return RDBStorage(f"sqlite:///{file}" if file else self.text, engine_kwargs=waits)
        except (ArgumentError, NoSuchModuleError, ImportError) as wrong:
            raise InputError(f"{self}: is no storage ({wrong}): pass sqlite:///FILE, another URL, or a path") from None
        except RuntimeError as version:
            raise InputError(f"{self}: cannot be used by this Optuna ({version})") from None

    @property
    def path(self) -> Path | None:
        """The path that was typed; None of a URL. Raises InputError where nothing was."""
        if not self.text:
            raise InputError("--study is empty: give a URL such as sqlite:///tuning.db, or a path")
        return None if "://" in self.text else Path(self.text).expanduser()

    @property
    def sqlite_file(self) -> Path | None:
        """The file of an SQLite database. Raises InputError for one that is in no file."""
        if _IN_MEMORY.match(self.text):
            raise InputError(f"{self}: is a database in memory, gone with the run: write sqlite:///FILE")
        named = _SQLITE_URL.match(self.text)
        if named:
            return Path(named["path"])
        path = self.path
        return path if path is not None and _begin(path) == _SQLITE else None


def studies_file(text: str) -> Path:
    """The path that a person means by `text`, which may be the URL of an SQLite database. Raises InputError for the URL
    of another: a study of it can be copied."""
    named = _SQLITE_URL.match(text)
    if named is None and "://" in text:
        rule = f"{shown(without_password(text))}: only files of studies are read"
        raise InputError(f"{rule}: copy one with optuna.copy_study(..., to_storage='sqlite:///FILE')")
    return Path(named["path"] if named else text)


def holds_studies(path: Path) -> bool:
    """Whether there is an SQLite database or a journal of Optuna's at `path`."""
    begin = _begin(path)
    return begin == _SQLITE or begin.startswith(_JOURNAL)


def opened_for_reading(path: Path) -> BaseStorage:
    """The storage in a file that `holds_studies`. Raises StoreError for one that is too large, and what its library
    does for one that is broken."""
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    with STUDIES.opened(path) as file:
        begin = file.read(len(_SQLITE))
    if begin != _SQLITE:
        return JournalStorage(JournalFileBackend(str(path)))
    url = f"sqlite:///file:{quote(str(path.absolute()))}?mode=ro&uri=true"
    return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": LOCK_WAIT_S}}, skip_table_creation=True)


def _begin(path: Path) -> bytes:
    """The first bytes of a file; none where it is no file, or cannot be read."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(len(_SQLITE))
    except OSError:
        return b""
