"""The words of the design as values: problems, configs, code objects, failures, timings, trials.

Everything here is immutable and printable on one line. GEMM convention everywhere:
C[M,N] = A[M,K] @ Bt[N,K]^T, row-major, bf16 in and out, float32 accumulation.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from operator import attrgetter
from typing import Any

from hktune.core.bounded_text import ComputeUnits, FolderName, Text, Word

Value = int | str | bool

WORKSPACE_COUNTER_BYTES = 65536


def compact_json(value: Any) -> str:
    """Sorted, without spaces: the one spelling that hashes and diffs use."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


class Status(str, Enum):
    """How a trial ended. `ok` means proved right and timed."""

    OK = "ok"
    INVALID = "invalid"
    COMPILE_ERROR = "compile_error"
    OVER_BUDGET = "over_budget"
    WRONG = "wrong"
    HAZARD = "hazard"
    TIMEOUT = "timeout"
    CRASHED = "crashed"

    def __str__(self) -> str:
        return self.value


class Source(str, Enum):
    """Where a time comes from. A modelled time is never called measured."""

    MEASURED = "measured"
    MODELLED = "modelled"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, order=True)
class Problem:
    """One GEMM to be tuned for: C[m,n] = A[m,k] @ Bt[n,k]^T (+ bias[n])."""

    m: int
    n: int
    k: int
    dtype: str = "bf16"
    epilogue: str = "none"

    @property
    def flops(self) -> int:
        return 2 * self.m * self.n * self.k

    @property
    def key(self) -> tuple[int, int, int, str, str]:
        """What a dispatch table looks up."""
        return (self.m, self.n, self.k, self.dtype, self.epilogue)

    def __str__(self) -> str:
        tail = "" if self.epilogue == "none" else f"+{self.epilogue}"
        return f"{self.m}x{self.n}x{self.k} {self.dtype}{tail}"


class Config(Mapping[str, Value]):
    """One point of a search space: parameter name -> value. Hashable; equal values mean equal ids."""

    __slots__ = ("_values", "id")

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = dict(sorted(values.items()))
        self.id = hashlib.sha256(self.json.encode()).hexdigest()[:16]

    @property
    def json(self) -> str:
        """Sorted compact JSON: what the id is the hash of, and what trials.csv holds."""
        return compact_json(self._values)

    @classmethod
    def from_json(cls, text: str) -> Config:
        return cls(json.loads(text))

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self.id == other.id

    def __reduce__(self) -> tuple[type[Config], tuple[dict[str, Value]]]:
        return (Config, (self._values,))

    def __repr__(self) -> str:
        return "Config(" + " ".join(f"{name}={value}" for name, value in self._values.items()) + ")"


@dataclass(frozen=True)
class Argument:
    """One kernel argument, in order. `kind` is pointer, u32, i32, u64 or f32; `name` says what fills it:
    a, bt, c, bias, workspace (pointers); m, n, k, lda, ldb, ldc (sizes and row strides in elements). A bias or
    workspace that a launch does not have is null."""

    name: str
    kind: str


@dataclass(frozen=True)
class Launch:
    """How one code object is launched for one problem. Grid in workgroups, block in work-items.

    A launch of 0 workspace bytes has none: an argument of that name is null. Else its first WORKSPACE_COUNTER_BYTES are
    zero when the launch begins and when it ends, and the rest is scratch: launches that follow one another may share a
    workspace, two that run at once may not.
    """

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    dynamic_lds_bytes: int
    arguments: tuple[Argument, ...]
    workspace_bytes: int = 0

    def takes(self, name: str) -> bool:
        return any(argument.name == name for argument in self.arguments)


@dataclass(frozen=True)
class ProofProblem:
    """A problem that a variant is proved on. The rows of every matrix lie `padding` elements apart."""

    problem: Problem
    padding: int = 0

    def __str__(self) -> str:
        return f"{self.problem}, rows {self.padding} apart" if self.padding else str(self.problem)


@dataclass(frozen=True)
class Tile:
    """What one workgroup computes (m x n of C) and how deep one step of its main loop is (k), in elements."""

    m: int
    n: int
    k: int


@dataclass(frozen=True)
class WorkgroupOrder:
    """Which tile of C a workgroup computes; the default is row by row.

    `xcd_chunk`: so many neighbouring tiles go to one accelerator die (XCD) in a row. `group_rows`: tiles are numbered
    down the columns of so many rows at a time. `hktune.emulator.clock.memory_traffic.tiles_of` has the formula.
    """

    xcd_chunk: int = 1
    group_rows: int = 1


