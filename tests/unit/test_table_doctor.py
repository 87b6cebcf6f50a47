"""`hktune table doctor` and `build`, as a user meets them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from gemm_bf16_variants import ROOT, built, space
from naive_gemm import EMULATED, MI355X, OBJECT, SHA256, published, reseal, trial

from hktune.cli import main
from hktune.core.config import Config
from hktune.core.identity import Identity
from hktune.core.operation import Operation, operation_of
from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.core.variant import CodeObject
from hktune.dispatch import read_table
from hktune.dispatch.calls import CALLS_SAID
from hktune.space import load_space
from hktune.store import TrialStore, capture_environment, write_environment
from hktune.tables.findings import Call, Finding, examine_table

SMALL, LARGE = Problem(8, 128, 64), Problem(64, 128, 64)
CALLS = [Call(SMALL, "small", 3.0), Call(LARGE, "large", 1.0)]


def measured(problem: Problem, **fields: Any) -> Trial:
    return trial(problem, source=Source.MEASURED, device=MI355X.name, **fields)


def findings(directory: Path, calls: list[Call] = CALLS, identity: Identity | None = MI355X) -> list[Finding]:
    return examine_table(directory, calls, identity, {"naive_gemm": "0" * 64})


def lines(directory: Path, calls: list[Call] = CALLS, identity: Identity | None = MI355X) -> list[str]:
    return [str(finding) for finding in findings(directory, calls, identity)]


def test_a_sound_table_has_nothing_wrong(tmp_path: Path) -> None:
    published(tmp_path, measured(SMALL), measured(LARGE), identity=MI355X)
    assert lines(tmp_path) == []
    assert lines(tmp_path, [*CALLS, Call(Problem(16, 128, 64), "between", 4.0)]) == [
        "note: near shape: 16x128x64 bf16.nt (between) is served by a neighbour: tune it to be sure"
    ]
    assert lines(tmp_path, CALLS[:1]) == [
        "note: unused rows: 1 rows (64x128x64 bf16.nt) serve none of these shapes: keep them, or build without"
    ]


def test_each_fault_is_one_line_with_a_next_step(tmp_path: Path) -> None:
    published(tmp_path, measured(SMALL), identity=MI355X)
    assert lines(tmp_path) == ["wrong: uncovered shape: 64x128x64 bf16.nt (large), 25.0% of calls: tune it"]
    other = replace(MI355X, compute_units=304)
    assert lines(tmp_path, CALLS[:1], other) == [
        "wrong: other device (8x128x64 bf16.nt): measured on another device: saved=compute_units:256 pci_id:0x75a3 "
        "partition:SPX current=compute_units:304 pci_id:0x75a3 partition:SPX: tune on this device",
        "wrong: uncovered shape: 8x128x64 bf16.nt (small), 100.0% of calls: tune it",
    ]
    sibling = replace(MI355X, pci_id="0x75a0")
    assert lines(tmp_path, CALLS[:1], sibling)[0].startswith(
        "wrong: other device (8x128x64 bf16.nt): measured on a sibling of this device, and allow_sibling_board is False"
    )
    (tmp_path / "objects" / f"{SHA256}.hsaco").write_bytes(OBJECT[:-1])
    assert lines(tmp_path, [])[0].startswith("wrong: object changed (8x128x64 bf16.nt): ")
    (tmp_path / "objects" / f"{SHA256}.hsaco").unlink()
    assert lines(tmp_path, [])[0].endswith("is not there: copy objects/ along with table.json")
    assert lines(tmp_path / "nowhere", [])[0].startswith("wrong: table: ")


def test_duplicates_and_edits_are_wrong_whole(tmp_path: Path) -> None:
    published(tmp_path, measured(SMALL), identity=MI355X)
    path = tmp_path / "table.json"
    row = path.read_text().split("[\n")[1].split("\n ]")[0]
    path.write_text(path.read_text().replace(row, f"{row},\n{row}"))
    (duplicate,) = lines(tmp_path, [])
    assert "8x128x64 bf16.nt has two entries: keep one" in duplicate
    published(tmp_path, measured(SMALL), identity=MI355X)
    path.write_text(path.read_text().replace('"grid": [2, "m", 1]', '"grid": [3, "m", 1]'))
    (edited,) = lines(tmp_path, [])
    assert "damaged or edited: content_sha256 saved=" in edited


def test_rows_that_no_call_can_reach_modelled_ones_and_refused_kernels_are_wrong(tmp_path: Path) -> None:
    published(tmp_path, trial(SMALL), trial(LARGE))
    assert lines(tmp_path, CALLS, EMULATED) == [
        "wrong: modelled rows: 2 of 2 rows (8x128x64 bf16.nt and 1 more), 100.0% of calls: measure them on the "
        "device, or load with allow_modelled=True"
    ]
    published(tmp_path, measured(SMALL), identity=MI355X)
    reseal(tmp_path, lambda text: text.replace('"bf16.nt"', '"e4m3.nt->bf16"'))
    assert lines(tmp_path, []) == [
        f"wrong: unreachable row: 8x128x64 e4m3.nt->bf16, but calls ask for {CALLS_SAID}: leave it out of the trials"
    ]
    published(tmp_path, measured(Problem(8, 128, 64, Operation("f16"))), identity=MI355X)
    assert lines(tmp_path, []) == []
    published(tmp_path, measured(SMALL), identity=MI355X)
    reseal(tmp_path, lambda text: text.replace('"dynamic_lds_bytes": 0', '"dynamic_lds_bytes": 200000'))
    assert lines(tmp_path, [])[0] == (
        "wrong: resources (8x128x64 bf16.nt): needs lds_bytes=200000, gfx950 has 163840: a driver would refuse it: "
        "tune that shape again"
    )
    published(tmp_path, identity=MI355X)
    assert lines(tmp_path, []) == ["wrong: entries: the table has none: tune some shapes into it"]


def test_the_command_exits_with_1_when_something_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published(tmp_path, measured(SMALL), identity=MI355X)
    device = tmp_path / "environment.json"
    write_environment(capture_environment(MI355X, "clang", None, ["hktune"], 0, "now"), tmp_path)
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text("shapes:\n  - {m: [8, 64], n: 128, k: 64}\n")
    words = ["table", "doctor", str(tmp_path), "--device", str(device)]
    assert main(words) == 0
    assert "0 wrong, 0 notes; judged for kind=hip arch=gfx950" in capsys.readouterr().out
    assert main([*words, "--shapes", str(shapes)]) == 1
    assert "uncovered shape: 64x128x64 bf16.nt, 50.0% of calls: tune it" in capsys.readouterr().out
    assert main([*words[:-1], str(tmp_path / "gone" / "environment.json")]) == 2


def test_a_shape_that_no_call_asks_for_cannot_be_tuned(tmp_path: Path) -> None:
    published(tmp_path, measured(SMALL), identity=MI355X)
    problem = Problem(64, 128, 64, Operation("e4m3", c="bf16"))
    asked = f"but calls ask for {CALLS_SAID}: leave it out of the shapes"
    sizes = "64x128x64 e4m3.nt->bf16"
    for name, label in ((str(problem), sizes), ("attention", f"{sizes} (attention)")):
        calls = [Call(SMALL, "small", 1.0), Call(problem, name, 3.0)]
        assert lines(tmp_path, calls) == [f"wrong: uncovered shape: {label}, 75.0% of calls, {asked}"]


def test_modelled_times_can_be_allowed_and_then_nothing_else_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that a pipeline of hktune's own emulated results can be guarded."""
    published(tmp_path, trial(SMALL), trial(LARGE, 3.0))
    words = ["table", "doctor", str(tmp_path)]
    assert main(words) == 1
    assert "wrong: modelled rows: 2 of 2 rows" in capsys.readouterr().out
    assert main([*words, "--allow-modelled"]) == 0
    out = capsys.readouterr().out
    assert "note: modelled rows: 2 of 2 rows" in out
    assert "0 wrong, 1 notes" in out
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text("shapes:\n  - {m: 999, n: 128, k: 64}\n")
    assert main([*words, "--allow-modelled", "--shapes", str(shapes)]) == 1
    assert "wrong: uncovered shape" in capsys.readouterr().out
    (tmp_path / "objects" / f"{SHA256}.hsaco").unlink()
    assert main([*words, "--allow-modelled"]) == 1


