"""A template's source: one text, made of the files next to template.yaml that its first ones include."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from hktune.core.errors import TemplateError
from hktune.core.outside_file import FileKind

SOURCE_FILE = FileKind("a source", 1 << 20, TemplateError, "name a file in the folder of template.yaml")
FILES_MAX = 64
FIELDS_ENDING = ".in"
"""`#include "constants.hip"` reads constants.hip.in where that exists: the form of constants.hip with fields."""

_FIELD = re.compile(r"\$\{([^}$\n]{0,200})\}")
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]*)".*\n?', re.MULTILINE)
_ONCE = re.compile(r"^[ \t]*#[ \t]*pragma[ \t]+once[ \t]*\n?", re.MULTILINE)
_SIBLING = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}\Z")


def read_source(folder: Path, names: Sequence[str]) -> str:
    """The files `names` of `folder` as one text, each line that includes another file of it replaced by that file.

    Every file is there once, where it is first included. A quoted include that has the ending of a source must be in
    the folder; any other name that is not is the compiler's to find. Raises TemplateError for a file that is missing,
    more than FILES_MAX files, or more bytes than one source may have.
    """
    for name in names:
        if names.count(name) > 1:
            raise SOURCE_FILE.broken(folder / name, "is there twice among the sources")
    files = _Files(folder, {PurePosixPath(name).suffix for name in names})
    return "".join(files.text_once(name) for name in names)


def placed_fields(source: str) -> set[str]:
    """The names of all ${fields} in `source`."""
    return set(_FIELD.findall(source))


def filled(source: str, texts: Mapping[str, str]) -> str:
    """`source` with the text of each ${field} in its place."""
    return _FIELD.sub(lambda match: texts[match[1]], source)


class _Files:
    """Reads files of one folder, and remembers which ones the text already has."""

    def __init__(self, folder: Path, endings: set[str]) -> None:
        self._folder = folder
        self._endings = endings
        self._read: set[str] = set()
        self._bytes_left = SOURCE_FILE.bytes_max

    def text_once(self, name: str) -> str:
        """The text of `name` with its includes followed; empty where it was read before."""
        if name in self._read:
            return ""
        self._read.add(name)
        path = self._folder / self._file_of(name)
        if len(self._read) > FILES_MAX:
            raise SOURCE_FILE.broken(path, f"is one of more than {FILES_MAX} sources")
        data = SOURCE_FILE.read(path)
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise SOURCE_FILE.broken(path, f"is the end of over {SOURCE_FILE.bytes_max} bytes of sources")
        return _INCLUDE.sub(lambda line: self._included(line, path), SOURCE_FILE.text(data, path))

    def _included(self, line: re.Match[str], includer: Path) -> str:
        name = line[1]
        if _SIBLING.match(name) and self._has(name):
            text = _ONCE.sub("", self.text_once(name))
            return text if text.endswith("\n") or not text else f"{text}\n"
        if PurePosixPath(name).suffix in self._endings:
            raise SOURCE_FILE.broken(includer, f'includes "{name}", which is not in its folder')
        return line[0]

    def _has(self, name: str) -> bool:
        return os.path.lexists(self._folder / self._file_of(name))

    def _file_of(self, name: str) -> str:
        with_fields = f"{name}{FIELDS_ENDING}"
        return with_fields if os.path.lexists(self._folder / with_fields) else name
