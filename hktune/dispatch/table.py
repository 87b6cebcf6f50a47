"""What table.json says, as typed values: which kernel, or the vendor library, runs each GEMM of one device.

Every string and number is bounded, and an unknown key is an error. A kernel is named by the sha256 of its code object,
which is the only part of a table that ever becomes part of a path. Text holds nothing that a terminal would act on.
"""

from __future__ import annotations

import functools
import itertools
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, structs

from hktune.core.argument_rules import SCALE_MAX, check_argument, check_places
from hktune.core.bounded_text import PLAIN, ComputeUnits, FolderName, OperationText, Text, Word
from hktune.core.config import Config
from hktune.core.errors import InputError, SpaceError
from hktune.core.identity import Identity
from hktune.core.launch import Argument as PlainArgument
from hktune.core.launch import operand_name
from hktune.core.launch_rule import BLOCK_MAX, GRID_MAX, LDS_BYTES_MAX, WORKSPACE_BYTES_MAX, LaunchRule, compiled
from hktune.core.operand import NUMBERS, operands_of
from hktune.core.operation import operation_of, problem_operation
from hktune.core.outcome import Source
from hktune.core.problem import Problem
from hktune.core.vendor_algorithm import WORKSPACE_BYTES_MAX as ALGORITHM_WORKSPACE_BYTES_MAX
from hktune.core.vendor_algorithm import VendorAlgorithm

VERSION: Final = 3
NAME_CHARACTERS_MAX = 256
ENTRIES_MAX = 20_000  # twice the problems of a shapes file
# Characters of all formulas of a table, and of those that differ. In use a row has some 80, most of them shared.
FORMULAS_MAX, DISTINCT_FORMULAS_MAX = 4 << 20, 1 << 19

REQUIRES_MAX = 2048  # characters of what one row demands of m, worked out for each m; in use some hundred

Family = tuple[int, int, str]

Name = Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX, pattern=PLAIN)]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
ConfigId = Annotated[str, Meta(pattern=r"\A[0-9a-f]{16}\Z")]
Symbol = Annotated[str, Meta(pattern=r"\A[A-Za-z_$.][A-Za-z0-9_$.]{0,4095}\Z")]
# The language of `hktune.core.expression` without quotes, dots and numbers that run into names.
FormulaText = Annotated[str, Meta(max_length=500, pattern=r"\A(?!.*[0-9][a-z_])[a-z0-9_ ()+*/%,<>=!-]+\Z")]
Dimension = Annotated[int, Meta(ge=1, le=2**24)]
Micros = Annotated[float, Meta(gt=0, le=1e12)]
Joules = Annotated[float, Meta(gt=0, le=1e12)]
GridSize = Annotated[int, Meta(ge=1, le=GRID_MAX)]
BlockSize = Annotated[int, Meta(ge=1, le=BLOCK_MAX)]
LdsBytes = Annotated[int, Meta(ge=0, le=LDS_BYTES_MAX)]
WorkspaceBytes = Annotated[int, Meta(ge=0, le=WORKSPACE_BYTES_MAX)]


