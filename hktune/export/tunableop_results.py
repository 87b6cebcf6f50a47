"""The fastest solutions of AMD's libraries as a results file of PyTorch's TunableOp, which runs them by their index.

PyTorch takes a file only if all its validators are those of the running build, so they come from a file that this build
wrote. Names, and the order of sizes, are those of aten/src/ATen/cuda/tunable (PyTorch 2.13).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hktune.core.config import Config
from hktune.core.errors import InputError
from hktune.core.operation import Operation
from hktune.core.problem import Problem
from hktune.core.solution_index import index_of
from hktune.core.trial import Trial
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.tables.standing import Standing, standings

VERSIONS = {"hipBLASLt": "HIPBLASLT_VERSION", "rocBLAS": "ROCBLAS_VERSION"}
"""Validators that say which version of a library a file holds for."""
_ARCH = "GCN_ARCH_NAME"
_WAYS = {"hipBLASLt": "Gemm_Hipblaslt", "rocBLAS": "Gemm_Rocblas"}
_DEFAULT = "Default"
_SAYS_TRANSPOSES = re.compile(r"Gemm_Hipblaslt_[NT]{2}_\d+").fullmatch
_TYPES = {"bf16": "BFloat16", "f16": "Half", "f32": "float"}
_OPERATORS = {(): "GemmTunableOp", ("bias",): "GemmAndBiasTunableOp"}
_MS_PER_US = 1e-3
_VERSION = re.compile(r"(?P<numbers>\d+(?:\.\d+\.\d+)?)[.-]?(?P<revision>.*)").fullmatch

Deciding = Callable[[Sequence[Trial]], list[Trial]]

OTHER_VERSION = "of another version of its library than the validators say"
NOT_ITS_OWN = "of operations that TunableOp does not tune"
NO_INDEX = "with nothing but rocBLAS' own choice"


@dataclass(frozen=True)
class TunableOpFile:
    """`text` is the file. `products` counts its results, and `left_out` shapes without one, by the reason."""

    text: str
    products: int
    left_out: Mapping[str, int]


def tunableop_file(
    trials: Iterable[Trial], deciding: Deciding, validators: Mapping[str, str], ways: Iterable[str] = ()
) -> TunableOpFile:
    """The fastest solution of each shape, or TunableOp's `Default` where none is faster than torch's own beyond its
    interval. `deciding` gives the rows of a shape that decide a table. `ways` are solutions as the same PyTorch names
    them: older ones say the transposes too.

    Raises InputError, one line, where trials are of another architecture than the validators say, where none is of
    AMD's libraries, or where no shape has a result."""
    rows = [trial for trial in trials if trial.library in VERSIONS]
    if not rows:
        raise InputError("no trial is of hipBLASLt or rocBLAS: tune on an AMD GPU, --vendor-only tunes just those")
    _check_arch(rows, validators)
    left_out: Counter[str] = Counter()
    transposes = any(map(_SAYS_TRANSPOSES, ways))
    lines = []
    for problem, own in _by_problem(rows).items():
        reason = _why_not(problem.operation, own, validators)
        if reason:
            left_out[reason] += 1
            continue
        found = standings(deciding([row for row in own if _usable(row, validators)]))
        lines += [_line(standing, transposes) for standing in found]
    if not lines:
        said = "; ".join(f"{count} shapes {reason}" for reason, count in sorted(left_out.items()))
        raise InputError(f"no shape has a solution for TunableOp ({said}): tune with the libraries that it runs")
    head = [f"Validator,{name},{value}" for name, value in validators.items()]
    return TunableOpFile("\n".join((*head, *lines, "")), len(lines), left_out)


def _by_problem(rows: Sequence[Trial]) -> dict[Problem, list[Trial]]:
    """The rows of each problem that has one with a time, in the order of problems."""
    found: dict[Problem, list[Trial]] = {}
    for row in rows:
        found.setdefault(row.problem, []).append(row)
    return {problem: found[problem] for problem in sorted(found) if any(row.has_time for row in found[problem])}


def _why_not(operation: Operation, rows: Sequence[Trial], validators: Mapping[str, str]) -> str:
    """Why TunableOp can have no result of a problem; "" if it can."""
    one_type = operation.a == operation.b == operation.c and operation.a in _TYPES
    if not one_type or operation.scales or operation.epilogue not in _OPERATORS or operation.kind != "gemm":
        return NOT_ITS_OWN
    timed = [row for row in rows if row.has_time]
    if not any(_same_version(row, validators) for row in timed):
        return OTHER_VERSION
    return "" if any(_usable(row, validators) for row in timed) else NO_INDEX


def _usable(row: Trial, validators: Mapping[str, str]) -> bool:
    """Whether TunableOp has the solution of a row: rocBLAS' own choice is none of those."""
    return _same_version(row, validators) and index_of(_algorithm(row).handle) not in (None, 0)


def _same_version(row: Trial, validators: Mapping[str, str]) -> bool:
    said = validators.get(VERSIONS[row.library or ""])
    return said is not None and _numbers(_algorithm(row).version) == _numbers(said)


def _numbers(version: str) -> tuple[str, str]:
    """A version and its revision: 1.2.2-5b3f1cd, 1.2.2.5b3f1cd and 100202-5b3f1cd (of hipblasLtGetVersion) are one."""
    found = _VERSION(version.strip())
    if found is None:
        return version, ""
    numbers = found["numbers"]
    if "." not in numbers:
        number = int(numbers)
        numbers = f"{number // 100_000}.{number // 100 % 1000}.{number % 100}"
    return numbers, found["revision"]


def _algorithm(row: Trial) -> VendorAlgorithm:
    return VendorAlgorithm.of_config(Config.from_json(row.config))


def _line(standing: Standing, transposes: bool) -> str:
    """A result: what was called, its sizes in BLAS' order, the way that is the fastest, and its time in ms."""
    fastest, problem = next(iter(standing.tied), None), standing.problem
    time_us = standing.time_of(fastest)
    way = _way(_algorithm(fastest), problem.operation if transposes else None) if fastest else _DEFAULT
    said = "" if time_us is None else f",{time_us * _MS_PER_US:.6g}"
    return f"{_operator(problem.operation)},{_sizes(problem)},{way}{said}"


def _way(algorithm: VendorAlgorithm, said: Operation | None) -> str:
    transposes = f"_{_transposes(said).upper()}" if said and algorithm.library == "hipBLASLt" else ""
    return f"{_WAYS[algorithm.library]}{transposes}_{index_of(algorithm.handle)}"


def _operator(operation: Operation) -> str:
    return f"{_OPERATORS[operation.epilogue]}_{_TYPES[operation.a]}_{_transposes(operation).upper()}"


def _transposes(operation: Operation) -> str:
    """BLAS' first matrix is our B: hktune's nt is its tn."""
    return operation.layout[::-1]


def _sizes(problem: Problem) -> str:
    """M, N, K and the row strides, of matrices that are stored by columns there and have no gaps."""
    first, second = tuple(_transposes(problem.operation))
    strides = (problem.k if first == "t" else problem.n, problem.m if second == "t" else problem.k, problem.n)
    sizes = (problem.n, problem.m, problem.k, "ld", *strides)
    return "_".join(map(str, (f"{first}{second}", *sizes)))


def _check_arch(rows: Sequence[Trial], validators: Mapping[str, str]) -> None:
    arch = validators.get(_ARCH, "").partition(":")[0]
    other = next((row.target for row in rows if row.target != arch), None)
    if other:
        named = arch or f"no {_ARCH}"
        raise InputError(f"the validators are of {named}, the trials of {other}: take a file of TunableOp on {other}")
