"""The workers of a bench: where they are, and that they prove or compile candidates of all of its spaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from hktune.compile import CachedCompiler, CompilerByLanguage, compiler_for
from hktune.compile.compiler import Compiler
from hktune.space import load_spaces
from hktune.template import Template
from hktune.tuning.benches.contract import Bench
from hktune.workers.executor import Executor, Limits, LocalExecutor, Prove
from hktune.workers.prover import ByTemplate

GRACE_S = 30.0
"""So long after a config's deadline its worker is killed: the emulator looks at the clock itself, and says more."""

SomeBench = TypeVar("SomeBench", contravariant=True)


class MakeExecutor(Protocol[SomeBench]):
    """Starts `workers` workers for a bench, within `deadline_s` and `limits` for each config."""

    def __call__(self, bench: SomeBench, workers: int, deadline_s: float, limits: Limits) -> Executor: ...


def local_executor(bench: Callable[[], Prove], workers: int, deadline_s: float, limits: Limits) -> Executor:
    """Processes of this machine."""
    return LocalExecutor(bench, workers, deadline_s, limits.memory_of_each(workers))


def by_template(bench: Bench, prove: Callable[[Template, Compiler], Prove]) -> Prove:
    """What proves or compiles candidates of all spaces of `bench`."""
    compiler, spaces = bench.compiler, load_spaces((bench.space, *bench.others))
    others = {space.template.sha256: prove(space.template, compiler) for space in spaces.others}
    own = prove(spaces.own.template, compiler)
    return ByTemplate(own, others) if others else own


def with_others(own: CachedCompiler, bench: Bench) -> CachedCompiler | CompilerByLanguage:
    """`own`, and the compilers of the other languages that the spaces of `bench` have."""
    spaces = load_spaces((bench.space, *bench.others))
    languages = {space.template.language for space in spaces.others} - {spaces.own.template.language}
    others: dict[str, CachedCompiler] = {
        language: compiler_for(language, bench.settings, bench.hipkittens) for language in languages
    }
    return CompilerByLanguage(own, others) if others else own
