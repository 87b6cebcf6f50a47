"""All proofs of one code object on the emulated device, as a function of nothing but its bytes and a ProofTask.

`prove_all` and `prove_one` are handed neither template nor config nor space: what a proof depends on is in the task,
and what is in the task is in the key under which its outcome is remembered (`record.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hktune.core.arch import Arch
from hktune.core.attended import attended_s
from hktune.core.errors import HktuneError, InputError
from hktune.core.launch import Launch, Tile
from hktune.core.outcome import Failure, Status
from hktune.core.problem import ProofProblem
from hktune.core.variant import Resources
from hktune.device.emulated import EmulatedDevice
from hktune.emulator.clock import launch_time
from hktune.emulator.clock.profile import Profile
from hktune.emulator.clock.trace import Trace
from hktune.verify.proof import Proof, verify


@dataclass(frozen=True)
class ProofLaunch:
    """One launch of a proof: what is computed, and exactly how the kernel is launched for it."""

    what: ProofProblem
    launch: Launch


@dataclass(frozen=True)
class ProofTask:
    """Everything that the outcome of a code object's proofs depends on, apart from the sources of the judge. The first
    launch, of whole tiles, is the one that is profiled; `arch`, `tile` and `resources` are for the profile."""

    object_sha256: str
    symbol: str
    arch: Arch
    resources: Resources
    tile: Tile
    launches: tuple[ProofLaunch, ...]
    seed: int
    strict_hazards: bool = True


@dataclass(frozen=True)
class Proved:
    """A kernel was right on every problem: its error relative to float64 on the first, and its profile there."""

    relative_error: float
    profile: Profile


def prove_all(data: bytes, task: ProofTask, until: float) -> Proved | Failure:
    """The proofs of the code object `data`; what runs past `until` (attended_s) is a timeout.

    Raises MemoryError where a launch takes more than this process may have.
    """
    first, *others = task.launches
    device = _device(task, until, record_trace=True)
    proof = _proof(device, data, task, first)
    if isinstance(proof, Failure):
        return proof
    for other in others:
        outcome = prove_one(data, task, other, until)
        if isinstance(outcome, Failure):
            return outcome
    assert device.trace is not None, "a launch that was proved has been traced"
    try:
        return Proved(proof.relative_error, _profile(device.trace, task, first))
    except InputError as error:
        return Failure(Status.CRASHED, f"right, but its time cannot be modelled: {error}")


def prove_one(data: bytes, task: ProofTask, launch: ProofLaunch, until: float) -> Proof | Failure:
    """The proof of one launch; see `prove_all`."""
    return _proof(_device(task, until), data, task, launch)


def traced(data: bytes, task: ProofTask, until: float) -> Trace | Failure:
    """What the first launch of `prove_all` executes, for a look at how its time comes about; see there."""
    device = _device(task, until, record_trace=True)
    proof = _proof(device, data, task, task.launches[0])
    if isinstance(proof, Failure):
        return proof
    assert device.trace is not None, "a launch that was proved has been traced"
    return device.trace


def _device(task: ProofTask, until: float, record_trace: bool = False) -> EmulatedDevice:
    left_s = max(until - attended_s(), 0.0)
    return EmulatedDevice(
        task.arch.name,
        deadline_s=left_s,
        record_trace=record_trace,
        find_hazards=True,
        strict_hazards=task.strict_hazards,
    )


def _proof(device: EmulatedDevice, data: bytes, task: ProofTask, one: ProofLaunch) -> Proof | Failure:
    try:
        kernel = device.load(data, task.symbol)
    except HktuneError as error:
        return Failure(Status.CRASHED, str(error))
    what = one.what
    exactness = (what.exact_sums, what.rounding, what.sums)
    outcome = verify(device, kernel, one.launch, what.problem, task.seed, what.padding, *exactness)
    if isinstance(outcome, Failure):
        return replace(outcome, detail=f"{one.what}: {outcome.detail}")
    return outcome


def _profile(trace: Trace, task: ProofTask, one: ProofLaunch) -> Profile:
    k_steps = launch_time.k_steps(one.what.problem, one.launch, task.tile)
    return launch_time.profile(trace, task.resources, one.launch, task.tile, int(k_steps), task.arch)
