"""A remembered proof is one of exactly this kernel, launched exactly so, under exactly this judge."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hktune
from hktune.core.arch import GFX950
from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.launch import Launch
from hktune.core.operation import BF16_NT_BIAS, Operation
from hktune.core.variant import CodeObject, Resources, Variant
from hktune.space import load_space
from hktune.template import load_template
from hktune.verify import emulated_proof, record
from hktune.verify.emulated_proof import ProofTask
from hktune.verify.record import RecordStore, judge_files, judge_sha256
from hktune.workers.prover import Prover

SPACE = Path(__file__).resolve().parents[2] / "search_spaces" / "gfx950_gemm_bf16.yaml"
RESOURCES = Resources(8, 0, 16, 0, 0, 4096, 0, 512)


class Given:
    """A compiler that has compiled everything already."""

    identity = "given"

    def compile(self, variant: Variant, deadline_s: float) -> CodeObject:
        return CodeObject(b"bytes", "5" * 64, variant.symbol, variant.arch, RESOURCES, self.identity, 0.0)


def task_of(template_folder: Path, config: Config, seed: int = 3) -> ProofTask:
    """The task that a worker would prove, made by the worker's own code."""
    prover = Prover(load_template(template_folder), Given(), RecordStore(Path("unused")), seed)
    return prover.task(Given().compile(prover.template.render(config), 1.0), Candidate(config))


@pytest.fixture(scope="module")
def task() -> ProofTask:
    space = load_space(SPACE)
    prover = Prover(space.template, Given(), RecordStore(Path("unused")), 3)
    return prover.task(Given().compile(space.template.render(space.config({})), 1.0), Candidate(space.config({})))


def changed(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """`value` with one leaf of it changed, for every leaf, whatever fields its classes have."""
    if isinstance(value, Operation):
        other = {"a": "f16", "layout": "nn", "b": "f16", "c": "f32", "epilogue": BF16_NT_BIAS.epilogue}
        other |= {"scales": "rows", "kind": "grouped", "count": 8, "accumulation": "fast"}
        for field in dataclasses.fields(value):
            unlike = () if value.epilogue and field.name == "epilogue" else other[field.name]
            counted = {"kind": "grouped"} if field.name == "count" else {}
            yield f"{path}.{field.name}", replace(value, **counted, **{field.name: unlike})
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            for name, new in changed(getattr(value, field.name), f"{path}.{field.name}"):
                yield name, replace(value, **{field.name: new})
    elif value is None:
        yield path, 0  # which the key must not take for none
    elif value == ():
        yield path, (("bt", "transposed"),)
    elif isinstance(value, tuple):
        yield f"{path} without its last", value[:-1]
        for index, item in enumerate(value):
            for name, new in changed(item, f"{path}[{index}]"):
                yield name, (*value[:index], new, *value[index + 1 :])
    elif isinstance(value, str):
        yield path, value + "x"
    else:
        assert isinstance(value, int), f"{path} is a {type(value).__name__}: say here how to change it"
        yield path, value + 1


def test_every_part_of_what_a_proof_is_handed_is_in_the_key(task: ProofTask) -> None:
    store = RecordStore(Path("unused"))
    variations = dict(changed(task, "task"))
    for part in ("seed", "launches[0].launch.dynamic_lds_bytes", "launches[1].what.padding", "tile.k", "arch.name"):
        assert f"task.{part}" in variations
    keys = {name: store.key(variation) for name, variation in variations.items()}
    assert store.key(task) not in keys.values()
    assert len(set(keys.values())) == len(keys)


def test_a_proof_is_handed_nothing_else() -> None:
    """Whoever gives a proof more to depend on has to put it into the task, or say here why its outcome cannot."""
    for function, parameters in (
        (emulated_proof.prove_all, ["data", "task", "until"]),  # a timeout is not kept
        (emulated_proof.prove_one, ["data", "task", "launch", "until"]),
    ):
        assert list(inspect.signature(function).parameters) == parameters


EDITS = {
    "dynamic LDS": ("  dynamic_lds_bytes: lds_bytes", "  dynamic_lds_bytes: lds_bytes + 16"),
    "block": ("block: [warps * arch.wave_size, 1, 1]", "block: [arch.wave_size, warps, 1]"),
    "grid": ('grid: ["(m // block_m) * (n // block_n)", 1, 1]', 'grid: [1, "(m // block_m) * (n // block_n)", 1]'),
    "workspace": ("  dynamic_lds_bytes: lds_bytes", "  dynamic_lds_bytes: lds_bytes\n  workspace_bytes: 65536"),
    "tile": ("tile: {m: block_m, n: block_n, k: 64}", "tile: {m: block_m, n: block_n, k: 32}"),
    "arguments": ("  - {name: m, kind: i32}", "  - {name: n, kind: i32}"),
    "padding": ("k: 64 * (stages + 4)}", "k: 64 * (stages + 4), padding: 8}"),
    "another proof": ("proof: [{", "proof: [{m: 512, n: 512, k: 64}, {"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_template_is_proved_anew(toy_space_path: Path, tmp_path: Path, edit: str) -> None:
    """Of a template whose kernel stays byte for byte the same."""
    toy = toy_space_path.parents[1] / "kernels" / "gfx950" / "toy"
    config = load_space(toy_space_path).config({})
    before, after = EDITS[edit]
    text = (toy / "template.yaml").read_text()
    assert before in text
    (tmp_path / "template.yaml").write_text(text.replace(before, after))
    (tmp_path / "toy.hip").write_bytes((toy / "toy.hip").read_bytes())
    store = RecordStore(tmp_path)
    assert store.key(task_of(toy, config)) != store.key(task_of(tmp_path, config))
    assert store.key(task_of(toy, config)) == store.key(task_of(toy, config))


def test_the_judge_is_every_file_that_a_proof_runs() -> None:
    """By what Python has loaded once a proof's module is imported, alone in a fresh process."""
    code = (
        f"import sys, {emulated_proof.__name__}; print(*(getattr(m, '__file__', None) for m in sys.modules.values()))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    root = Path(hktune.__file__).parent
    loaded = {Path(name) for name in ran if name.startswith(str(root))} - {
        root / "__init__.py",
        root / "core" / "version.py",
    }
    files = set(judge_files())
    assert loaded <= files
    assert root / "emulator" / "instructions" / "cdna4.json" in files


def test_another_judge_or_another_numpy_proves_anew(task: ProofTask, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RecordStore(Path("unused"))
    key = store.key(task)
    with monkeypatch.context() as patched:
        patched.setattr(np, "__version__", "0.0.1")
        assert store.key(task) != key
    monkeypatch.setattr(record, "judge_sha256", lambda: "another")
    assert store.key(task) != key


def test_the_judge_changes_with_any_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(hktune.__file__).parent
    shutil.copytree(root, tmp_path / "hktune", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(record, "PACKAGE", tmp_path / "hktune")
    before = judge_sha256.__wrapped__()
    for name in (
        "device/amd_launch.py",
        "emulator/instructions/cdna4.json",
        "core/arch.py",
        "core/dtype.py",
        "verify/reference.py",
    ):
        with (tmp_path / "hktune" / name).open("a") as file:
            file.write(" ")
        after = judge_sha256.__wrapped__()
        assert after != before, name
        before = after


def test_launch_and_arch_are_what_is_launched(task: ProofTask) -> None:
    assert task.arch is GFX950
    assert all(isinstance(each.launch, Launch) for each in task.launches)
