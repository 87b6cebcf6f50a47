"""What a file may say of an algorithm of a vendor's library: in a row, and in a table."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from naive_gemm import algorithm_trial, published, reseal, table_of, trial

from hktune.core.config import Config
from hktune.core.errors import StoreError, TableError
from hktune.core.outcome import Source
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.core.vendor_algorithm import VendorAlgorithm, is_algorithm
from hktune.dispatch import read_table
from hktune.store import TrialStore, read_trials
from hktune.store.rows import Encoder
from hktune.tables.standing import choose

ALGORITHM = VendorAlgorithm("cublasLt", "130100", "00ff" * 32, "id=66 tile=20", 1 << 25)
PROBLEM = Problem(8, 128, 64)
HOSTILE = [
    ("library", "libevil", "library 'libevil' is not known: known are cublasLt, hipBLASLt, rocBLAS"),
    ("library", "../../tmp", "is not known"),
    ("version", "", "is no word"),
    ("version", "13\n", "is no word"),
    ("version", "1" * 65, "is no word"),
    ("handle", "", "hexadecimal digits"),
    ("handle", "XYZ", "hexadecimal digits"),
    ("handle", "FF" * 64, "lower-case hexadecimal digits"),
    ("handle", "0" * 257, "hexadecimal digits"),
    ("handle", "٣", "hexadecimal digits"),
    ("name", "\x1b[2J", "printable ASCII"),
    ("name", "x" * 1025, "printable ASCII"),
    ("workspace_bytes", -1, "no integer from 0 to"),
    ("workspace_bytes", (1 << 30) + 1, "no integer from 0 to"),
    ("workspace_bytes", 2**63, "no integer from 0 to"),
    ("workspace_bytes", True, "no integer from 0 to"),
    ("workspace_bytes", "4096", "no integer from 0 to"),
]
"""A field, a value that it must not have, and what is said of it."""


def test_it_comes_back_from_its_config() -> None:
    assert VendorAlgorithm.of_config(Config.from_json(ALGORITHM.config.json)) == ALGORITHM
    assert is_algorithm(ALGORITHM.config)
    assert not is_algorithm(Config({"block_m": 64}))
    assert str(ALGORITHM) == "cublasLt 130100 id=66 tile=20"
    assert str(replace(ALGORITHM, name="")) == "cublasLt 130100 00ff00ff00ff00ff"


@pytest.mark.parametrize(("field", "value", "says"), HOSTILE)
def test_values_out_of_bounds_are_one_line(field: str, value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        VendorAlgorithm.of_config(Config({**ALGORITHM.config, field: value}))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("field", "value", "says"), HOSTILE)
def test_a_row_and_an_entry_with_them_are_refused(tmp_path: Path, field: str, value: Any, says: str) -> None:
    config = Config({**ALGORITHM.config, field: value})
    row = replace(algorithm_trial(PROBLEM, ALGORITHM), config=config.json, config_id=config.id)
    with pytest.raises(StoreError):
        TrialStore(tmp_path).append(row)
    published(tmp_path, algorithm_trial(PROBLEM, ALGORITHM))
    path = tmp_path / "table.json"
    document = json.loads(path.read_text())
    document["entries"][0]["vendor_algorithm"][field] = value
    path.write_text(json.dumps(document))
    with pytest.raises(TableError) as caught:
        read_table(tmp_path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"template": "naive_gemm"}, "has no template and no code object"),
        ({"object_sha256": "0" * 64}, "has no template and no code object"),
        ({"library": "rocBLAS"}, "saved='rocBLAS', and its config is of 'cublasLt'"),
    ],
)
def test_a_row_of_an_algorithm_has_nothing_of_a_kernel(change: dict[str, str], says: str) -> None:
    with pytest.raises(StoreError, match=says):
        Encoder().line(replace(algorithm_trial(PROBLEM, ALGORITHM), **change))


def test_rows_of_algorithms_are_read_as_they_were_stored(tmp_path: Path) -> None:
    store = TrialStore(tmp_path)
    stored = store.extend([algorithm_trial(PROBLEM, ALGORITHM), trial(PROBLEM)])
    assert read_trials(store.path) == stored
    assert [row.is_kernel for row in stored] == [False, True]


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace('"choice": "algorithm"', '"choice": "vendor"'),
        lambda text: text.replace('"choice": "algorithm"', '"choice": "kernel"'),
        lambda text: text.replace('"vendor_algorithm"', '"m_from": 4, "m_to": 16, "vendor_algorithm"'),
    ],
)
def test_an_entry_says_one_thing_and_serves_its_own_m(tmp_path: Path, edit: Callable[[str], str]) -> None:
    published(tmp_path, algorithm_trial(PROBLEM, ALGORITHM))
    with pytest.raises(msgspec.ValidationError):
        reseal(tmp_path, edit)


def timed(row: Trial, low_us: float, high_us: float) -> Trial:
    """A measured row, with its interval."""
    middle = (low_us + high_us) / 2
    measured = replace(row, source=Source.MEASURED, baseline="cuBLAS", baseline_us=20.0)
    return replace(measured, time_us=middle, time_us_low=low_us, time_us_high=high_us)


ROW, KERNEL = algorithm_trial(PROBLEM, ALGORITHM), trial(PROBLEM)


@pytest.mark.parametrize(
    ("rows", "choice"),
    [
        ([timed(ROW, 9.0, 9.2), timed(KERNEL, 10.0, 10.2)], "algorithm"),
        ([timed(ROW, 9.0, 9.2), timed(KERNEL, 9.0, 9.25)], "kernel"),  # a tie: a kernel holds for any version
        ([timed(ROW, 9.0, 9.2), timed(KERNEL, 8.0, 8.2)], "kernel"),
        ([timed(ROW, 19.5, 20.1), timed(KERNEL, 21.0, 22.0)], "vendor"),  # a tie with torch's default
        ([timed(ROW, 19.5, 19.9), timed(KERNEL, 21.0, 22.0)], "algorithm"),
    ],
)
def test_what_a_table_takes_of_kernels_algorithms_and_the_default(rows: list[Trial], choice: str) -> None:
    [entry] = table_of(*rows).entries
    assert entry.choice == choice
    assert (entry.vendor_algorithm is not None) == (choice == "algorithm")


def test_an_algorithm_serves_no_other_m_and_a_kernel_beside_it_does() -> None:
    """Where lines cross, the algorithm's end counts as the library's own choice."""
    small, large = Problem(64, 128, 64), Problem(128, 128, 64)
    rows = [
        timed(algorithm_trial(small, ALGORITHM), 9.0, 9.2),
        timed(trial(small), 18.0, 18.2),
        timed(trial(large), 10.0, 10.2),
    ]
    first, second = table_of(*rows).entries
    assert (first.choice, first.rows) == ("algorithm", (64, 64))
    assert second.choice == "kernel"
    assert second.rows[0] > 64
    assert second.rows[1] == 128


def test_kernels_of_a_cover_need_no_algorithm() -> None:
    chosen = choose([timed(ROW, 9.0, 9.2), timed(KERNEL, 9.0, 9.25)])
    assert [each.kernel is not None for each in chosen] == [True]
