"""One config on its way to a time: rendered, compiled, checked against its budget, proved, profiled."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from hktune.compile.compiler import Compiler
from hktune.core.arch import Arch, arch_named
from hktune.core.attended import attended_s
from hktune.core.config import Config
from hktune.core.outcome import Failure, Status
from hktune.core.problem import Problem, ProofProblem
from hktune.core.variant import CodeObject
from hktune.measure.stopwatch import Attempt
from hktune.template.template import Template
from hktune.verify.emulated_proof import ProofLaunch, ProofTask, prove_all, prove_one
from hktune.verify.record import Record, RecordStore
from hktune.verify.verify import Proof

COMPILE_DEADLINE_S = 60.0
DEADLINE_S = 120.0
"""For one config on the emulated device, from its source to the end of its last proof: some 2 s are usual."""


@dataclass(frozen=True)
class Prover:
    """Config -> Attempt on the emulated device, within `deadline_s` a config. Raises only what stops the whole run
    (MachineError)."""

    template: Template
    compiler: Compiler
    records: RecordStore
    seed: int
    deadline_s: float = DEADLINE_S

    def __call__(self, config: Config) -> Attempt:
        started, until = time.monotonic(), attended_s() + self.deadline_s
        code = self.compiler.compile(self.template.render(config), self.deadline_s)
        attempt = attempted(config, code, self.compiler.identity)
        if isinstance(code, Failure):
            return attempt
        record = over_budget(code, arch_named(self.template.arch)) or self._proved(code, config, until)
        return replace(
            attempt,
            failure=record.failure,
            relative_error=record.relative_error,
            profile=record.profile,
            prove_s=time.monotonic() - started,
        )

    def on(self, config: Config, problem: Problem) -> Proof | Failure:
        """The proof of `config` on a problem of one's own, after those of the template."""
        code = self.compiler.compile(self.template.render(config), self.deadline_s)
        if isinstance(code, Failure):
            return code
        own = ProofLaunch(ProofProblem(problem), self.template.launch(config, problem))
        return prove_one(code.data, self.task(code, config), own, attended_s() + self.deadline_s)

    def task(self, code: CodeObject, config: Config) -> ProofTask:
        """All that the proofs of `code`, the object of `config`, are handed beside its bytes."""
        template = self.template
        proofs = template.proof_problems(config)
        launches = [ProofLaunch(what, template.launch(config, what.problem)) for what in proofs]
        facts = (arch_named(template.arch), code.resources, template.tile(config))
        return ProofTask(code.sha256, code.symbol, *facts, tuple(launches), self.seed)

    def _proved(self, code: CodeObject, config: Config, until: float) -> Record:
        task = self.task(code, config)
        key = self.records.key(task)
        record = self.records.get(key)
        if record is None:
            record = _record(code, task, until)
            self.records.put(key, record)
        return record


def _record(code: CodeObject, task: ProofTask, until: float) -> Record:
    """The outcome of the proofs. A kernel that asks for more memory than this process may have has failed."""
    try:
        outcome = prove_all(code.data, task, until)
    except MemoryError as error:
        return Record(Failure(Status.CRASHED, f"its proof takes more memory than a worker may have: {error}"))
    if isinstance(outcome, Failure):
        return Record(outcome)
    return Record(None, outcome.relative_error, outcome.profile)


@dataclass(frozen=True)
class CompileOnly:
    """Config -> Attempt, as far as a processor without the device can take it. Raises MachineError."""

    template: Template
    compiler: Compiler
    deadline_s: float = COMPILE_DEADLINE_S

    def __call__(self, config: Config) -> Attempt:
        code = self.compiler.compile(self.template.render(config), self.deadline_s)
        attempt = attempted(config, code, self.compiler.identity)
        record = None if isinstance(code, Failure) else over_budget(code, arch_named(self.template.arch))
        return replace(attempt, failure=record.failure) if record else attempt


def built_again(template: Template, compiler: Compiler, config: Config, sha256: str | None) -> CodeObject | str:
    """The code object of `config` whose bytes `sha256` names, or what compiling came to instead: why it failed, or the
    sha256 of other bytes."""
    code = compiler.compile(template.render(config), COMPILE_DEADLINE_S)
    if isinstance(code, Failure):
        return code.detail
    return code if code.sha256 == sha256 else code.sha256


def attempted(config: Config, code: CodeObject | Failure, compiler: str) -> Attempt:
    """The attempt that compiling `config` came to."""
    if isinstance(code, Failure):
        return Attempt(config, code, compiler=compiler)
    return Attempt(
        config,
        object_sha256=code.sha256,
        resources=code.resources,
        compiler=code.compiler,
        compile_s=code.compile_s,
    )


def over_budget(code: CodeObject, arch: Arch) -> Record | None:
    """A variant that spills or uses scratch is not worth proving: its registers do not fit."""
    needs = code.resources
    if not needs.spills and not needs.scratch_bytes:
        return None
    detail = (
        f"{needs.spills} spilled registers and {needs.scratch_bytes} bytes of scratch, "
        f"with {needs.vgprs} VGPRs and {needs.agprs} AGPRs of {arch.vgprs_per_wave}"
    )
    return Record(Failure(Status.OVER_BUDGET, detail))
