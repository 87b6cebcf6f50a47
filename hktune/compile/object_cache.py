"""Compiled variants kept by content: what was built once, here or on another machine, is not built again."""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hktune.compile.compiler import Compiler
from hktune.compile.diagnostics import names_an_error
from hktune.core.config import compact_json
from hktune.core.errors import StoreError, ToolchainError
from hktune.core.outcome import Failure, Status
from hktune.core.outside_file import FileKind, own_folder
from hktune.core.publish import publish
from hktune.core.remedy import with_remedy
from hktune.core.variant import CodeObject, Variant

OBJECTS_NAME = "objects"
ENTRY_FILE = FileKind("an entry of the object cache", 64 << 20, StoreError, "delete it")
_DIGEST_BYTES = 32
_WITH_INCLUDES = ("hip", "cuda")
# A name that begins at the root, climbs a folder, or comes from a macro. Other names are those of the compiler's own
# headers, which its identity covers: a source is compiled in an empty folder.
_OUTSIDE_INCLUDE = re.compile(
    r"""^[ \t]*\#[ \t]*(?:include|include_next|embed)\b[ \t]*(?:["<][ \t]*(?:/|[^">\n]*\.\./)|[^"<\s])""",
    re.MULTILINE,
)


@dataclass(frozen=True)
class _Entry:
    """One file of the cache: what compiling a variant came to. Exactly one of the last two is there."""

    compiler: str
    code_object: CodeObject | None
    failure: Failure | None


class CachedCompiler:
    """Compiler that asks another one only for what `cache_dir` does not hold.

    The key is the sha256 of the inner compiler's identity and of what is compiled, so the folder may be copied to
    another machine and hits there. Entries appear whole or not at all; a damaged one is a miss and gets replaced. An
    error that the compiler would repeat is kept too; a timeout is not. Neither is a source that includes files of its
    own choice by path, which may change under the same text. Where the folder cannot be written, nothing is kept and
    `trouble` says why.
    """

    def __init__(self, compiler: Compiler, cache_dir: Path) -> None:
        self._compiler = compiler
        self._cache_dir = cache_dir
        self.trouble: str | None = None

    @property
    def identity(self) -> str:
        return self._compiler.identity

    def compile(self, variant: Variant, deadline_s: float) -> CodeObject | Failure:
        """Look `variant` up, else build and keep it; see Compiler."""
        if variant.language in _WITH_INCLUDES and _OUTSIDE_INCLUDE.search(variant.source):
            return self._compiler.compile(variant, deadline_s)
        name = self._name(variant)
        entry = _read(self._cache_dir, name)
        if entry is None or not _is_kept(entry) or not _is_of(entry, variant):
            entry = self._build(variant, deadline_s)
            if _is_kept(entry):
                self._write(name, entry)
        outcome = entry.code_object or entry.failure
        assert outcome is not None
        return outcome

    def keep(self, variant: Variant, code: CodeObject) -> None:
        """Have `code` for `variant` from here on: a compiler of the same identity has made it, on another machine."""
        self._write(self._name(variant), _Entry(self.identity, code, None))

    def _build(self, variant: Variant, deadline_s: float) -> _Entry:
        outcome = self._compiler.compile(variant, deadline_s)
        failure = outcome if isinstance(outcome, Failure) else None
        return _Entry(self.identity, outcome if isinstance(outcome, CodeObject) else None, failure)

    def _write(self, name: str, entry: _Entry) -> None:
        payload = msgspec.msgpack.encode(entry)
        folder, _, file = name.rpartition("/")
        try:
            own_folder(self._cache_dir, OBJECTS_NAME, StoreError)
            publish(own_folder(self._cache_dir, folder, StoreError) / file, hashlib.sha256(payload).digest() + payload)
        except (OSError, StoreError) as error:
            cannot = f"the object cache {self._cache_dir / OBJECTS_NAME} cannot be written"
            failed = error if isinstance(error, OSError) else OSError(str(error))
            self.trouble = with_remedy(cannot, failed, "set HKTUNE_CACHE")

    def _name(self, variant: Variant) -> str:
        named = [self.identity, variant.arch, variant.language, variant.template, variant.symbol, variant.source]
        named += [variant.file.sha256] if variant.file else []
        key = hashlib.sha256(compact_json(named).encode()).hexdigest()
        return f"{OBJECTS_NAME}/{key[:2]}/{key}.entry"


class AbsentCompiler:
    """Stands in for a compiler that is not installed here: it answers to `identity` and compiles nothing.

    Behind a CachedCompiler it makes a carried cache usable on a machine that has nothing to compile with.
    """

    def __init__(self, identity: str, reason: str) -> None:
        self.identity = identity
        self._reason = reason

    def compile(self, variant: Variant, deadline_s: float) -> CodeObject | Failure:
        """Raises ToolchainError: only what a cache holds can be had."""
        del deadline_s
        raise ToolchainError(f"{variant.symbol} is not in the object cache, and {self._reason}")


def recorded_identities(cache_dir: Path) -> list[str]:
    """The compilers whose objects `cache_dir` holds, sorted."""
    paths = (cache_dir / OBJECTS_NAME).glob("*/*.entry")
    entries = (_read(cache_dir, path.relative_to(cache_dir).as_posix()) for path in paths)
    return sorted({entry.compiler for entry in entries if entry is not None})


def _is_kept(entry: _Entry) -> bool:
    """Whether compiling again would give the same."""
    failure = entry.failure
    return failure is None or (failure.status is Status.COMPILE_ERROR and names_an_error(failure.detail))


def _is_of(entry: _Entry, variant: Variant) -> bool:
    """Whether an entry that says that it is `variant`'s holds what one may hold: a cache can be carried, and built."""
    code = entry.code_object
    if code is None or entry.failure is not None:
        return code is None and entry.failure is not None
    named = (code.symbol, code.arch, code.sha256)
    return named == (variant.symbol, variant.arch, hashlib.sha256(code.data).hexdigest())


def _read(cache_dir: Path, name: str) -> _Entry | None:
    """The entry `name`; None when there is none or its digest or its fields say it is damaged, or it is no plain file
    of the cache's own."""
    try:
        data = ENTRY_FILE.read_if_there(cache_dir, name) or b""
    except StoreError:
        return None
    digest, payload = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        return None
    with contextlib.suppress(ValueError, RecursionError):  # a DecodeError is a ValueError
        return msgspec.msgpack.decode(payload, type=_Entry)
    return None
