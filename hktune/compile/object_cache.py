"""Compiled variants kept by content: what was built once, here or on another machine, is not built again."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hktune.compile.compiler import Compiler
from hktune.compile.diagnostics import names_an_error
from hktune.errors import ToolchainError
from hktune.model import CodeObject, Failure, Status, Variant, compact_json
from hktune.publish import publish

_DIGEST_BYTES = 32


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
    error that the compiler would repeat is kept too; a timeout is not. Where the folder cannot be written, nothing is
    kept and `trouble` says why.
    """

    def __init__(self, compiler: Compiler, cache_dir: Path) -> None:
        self._compiler = compiler
        self._folder = cache_dir / "objects"
        self.trouble: str | None = None

    @property
    def identity(self) -> str:
        return self._compiler.identity

    def compile(self, variant: Variant, deadline_s: float) -> CodeObject | Failure:
        """Look `variant` up, else build and keep it; see Compiler."""
        path = self._path(variant)
        entry = _read(path)
        if entry is None or not _is_kept(entry):
            entry = self._build(variant, deadline_s)
            if _is_kept(entry):
                self._write(path, entry)
        outcome = entry.code_object or entry.failure
        assert outcome is not None
        return outcome

    def _build(self, variant: Variant, deadline_s: float) -> _Entry:
        outcome = self._compiler.compile(variant, deadline_s)
        failure = outcome if isinstance(outcome, Failure) else None
        return _Entry(self.identity, outcome if isinstance(outcome, CodeObject) else None, failure)

    def _write(self, path: Path, entry: _Entry) -> None:
        payload = msgspec.msgpack.encode(entry)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            publish(path, hashlib.sha256(payload).digest() + payload)
        except OSError as error:
            self.trouble = f"the object cache {self._folder} cannot be written ({error.strerror}): set HKTUNE_CACHE"

    def _path(self, variant: Variant) -> Path:
        named = [self.identity, variant.arch, variant.language, variant.template, variant.symbol, variant.source]
        key = hashlib.sha256(compact_json(named).encode()).hexdigest()
        return self._folder / key[:2] / f"{key}.entry"


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
    entries = (_read(path) for path in (cache_dir / "objects").glob("*/*.entry"))
    return sorted({entry.compiler for entry in entries if entry is not None})


def _is_kept(entry: _Entry) -> bool:
    """Whether compiling again would come to the same."""
    failure = entry.failure
    return failure is None or (failure.status is Status.COMPILE_ERROR and names_an_error(failure.detail))


def _read(path: Path) -> _Entry | None:
    """The entry at `path`; None when there is none or its digest or its fields say it is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, payload = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        return None
    with contextlib.suppress(msgspec.DecodeError):
        return msgspec.msgpack.decode(payload, type=_Entry)
    return None
