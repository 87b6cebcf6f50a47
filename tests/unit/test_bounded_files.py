"""Files that are small to send and would be large to read: each is refused, or read in time and memory that are linear
in its size. Here are the bounds; benchmarks/hostile.py holds the clock."""

from __future__ import annotations

import hashlib
import importlib
import json
import struct
from pathlib import Path

import msgspec
import pytest
from naive_gemm import OBJECT, published, trial
from test_build import Counting
from toy_space import TOY_SOURCE, TOY_SPACE, TOY_TEMPLATE

from hktune.core.errors import InputError, ShapesError, SpaceError, StoreError, TableError, TemplateError
from hktune.core.problem import Problem
from hktune.core.shapes import load_shapes
from hktune.dispatch import Table, table_json, validate
from hktune.objects.code_object import read_code_object
from hktune.objects.elf import NOTES_MAX, PT_NOTE, SHT_SYMTAB, Elf
from hktune.space import SearchSpace, load_space
from hktune.template import load_template
from hktune.tuning.benches import prebuilt
from hktune.tuning.benches.prebuilt import Wanted, build, read_built, read_configs

PROBLEM = Problem(8, 128, 64)


def elf(strings: bytes, name_offsets: list[int], notes: bytes = b"") -> bytes:
    """An ELF file of two sections, a string table and symbols with names at `name_offsets`, and one note segment."""
    symbols = b"".join(struct.pack("<IBBHQQ", at, 2, 0, 1, 0, 0) for at in name_offsets)
    sections_at = 64 + 56
    strings_at = sections_at + 3 * 64
    symbols_at = strings_at + len(strings)
    notes_at = symbols_at + len(symbols)
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<16sHHIQQQIHHHHHH", identity, 3, 224, 1, 0, 64, sections_at, 0, 64, 56, 1, 64, 3, 1)
    segment = struct.pack("<IIQQQQQQ", PT_NOTE, 4, notes_at, 0, 0, len(notes), len(notes), 4)
    empty = len(strings) - 1  # where a name of no characters begins
    headers = [
        struct.pack("<IIQQQQIIQQ", empty, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        struct.pack("<IIQQQQIIQQ", empty, 3, 0, 0, strings_at, len(strings), 0, 0, 1, 0),
        struct.pack("<IIQQQQIIQQ", empty, SHT_SYMTAB, 0, 0, symbols_at, len(symbols), 1, 0, 8, 24),
    ]
    return header + segment + b"".join(headers) + strings + symbols + notes


def test_a_name_that_all_symbols_share_is_one_text() -> None:
    symbols = Elf(elf(b"x" * 4000 + b"\0", [0] * 16384)).symbols(SHT_SYMTAB)
    assert symbols is not None
    assert {symbol.name for symbol in symbols} == {"x" * 4000}
    assert len({id(symbol.name) for symbol in symbols}) == 1


def test_names_that_end_alike_are_read_and_no_more_of_them_than_the_file_has_bytes() -> None:
    """A linker may let one name be the end of another; thousands of ends of one long name are its square in memory."""
    symbols = Elf(elf(b"gemm_bf16\0", [0, 5, 9])).symbols(SHT_SYMTAB)
    assert symbols is not None
    assert [symbol.name for symbol in symbols] == ["gemm_bf16", "bf16", ""]
    with pytest.raises(TableError, match="its names overlap"):
        Elf(elf(b"x" * 4000 + b"\0", list(range(4000)))).symbols(SHT_SYMTAB)


def test_more_notes_than_a_kernel_has_are_refused() -> None:
    assert len(list(Elf(elf(b"\0", [], bytes(12 * NOTES_MAX))).notes())) == NOTES_MAX
    with pytest.raises(TableError, match="over 1024 notes"):
        list(Elf(elf(b"\0", [], bytes(12 * (NOTES_MAX + 1)))).notes())


def test_of_an_objects_kernels_those_that_are_asked_for_are_read() -> None:
    everything = read_code_object(OBJECT).kernels
    assert len(everything) > 1
    for symbol in everything:
        assert read_code_object(OBJECT, {symbol, "another"}).kernels == {symbol: everything[symbol]}


def test_objects_of_a_table_have_a_bound_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows with an object each, padded so that they differ."""
    objects = [OBJECT + bytes(padding) for padding in range(3)]
    table = published(tmp_path, *(trial(Problem(8, 128, k)) for k in (64, 128, 256)))
    entries = []
    for entry, data in zip(table.entries, objects, strict=True):
        assert entry.kernel
        sha256 = hashlib.sha256(data).hexdigest()
        (tmp_path / "objects" / f"{sha256}.hsaco").write_bytes(data)
        kernel = msgspec.structs.replace(entry.kernel, object_sha256=sha256)
        entries.append(msgspec.structs.replace(entry, kernel=kernel))
    table = msgspec.structs.replace(table, entries=tuple(entries))
    assert len(validate(table, tmp_path, table.identity, allow_modelled=True).usable) == 3
    module = importlib.import_module("hktune.dispatch.validate")
    monkeypatch.setattr(module, "OBJECTS_BYTES_MAX", 2 * len(OBJECT) + 1)
    validated = validate(table, tmp_path, table.identity, allow_modelled=True)
    assert (len(validated.usable), validated.skipped_by_reason) == (2, {"object unreadable": 1})


def test_a_row_demands_of_m_no_more_than_a_lookup_can_afford(tmp_path: Path) -> None:
    table = published(tmp_path, trial(PROBLEM))
    document = json.loads(table_json(table))
    del document["content_sha256"]
    launch = document["entries"][0]["kernel"]["launch"]
    for count, refused in ((4, False), (5, True), (32, True)):
        launch["requires"] = [f"{'m > 0 and ' * 49}m > {number}" for number in range(count)]  # 495 characters each
        if refused:
            with pytest.raises(msgspec.ValidationError, match="requires have over 2048 characters"):
                msgspec.convert(document, Table)
        else:
            msgspec.convert(document, Table)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("%TAG !a! b\n---\nshapes: []\n", 1),
        ("".join(f"%TAG !{number:x}! b\n" for number in range(50_000)) + "---\nshapes: []\n", 1),
        ("# a comment\n\n%YAML 1.2\n---\nshapes: []\n", 3),
        ("shapes: []\n...\n%TAG !a! b\n---\nshapes: []\n", 3),
        ("\ufeff\ufeff%YAML 1.1\n---\nshapes: []\n", 1),
        ("shapes: []\n...\r%ANY thing\r---\rshapes: []\n", 2),
    ],
)
def test_yaml_has_no_directives(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / "shapes.yaml").write_bytes(text.encode())
    with pytest.raises(ShapesError, match=rf"line {line}: begins with %, and directives are not supported"):
        load_shapes(tmp_path / "shapes.yaml")


def test_a_percent_sign_elsewhere_is_text(tmp_path: Path) -> None:
    (tmp_path / "shapes.yaml").write_text('shapes: # 5 %\n  - {name: "%TAG", m: 1, n: 64, k: 64}\n')
    assert load_shapes(tmp_path / "shapes.yaml").problems == (Problem(1, 64, 64),)


@pytest.fixture
def space(toy_space_path: Path) -> SearchSpace:
    return load_space(toy_space_path)


def test_a_built_folder_lists_each_config_once(space: SearchSpace, tmp_path: Path) -> None:
    from hktune.compile import CachedCompiler

    build(space, CachedCompiler(Counting(), tmp_path), Wanted().configs(space), tmp_path, 1, lambda done: None)
    path = tmp_path / "built.json"
    document = json.loads(path.read_text())
    good = document["configs"]
    for configs, rule in (
        ([*good, good[0]], "lists config [0-9a-f]{16} twice"),
        ([{}, {}], "lists config [0-9a-f]{16} twice"),
        ([{}] * (prebuilt.CONFIGS_MAX + 1), "not what hktune build writes"),
        ([{f"p{number}": number for number in range(300)}], "not what hktune build writes"),
    ):
        path.write_text(json.dumps({**document, "configs": configs}))
        with pytest.raises(StoreError, match=rule):
            read_built(tmp_path, space)


def test_a_build_larger_than_can_be_read_is_refused_before_it_begins(
    space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hktune.compile import CachedCompiler

    configs, compiler = Wanted(random=3).configs(space), Counting()
    monkeypatch.setattr(prebuilt, "CONFIGS_MAX", len(configs) - 1)
    with pytest.raises(StoreError, match=f"would hold {len(configs)} configs, a build has at most"):
        build(space, CachedCompiler(compiler, tmp_path), configs, tmp_path, 1, lambda done: None)
    assert compiler.asked == []


def test_equal_lines_of_a_list_are_one_config(
    space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, words = tmp_path / "configs.txt", "stages=2 order=swizzled"
    path.write_text(f"{words} # one\n{words}\n" * 50_000 + "order=swizzled stages=2\nstages=3\n")
    assert read_configs(path, space) == [space.parse(words.split()), space.parse(["stages=3"])]
    monkeypatch.setattr(prebuilt, "CONFIGS_MAX", 2)
    with pytest.raises(InputError, match="has 3 configs, at most 2 are built"):
        read_configs(path, space)


def _template(folder: Path, sources: dict[str, str], named: list[str]) -> Path:
    folder.mkdir(parents=True)
    for name, text in sources.items():
        (folder / name).write_text(text)
    (folder / "template.yaml").write_text(TOY_TEMPLATE.replace("source: toy.hip", f"source: [{', '.join(named)}]"))
    return folder


def test_the_sources_of_a_template_have_a_bound_together(tmp_path: Path) -> None:
    half = "//" + "x" * (510 << 10) + "\n"
    sources = {"toy.hip": TOY_SOURCE, "a.h": half, "b.h": half, "c.h": half}
    two = load_template(_template(tmp_path / "two", sources, ["a.h", "b.h", "toy.hip"]))
    assert two.source == half + half + TOY_SOURCE
    with pytest.raises(TemplateError, match=r"c\.h: is the end of over 1048576 bytes of sources"):
        load_template(_template(tmp_path / "three", sources, ["a.h", "b.h", "c.h", "toy.hip"]))
    with pytest.raises(TemplateError, match=r"toy\.hip: is there twice among the sources"):
        load_template(_template(tmp_path / "twice", sources, ["toy.hip", "a.h", "toy.hip"]))


def test_the_values_of_a_space_have_a_bound_together(toy_space_path: Path) -> None:
    wide = toy_space_path.with_name("wide.yaml")
    wide.write_text(TOY_SPACE.replace("[1, 2, 3]", str(list(range(1, 1001)))))
    assert len(load_space(wide).parameters) == 7
    wide.write_text(TOY_SPACE.replace("[1, 2, 3]", str(list(range(1, 1011)))))
    with pytest.raises(SpaceError, match="values, at most 1024 are searched"):
        load_space(wide)
