"""Harm to tables and code objects, and a device that watches what it is handed: used by tests and benchmarks."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import random
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
from cublaslt_stand_in import stand_in_library
from hypothesis import strategies as st
from naive_gemm import EMULATED, OBJECT, algorithm_trial, table_of, trial

from hktune.compile.nvrtc import NvrtcCompiler
from hktune.core.config import Config
from hktune.core.errors import DeviceError, TableError
from hktune.core.identity import Identity
from hktune.core.launch import Argument
from hktune.core.launch_rule import LaunchRule
from hktune.core.outcome import Source
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.core.variant import CodeObject, Variant
from hktune.dispatch import Choices, Entry, Table, read_table, table_json, validate, write_table
from hktune.objects.code_object import read_code_object
from hktune.objects.cubin import read_cubin
from hktune.tables import BuildOptions, build_table

PROBLEMS = [Problem(8, 128, 64), Problem(64, 128, 64), Problem(4, 64, 32)]
H100 = Identity("cuda", "sm90a", "NVIDIA H100 80GB HBM3", 132, "10de:2330:16c1")
CUDA_SOURCE = """
struct alignas(64) Map { unsigned long long opaque[16]; };
struct Box { unsigned rows, columns; };
extern "C" __constant__ Box hktune_box_a = {64, 64};
extern "C" __global__ void __launch_bounds__(64)
gemm(const __grid_constant__ Map a, const void* bt, int* c, int n, int k) {
    __shared__ float staged[64];
    staged[threadIdx.x] = a.opaque[k % 16];
    __syncthreads();
    c[threadIdx.x] = staged[63 - threadIdx.x] + (long) bt + n;
}
"""


class SpyDevice:
    """Loads nothing. Fails when it is handed bytes that are not those a row names."""

    def __init__(self) -> None:
        self.loads = 0

    def load(self, data: bytes, sha256: str) -> None:
        assert hashlib.sha256(data).hexdigest() == sha256, "bytes of another sha256 reached the driver"
        self.loads += 1


@dataclass(frozen=True)
class Outcome:
    """`word`: used, refused, or the reason why the first row was skipped."""

    word: str
    usable: int = 0
    loads: int = 0


@dataclass
class Victim:
    """A published table of three rows and their one code object, and a row of an algorithm. `outcome` does what a
    loading process does."""

    directory: Path
    identity: Identity
    object: bytes
    table: Table
    table_bytes: bytes = field(default=b"")

    def __post_init__(self) -> None:
        self.table_bytes = (self.directory / "table.json").read_bytes()

    @property
    def object_path(self) -> Path:
        return next((self.directory / "objects").iterdir())

    @cached_property
    def header_words(self) -> list[int]:
        """Offsets of every 2-byte word in the ELF, program and section headers."""
        program_at, section_at = struct.unpack_from("<QQ", self.object, 32)
        _, programs, _, sections = struct.unpack_from("<HHHH", self.object, 54)
        spans = [(0, 64), (program_at, 56 * programs), (section_at, 64 * sections)]
        return [at for start, size in spans for at in range(start, start + size, 2)]

    def outcome(self) -> Outcome:
        """Read, judge, look every row up near and far, and hand what is left to the spy."""
        try:
            table = read_table(self.directory)
            validated = validate(table, self.directory, self.identity, allow_modelled=True)
        except TableError as error:
            return Outcome("refused" if "\n" not in str(error) else "an error of several lines")
        spy, choices = SpyDevice(), Choices(validated)
        for entry in validated.usable:
            for m in (entry.m, *entry.rows, entry.m + 1, 1, 2**24):
                choice = choices.find(m, entry.n, entry.k, str(entry.problem.operation))
                assert choice is None or choice.launch is None or min(choice.launch.grid) >= 1
            if entry.vendor_algorithm:
                ask_library(entry)
            if entry.kernel:
                spy.load(validated.objects[entry.kernel.object_sha256], entry.kernel.object_sha256)
        for skipped in validated.skipped:
            assert skipped.detail
            assert "\n" not in skipped.detail
        word = str(validated.skipped[0].reason) if validated.skipped else "used"
        return Outcome(word, len(validated.usable), spy.loads)


def ask_library(entry: Entry) -> None:
    """What a call does before the first launch. The stand-in ends the process where it is handed bytes that it did not
    make, so an algorithm is either one that it names, or refused in a line."""
    assert entry.vendor_algorithm
    library, algorithm = stand_in_library(), entry.vendor_algorithm.known
    try:
        said = library.refusal(algorithm, entry.problem)
    except DeviceError as failed:
        said = str(failed)
    assert (said is None) == (algorithm in library.algorithms(entry.problem))
    assert said is None or "\n" not in said


def row_of_an_algorithm(**fields: Any) -> Trial:
    """Of one that the stand-in names."""
    problem = Problem(16, 128, 64)
    return algorithm_trial(problem, stand_in_library().algorithms(problem)[1], **fields)


def amd_victim(folder: Path) -> Victim:
    """The naive gfx950 kernel."""
    rows = [trial(problem, baseline="hipBLASLt", baseline_us=9.0) for problem in PROBLEMS]
    table = table_of(*rows, row_of_an_algorithm())
    sha256 = hashlib.sha256(OBJECT).hexdigest()
    write_table(table, {sha256: OBJECT}, folder)
    return Victim(folder, EMULATED, OBJECT, table)


def nvidia_victim(folder: Path) -> Victim:
    """A small kernel with a tensor map, by NVRTC."""
    code = NvrtcCompiler().compile(Variant("t", "0" * 64, "sm90a", "cuda", "gemm", CUDA_SOURCE, Config({})), 120.0)
    assert isinstance(code, CodeObject), code
    pointers = [Argument(name, "pointer") for name in ("a", "b", "c")]
    rule = LaunchRule(("m * 2", 1, 1), (64, 1, 1), 0, (*pointers, Argument("n", "i32"), Argument("k", "i32")))
    fields = {"source": Source.MEASURED, "device": H100.name, "object_sha256": code.sha256, "target": "sm90a"}
    trials = [trial(problem, baseline="cuBLAS", baseline_us=9.0, **fields) for problem in PROBLEMS]
    trials.append(row_of_an_algorithm(source=Source.MEASURED, device=H100.name, target="sm90a"))

    def launch_of(row: Trial) -> tuple[str, LaunchRule]:
        return "gemm", rule

    table = build_table(trials, launch_of, H100, code.compiler, "0.1.0", "now", BuildOptions())
    write_table(table, {code.sha256: code.data}, folder)
    return Victim(folder, H100, code.data, table)


def harmed(data: bytes, rng: random.Random) -> bytes:
    """`data` with bits flipped, bytes overwritten, a part cut out, doubled or moved, or its end missing."""
    changed = bytearray(data)
    kind = rng.randrange(6)
    at, length = rng.randrange(len(changed)), rng.choice([1, 2, 4, 8, 64, 1000])
    if kind == 0:
        for _ in range(rng.choice([1, 1, 2, 8])):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        changed[at : at + length] = bytes(rng.randrange(256) for _ in range(length))
    elif kind == 2:
        del changed[at:]
    elif kind == 3:
        del changed[at : at + length]
    elif kind == 4:
        changed[at:at] = changed[at : at + length]
    else:
        changed[at : at + length] = rng.choice([b"\x00", b"\xff", b"9", b"-", b'"', b"\\"]) * length
    return bytes(changed)


def damage_table(victim: Victim, seed: int, count: int) -> Counter[str]:
    """Outcomes of `count` harmed table.json; unchanged means that the file still says the very same."""
    rng, path = random.Random(seed), victim.directory / "table.json"
    counts: Counter[str] = Counter()
    for _ in range(count):
        path.write_bytes(harmed(victim.table_bytes, rng))
        outcome = victim.outcome()
        same = outcome.word != "refused" and read_table(victim.directory) == victim.table
        counts["unchanged" if same else outcome.word] += 1
    path.write_bytes(victim.table_bytes)
    return counts


def damage_object(victim: Victim, seed: int, count: int) -> Counter[str]:
    """Outcomes of `count` harmed code objects under the name of the good one."""
    rng, path = random.Random(seed), victim.object_path
    counts: Counter[str] = Counter()
    for _ in range(count):
        data = harmed(victim.object, rng)
        path.write_bytes(data)
        outcome = victim.outcome()
        assert data == victim.object or (outcome.usable, outcome.loads) == (1, 0), "the algorithm needs no object"
        counts["unchanged" if data == victim.object else outcome.word] += 1
    path.write_bytes(victim.object)
    return counts


def rehash_object(victim: Victim, seed: int, count: int) -> Counter[str]:
    """Outcomes of `count` harmed code objects in tables that name their new sha256."""
    rng, good = random.Random(seed), victim.object_path
    old = good.stem
    counts: Counter[str] = Counter()
    for _ in range(count):
        data = harmed(victim.object, rng)
        new = hashlib.sha256(data).hexdigest()
        table = msgspec.json.decode(_unsealed(victim.table_bytes).replace(old.encode(), new.encode()), type=Table)
        path = good.with_name(new + good.suffix)
        path.write_bytes(data)
        (victim.directory / "table.json").write_bytes(table_json(table))
        counts[victim.outcome().word] += 1
        if path != good:
            path.unlink()
    (victim.directory / "table.json").write_bytes(victim.table_bytes)
    return counts


NASTY_TEXT = ["", "m", "m*m", "1//0", "m//0", "m-8", "0x", "not m", "m if m else 0", "ceil_div(m, 0)", "-m", "é"]
NASTY_TEXT += ["../../etc/passwd", "a" * 70, "m" * 600, "(" * 400, "m" + "+m" * 200, "__import__('os')"]
NASTY_TEXT += ["[/red]", "\x1b[2J", "\ud800"]
NASTY_NUMBERS = [0, -1, 2**31 - 1, 2**31, 2**63, 1e308, 0.0]
NASTY = st.one_of(
    st.sampled_from(NASTY_TEXT),
    st.text(max_size=8),
    st.sampled_from(NASTY_NUMBERS),
    st.integers(-(2**70), 2**70),
    st.sampled_from([None, True, False, [], {}, [[[]]]]),
)


def change_and_seal(victim: Victim, data: st.DataObject) -> Outcome:
    """One to three values anywhere in the table replaced, moved or removed; sealed again where it is still a table."""
    document = copy.deepcopy(json.loads(_unsealed(victim.table_bytes)))
    for _ in range(data.draw(st.integers(1, 3))):
        holder, key = data.draw(st.sampled_from(list(_places(document))))
        action = data.draw(st.sampled_from(["replace", "replace", "remove", "swap"]))
        if action == "replace":
            holder[key] = copy.deepcopy(data.draw(NASTY))  # the strategy hands out the same list each time
        elif action == "remove":
            del holder[key]
        else:
            other, other_key = data.draw(st.sampled_from(list(_places(document))))
            holder[key] = copy.deepcopy(other[other_key])
        if not document:
            break
    path = victim.directory / "table.json"
    with contextlib.suppress(UnicodeEncodeError, OverflowError):
        path.write_bytes(json.dumps(document).encode())
    with contextlib.suppress(msgspec.ValidationError, UnicodeEncodeError):
        path.write_bytes(table_json(msgspec.convert(document, Table)))
    outcome = victim.outcome()
    path.write_bytes(victim.table_bytes)
    return outcome


def read_either(data: bytes) -> bool:
    """Whether `data` is read as a code object or a cubin; anything but an answer or a TableError passes through."""
    readers: list[Callable[[bytes], object]] = [read_code_object, read_cubin]
    good = False
    for read in readers:
        with contextlib.suppress(TableError):
            read(data)
            good = True
    return good


def _unsealed(data: bytes) -> bytes:
    document = json.loads(data)
    del document["content_sha256"]
    return json.dumps(document).encode()


def _places(value: Any) -> Any:
    """Every (container, key) in a JSON value."""
    keys: Any = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from _places(value[key])
