"""Every file format comes back as it went, whatever is in it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import string
import tempfile
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from epilogues import epilogues
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hktune.commands.arguments import problem as argument_of_problem
from hktune.core.command_words import spelled
from hktune.core.config import Config, compact_json
from hktune.core.errors import TableError
from hktune.core.operand import operands_of
from hktune.core.operation import LAYOUTS, Operation, operation_of
from hktune.core.outcome import Source, Stage, Status
from hktune.core.problem import Problem
from hktune.core.shapes import ENTRY_KEYS, load_shapes
from hktune.core.trial import Trial
from hktune.core.vendor_algorithm import LIBRARIES, VendorAlgorithm
from hktune.dispatch import Entry, Reason, Table, read_table, table_json
from hktune.dispatch.files import content_sha256
from hktune.dispatch.table import Kernel, Launch
from hktune.store import Environment, TrialStore, merge, read_frame
from hktune.store.cells import FIELDS, TYPES
from hktune.store.recordings.t4_trials import read_t4_trials, t4_json
from hktune.store.rows import COLUMNS, Decoder, Encoder

# A busy machine draws slowly; that is no failure.
BUSY = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Any character, half a surrogate pair and NUL included: a compiler's message is not under our control.
TEXT = st.text(st.characters(), min_size=1, max_size=40)
NASTY = st.sampled_from(
    ["a,b", '"', '""', "\n", "\r\n", "\\n", "\\", "NA", "nan", " ", "\x00", "\ud800", "\u2028", "é漢"]
)
LINE = st.characters(min_codepoint=32, exclude_categories=("Cc", "Cs", "Zl", "Zp"))
PRINTABLE = st.text(LINE, min_size=1, max_size=40)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TIMES = st.floats(min_value=5e-324, allow_infinity=False)
SIZES = st.integers(1, 2**40)
WORDS = st.text("".join(sorted(set(map(chr, range(0x21, 0x7F))) - set('",\\'))), min_size=1, max_size=64)
SHA256 = st.text("0123456789abcdef", min_size=64, max_size=64)
CONFIGS = st.dictionaries(TEXT, st.one_of(st.integers(), st.booleans(), TEXT | NASTY), max_size=4).map(Config)


HALVES_AND_SINGLES = ["bf16", "f16", "f32"]
PRODUCTS = st.builds(
    Operation,
    a=st.sampled_from(HALVES_AND_SINGLES),
    layout=st.sampled_from(LAYOUTS),
    b=st.sampled_from(["", *HALVES_AND_SINGLES]),
    c=st.sampled_from(["", *HALVES_AND_SINGLES]),
    epilogue=epilogues(),
)
"""Operations whose operands are known and have no scales."""
SCALED = st.sampled_from(
    ["e4m3.nt.tensor->bf16", "e4m3*e5m2.nn.rows->f16", "e5m2.nt.blocks->f32+bias", "i8.nt.rows->bf16", "i8.tt->i32"]
)
ANY = PRODUCTS | SCALED.map(operation_of)
SIDE = st.integers(1, 2**15)  # of which no matrix is too large


@BUSY
@given(st.lists(st.builds(Problem, SIDE, SIDE, SIDE, ANY), min_size=1, max_size=5, unique=True), ANY)
def test_problems_of_any_operations_come_back_from_a_shapes_file(problems: list[Problem], usual: Operation) -> None:
    """Each as an entry of its own, where the file's operation stands for those that have it."""
    rows = [{"m": problem.m, "n": problem.n, "k": problem.k} for problem in problems]
    said = [{} if each.operation == usual else {"operation": str(each.operation)} for each in problems]
    shapes = {"operation": str(usual), "shapes": [row | own for row, own in zip(rows, said, strict=True)]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shapes.yaml"
        path.write_text(json.dumps(shapes))  # which is YAML
        assert list(load_shapes(path).problems) == problems


@given(SIDE, SIDE, SIDE, ANY)
def test_a_problem_comes_back_from_the_words_of_a_command(m: int, n: int, k: int, operation: Operation) -> None:
    assert argument_of_problem(spelled(Problem(m, n, k, operation))) == Problem(m, n, k, operation)


def _field(name: str) -> st.SearchStrategy[Any]:
    if name in ("trial", "m", "n", "k"):
        return SIZES
    if name.startswith(("time_us", "energy_j")) or name in ("baseline_us", "vendor_best_us", "baseline_energy_j"):
        return st.none() | TIMES
    if name in ("object_sha256", "template_sha256"):
        return st.none() | SHA256
    if name == "origin":
        return st.none() | st.lists(SHA256, min_size=1, max_size=3).map(lambda ids: "+".join(id_[:12] for id_ in ids))
    lines = ("cache", "baseline", "vendor_best", "throttled", "template", "compiler", "target", "device", "strategy")
    if name in (*lines, "started_at"):
        return st.none() | PRINTABLE
    least = -(2**63) if name == "seed" else 0
    kinds = {int: st.integers(least, 2**63 - 1), float: FLOATS.map(abs), str: TEXT | NASTY}
    return st.none() | kinds[TYPES[name]]


ALGORITHMS = st.builds(
    VendorAlgorithm,
    library=st.sampled_from(LIBRARIES),
    version=st.text(string.ascii_letters + string.digits + "_.+:-", min_size=1, max_size=64),
    handle=st.text("0123456789abcdef", min_size=1, max_size=256),
    name=st.text(string.printable[:95], max_size=100),
    workspace_bytes=st.integers(0, 1 << 30),
)


@st.composite
def trials(draw: st.DrawFn) -> Trial:
    """Any trial that obeys the rules: an ok one has a source and a time, a time has a source and is in its interval."""
    config = draw(CONFIGS)
    fixed = ("config_id", "config", "status", "stage", "quarantined", "left_early", "source", "operation", "library")
    fields = {name: draw(_field(name)) for name in FIELDS if name not in fixed}
    if draw(st.booleans()):
        algorithm = draw(ALGORITHMS)
        fields |= {"template": None, "template_sha256": None, "object_sha256": None, "library": algorithm.library}
        config = algorithm.config
    row = Trial(
        **fields,
        config_id=config.id,
        config=config.json,
        status=draw(st.sampled_from(Status)),
        source=draw(st.none() | st.sampled_from(Source)),
        stage=draw(st.sampled_from(Stage)),
        quarantined=draw(st.booleans()),
        left_early=draw(st.booleans()),
        operation=operation_of(draw(st.sampled_from(["bf16.nt", "bf16.nt+bias", "f16.nn->f32"]))),
    )
    if row.status is Status.OK:
        row = replace(row, source=row.source or Source.MODELLED, time_us=row.time_us or 1.0, quarantined=False)
    row = row if row.source else replace(row, time_us=None)
    return within_its_interval(row) if row.time_us is not None else replace(row, left_early=False)


def within_its_interval(row: Trial) -> Trial:
    """`row`, whose time is moved into its interval from outside."""
    ordered = sorted(each for each in (row.time_us, row.time_us_low, row.time_us_high) if each is not None)
    low_us = None if row.time_us_low is None else ordered[0]
    high_us = None if row.time_us_high is None else ordered[-1]
    return replace(row, time_us=ordered[low_us is not None], time_us_low=low_us, time_us_high=high_us)


def encode(trial: Trial) -> bytes:
    return Encoder().line(trial)


def decode(line: bytes) -> Trial:
    return Decoder().trial(next(csv.reader([line.decode()], strict=True), []))


@BUSY
@given(trials())
def test_a_trial_is_one_line_of_csv_and_comes_back(trial: Trial) -> None:
    line = encode(trial)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line[:-1]) == trial
    assert json.loads(next(csv.reader([line.decode()]))[COLUMNS.index("config")]) == json.loads(trial.config)