@dataclass(frozen=True)
class Variant:
    """A template rendered with one config: everything a compiler needs, and nothing about a problem's size."""

    template: str
    template_sha256: str
    arch: str
    language: str
    symbol: str
    source: str
    config: Config


@dataclass(frozen=True)
class Resources:
    """What a code object asks of a compute unit, read back from the object itself."""

    vgprs: int
    agprs: int
    sgprs: int
    vgpr_spills: int
    sgpr_spills: int
    lds_bytes: int
    scratch_bytes: int
    max_workgroup_size: int

    @property
    def spills(self) -> int:
        return self.vgpr_spills + self.sgpr_spills

    def __str__(self) -> str:
        registers = f"{self.vgprs} VGPRs, {self.agprs} AGPRs, {self.sgprs} SGPRs, {self.spills} spills"
        return f"{registers}; {self.lds_bytes} bytes of static LDS, {self.scratch_bytes} of scratch"


@dataclass(frozen=True)
class CodeObject:
    """A compiled variant: loadable bytes, their identity, the kernel's symbol and what it needs."""

    data: bytes
    sha256: str
    symbol: str
    arch: str
    resources: Resources
    compiler: str
    compile_s: float


@dataclass(frozen=True)
class Failure:
    """Why a variant did not get a time: a value that lands in its trial."""

    status: Status
    detail: str


@dataclass(frozen=True)
class Timing:
    """The time of one launch of a proved kernel, with where it comes from. `bound` is what limits it, where known.

    `baseline_us` is the vendor library's time in the same rounds; `note` is what else was seen, for the row's detail.
    """

    source: Source
    time_us: float
    time_us_low: float | None = None
    time_us_high: float | None = None
    samples: int | None = None
    cache: str | None = None
    bound: str | None = None
    baseline: str | None = None
    baseline_us: float | None = None
    note: str | None = None


@dataclass(frozen=True)
class Identity:
    """Exactly which device: `kind` is emulated, hip or cuda; `pci_id` is absent where nothing is plugged in."""

    kind: FolderName
    arch: FolderName
    name: Text
    compute_units: ComputeUnits
    pci_id: Word | None = None
    partition: Word | None = None

    def __str__(self) -> str:
        known = ((field.name, getattr(self, field.name)) for field in fields(self))
        return " ".join(f"{name}={value}" for name, value in known if value is not None)

    @property
    def slug(self) -> str:
        """The folder name of its results."""
        tail = self.kind if self.kind == "emulated" else self.name.lower().replace(" ", "-")
        return f"{self.arch}-{tail}"


@dataclass(frozen=True, slots=True)
class Trial:
    """One row of trials.csv. A field that does not apply is None and an empty cell, never 0."""

    trial: int
    m: int
    n: int
    k: int
    dtype: str
    epilogue: str
    config_id: str
    config: str
    status: Status
    detail: str | None = None
    source: Source | None = None
    time_us: float | None = None
    time_us_low: float | None = None
    time_us_high: float | None = None
    samples: int | None = None
    cache: str | None = None
    tflops: float | None = None
    baseline: str | None = None
    baseline_us: float | None = None
    relative_error: float | None = None
    vgprs: int | None = None
    agprs: int | None = None
    sgprs: int | None = None
    spills: int | None = None
    lds_bytes: int | None = None
    scratch_bytes: int | None = None
    waves_per_simd: int | None = None
    compile_s: float | None = None
    object_sha256: str | None = None
    template: str | None = None
    template_sha256: str | None = None
    compiler: str | None = None
    target: str | None = None
    device: str | None = None
    strategy: str | None = None
    seed: int | None = None
    started_at: str | None = None

    @property
    def problem(self) -> Problem:
        return Problem(self.m, self.n, self.k, self.dtype, self.epilogue)

    def numbered(self, number: int) -> Trial:
        """The same row under another number."""
        return Trial(number, *_unnumbered(self))


_unnumbered: Callable[[Trial], tuple[Any, ...]] = attrgetter(*(field.name for field in fields(Trial)[1:]))


def by_problem(trials: Iterable[Trial]) -> dict[Problem, list[Trial]]:
    """The trials of each problem, in their order; problems in the order in which they come."""
    grouped: dict[tuple[int, int, int, str, str], list[Trial]] = defaultdict(list)
    for trial in trials:
        grouped[trial.m, trial.n, trial.k, trial.dtype, trial.epilogue].append(trial)
    return {Problem(*key): own for key, own in grouped.items()}
