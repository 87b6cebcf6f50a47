"""Merging shards: the rows of all, once, in one order; one set-up keeps its environment, and what differs is said."""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hktune.cli import main
from hktune.core.config import Config
from hktune.core.errors import StoreError
from hktune.core.identity import Identity
from hktune.core.operation import BF16_NT
from hktune.core.outcome import Source, Status
from hktune.core.trial import Trial
from hktune.store import Environment, TrialStore, merge, read_environment, read_trials, write_environment
from hktune.store.rows import Encoder
from hktune.store.shards import merged_trials

CONFIG = Config({"block_m": 256})
DEVICE = Identity("hip", "gfx950", "AMD Instinct MI355X", 256, "0x75a3", "SPX")
OK = Trial(
    0, 256, 512, 64, BF16_NT, CONFIG.id, CONFIG.json, Status.OK, source=Source.MEASURED, time_us=2.5,
    template="gfx950/gemm", template_sha256="1" * 64, device=DEVICE.name, started_at="2026-11-22T18:00:00Z",
)  # fmt: skip
ENVIRONMENT = Environment(
    DEVICE, "clang 22", None, ("hktune", "tune"), 0, "2026-11-22T18:00:00Z", "abc", {"python": "3.11.7", "torch": "2.9"}
)


def shard(directory: Path, rows: list[Trial], environment: Environment | None = ENVIRONMENT) -> Path:
    TrialStore(directory).extend(rows)
    if environment:
        write_environment(environment, directory)
    return directory


def test_a_merge_of_equal_set_ups_keeps_their_environment_in_any_order(tmp_path: Path) -> None:
    later = replace(ENVIRONMENT, started_at="2026-11-23T18:00:00Z", commit="def", command=("hktune", "tune", "--x"))
    later = replace(later, versions={"python": "3.12.1", "torch": "2.9"})
    a, b = shard(tmp_path / "a", [OK]), shard(tmp_path / "b", [replace(OK, m=128)], later)
    assert merge([a, b / "trials.csv"], tmp_path / "ab").remarks == []
    merge([b, a], tmp_path / "ba")
    merged = read_environment(tmp_path / "ab")
    assert merged == replace(ENVIRONMENT, commit=None, versions={"torch": "2.9"})
    for name in ("environment.json", "trials.csv"):
        assert (tmp_path / "ab" / name).read_bytes() == (tmp_path / "ba" / name).read_bytes()
    merge([b], tmp_path / "ab")
    assert read_environment(tmp_path / "ab") == merged, "merging again changes nothing"


@pytest.mark.parametrize(
    "other",
    [
        replace(DEVICE, name="AMD Instinct MI350X", pci_id="0x75a0"),
        replace(DEVICE, partition="CPX"),
        replace(DEVICE, compute_units=128),
    ],
)
def test_unlike_devices_are_refused_by_name_and_nothing_is_written(tmp_path: Path, other: Identity) -> None:
    shards = [shard(tmp_path / "a", [OK]), shard(tmp_path / "b", [OK], replace(ENVIRONMENT, identity=other))]
    with pytest.raises(StoreError, match=r"unlike devices: .*compute_units=.*; .*merge each device's into a DIR"):
        merge(shards, tmp_path / "ab")
    assert not (tmp_path / "ab" / "trials.csv").exists()


def test_unlike_devices_are_seen_where_only_the_rows_name_them(tmp_path: Path) -> None:
    shards = [shard(tmp_path / "a", [OK], None), shard(tmp_path / "b", [replace(OK, device="NVIDIA H200")], None)]
    with pytest.raises(StoreError, match="unlike devices: AMD Instinct MI355X; NVIDIA H200"):
        merge(shards, tmp_path / "ab")


def test_another_compiler_or_no_environment_is_said_and_leaves_none(tmp_path: Path) -> None:
    a = shard(tmp_path / "a", [OK])
    other = shard(tmp_path / "other", [OK], replace(ENVIRONMENT, compiler="clang 23"))
    bare = shard(tmp_path / "bare", [OK], None)
    for each, says in (
        (other, r"compiler: saved=clang 2\d current=clang 2\d"),
        (bare, "no environment.json says what"),
    ):
        out = tmp_path / f"with {each.name}"
        [remark] = merge([a, each], out).remarks
        assert re.search(says, remark)
        with pytest.raises(StoreError, match=says):
            merge([each], a)
        assert read_environment(out) is None
    assert read_environment(a) == ENVIRONMENT, "a directory keeps its own"
    assert read_trials(a / "trials.csv") == [OK]


def test_rows_of_several_templates_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [OK, replace(OK, template_sha256="2" * 64), replace(OK, template_sha256="2" * 64, time_us=9.0)]
    a = shard(tmp_path / "a", rows)
    assert main(["merge", str(a), "-o", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "1 trials are of gfx950/gemm 111111111111: tune and table build use those of their own template" in out
    assert "2 trials are of gfx950/gemm 222222222222" in out
    assert f"3 trials in {tmp_path / 'out'}: bf16.nt\n" in out


MOMENTS = st.none() | st.sampled_from(["2026-11-22T18:00:00Z", "2026-11-22T18:00:01Z"])
ROWS = st.builds(
    lambda m, detail, moment, number: replace(OK, trial=number, m=m, detail=detail, started_at=moment),
    st.sampled_from([1, 2, 10, 16]),
    st.none() | st.sampled_from(["a", "a,b", '"', "screened", "confirmed"]),
    MOMENTS,
    st.integers(0, 3),
)


@given(st.lists(st.lists(ROWS, max_size=6), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_the_order_is_that_of_start_and_content(shards: list[list[Trial]]) -> None:
    """As sorting the whole lines would give it."""

    def order(trial: Trial) -> tuple[str, bytes]:
        return (trial.started_at or "", Encoder().line(trial))

    distinct = {replace(trial, trial=0) for rows in shards for trial in rows}
    wanted = [replace(trial, trial=number) for number, trial in enumerate(sorted(distinct, key=order))]
    with tempfile.TemporaryDirectory() as folder:
        paths = [shard(Path(folder) / str(number), rows, None) for number, rows in enumerate(shards)]
        assert merged_trials(paths) == wanted
        assert merged_trials(paths[::-1]) == wanted