@BUSY
@given(st.lists(trials(), min_size=1, max_size=4))
def test_trials_come_back_from_t4(drawn: list[Trial]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t4.json"
        path.write_bytes(t4_json(drawn))
        assert read_t4_trials(path) == drawn


@BUSY
@given(trials(), st.data())
def test_a_torn_line_is_never_taken_for_another_trial(trial: Trial, data: st.DataObject) -> None:
    """Cut anywhere up to its last comma, a row is refused: a cell is missing, or a quote is open."""
    line = encode(trial)
    with pytest.raises((ValueError, csv.Error), match=r"cells, not|unexpected end|is empty"):
        decode(line[: data.draw(st.integers(0, line.rindex(b",")))])


@BUSY
@given(st.lists(trials(), max_size=5))
def test_a_file_comes_back_through_the_store_through_pandas_and_through_a_merge(drawn: list[Trial]) -> None:
    # Unlike devices are not merged, and a merged row has an origin.
    rows = [replace(row, device="the one", origin=None) for row in drawn]
    with tempfile.TemporaryDirectory() as folder:
        store = TrialStore(Path(folder) / "a")
        stored = store.extend(rows)
        assert store.read() == stored
        assert [replace(row, trial=0) for row in stored] == [replace(row, trial=0) for row in rows]
        frame = read_frame(store.path)
        assert len(frame) == len(rows)
        for name in ("time_us", "relative_error", "config_id", "config"):
            read = [None if missing else value for value, missing in zip(frame[name], frame[name].isna(), strict=True)]
            assert read == [getattr(row, name) for row in rows]
        distinct = {replace(row, trial=0) for row in rows}
        merged = merge([Path(folder) / "a"], Path(folder) / "b").trials
        assert {replace(row, trial=0, origin=None) for row in merged} == distinct


HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
ID = st.text("0123456789abcdef", min_size=16, max_size=16)
WORD = st.text(string.ascii_letters + string.digits + "_.+:/-", min_size=1, max_size=64)
FOLDER_NAME = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=64)
MICROS = st.floats(min_value=1e-9, max_value=1e12)
POINTERS = [{"name": name, "kind": "pointer"} for name in ("a", "b", "c")]
NUMBERS = st.lists(st.sampled_from(["m", "n", "k", "lda", "ldb", "ldc"]), unique=True)


