"""Tables and objects from a stranger: whatever their bytes, an error or a reason, never a crash, never a load of bytes
whose sha256 is not the row's. benchmarks/hostile.py runs the same over many more."""

from __future__ import annotations

from pathlib import Path

import hostile
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hktune.core.errors import TableError
from hktune.dispatch import read_table
from hktune.objects.code_object import read_code_object
from hktune.objects.cubin import read_cubin

BUSY = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module", params=["hsaco", "cubin"])
def victim(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> hostile.Victim:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "hsaco":
        return hostile.amd_victim(folder)
    pytest.importorskip("cuda.bindings.nvrtc", reason="pip install 'hktune[cuda]'")
    return hostile.nvidia_victim(folder)


def test_the_unharmed_table_is_used(victim: hostile.Victim) -> None:
    assert victim.outcome() == hostile.Outcome("used", 4, 3)


def test_bytes_flipped_cut_and_spliced_in_table_json_are_refused_or_change_nothing(victim: hostile.Victim) -> None:
    counts = hostile.damage_table(victim, seed=1, count=700)
    assert counts.keys() <= {"refused", "unchanged"}
    assert counts["refused"] > 600, counts


def test_bytes_flipped_cut_and_spliced_in_objects_are_skipped(victim: hostile.Victim) -> None:
    counts = hostile.damage_object(victim, seed=2, count=300)
    assert counts.keys() <= {"object changed", "object unreadable", "object missing", "unchanged"}
    assert counts["object changed"] > 250, counts


def test_a_stranger_who_fits_every_hash_is_still_judged(victim: hostile.Victim) -> None:
    """Objects changed and named by their new sha256: read, refused or accepted as another kernel, never a crash."""
    counts = hostile.rehash_object(victim, seed=3, count=300)
    assert sum(counts.values()) == 300
    assert counts["object unreadable"] > 20, counts


@BUSY
@given(data=st.data())
def test_a_table_changed_value_by_value_and_sealed_again(victim: hostile.Victim, data: st.DataObject) -> None:
    hostile.change_and_seal(victim, data)


@BUSY
@given(data=st.binary(max_size=400))
def test_any_bytes_are_no_table_and_no_object(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "table.json").write_bytes(data)
    for read in (lambda: read_table(tmp_path), lambda: read_code_object(data), lambda: read_cubin(data)):
        with pytest.raises(TableError) as caught:
            read()
        assert "\n" not in str(caught.value)


@BUSY
@given(data=st.data())
def test_headers_of_any_numbers_are_read_in_bounded_time(victim: hostile.Victim, data: st.DataObject) -> None:
    """Words of the ELF, section and program headers overwritten with extreme values."""
    words = st.sampled_from([0, 1, 2, 3, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1])
    changed = bytearray(victim.object)
    for _ in range(data.draw(st.integers(1, 4))):
        at, width = data.draw(st.sampled_from(victim.header_words)), data.draw(st.sampled_from([1, 2, 4, 8]))
        changed[at : at + width] = (data.draw(words) & (1 << 8 * width) - 1).to_bytes(width, "little")
    hostile.read_either(bytes(changed))