SEED = space().config({"block_m": 64, "block_n": 64, "warps_n": 2, "split": 1})


def row(m: int, time_us: float, config: Config = SEED, **fields: Any) -> Trial:
    code = built(config)
    made = trial(Problem(m, 128, 256), time_us, **fields)
    names = {"template": space().template.name, "template_sha256": space().template.sha256}
    return replace(
        made, config_id=config.id, config=config.json, object_sha256=code.sha256, compiler=code.compiler, **names
    )


def tuned(directory: Path, *trials: Trial, identity: Identity = EMULATED) -> Path:
    TrialStore(directory).extend(trials)
    write_environment(capture_environment(identity, "clang", None, ["hktune"], 0, "now"), directory)
    return directory


def test_a_table_is_built_of_shards_and_is_the_same_in_any_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # what a terminal of 80 cuts off is asked for below
    first, second = tuned(tmp_path / "a", row(16, 2.0)), tuned(tmp_path / "b", row(64, 3.0), row(16, 2.0))
    out, again = tmp_path / "out", tmp_path / "again"
    assert main(["table", "build", str(first), str(second / "trials.csv"), "-o", str(out), "--reproducible"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("2 shapes by 1 kernels, 0 by the vendor library; 1 serve other m too\n")
    assert "\noperations: bf16.nt\n" in said
    assert said.endswith(f"next: hktune table doctor {out}\n")
    table = read_table(out)
    assert [(entry.m, entry.rows) for entry in table.entries] == [(16, (16, 63)), (64, (64, 64))]
    assert all(entry.kernel and entry.kernel.reproducible for entry in table.entries)
    assert [path.stem for path in (out / "objects").iterdir()] == [built(SEED).sha256]
    assert main(["table", "build", str(second), str(first), "-o", str(again)]) == 0

    def content(directory: Path) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((directory / "table.json").read_text())
        return {name: value for name, value in document.items() if name not in ("created_at", "content_sha256")}

    assert content(out) == content(again)
    assert main(["table", "show", str(out)]) == 0
    assert "m=16..63" in capsys.readouterr().out


def test_names_come_from_a_shapes_file_and_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory, out = tuned(tmp_path / "a b", row(16, 2.0), row(64, 3.0)), tmp_path / "out"
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text("shapes:\n  - {name: decode, m: 16, n: 128, k: 256}\n")
    assert main(["table", "build", str(directory), "-o", str(directory), "--shapes", str(shapes)]) == 0
    assert f"next: hktune table doctor '{directory}'" in capsys.readouterr().out
    assert main(["table", "build", str(directory), "-o", str(out)]) == 0
    assert [entry.name for entry in read_table(out).entries] == ["decode", None]


def test_objects_beside_the_trials_are_taken_and_others_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sha256 = SHA256  # bytes that the compiler never makes of this config
    directory = tuned(tmp_path / "a", replace(row(16, 2.0), object_sha256=sha256))
    words = ["table", "build", str(directory), "-o", str(tmp_path / "out")]
    assert main(words) == 2
    assert f"cannot be built again: saved={sha256} current=" in capsys.readouterr().err
    (directory / "objects").mkdir()
    (directory / "objects" / f"{sha256}.hsaco").write_bytes(OBJECT)
    assert main(words) == 0
    assert (tmp_path / "out" / "objects" / f"{sha256}.hsaco").read_bytes() == OBJECT


@pytest.mark.parametrize("missing", ["environment", "trials", "template", "ok"])
def test_what_cannot_be_built_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str) -> None:
    made = row(16, 2.0)
    if missing == "template":
        made = replace(made, template_sha256="1" * 64)
    if missing == "ok":
        made = replace(made, status=Status.WRONG)
    directory = tuned(tmp_path / "a", made)
    if missing in ("environment", "trials"):
        next(directory.glob(f"{missing}.*")).unlink()
    assert main(["table", "build", str(directory), "-o", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert {"environment": "keep it with", "trials": "cannot be read"}.get(missing, "tune again") in err


@pytest.mark.parametrize(
    ("operation", "nearest"),
    [("f16.nn->bf16", "f16.nn"), ("batched8.f32.nt", "batched.bf16.nt->f32"), ("f16.nt.rows", "f16.nt")],
)
def test_trials_that_the_space_has_no_place_for_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], operation: str, nearest: str
) -> None:
    foreign = replace(row(16, 1.0), operation=operation_of(operation))
    other = Config({"block_m": 64})
    elsewhere = replace(row(32, 1.0), config=other.json, config_id=other.id)
    directory = tuned(tmp_path / "a", row(16, 2.0), foreign, elsewhere, replace(foreign, m=32))
    assert main(["table", "build", str(directory), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "\n3 ok trials that gfx950_gemm_bf16 has no place for are left out; the first is of 16x128x256" in said
    assert f"cannot do {operation}: it does {nearest}, " in said
    assert [entry.problem for entry in read_table(tmp_path / "out").entries] == [Problem(16, 128, 256)]
    alone = tuned(tmp_path / "b", foreign)
    assert main(["table", "build", str(alone), "-o", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert (
        f"1 ok trials that gfx950_gemm_bf16 has no place for are left out; the first is of 16x128x256 {operation}"
        in err
    )
    assert err.endswith(": tune again\n")


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (space().template.name, "the template has changed since: tune again, or build with the hktune that made them"),
        ("gfx950/other", "pass the --space that they were drawn from, or tune again"),
    ],
)
def test_trials_of_another_template_say_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], template: str, says: str
) -> None:
    directory = tuned(tmp_path / "a", replace(row(16, 2.0), template=template, template_sha256="1" * 64))
    assert main(["table", "build", str(directory), "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.endswith(f": {says}\n")


def test_trials_of_several_devices_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = tuned(tmp_path / "a", row(16, 2.0))
    second = tuned(tmp_path / "b", row(64, 2.0), identity=MI355X)
    assert main(["table", "build", str(first), str(second), "-o", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert all(str(value) in err for value in ["emulated MI355X", MI355X.name, asdict(MI355X)["pci_id"]])
    mixed = [row(16, 2.0, source=Source.MEASURED, device=name) for name in ("AMD Instinct MI350X", MI355X.name)]
    third = tuned(tmp_path / "c", mixed[0], replace(mixed[1], m=64), identity=MI355X)
    assert main(["table", "build", str(third), "-o", str(tmp_path / "out")]) == 2
    assert "measured on AMD Instinct MI350X and AMD Instinct MI355X" in capsys.readouterr().err


def test_a_table_of_cubins_is_built_shown_and_examined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="pip install 'hktune[cuda]'")
    from hktune.compile.nvrtc import NvrtcCompiler

    path = ROOT / "search_spaces" / "sm90a_gemm_bf16.yaml"
    cuda = load_space(path)
    config = cuda.seeds[8]
    code = NvrtcCompiler().compile(cuda.template.render(config), 120.0)
    assert isinstance(code, CodeObject), code
    h100 = Identity("cuda", "sm90a", "NVIDIA H100 80GB HBM3", 132, "10de:2330:16c1")
    fields = {"config_id": config.id, "config": config.json, "object_sha256": code.sha256, "target": "sm90a"}
    fields |= {"template": cuda.template.name, "template_sha256": cuda.template.sha256, "device": h100.name}
    rows = [trial(Problem(m, 512, 256), float(m), source=Source.MEASURED, **fields) for m in (64, 256)]
    directory, out = tuned(tmp_path / "a", *rows, identity=h100), tmp_path / "out"
    assert main(["table", "build", str(directory), "-o", str(out), "--space", str(path)]) == 0
    assert [entry.rows for entry in read_table(out).entries] == [(64, 255), (256, 256)]
    assert (out / "objects" / f"{code.sha256}.cubin").read_bytes() == code.data
    assert main(["table", "show", str(out)]) == 0
    assert main(["table", "doctor", str(out), "--device", str(directory)]) == 0
    assert "0 wrong, 0 notes; judged for kind=cuda arch=sm90a" in capsys.readouterr().out