OF_VERSION_2 = {"bf16.nt": ("bf16", "none"), "bf16.nt+bias": ("bf16", "bias")}
"""Operations that version 2 had words for: its dtype and epilogue."""


@st.composite
def entries(draw: st.DrawFn, version: int) -> dict[str, Any]:
    entry: dict[str, Any] = {name: draw(st.integers(1, 2**24)) for name in ("m", "n", "k")}
    operation = draw(PRODUCTS.map(str) if version == 3 else st.sampled_from(sorted(OF_VERSION_2)))
    entry |= {"operation": operation, "source": draw(st.sampled_from(Source)).value}
    entry |= {name: draw(MICROS) for name in ("time_us", "baseline_us")}
    entry |= {"baseline": draw(PRINTABLE), "ties": draw(st.lists(ID, max_size=3)), "choice": "vendor"}
    if draw(st.booleans()):
        names = set(operands_of(operation_of(operation))) - {"a", "b", "c"}
        names |= {"bias"} if draw(st.booleans()) else set()
        more = [{"name": name, "kind": "pointer"} for name in sorted(names)]
        more += [{"name": "ldresidual", "kind": "i32"}] if "residual" in names else []
        kinds = st.sampled_from(["u32", "i32", "u64"])
        numbers = [{"name": name, "kind": draw(kinds)} for name in draw(NUMBERS)]
        side = st.integers(1, 1024)
        launch = {
            "grid": [draw(st.integers(1, 2**31 - 1)) for _ in range(3)],
            "block": [draw(side) for _ in range(3)],
            "dynamic_lds_bytes": draw(st.integers(0, 1 << 20)),
            "arguments": POINTERS + more + numbers,
        }
        config = draw(st.dictionaries(WORD, st.one_of(st.integers(-(2**63), 2**63 - 1), st.booleans(), WORD)))
        names = {"config": config, "config_id": Config(config).id, "template": draw(WORD), "symbol": "kernel"}
        hashes = {"template_sha256": draw(HEX), "object_sha256": draw(HEX)}
        entry |= {"choice": "kernel", "kernel": {**names, **hashes, "launch": launch}}
    elif version == 3 and draw(st.booleans()):
        entry |= {"choice": "algorithm", "vendor_algorithm": dict(draw(ALGORITHMS).config)}
    return entry


