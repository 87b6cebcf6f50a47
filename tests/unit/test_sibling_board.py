"""A table made on one board serves another of its architecture by an explicit word, and its hits are counted apart.

The boards are made up: the emulator runs the kernels, under the identity of a board that the table is not of. The truth
is torch's product. The shipped H100 and H200 tables are judged as they are.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from naive_gemm import EMULATED, OBJECT, SHA256, published, trial

import hktune
from hktune.cli import main
from hktune.core.board import MI350X, MI355X
from hktune.core.errors import TableError
from hktune.core.identity import Identity
from hktune.core.outcome import Source
from hktune.core.problem import Problem
from hktune.device.emulated import EmulatedDevice
from hktune.dispatch import read_table, validate, write_table
from hktune.runtime import FallbackWarning, LoadedTable, Stats
from hktune.store import read_environment
from hktune.tables.findings import Call, examine_table

SMALL, NEAR = Problem(8, 128, 64), Problem(5, 128, 64)
ONE = replace(EMULATED, pci_id="made-up:1")
OTHER = replace(ONE, pci_id="made-up:2")
RESULTS = Path(__file__).parents[2] / "results"
H100, H200 = RESULTS / "sm90a-nvidia-h100-80gb-hbm3", RESULTS / "sm90a-nvidia-h200"


class As(EmulatedDevice):
    """The emulated device under another identity."""

    def __init__(self, identity: Identity) -> None:
        super().__init__()
        self._board_identity = identity

    @property
    def identity(self) -> Identity:
        return self._board_identity


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Measured on ONE, for 8 rows and serving from 4 on."""
    made = published(tmp_path, trial(SMALL, source=Source.MEASURED), identity=ONE)
    (entry,) = made.entries
    entries = (msgspec.structs.replace(entry, m_from=4, m_to=8),)
    write_table(msgspec.structs.replace(made, entries=entries), {SHA256: OBJECT}, tmp_path)
    return tmp_path


def assert_right(table: LoadedTable, m: int) -> None:
    generator = torch.Generator().manual_seed(m)
    x, weight = (torch.randn(rows, 64, generator=generator).bfloat16() for rows in (m, 128))
    expected = torch.nn.functional.linear(x.float(), weight.float())
    torch.testing.assert_close(table.linear(x, weight).float(), expected, rtol=2**-8, atol=1e-5)


def test_a_sibling_is_refused_without_the_word_and_the_line_names_it(table: Path) -> None:
    with pytest.raises(TableError, match=r"none of 1 .*allow_sibling_board is False: saved=.*made-up:1 current=.*:2"):
        hktune.load(table, device=As(OTHER))


def test_with_the_word_it_serves_without_a_warning_and_hits_are_a_kind_of_their_own(table: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = hktune.load(table, device=As(OTHER), allow_sibling_board=True)
        assert_right(loaded, 8)
        assert_right(loaded, 8)
        assert_right(loaded, 5)
    assert loaded.stats() == Stats(hits=0, near_hits=0, fallbacks={}, skipped={}, sibling_hits=3)
    said = "hktune: 3 calls, 0 hits, 0 near hits, 3 sibling hits; fallbacks: none; rows not used: none"
    assert str(loaded.stats()) == said
    assert "1 of 1 entries usable (measured: 1), made on a sibling board: 1>" in repr(loaded)


def test_torchs_own_products_by_a_siblings_table_are_sibling_hits_too(table: Path) -> None:
    loaded = hktune.load(table, device=As(OTHER), allow_sibling_board=True)
    x, weight = torch.ones(8, 64).bfloat16(), torch.ones(128, 64).bfloat16()
    with torch.no_grad(), hktune.enable(loaded):
        assert torch.equal(x @ weight.T, torch.full((8, 128), 64.0).bfloat16())
    assert loaded.stats().sibling_hits == 1


def test_on_its_own_board_the_word_changes_nothing(table: Path) -> None:
    loaded = hktune.load(table, device=As(ONE), allow_sibling_board=True)
    assert_right(loaded, 8)
    with pytest.warns(FallbackWarning):
        assert_right(loaded, 3)
    assert loaded.stats() == Stats(1, 0, {"no entry for the shape": 1}, {})


@pytest.mark.parametrize("change", [{"compute_units": 228}, {"partition": "MIG 1g.10gb"}])
def test_a_board_of_another_size_is_no_sibling_with_any_word(table: Path, change: dict[str, object]) -> None:
    """Grids that fill the device are numbers in a table, right for so many compute units."""
    with pytest.raises(TableError, match=r"other device: 1; first: .*measured on another device: saved="):
        hktune.load(table, device=As(replace(OTHER, **change)), allow_sibling_board=True)


def test_the_same_chip_with_other_clocks_is_a_sibling_too(tmp_path: Path) -> None:
    published(tmp_path, trial(SMALL))  # modelled for the emulated MI355X
    here = EmulatedDevice(board=MI350X)
    said = r"modelled for a sibling .* allow_sibling_board is False: saved=.*board:mi355x current=.*board:mi350x"
    with pytest.raises(TableError, match=said):
        hktune.load(tmp_path, allow_modelled=True, device=here)
    loaded = hktune.load(tmp_path, allow_modelled=True, device=here, allow_sibling_board=True)
    assert_right(loaded, 8)
    assert loaded.stats() == Stats(0, 0, {}, {}, sibling_hits=1)


def test_a_table_of_an_emulated_board_opens_that_board(tmp_path: Path) -> None:
    for board in (MI350X, MI355X):
        published(tmp_path, trial(SMALL), identity=EmulatedDevice(board=board).identity)
        loaded = hktune.load(tmp_path, allow_modelled=True)
        assert_right(loaded, 8)
        assert loaded.stats() == Stats(1, 0, {}, {})


def test_the_doctor_says_what_the_word_would_let_serve(table: Path) -> None:
    calls = [Call(SMALL, "small", 3.0), Call(NEAR, "near", 1.0)]
    (refused, *_) = examine_table(table, calls, OTHER, {})
    assert refused.wrong
    assert "allow_sibling_board is False" in refused.value
    found = examine_table(table, calls, OTHER, {}, allow_sibling_board=True)
    assert [each.rule for each in found if each.wrong] == []
    assert "rows of a sibling board serve 2 of 2 shapes, 100.0% of calls" in [each.value for each in found]


def test_an_h100s_table_is_refused_on_an_h200_and_serves_it_with_the_word() -> None:
    """Of the shipped directories, by the identities that the GPUs themselves gave."""
    there = read_environment(H200)
    assert there is not None
    table, here = read_table(H100), there.identity
    assert (table.identity.name, here.name) == ("NVIDIA H100 80GB HBM3", "NVIDIA H200")
    assert validate(table, H100, here, allow_modelled=False).usable == ()
    allowed = validate(table, H100, here, allow_modelled=False, allow_sibling_board=True)
    assert allowed.usable == table.entries
    assert allowed.of_sibling == {entry.problem.key for entry in table.entries}


def test_table_show_says_what_serves_on_another_board(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("table", "show", str(H100), "--device", str(H200))) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "on NVIDIA H200: 0 of 50 rows serve, 50 more with allow_sibling_board=True; calls of 50 count as" in said
    assert main(("table", "show", str(H100), "--device", "nowhere.json")) == 2
    assert "no environment.json there" in capsys.readouterr().err