class Strict(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Immutable, and a key that it does not know is an error. Holds nothing that could hold it, so Python's search for
    cycles may pass over it: a table is some 300,000 objects."""


class Argument(Strict, frozen=True, omit_defaults=True):
    """As `core.launch.Argument`: matrices, bias and workspace are pointers, sizes and row strides are numbers."""

    name: Word
    kind: Literal["pointer", "u32", "i32", "u64", "f32"]
    scale: Annotated[int, Meta(ge=1, le=SCALE_MAX)] = 1
    constant: int | float | None = None
    offset_bytes: Annotated[int, Meta(ge=0, lt=4096)] | None = None


@functools.lru_cache(maxsize=256)
def _checked_names(arguments: tuple[Argument, ...]) -> frozenset[str]:
    """The names of a launch's arguments that are not constant, checked once for all entries with equal ones. Raises
    ValueError for arguments that cannot be passed."""
    plain = _plain(arguments)
    for argument in plain:
        check_argument(argument)
    check_places(plain)
    names = frozenset(argument.name for argument in plain if argument.is_bound)
    if not {"a", "b", "c"} <= names:
        raise ValueError(f"arguments {sorted(names)} must be a, b, c and others")
    return names


class Launch(Strict, frozen=True):
    """As `launch_rule.LaunchRule`: grid in workgroups, block in work-items; text is a formula in m. `contiguous` is
    written where it was said: earlier tables keep their sha256."""

    grid: tuple[GridSize | FormulaText, GridSize | FormulaText, GridSize | FormulaText]
    block: tuple[BlockSize, BlockSize, BlockSize]
    dynamic_lds_bytes: LdsBytes
    arguments: Annotated[tuple[Argument, ...], Meta(max_length=32)]
    workspace_bytes: WorkspaceBytes | FormulaText = 0
    requires: Annotated[tuple[FormulaText, ...], Meta(max_length=32)] = ()
    contiguous: bool | UnsetType = UNSET

    def __post_init__(self) -> None:
        names = _checked_names(self.arguments)
        if self.workspace_bytes and "workspace" not in names:
            known = sorted(names)
            raise ValueError(f"workspace_bytes {self.workspace_bytes} and arguments {known} must agree on a workspace")
        if sum(map(len, self.requires)) > REQUIRES_MAX:
            raise ValueError(f"requires have over {REQUIRES_MAX} characters: demand less")

    @property
    def formulas(self) -> list[str]:
        return [size for size in (*self.grid, self.workspace_bytes, *self.requires) if isinstance(size, str)]

    @property
    def rule(self) -> LaunchRule:
        arguments, contiguous = _plain(self.arguments), self.contiguous is True
        sizes = (self.grid, self.block, self.dynamic_lds_bytes)
        return LaunchRule(*sizes, arguments, self.workspace_bytes, self.requires, contiguous)


@functools.lru_cache(maxsize=256)
def _plain(arguments: tuple[Argument, ...]) -> tuple[PlainArgument, ...]:
    """As `core.launch.Launch` has them: one tuple for all entries with equal ones."""
    return tuple(
        PlainArgument(operand_name(each.name), each.kind, each.scale, each.constant, each.offset_bytes)
        for each in arguments
    )


@functools.lru_cache(maxsize=4096)
def _config_id(text: bytes) -> str:
    return Config(msgspec.json.decode(text)).id


class Kernel(Strict, frozen=True):
    """The kernel of one entry: what it was made from, which bytes it is, how it is launched.

    `reproducible`: equal operands give equal bits on every launch, since every sum has a fixed order.
    """

    config: dict[Word, int | bool | Word]
    config_id: ConfigId
    template: Word
    template_sha256: Sha256
    object_sha256: Sha256
    symbol: Symbol
    launch: Launch
    reproducible: bool = False

    def __post_init__(self) -> None:
        current = _config_id(msgspec.json.encode(self.config))
        if self.config_id != current:
            raise ValueError(f"config_id saved={self.config_id} current={current}: the config is another")


class Algorithm(Strict, frozen=True):
    """As `core.vendor_algorithm.VendorAlgorithm`: what the vendor's library computes an entry's problem by."""

    library: Literal["cublasLt", "hipBLASLt", "rocBLAS"]
    version: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.+:-]{1,64}\Z")]
    handle: Annotated[str, Meta(pattern=r"\A[0-9a-f]{1,256}\Z")]
    workspace_bytes: Annotated[int, Meta(ge=0, le=ALGORITHM_WORKSPACE_BYTES_MAX)]
    name: Annotated[str, Meta(pattern=r"\A[\x20-\x7e]{0,1024}\Z")] = ""

    @property
    def known(self) -> VendorAlgorithm:
        return VendorAlgorithm(**structs.asdict(self))


TIES_MAX = 10_000
ORIGINS_MAX = 300


class Entry(Strict, frozen=True):
    """What one problem runs. `kernel` is absent when the vendor library is the choice. With the choice `vendor` it
    takes what it takes by itself; with `algorithm` it is told to take `vendor_algorithm`, which serves m rows only.

    `operation` is the text of what is computed. `time_us` is the choice's own time, with its interval: of a modelled
    one, where a measured time is expected. `vendor_best` names the fastest other way that was timed with it, of the
    vendor's library or kernels of others. `ties` are the ids of other configs that may be as fast.
    `energy_j` is what the board draws in joules during one launch of the choice, `baseline_energy_j` while the vendor's
    library computes the same by its own choice; both are absent where they were not measured.
    `origins` say where the row of a merged directory is from: an id of origins.json each, and what is known of it.
    The entry serves the n and k of its problem with `m_from` to `m_to` rows, both included; where they are absent with
    m rows only. `name` is what a person calls the problem; nothing is decided by it.
    """

    m: Dimension
    n: Dimension
    k: Dimension
    operation: OperationText
    choice: Literal["kernel", "vendor", "algorithm"]
    source: Source
    time_us: Micros
    time_us_low: Micros | None = None
    time_us_high: Micros | None = None
    baseline: Text | None = None
    baseline_us: Micros | None = None
    vendor_best: Text | None = None
    vendor_best_us: Micros | None = None
    ties: Annotated[tuple[ConfigId, ...], Meta(max_length=TIES_MAX)] = ()
    kernel: Kernel | None = None
    m_from: Dimension | None = None
    m_to: Dimension | None = None
    name: Name | None = None
    origins: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=ORIGINS_MAX)] | None = None
    vendor_algorithm: Algorithm | None = None
    energy_j: Joules | None = None
    baseline_energy_j: Joules | None = None

    @property
    def problem(self) -> Problem:
        return Problem(self.m, self.n, self.k, operation_of(self.operation))

    @property
    def family(self) -> Family:
        return (self.n, self.k, self.operation)

    @property
    def rows(self) -> tuple[int, int]:
        """The fewest and the most rows of C that the entry serves."""
        return (self.m_from or self.m, self.m_to or self.m)

    def __post_init__(self) -> None:
        operands, numbers = _taken_names(self.operation)
        fewest, most = self.rows
        if not fewest <= self.m <= most:
            raise ValueError(f"m={self.m} must be in m_from={fewest} to m_to={most}")
        for choice, chosen in (("kernel", self.kernel), ("algorithm", self.vendor_algorithm)):
            if (self.choice == choice) != (chosen is not None):
                raise ValueError(f"choice {self.choice!r} and its {choice} must agree")
        if self.vendor_algorithm and fewest != most:
            raise ValueError(f"an algorithm serves m={self.m} only, not m_from={fewest} to m_to={most}")
        if self.kernel is None:
            return
        names = _checked_names(self.kernel.launch.arguments)
        if operands - names:
            raise ValueError(
                f"operation {self.operation} needs a kernel that takes {', '.join(sorted(operands - names))}"
            )
        unknown = names & {*NUMBERS} - numbers
        if unknown:
            raise ValueError(f"operation {self.operation} has no {', '.join(sorted(unknown))}: its kernel takes one")


@functools.lru_cache(maxsize=4096)
def _taken_names(operation: str) -> tuple[frozenset[str], frozenset[str]]:
    """What a kernel of the operation takes: its operands, and the numbers that a launch may give. Raises ValueError for
    a text that is none, or of unknown operands."""
    try:
        known = problem_operation(operation)
        operands = operands_of(known)
    except InputError as unknown:
        raise ValueError(str(unknown)) from None
    counts = ["groups"] if known.count else []
    strides = [name for each in operands.values() for name in each.strides]
    return frozenset(operands), frozenset(["m", "n", "k", *counts, *strides])


class DeviceIdentity(Strict, frozen=True):
    """The device that the table was made on, SKU-exact: as `Identity`. `board` is written where it is known: earlier
    tables keep their sha256."""

    kind: Literal["emulated", "hip", "cuda"]
    name: Text
    compute_units: ComputeUnits
    pci_id: Word | None = None
    partition: Word | None = None
    board: Word | UnsetType = UNSET


class Header(Strict, frozen=True, kw_only=True):
    """What a table says apart from its entries."""

    format: Literal["hktune-table"] = "hktune-table"
    version: Literal[2, 3] = VERSION
    arch: FolderName
    device: DeviceIdentity
    compiler: Text
    hktune: Word
    created_at: Text


class Table(Header, frozen=True, kw_only=True):
    """A dispatch table. `version` is that of its file's words: entries are the same of either. Raises ValueError when
    two entries serve one problem."""

    entries: Annotated[tuple[Entry, ...], Meta(max_length=ENTRIES_MAX)]

    @property
    def identity(self) -> Identity:
        said = {name: value for name, value in structs.asdict(self.device).items() if value is not UNSET}
        return Identity(arch=self.arch, **said)

    @property
    def object_sha256s(self) -> frozenset[str]:
        return frozenset(entry.kernel.object_sha256 for entry in self.entries if entry.kernel)

    def __post_init__(self) -> None:
        self._check_rows()
        self._check_formulas()

    def _check_formulas(self) -> None:
        """Their volume before any is parsed: what a table costs to load and to use is bounded by it."""
        formulas = [(entry, text) for entry in self.entries if entry.kernel for text in entry.kernel.launch.formulas]
        distinct = {text: entry for entry, text in formulas}
        for most, texts in ((FORMULAS_MAX, [text for _, text in formulas]), (DISTINCT_FORMULAS_MAX, list(distinct))):
            if sum(map(len, texts)) > most:
                raise ValueError(f"its formulas have over {most} characters: split the table")
        for text, entry in distinct.items():
            _check_formula(text, entry)
        for entry in self.entries:
            if entry.kernel and entry.kernel.launch.rule.at(entry.m) is None:
                raise ValueError(f"the kernel of {entry.problem} has no legal launch for its own m")

    def _check_rows(self) -> None:
        families: dict[Family, list[Entry]] = {}
        for entry in self.entries:
            families.setdefault(entry.family, []).append(entry)
        for entries in families.values():
            entries.sort(key=lambda entry: entry.rows)
            for lower, upper in itertools.pairwise(entries):
                if lower.m == upper.m:
                    raise ValueError(f"{lower.problem} has two entries: keep one")
                if lower.rows[1] >= upper.rows[0]:
                    raise ValueError(f"{lower.problem} and {upper.problem} both serve m={upper.rows[0]}: part them")


def _check_formula(text: str, entry: Entry) -> None:
    try:
        compiled(text)
    except SpaceError as error:
        raise ValueError(f"{entry.problem}: {error}") from None