@st.composite
def tables(draw: st.DrawFn) -> Table:
    version = draw(st.sampled_from([2, 3]))
    problem = itemgetter("m", "n", "k", "operation")
    fields = {
        "version": version,
        "arch": draw(FOLDER_NAME),
        "device": {
            "kind": draw(st.sampled_from(["emulated", "hip", "cuda"])),
            "name": draw(PRINTABLE),
            "compute_units": draw(st.integers(1, 65536)),
            "pci_id": draw(st.none() | WORD),
        },
        "compiler": draw(PRINTABLE),
        "hktune": draw(WORD),
        "created_at": draw(PRINTABLE),
        "entries": draw(st.lists(entries(version), max_size=3, unique_by=problem)),
    }
    return msgspec.convert(fields, Table)


@BUSY
@given(tables())
def test_a_table_comes_back_through_its_json(table: Table) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "table.json").write_bytes(table_json(table))
        assert read_table(Path(folder)) == table


@BUSY
@given(tables())
def test_a_table_is_hashed_entry_by_entry_as_if_it_were_whole(table: Table) -> None:
    """And written as the json module would."""
    whole = msgspec.to_builtins(table)
    whole["entries"] = [in_words_of(table.version, entry) for entry in whole["entries"]]
    for entry in whole["entries"]:
        # What entries have not always had.
        later = (
            "name",
            "vendor_best",
            "vendor_best_us",
            "origins",
            "vendor_algorithm",
            "energy_j",
            "baseline_energy_j",
        )
        for name in later:
            if entry[name] is None:
                del entry[name]
    sha256 = hashlib.sha256(compact_json(whole).encode()).hexdigest()
    assert content_sha256(table) == sha256
    rows = [{name: value for name, value in entry.items() if value is not None} for entry in whole.pop("entries")]
    header = "".join(f" {json.dumps(name)}: {json.dumps(value)},\n" for name, value in whole.items())
    entries = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    wanted = f'{{\n{header} "content_sha256": "{sha256}",\n "entries": [\n{entries}\n ]\n}}\n'
    assert table_json(table).decode() == wanted


def in_words_of(version: int, entry: dict[str, Any]) -> dict[str, Any]:
    """An entry as a file of that version has it, its keys in order."""
    if version == 3:
        return entry
    dtype, epilogue = OF_VERSION_2[entry["operation"]]
    sizes = {name: entry.pop(name) for name in ("m", "n", "k", "operation")}
    del sizes["operation"]
    return {**sizes, "dtype": dtype, "epilogue": epilogue, **entry}


@BUSY
@given(tables().filter(lambda table: table.entries), st.data())
def test_a_key_that_stands_twice_is_refused_wherever_it_is(table: Table, data: st.DataObject) -> None:
    text = table_json(table)
    places = [match.start() for match in re.finditer(rb'"(m|n|choice|operation|dtype|arch|kind|config|grid)": ', text)]
    at = data.draw(st.sampled_from(places))
    member = text[at : json_end(text, at)]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "table.json").write_bytes(text[:at] + member + b", " + text[at:])
        with pytest.raises(TableError, match="a key is twice in one object"):
            read_table(Path(folder))


def json_end(text: bytes, at: int) -> int:
    """Where the member that begins at `at` ends."""
    decoder = json.JSONDecoder()
    value = text.decode().index(": ", at) + 2
    return decoder.raw_decode(text.decode(), value)[1]


@BUSY
@given(tables(), st.data())
def test_a_table_cut_anywhere_is_an_error(table: Table, data: st.DataObject) -> None:
    whole = table_json(table)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "table.json").write_bytes(whole[: data.draw(st.integers(0, len(whole) - 2))])
        with pytest.raises(TableError, match=r"\A[^\n]*truncated, malformed or not JSON[^\n]*\Z"):
            read_table(Path(folder))


def test_the_header_names_the_fields_of_a_trial_in_order(tmp_path: Path) -> None:
    TrialStore(tmp_path)
    header = next(csv.reader(io.StringIO((tmp_path / "trials.csv").read_text())))
    assert header == ["format", *Trial.__dataclass_fields__]


def test_the_documentation_names_every_column_field_and_reason() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "formats.md").read_text()
    fields = {*Entry.__struct_fields__, *Kernel.__struct_fields__, *Launch.__struct_fields__, *Table.__struct_fields__}
    words = {*COLUMNS, *map(str, Status), *map(str, Reason), *ENTRY_KEYS, *fields, *Environment.__dataclass_fields__}
    assert {word for word in words if f"`{word}`" not in text} == set()
