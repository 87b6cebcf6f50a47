"""One compiler for templates of several languages."""

from __future__ import annotations

from collections.abc import Mapping

from hktune.compile.object_cache import CachedCompiler
from hktune.core.outcome import Failure
from hktune.core.variant import CodeObject, Variant


class CompilerByLanguage:
    """Compiler that gives a variant of one of `others`, by language, to that one's, and any other to `own`, which names
    it. A code object names the compiler that made it."""

    def __init__(self, own: CachedCompiler, others: Mapping[str, CachedCompiler]) -> None:
        self._own, self._others = own, others

    @property
    def identity(self) -> str:
        return self._own.identity

    @property
    def trouble(self) -> str | None:
        """As CachedCompiler has it, of the first that has any."""
        return next((each.trouble for each in (self._own, *self._others.values()) if each.trouble), None)

    def compile(self, variant: Variant, deadline_s: float) -> CodeObject | Failure:
        """See Compiler."""
        return self._of(variant).compile(variant, deadline_s)

    def keep(self, variant: Variant, code: CodeObject) -> None:
        """As CachedCompiler has it."""
        self._of(variant).keep(variant, code)

    def _of(self, variant: Variant) -> CachedCompiler:
        return self._others.get(variant.language, self._own)
