"""One config on its way to a time: rendered, compiled, checked against its budget, proved, profiled."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from hktune.arch import Arch, arch_named
from hktune.compile.compiler import Compiler
from hktune.device.emulated import EmulatedDevice
from hktune.emulator.clock import launch_time
from hktune.emulator.clock.trace import Trace
from hktune.errors import HktuneError, InputError
from hktune.measure.stopwatch import Attempt
from hktune.model import CodeObject, Config, Failure, Problem, ProofProblem, Status
from hktune.template.template import Template
from hktune.verify.record import Record, RecordStore
from hktune.verify.verify import Proof, verify

COMPILE_DEADLINE_S = 60.0
EMULATION_DEADLINE_S = 60.0


@dataclass(frozen=True)
class Prover:
    """Config -> Attempt on the emulated device. Raises only what stops the whole run (ToolchainError)."""

    template: Template
    compiler: Compiler
    records: RecordStore
    seed: int

    def __call__(self, config: Config) -> Attempt:
        started = time.monotonic()
        code = self.compiler.compile(self.template.render(config), COMPILE_DEADLINE_S)
        attempt = attempted(config, code, self.compiler.identity)
        if isinstance(code, Failure):
            return attempt
        record = over_budget(code, arch_named(self.template.arch)) or self._proved(code, config)
        return replace(
            attempt,
            failure=record.failure,
            relative_error=record.relative_error,
            profile=record.profile,
            prove_s=time.monotonic() - started,
        )

    def on(self, config: Config, problem: Problem) -> Proof | Failure:
        """The proof of `config` on a problem of one's own, after those of the template."""
        code = self.compiler.compile(self.template.render(config), COMPILE_DEADLINE_S)
        return code if isinstance(code, Failure) else self._run(self._watched(), code, config, ProofProblem(problem))

    def _watched(self, record_trace: bool = False) -> EmulatedDevice:
        arch = self.template.arch
        return EmulatedDevice(arch, deadline_s=EMULATION_DEADLINE_S, record_trace=record_trace, find_hazards=True)

    def _proved(self, code: CodeObject, config: Config) -> Record:
        key = self.records.key(code.sha256, self.template.proof_problems(config), self.seed)
        record = self.records.get(key)
        if record is None:
            record = self._prove(code, config)
            self.records.put(key, record)
        return record

    def _prove(self, code: CodeObject, config: Config) -> Record:
        profiled, *others = self.template.proof_problems(config)
        device = self._watched(record_trace=True)
        proof = self._run(device, code, config, profiled)
        if isinstance(proof, Failure):
            return Record(proof)
        for other in others:
            outcome = self._run(self._watched(), code, config, other)
            if isinstance(outcome, Failure):
                return Record(outcome)
        assert device.trace is not None, "a launch that was proved has been traced"
        try:
            profile = self._profile(device.trace, code, config, profiled.problem)
        except InputError as error:
            return Record(Failure(Status.CRASHED, f"right, but its time cannot be modelled: {error}"))
        return Record(None, proof.relative_error, profile)

    def _run(self, device: EmulatedDevice, code: CodeObject, config: Config, what: ProofProblem) -> Proof | Failure:
        launch = self.template.launch(config, what.problem)
        try:
            kernel = device.load(code.data, code.symbol)
        except HktuneError as error:
            return Failure(Status.CRASHED, str(error))
        outcome = verify(device, kernel, launch, what.problem, self.seed, what.padding)
        if isinstance(outcome, Failure):
            return replace(outcome, detail=f"{what}: {outcome.detail}")
        return outcome

    def _profile(self, trace: Trace, code: CodeObject, config: Config, problem: Problem) -> launch_time.Profile:
        tile, launch = self.template.tile(config), self.template.launch(config, problem)
        k_steps = launch_time.k_steps(problem, launch, tile)
        return launch_time.profile(trace, code.resources, launch, tile, int(k_steps), arch_named(self.template.arch))


@dataclass(frozen=True)
class CompileOnly:
    """Config -> Attempt, as far as a processor without the device can take it. Raises ToolchainError."""

    template: Template
    compiler: Compiler

    def __call__(self, config: Config) -> Attempt:
        code = self.compiler.compile(self.template.render(config), COMPILE_DEADLINE_S)
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
