"""Building with no GPU what a GPU machine then finds: which configs, what is left behind, what is refused."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from hktune.cli import main
from hktune.compile import CachedCompiler
from hktune.core.config import Value
from hktune.core.errors import InputError, MachineError, StoreError, ToolchainError
from hktune.core.operation import BF16_NT, Operation
from hktune.core.outcome import Failure, Status
from hktune.core.problem import Problem
from hktune.core.variant import CodeObject, Resources, Variant
from hktune.space import SearchSpace, load_space
from hktune.tuning.benches.prebuilt import (
    Built,
    Wanted,
    build,
    built_compiler,
    read_built,
    read_configs,
    replaced_build,
)

RESOURCES = Resources(32, 0, 16, 0, 0, 0, 0, 256)
PROBLEM = Problem(512, 1024, 1024)


class Counting:
    """A compiler that remembers what it was asked, and cannot do three stages."""

    identity = "counting 1"

    def __init__(self) -> None:
        self.asked: list[Variant] = []

    def compile(self, variant: Variant, deadline_s: float) -> CodeObject | Failure:
        self.asked.append(variant)
        if variant.config["stages"] == 3:
            return Failure(Status.COMPILE_ERROR, "toy.hip:3: error: too many stages")
        data = variant.source.encode()
        sha256 = hashlib.sha256(data).hexdigest()
        return CodeObject(data, sha256, variant.symbol, variant.arch, RESOURCES, self.identity, 0.1)


@pytest.fixture
def space(toy_space_path: Path) -> SearchSpace:
    return load_space(toy_space_path)


def quiet(done: int) -> None: ...


def test_what_was_built_is_found_on_a_machine_with_no_compiler(space: SearchSpace, tmp_path: Path) -> None:
    compiler, configs = Counting(), Wanted(random=5, seed=1).configs(space)
    summary = build(space, CachedCompiler(compiler, tmp_path), configs, tmp_path, 2, quiet)
    assert sum(summary.statuses.values()) == len(configs) == len(space.seeds) + 5
    assert read_built(tmp_path, space) == configs
    there = built_compiler(tmp_path)
    assert there.identity == compiler.identity
    outcomes = [there.compile(space.template.render(config), 1.0) for config in configs]
    assert sum(isinstance(outcome, CodeObject) for outcome in outcomes) == summary.statuses[Status.OK]
    absent = next(config for config in space.enumerate() if config not in configs)
    with pytest.raises(ToolchainError, match="only --prebuilt objects are used"):
        there.compile(space.template.render(absent), 1.0)


def test_the_command_shows_a_failure_of_each_kind_and_what_to_type(
    space: SearchSpace,
    toy_space_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "built here"
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("hktune.compile.compiler_for", lambda *_: CachedCompiler(Counting(), out))
    assert main(("build", "--space", str(toy_space_path), "--all", "-o", str(out))) == 0
    lines = capsys.readouterr().out.splitlines()
    failed = [config for config in read_built(out, space) if config["stages"] == 3]
    said = " ".join(" ".join(lines).split())
    assert f"{len(failed)} compile_error, for example {failed[0].id[:8]}: toy.hip:3: error: too many stages" in said
    [again] = [shlex.split(line.partition("see it: ")[2]) for line in lines if "see it: " in line]
    assert again == ["hktune", "verify", "--space", str(toy_space_path), f"{out}:{failed[0].id}"]
    then = shlex.split(lines[-1].partition("hktune tune ")[2])
    assert then == ["--shapes", "FILE", "--space", str(toy_space_path), "--prebuilt", str(out)]


def test_a_second_build_compiles_what_is_new_and_keeps_the_list(space: SearchSpace, tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    seeds, more = Wanted().configs(space), Wanted(near_seeds=True).configs(space)
    build(space, CachedCompiler(first, tmp_path), seeds, tmp_path, 1, quiet)
    build(space, CachedCompiler(second, tmp_path), more, tmp_path, 1, quiet)
    assert len(second.asked) == len(more) - len(seeds)
    assert read_built(tmp_path, space) == more


def test_each_operation_has_a_list_of_its_own(own_toy_space_path: Path, tmp_path: Path) -> None:
    folder = own_toy_space_path.parent.parent / "kernels" / "gfx950" / "toy"
    text = (folder / "template.yaml").read_text()
    text = text.replace("fields: {", "operations: [bf16.nt, f16.nt]\nfields: {element: operation.a_dtype, ")
    (folder / "template.yaml").write_text(text)
    (folder / "toy.hip").write_text((folder / "toy.hip").read_text() + "using element = ${element};\n")
    space, f16 = load_space(own_toy_space_path), Operation("f16")
    wanted = Wanted(problems=[PROBLEM, replace(PROBLEM, operation=f16)])
    [(usual, configs), (other, same)] = wanted.of_each_operation(space)
    assert (usual.template.operation, other.template.operation) == (BF16_NT, f16)
    assert configs == same
    counting = Counting()
    compiler = CachedCompiler(counting, tmp_path)
    build(usual, compiler, configs, tmp_path, 1, quiet)
    build(other, compiler, same[:1], tmp_path, 1, quiet)
    assert len(counting.asked) == len(configs) + 1, "other code is another object"
    assert read_built(tmp_path, usual) == configs
    assert read_built(tmp_path, other) == same[:1]


def test_with_problems_only_what_is_legal_for_one_of_them(space: SearchSpace) -> None:
    everything = Wanted(everything=True).configs(space)
    for_problem = Wanted(everything=True, problems=[PROBLEM]).configs(space)
    assert set(for_problem) == set(space.enumerate(PROBLEM))
    assert set(everything) == set(space.enumerate())
    small = Problem(256, 512, 64)
    assert 0 < len(Wanted(everything=True, problems=[small]).configs(space)) < len(everything)
    assert all(space.is_legal(config, PROBLEM) for config in Wanted(random=9, problems=[PROBLEM]).configs(space))


def test_a_build_of_another_template_is_refused(space: SearchSpace, tmp_path: Path) -> None:
    build(space, CachedCompiler(Counting(), tmp_path), [space.config({})], tmp_path, 1, quiet)
    record = (tmp_path / "built.json").read_text()
    (tmp_path / "built.json").write_text(record.replace(space.template.sha256, "0" * 64))
    with pytest.raises(StoreError, match=r"another gfx950/toy: saved=000000000000 current="):
        read_built(tmp_path, space)


def test_a_build_that_made_nothing_leaves_the_list_of_another_template(space: SearchSpace, tmp_path: Path) -> None:
    class Broken(Counting):
        def compile(self, variant: Variant, deadline_s: float) -> CodeObject | Failure:
            raise ToolchainError("no compiler")

    words = {"space": space.name, "template": space.template.name, "template_sha256": "1" * 64}
    record = msgspec.json.encode(Built(compiler=Counting.identity, configs=({},), **words))
    (tmp_path / "built.json").write_bytes(record)
    with pytest.raises(ToolchainError, match="no compiler"):
        build(space, CachedCompiler(Broken(), tmp_path), [space.config({})], tmp_path, 1, quiet)
    assert (tmp_path / "built.json").read_bytes() == record


def test_a_list_that_is_replaced_is_said(space: SearchSpace, tmp_path: Path) -> None:
    template = space.template
    name, saved, current = template.name, "1" * 12, template.sha256[:12]
    assert replaced_build(tmp_path, template, "clang 1") == ""
    words = {"space": space.name, "template": template.name, "configs": ({}, {}), "others": {"f16.nt": ({},)}}
    for sha256, says in (
        (
            "1" * 64,
            f"another template: saved={name} {saved} current={name} {current}",
        ),
        (template.sha256, "another compiler: saved=clang 1 current=clang 2"),
    ):
        record = Built(template_sha256=sha256, compiler="clang 1", **words)
        (tmp_path / "built.json").write_bytes(msgspec.json.encode(record))
        said = f"{tmp_path}: 3 configs on its list will be replaced, they are of {says}"
        assert replaced_build(tmp_path, template, "clang 2") == said
    assert replaced_build(tmp_path, template, "clang 1") == ""


@pytest.mark.parametrize("text", [None, "not json", '{"space": "toy"}'])
def test_a_folder_that_is_no_build_is_refused(space: SearchSpace, tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "built.json").write_text(text)
    with pytest.raises(StoreError, match="hktune build"):
        read_built(tmp_path, space)


def test_configs_are_read_a_line_each(space: SearchSpace, tmp_path: Path) -> None:
    listed = tmp_path / "configs.txt"
    listed.write_text("# favourites\nblock_m=256 stages=3  # tall\n\norder=columns\n")
    assert read_configs(listed, space) == [
        space.config({"block_m": 256, "stages": 3}),
        space.config({"order": "columns"}),
    ]
    listed.write_text("block_m=255\n")
    with pytest.raises(InputError, match="255"):
        read_configs(listed, space)
    with pytest.raises(InputError, match="give a file"):
        read_configs(tmp_path / "absent.txt", space)


@pytest.mark.parametrize("change", [{"block_m": 7}, {"order": "x; y"}, {"other": 1}, {"eager": "true"}])
def test_a_list_of_configs_of_another_space_is_refused(
    space: SearchSpace, tmp_path: Path, change: dict[str, Value]
) -> None:
    config = {**space.config({}), **change}
    record = Built(space.name, space.template.name, space.template.sha256, "clang", (config,))
    (tmp_path / "built.json").write_bytes(msgspec.json.encode(record))
    with pytest.raises(StoreError, match=r"built\.json: lists a config of another space \("):
        read_built(tmp_path, space)


def test_a_list_that_is_a_link_a_pipe_or_of_repeated_keys_is_refused(space: SearchSpace, tmp_path: Path) -> None:
    path, real = tmp_path / "built.json", tmp_path / "real"
    record = Built(space.name, space.template.name, space.template.sha256, "clang", (dict(space.config({})),))
    real.write_bytes(msgspec.json.encode(record))
    path.symlink_to(real)
    with pytest.raises(StoreError, match="symbolic link"):
        read_built(tmp_path, space)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreError, match="is a pipe, not a list of built configs"):
        read_built(tmp_path, space)
    path.unlink()
    path.write_bytes(real.read_bytes().replace(b'"stages":2', b'"stages":2,"stages":2'))
    with pytest.raises(StoreError, match="a key is twice"):
        read_built(tmp_path, space)
    path.write_bytes(real.read_bytes())
    assert read_built(tmp_path, space) == [space.config({})]


@pytest.mark.parametrize("ended_by", [KeyboardInterrupt, MachineError])
def test_a_build_that_is_ended_keeps_what_it_has(
    space: SearchSpace, tmp_path: Path, ended_by: type[BaseException]
) -> None:
    configs = Wanted(random=5, seed=1).configs(space)

    def end(done: int) -> None:
        if done == 3:
            raise ended_by("enough")

    with pytest.raises(ended_by):
        build(space, CachedCompiler(Counting(), tmp_path), configs, tmp_path, 1, end)
    assert len(read_built(tmp_path, space)) == 3
    build(space, CachedCompiler(Counting(), tmp_path), configs, tmp_path, 1, quiet)
    assert {config.id for config in read_built(tmp_path, space)} == {config.id for config in configs}


def test_a_build_whose_objects_cannot_be_kept_is_an_error(space: SearchSpace, tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    for number in range(256):
        (tmp_path / "objects" / f"{number:02x}").write_text("in the way")
    with pytest.raises(MachineError, match=r"cannot be written .*: free the disk, or pass another DIR$"):
        build(space, CachedCompiler(Counting(), tmp_path), Wanted().configs(space), tmp_path, 1, quiet)
    assert read_built(tmp_path, space) == []


@pytest.mark.parametrize("linked", ["objects", "objects/ab"])
def test_a_build_deletes_nothing_through_a_link(space: SearchSpace, tmp_path: Path, linked: str) -> None:
    precious = tmp_path / "elsewhere" / ".kept.part" / "precious"
    precious.parent.mkdir(parents=True)
    precious.write_text("kept")
    out = tmp_path / "out"
    (out / linked).parent.mkdir(parents=True)
    (out / linked).symlink_to(tmp_path / "elsewhere")
    refused = pytest.raises(StoreError, match="objects: is a symbolic link, not a folder of its own")
    with refused if linked == "objects" else contextlib.nullcontext():
        build(space, CachedCompiler(Counting(), out), list(space.seeds[:1]), out, 1, quiet)
    assert precious.read_text() == "kept"
