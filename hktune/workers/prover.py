"""One config on its way to a time: rendered, compiled, checked against its budget, proved, profiled."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from hktune.compile.compiler import Compiler
from hktune.core.arch import Arch, arch_named
from hktune.core.attended import attended_s
from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.outcome import Failure, Status
from hktune.core.problem import Problem
from hktune.core.variant import CodeObject
from hktune.emulator.clock.breakdown import Specimen
from hktune.emulator.clock.launch_time import k_steps
from hktune.measure.stopwatch import Attempt, failed
from hktune.template.template import Template
from hktune.verify.emulated_proof import ProofLaunch, ProofTask, prove_all, prove_one, traced
from hktune.verify.proof import Proof
from hktune.verify.record import Record, RecordStore

COMPILE_DEADLINE_S = 60.0
DEADLINE_S = 120.0
"""For one config on the emulated device, from its source to the end of its last proof: some 2 s are usual."""


@dataclass(frozen=True)
class Prover:
    """Candidate -> Attempt on the emulated device, within `deadline_s` each. Raises only what stops the whole run
    (MachineError)."""

    template: Template
    compiler: Compiler
    records: RecordStore
    seed: int
    deadline_s: float = DEADLINE_S

    def __call__(self, candidate: Candidate) -> Attempt:
        started, until = time.monotonic(), attended_s() + self.deadline_s
        code = compiled(self.template, self.compiler, candidate, self.deadline_s)
        attempt = attempted(candidate, code, self.compiler.identity)
        if isinstance(code, Failure):
            return attempt
        record = over_budget(code, arch_named(self.template.arch)) or self._proved(code, candidate, until)
        return replace(
            attempt,
            failure=record.failure,
            relative_error=record.relative_error,
            profile=record.profile,
            prove_s=time.monotonic() - started,
        )

    def on(self, config: Config, problem: Problem) -> Proof | Failure:
        """The proof of `config` on a problem of one's own, after those of the template."""
        candidate = Candidate(config, self.template.code_operation(problem.operation))
        code = compiled(self.template, self.compiler, candidate, self.deadline_s)
        if isinstance(code, Failure):
            return code
        own = ProofLaunch(self.template.own_proof(problem), self.template.launch(config, problem))
        return prove_one(code.data, self.task(code, candidate), own, attended_s() + self.deadline_s)

    def specimen(self, candidate: Candidate) -> Specimen | Failure:
        """What the profile of `candidate` was made of. Its first proof runs again: a trace is not kept."""
        code = compiled(self.template, self.compiler, candidate, self.deadline_s)
        if isinstance(code, Failure):
            return code
        task = self.task(code, candidate)
        trace = traced(code.data, task, attended_s() + self.deadline_s)
        if isinstance(trace, Failure):
            return trace
        first = task.launches[0]
        steps = int(k_steps(first.what.problem, first.launch, task.tile))
        return Specimen(trace, task.resources, first.launch, task.tile, steps, task.arch)

    def task(self, code: CodeObject, candidate: Candidate) -> ProofTask:
        """All that the proofs of `code`, the object of `candidate`, are given with its bytes."""
        template, config = self.template.for_operation(candidate.operation), candidate.config
        proofs = template.proof_problems(config)
        launches = [ProofLaunch(what, template.launch(config, what.problem)) for what in proofs]
        return ProofTask(
            object_sha256=code.sha256,
            symbol=code.symbol,
            arch=arch_named(template.arch),
            resources=code.resources,
            tile=template.tile(config),
            launches=tuple(launches),
            seed=self.seed,
            strict_hazards=template.strict_hazards,
        )

    def _proved(self, code: CodeObject, candidate: Candidate, until: float) -> Record:
        task = self.task(code, candidate)
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
    """Candidate -> Attempt, as far as a processor without the device can take it. Raises MachineError."""

    template: Template
    compiler: Compiler
    deadline_s: float = COMPILE_DEADLINE_S

    def __call__(self, candidate: Candidate) -> Attempt:
        code = compiled(self.template, self.compiler, candidate, self.deadline_s)
        attempt = attempted(candidate, code, self.compiler.identity)
        record = None if isinstance(code, Failure) else over_budget(code, arch_named(self.template.arch))
        return replace(attempt, failure=record.failure) if record else attempt


@dataclass(frozen=True)
class ByTemplate:
    """Candidate -> Attempt, by what proves or compiles those of its template; `own` does so for those of any other."""

    own: Callable[[Candidate], Attempt]
    others: Mapping[str, Callable[[Candidate], Attempt]]

    def __call__(self, candidate: Candidate) -> Attempt:
        return self.others.get(candidate.template or "", self.own)(candidate)


def compiled(template: Template, compiler: Compiler, candidate: Candidate, deadline_s: float) -> CodeObject | Failure:
    """The code object of `candidate`. Raises InputError for an operation that `template` cannot do."""
    return compiler.compile(template.for_operation(candidate.operation).render(candidate.config), deadline_s)


def built_again(template: Template, compiler: Compiler, candidate: Candidate, sha256: str | None) -> CodeObject | str:
    """The code object of `candidate` whose bytes `sha256` names, or what compiling came to instead: why it failed, or
    the sha256 of other bytes."""
    code = compiled(template, compiler, candidate, COMPILE_DEADLINE_S)
    if isinstance(code, Failure):
        return code.detail
    return code if code.sha256 == sha256 else code.sha256


def attempted(candidate: Candidate, code: CodeObject | Failure, compiler: str) -> Attempt:
    """The attempt that compiling `candidate` came to."""
    if isinstance(code, Failure):
        return replace(failed(candidate, code), compiler=compiler)
    return Attempt(
        candidate.config,
        object_sha256=code.sha256,
        resources=code.resources,
        compiler=code.compiler,
        compile_s=code.compile_s,
        operation=candidate.operation,
        template=candidate.template,
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
