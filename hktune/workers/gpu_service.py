"""What runs in the process that owns a GPU: proofs and comparisons, one request at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hktune.compile.compiler import Compiler
from hktune.core.arch import ARCHS
from hktune.core.errors import DeviceError, DeviceFull, KernelFault, MachineError
from hktune.core.group_sizes import Tokens
from hktune.core.outcome import Failure, Status, Timing
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.sums import sums_of
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.device.device import Kernel, TimedDevice
from hktune.device.opening import open_device
from hktune.device.vendor_libraries import vendor_libraries
from hktune.device.vendor_library import VendorLibrary
from hktune.measure.algorithms import launching, library_of
from hktune.measure.baseline import Baseline, TorchBaseline
from hktune.measure.measured import MeasuredStopwatch
from hktune.measure.stopwatch import Attempt
from hktune.space import load_spaces
from hktune.template import Templates
from hktune.verify.algorithm_proof import AlgorithmProof
from hktune.verify.on_device import verify_on_device
from hktune.workers.gpu_worker import Answer, Confirm, MeasureEnergy, NameAlgorithms, Prove, Request, Screen, Value
from hktune.workers.prover import built_again


@dataclass(frozen=True)
class GpuService:
    """Opens, where it is called, GPU number `ordinal` of `kind` and all that is needed to prove and time on it.
    Candidates are of `space` and of the spaces `others`. Picklable. The calling thread's torch is on that GPU from then
    on, and `Device.borrow` refuses tensors of another.
    """

    kind: str
    space: Path
    make_compiler: Callable[[], Compiler]
    problems: tuple[Problem, ...]
    settings: Settings
    cache: str = "cold"
    seed: int = 0
    ordinal: int = 0
    others: tuple[Path, ...] = ()
    tokens: Mapping[Problem, Tokens] = field(default_factory=dict)

    def __call__(self) -> Serving:
        import torch

        device = open_device(self.kind, self.ordinal, self.settings)
        if not isinstance(device, TimedDevice):
            raise DeviceError(f"the {self.kind} device has no clock of its own: nothing can be measured on it")
        torch.cuda.set_device(self.ordinal)  # also on ROCm, whose GPUs torch calls cuda
        templates = load_spaces((self.space, *self.others)).templates.on(device.identity.compute_units)
        return Serving(device, templates, self.make_compiler(), self)


class Serving:
    """One GPU at work. An Answer says `lost` when a kernel faulted: the device cannot be used after that. Raises what
    no config is to blame for: memory that another program has."""

    def __init__(self, device: TimedDevice, templates: Templates, compiler: Compiler, service: GpuService) -> None:
        self.device = device
        self._templates = templates
        self._compiler = compiler
        self._service = service
        self._last_proof: tuple[Problem, AlgorithmProof] | None = None
        self.kernel = functools.lru_cache(maxsize=4096)(self._load)

    @functools.cached_property
    def stopwatch(self) -> MeasuredStopwatch:
        """Made when something is timed: its arena takes as much memory as the largest problem needs."""
        service = self._service
        return MeasuredStopwatch(
            device=self.device,
            templates=self._templates,
            loaded=lambda attempt: self.kernel(attempt),
            libraries=self._libraries,
            baselines=baselines(),
            problems=service.problems,
            cache=service.cache,
            seed=service.seed,
            tokens=service.tokens,
        )

    @functools.cached_property
    def _libraries(self) -> dict[str, VendorLibrary]:
        """The vendor's libraries that are here, by name."""
        return {each.name: each for each in vendor_libraries(self._service.kind, self._service.settings)}

    def __call__(self, request: Request | None) -> Answer:
        """Do what is asked."""
        try:
            return Answer(self._value(request), self._busy_s())
        except KernelFault as fault:
            return Answer(Failure(Status(fault.status), fault.detail), self._busy_s(), lost=True)
        except DeviceFull as full:
            raise self._no_memory(full) from None
        except DeviceError as refused:
            return Answer(Failure(Status.CRASHED, str(refused)), self._busy_s())
        except RuntimeError as error:  # torch may be the first to notice a fault
            if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
                raise self._no_memory(error) from None
            said = next(iter(str(error).splitlines()), type(error).__name__)
            return Answer(Failure(Status.CRASHED, said), self._busy_s(), lost=True)

    def _no_memory(self, error: Exception) -> MachineError:
        said = next(iter(str(error).splitlines()), "")
        where = f"GPU {self._service.ordinal} has too little free memory"
        return MachineError(f"{where} ({said}): end what else uses it, or choose another GPU")

    def _value(self, request: Request | None) -> Value | None:
        if isinstance(request, Prove):
            return self.proved(request.attempt, request.problem)
        if isinstance(request, NameAlgorithms):
            return self.named(request.problem)
        if isinstance(request, Screen):
            return self._placed(self.stopwatch.time(request.attempt, request.problem))
        if isinstance(request, Confirm):
            self._last_proof = None  # its memory is the finalists'
            confirmation = self.stopwatch.confirm(request.attempts, request.problem, request.others, request.steady)
            return replace(confirmation, finalists=tuple(map(self._placed, confirmation.finalists)))
        if isinstance(request, MeasureEnergy):
            return self.stopwatch.energies(request.attempts, request.problem, request.windows)
        return None

    def _placed(self, outcome: Timing | Failure) -> Timing | Failure:
        """With the number of the GPU."""
        return outcome if isinstance(outcome, Failure) else replace(outcome, gpu=self._service.ordinal)

    def named(self, problem: Problem) -> tuple[VendorAlgorithm, ...]:
        """What the vendor's libraries name for `problem`. Raises DeviceError where one cannot be asked."""
        return tuple(each for library in self._libraries.values() for each in library.algorithms(problem))

    def proved(self, attempt: Attempt, problem: Problem | None = None) -> Attempt:
        """`attempt` with its error, or with why it is wrong; an algorithm of a library is proved on `problem`. Raises
        KernelFault, DeviceError."""
        if attempt.algorithm:
            assert problem is not None, "an algorithm is of a problem"
            return self._proved_algorithm(attempt, attempt.algorithm, problem)
        errors = []
        kernel = self.kernel(attempt)
        template = self._templates.of(attempt.template).for_operation(attempt.operation)
        for proof in template.proof_problems(attempt.config):
            launch = template.launch(attempt.config, proof.problem)
            outcome = verify_on_device(self.device, kernel, launch, proof, self._service.seed)
            if isinstance(outcome, Failure):
                return replace(attempt, failure=replace(outcome, detail=f"{proof}: {outcome.detail}"))
            errors.append(outcome.relative_error)
        return replace(attempt, relative_error=errors[0])

    def _proved_algorithm(self, attempt: Attempt, algorithm: VendorAlgorithm, problem: Problem) -> Attempt:
        library = library_of(algorithm, self._libraries)
        outcome = self._proof(problem).proved(launching(library, algorithm, problem))
        if isinstance(outcome, Failure):
            return replace(attempt, failure=outcome)
        return replace(attempt, relative_error=outcome.relative_error)

    def _proof(self, problem: Problem) -> AlgorithmProof:
        """Of the problem that was asked for last: the ends of what is right take as much memory as several C."""
        if self._last_proof is None or self._last_proof[0] != problem:
            self._last_proof = None
            sums = sums_of(problem.operation, ARCHS[self.device.identity.arch])
            self._last_proof = (problem, AlgorithmProof(problem, self._service.seed, sums=sums))
        return self._last_proof[1]

    def _load(self, attempt: Attempt) -> Kernel:
        template = self._templates.of(attempt.template)
        code = built_again(template, self._compiler, attempt.candidate, attempt.object_sha256)
        if isinstance(code, str):
            raise DeviceError(f"{attempt.config.id} cannot be built again to the same bytes: clear the object cache")
        return self.device.load(code.data, code.symbol)

    def _busy_s(self) -> float:
        if "stopwatch" not in self.__dict__:
            return 0.0
        return self.stopwatch.timer.busy_us * 1e-6


def baselines() -> Sequence[Baseline]:
    """What candidates are compared with: first torch's own choice of library, and of that what is fastest without a
    compiler, then the other that it has. The libraries' algorithms are candidates themselves."""
    return (TorchBaseline("cublas", fused=True), TorchBaseline("cublaslt"))
