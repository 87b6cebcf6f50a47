"""Results of several people as one: where each row is from, what several measured, and where they disagree."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from naive_gemm import MI355X, launch_of, published, table_of, trial

from hktune.cli import main
from hktune.core.errors import StoreError
from hktune.core.outcome import Source, Stage, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.dispatch import read_table, sign_table
from hktune.store import Environment, TrialStore, merge, origin_texts, read_origins, read_trials, write_environment
from hktune.store.environment import driver_version
from hktune.tables import BuildOptions, build_table

PROBLEM, OTHER = Problem(512, 256, 64), Problem(1024, 256, 64)
ENVIRONMENT = Environment(
    MI355X, "clang 22", None, ("hktune", "tune"), 0, "2026-11-22T18:00:00Z", "abc" * 13 + "d",
    {"hktune": "0.1.0", "driver": "6.12.12"},
)  # fmt: skip
NAMES = ("ann", "bob", "eve")


def measured(time_us: float, half_us: float = 0.5, problem: Problem = PROBLEM, **fields: Any) -> Trial:
    known = {"time_us_low": time_us - half_us, "time_us_high": time_us + half_us, "samples": 10, "baseline_us": 20.0}
    known |= {"device": MI355X.name, "started_at": "2026-11-22T18:00:00Z", "baseline": "rocBLAS"}
    return trial(problem, time_us, **{"source": Source.MEASURED, **known, **fields})


def directory(folder: Path, *rows: Trial, environment: Environment | None = ENVIRONMENT) -> Path:
    TrialStore(folder).extend(rows)
    if environment:
        write_environment(environment, folder)
    return folder


def people(root: Path, *rows: Trial) -> list[Path]:
    """A directory for each row."""
    return [directory(root / name, row) for name, row in zip(NAMES, rows, strict=False)]


def test_what_two_measured_is_one_row_that_holds_both_intervals(tmp_path: Path) -> None:
    ann, bob = people(tmp_path, measured(10.0, samples=30), measured(10.4, samples=10, baseline_us=24.0))
    merged = merge([ann, bob], tmp_path / "all")
    [row] = merged.trials
    assert row.time_us == pytest.approx((30 * 10.0 + 10 * 10.4) / 40)
    assert (row.time_us_low, row.time_us_high, row.samples) == (9.5, 10.9, 40)
    assert row.baseline_us == pytest.approx((30 * 20.0 + 10 * 24.0) / 40)
    assert row.tflops == pytest.approx(2 * math.prod((512, 256, 64)) / row.time_us / 1e6)
    assert row.origin == "+".join(sorted(merged.origins))
    assert {origin.name for origin in merged.origins.values()} == {"ann", "bob"}
    assert not [line for line in merged.remarks if "disagree" in line]


def test_times_without_a_common_one_are_listed_worst_first(tmp_path: Path) -> None:
    ann = directory(tmp_path / "ann", measured(10.0), measured(10.0, problem=OTHER))
    bob = directory(tmp_path / "bob", measured(12.0), measured(20.0, problem=OTHER))
    merged = merge([ann, bob], tmp_path / "all")
    assert [(row.time_us, row.time_us_low, row.time_us_high) for row in merged.trials] == [
        (15.0, 9.5, 20.5),
        (11.0, 9.5, 12.5),
    ]
    count, first, second = merged.remarks[-3:]
    assert count == "2 disagreements beyond noise:"
    assert f"{OTHER} config" in first
    assert "(+100.0%)" in first
    assert "(+20.0%)" in second


def test_a_kernel_that_is_right_by_one_and_wrong_by_another_is_listed(tmp_path: Path) -> None:
    wrong = replace(measured(10.0), status=Status.WRONG, time_us=None, source=None, time_us_low=None, time_us_high=None)
    merged = merge(people(tmp_path, measured(10.0), wrong), tmp_path / "all")
    assert len(merged.trials) == 2
    assert merged.remarks[0] == "1 disagreements beyond noise:"
    assert "ok in " in merged.remarks[1]
    assert "wrong in " in merged.remarks[1]


def test_other_stages_other_objects_and_modelled_times_stay_rows_of_their_own(tmp_path: Path) -> None:
    for number, other in enumerate(
        (
            measured(10.1, stage=Stage.CONFIRMED),
            measured(10.1, object_sha256="1" * 64),
            measured(10.1, cache="warm"),
            replace(measured(10.1), source=Source.MODELLED),
            measured(10.1, left_early=True),
        )
    ):
        root = tmp_path / str(number)
        assert len(merge(people(root, measured(10.0), other), root / "all").trials) == 2


def test_the_order_of_merging_decides_nothing_and_merging_again_changes_nothing(tmp_path: Path) -> None:
    folders = people(tmp_path, measured(10.0), measured(10.3), measured(10.6))
    merge(folders, tmp_path / "all")
    names = ("trials.csv", "origins.json", "environment.json")
    before = [(tmp_path / "all" / name).read_bytes() for name in names]
    merge(folders[::-1], tmp_path / "back")
    assert [(tmp_path / "back" / name).read_bytes() for name in names] == before
    for again in (folders[:1], [tmp_path / "back"], folders):
        merge(again, tmp_path / "all")
        assert [(tmp_path / "all" / name).read_bytes() for name in names] == before
    merge(folders[:2], tmp_path / "two")
    merge([folders[2]], tmp_path / "two")
    [row], [whole] = read_trials(tmp_path / "two" / "trials.csv"), read_trials(tmp_path / "all" / "trials.csv")
    assert row.time_us == pytest.approx(whole.time_us)
    assert (row.time_us_low, row.time_us_high, row.samples, row.origin) == (9.5, 11.1, 30, whole.origin)


def test_an_origin_stays_the_same_when_its_directory_grows(tmp_path: Path) -> None:
    ann, bob = people(tmp_path, measured(10.0), measured(10.3))
    first = merge([ann, bob], tmp_path / "all")
    TrialStore(ann).append(measured(5.0, problem=OTHER, started_at="2026-11-23T18:00:00Z"))
    write_environment(replace(ENVIRONMENT, started_at="2026-11-23T18:00:00Z"), ann)
    again = merge([ann, bob], tmp_path / "all")
    assert again.origins.keys() == first.origins.keys()
    assert [row.time_us for row in again.trials] == [row.time_us for row in first.trials] + [5.0]


def test_unlike_boards_are_refused_in_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    other = replace(MI355X, name="AMD Instinct MI350X", pci_id="0x75a0")
    ann = directory(tmp_path / "ann", measured(10.0))
    bob = directory(
        tmp_path / "bob", measured(10.0, device=other.name), environment=replace(ENVIRONMENT, identity=other)
    )
    with pytest.raises(StoreError, match=r"\A[^\n]*unlike devices: [^\n]*MI350X[^\n]*: merge each device's into a DIR"):
        merge([ann, bob], tmp_path / "all")
    assert not (tmp_path / "all" / "origins.json").exists()
    assert not (tmp_path / "all" / "trials.csv").exists()


def test_origins_say_device_driver_and_commit(tmp_path: Path) -> None:
    ann, bob = people(tmp_path, measured(10.0), measured(10.3))
    merge([ann, directory(tmp_path / "bare", measured(9.0), environment=None)], tmp_path / "all")
    by_name = {origin.name: origin for origin in read_origins(tmp_path / "all").values()}
    assert by_name["ann"].driver == "6.12.12"
    assert "driver 6.12.12, commit abcabcabcabc" in str(by_name["ann"])
    assert (by_name["bare"].device, by_name["bare"].commit) == (MI355X.name, None)
    merge([bob, tmp_path / "all"], tmp_path / "more")
    assert {origin.name for origin in read_origins(tmp_path / "more").values()} == {"ann", "bare", "bob"}


def test_a_table_of_merged_rows_says_where_each_is_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    ann = directory(tmp_path / "ann", measured(10.0), measured(3.0, problem=OTHER))
    merged = merge([ann, *people(tmp_path / "b", measured(10.3))], tmp_path / "all")
    options = BuildOptions(origins=origin_texts([tmp_path / "all"]))
    table = build_table(merged.trials, launch_of, MI355X, "clang 22", "0.1.0", "2026-11-22T18:00:00Z", options)
    both, one = (entry.origins for entry in table.entries)
    assert both
    assert one
    assert [len(both), len(one)] == [2, 1]
    assert all("driver 6.12.12" in origin for origin in both)
    published(tmp_path / "plain", *merged.trials, identity=MI355X)
    assert read_table(tmp_path / "plain").entries[0].origins
    assert main(["table", "show", str(tmp_path / "plain")]) == 0
    assert f"from {one[0][:12]} of which nothing is known" in capsys.readouterr().out


def test_a_table_without_origins_has_the_content_that_it_had() -> None:
    [entry] = table_of(measured(10.0), identity=MI355X).entries
    assert entry.origins is None


@pytest.fixture
def key(tmp_path: Path) -> Path:
    pytest.importorskip("cryptography")
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    private, public = tmp_path / "ann.pem", tmp_path / "ann.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return tmp_path / "ann.pub"


def test_whose_key_signed_the_table_of_an_origin_is_said(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ann = directory(tmp_path / "ann", measured(10.0), measured(3.0, problem=OTHER))
    published(ann, measured(10.0), identity=MI355X)
    sign_table(ann, key.with_suffix(".pem"))
    [bob] = people(tmp_path / "b", measured(10.3))
    assert main(["merge", str(ann), str(bob), "--key", str(key), "-o", str(tmp_path / "all")]) == 0
    der = subprocess.run(["openssl", "pkey", "-pubin", "-in", key, "-outform", "DER"], check=True, capture_output=True)
    digest = subprocess.run(["sha256sum"], input=der.stdout, check=True, capture_output=True).stdout.decode().split()[0]
    assert f"signed by ann.pub {digest[:16]}" in capsys.readouterr().out
    signed = [origin for origin in read_origins(tmp_path / "all").values() if origin.signed_by]
    assert [(each.name, each.signed_by[0].kernels, each.signed_by[0].among_rows) for each in signed] == [("ann", 1, 1)]


def test_a_signature_of_somebody_else_is_one_line(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ann = directory(tmp_path / "ann", measured(10.0))
    published(ann, measured(10.0), identity=MI355X)
    sign_table(ann, key.with_suffix(".pem"))
    (ann / "table.json.sig").write_bytes(bytes(64))
    assert main(["merge", str(ann), "--key", str(key), "-o", str(tmp_path / "all")]) == 2
    assert "its table is signed, by none of " in capsys.readouterr().err
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"origins": 3}',
        '{"origins": [{"id": "../../etc", "name": "a"}]}',
        '{"origins": [{"id": "0123456789ab", "name": "a\\u001b[2J"}]}',
        '{"origins": [{"id": "0123456789ab", "name": "a", "name": "b"}]}',
        '{"origins": [{"id": "0123456789ab", "name": "a", "signed_by": [{"key": "k", "sha256": "x"}]}]}',
        json.dumps({"origins": [{"id": "0123456789ab", "name": "a"}] * 301}),
        '{"origins": [], "version": 2}',
        '{"origins": [], "colour": "red"}',
    ],
)
def test_malformed_origins_are_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "origins.json").write_text(text)
    with pytest.raises(StoreError, match=r"\A[^\n]*not origins of hktune[^\n]*\Z"):
        read_origins(tmp_path)


NVIDIA, AMD = "proc/driver/nvidia/version", "sys/module/amdgpu/version"
OF_NVIDIA = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n"


@pytest.mark.parametrize(
    ("kind", "path", "text", "version"),
    [
        ("cuda", NVIDIA, OF_NVIDIA, "535.129.03"),
        ("cuda", NVIDIA, OPEN, "580.95.05"),
        ("hip", AMD, "6.12.12\n", "6.12.12"),
        ("hip", AMD, "\x1b[2J", None),
        ("hip", "elsewhere", "6.12.12\n", None),
        ("emulated", AMD, "6.12.12\n", None),
    ],
)
def test_the_drivers_version(tmp_path: Path, kind: str, path: str, text: str, version: str | None) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(text)
    assert driver_version(kind, tmp_path) == version
