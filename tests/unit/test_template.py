from __future__ import annotations

import hashlib
import os
import pickle
import re
from pathlib import Path

import pytest

from hktune.core import operation
from hktune.core.config import Config
from hktune.core.errors import InputError, TemplateError
from hktune.core.launch import Argument, Tile, WorkgroupOrder
from hktune.core.operation import BF16_NT, BF16_NT_BIAS, Operation, operation_of
from hktune.core.problem import Problem, ProofProblem
from hktune.template import Template, load_template

CONFIG = Config(
    {"block_m": 128, "block_n": 256, "warps_m": 2, "warps_n": 4, "stages": 2, "order": "rows", "eager": True}
)


@pytest.fixture
def folder(toy_space_path: Path, tmp_path: Path) -> Path:
    """A copy of the toy template that a test may break."""
    original = toy_space_path.parent.parent / "kernels" / "gfx950" / "toy"
    copy = tmp_path / "gfx950" / "toy"
    copy.mkdir(parents=True)
    for file in original.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


@pytest.fixture
def template(folder: Path) -> Template:
    return load_template(folder)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_reads_its_description(template: Template) -> None:
    assert (template.name, template.arch, template.language) == ("gfx950/toy", "gfx950", "hip")
    assert template.arguments == (Argument("a", "pointer"), Argument("m", "i32"))
    assert template.parameter_names == set(CONFIG)


def test_renders_every_field(template: Template) -> None:
    variant = template.render(CONFIG)
    assert variant.source == (
        "\nconstexpr int block_m = 128, block_n = 256, warps_m = 2, warps_n = 4;\n"
        "constexpr int stages = 2, lds_bytes = 98304;\n"
        'constexpr auto order = "rows";\n'
        "constexpr bool eager = true;\n"
    )
    assert (variant.template, variant.symbol, variant.config) == ("gfx950/toy", "hktune_toy", CONFIG)
    assert variant.template_sha256 == template.sha256


def test_files_of_a_source_are_one_in_their_order(folder: Path, template: Template) -> None:
    first, rest = (folder / "toy.hip").read_text().split("constexpr auto", 1)
    (folder / "first.hip").write_text(first)
    (folder / "rest.hip").write_text("constexpr auto" + rest)
    edit(folder / "template.yaml", "source: toy.hip", "source: [first.hip, rest.hip]")
    assert load_template(folder).render(CONFIG).source == template.render(CONFIG).source
    edit(folder / "template.yaml", "rest.hip", "last.hip")
    with pytest.raises(TemplateError, match=r"last\.hip: cannot be read \(No such file"):
        load_template(folder)


def included(folder: Path) -> None:
    """The toy's source as a root that includes two files, one of them with the fields."""
    constants, rest = (folder / "toy.hip").read_text().split("constexpr auto", 1)
    (folder / "constants.hip.in").write_text(f"#pragma once\n{constants}")
    (folder / "constants.hip").write_text("#error the form with fields is what is read\n")
    (folder / "rest.hip").write_text(f'  # pragma once\n#include "constants.hip"\nconstexpr auto{rest}')
    (folder / "toy.hip").write_text('#include "rest.hip"  // all of it\n#include "constants.hip"\n')


def test_includes_of_files_beside_it_are_followed_each_once(folder: Path, template: Template) -> None:
    included(folder)
    assert load_template(folder).render(CONFIG).source == template.render(CONFIG).source
    with (folder / "rest.hip").open("a") as rest:
        rest.write('#include "toy.hip"\n#include "rest.hip"')
    assert load_template(folder).render(CONFIG).source == template.render(CONFIG).source


def test_every_file_that_is_read_counts_for_the_identity(folder: Path) -> None:
    included(folder)
    seen = {load_template(folder).sha256}
    for name in ("constants.hip.in", "rest.hip", "toy.hip"):
        with (folder / name).open("a") as file:
            file.write("\n")
        seen.add(load_template(folder).sha256)
    assert len(seen) == 4
    (folder / "constants.hip").write_text("// not read\n")
    assert load_template(folder).sha256 in seen


def test_includes_of_other_places_are_the_compilers(folder: Path) -> None:
    lines = '#include <hip/hip_runtime.h>\n#include "kittens.cuh"\n// #include "toy.hip"\n'
    (folder / "toy.hip").write_text(lines + (folder / "toy.hip").read_text())
    assert load_template(folder).render(CONFIG).source.startswith(lines)


@pytest.mark.parametrize(
    "name", ["lost.hip", "../toy/rest.hip", "/etc/x.hip", "sub/x.hip", "a b.hip", f"{'a' * 200}.hip"]
)
def test_an_include_of_a_source_that_is_not_there_is_refused(folder: Path, name: str) -> None:
    included(folder)
    with (folder / "rest.hip").open("a") as rest:
        rest.write(f'#include "{name}"\n')
    with pytest.raises(
        TemplateError, match=re.escape(f'rest.hip: includes "{name}", which is not in its folder: name a')
    ):
        load_template(folder)


def test_included_files_are_bounded_and_plain(folder: Path) -> None:
    included(folder)
    for number in range(64):
        (folder / f"x{number}.hip").write_text(f'#include "x{number + 1}.hip"\n')
    (folder / "x64.hip").write_text(" " * 600_000)
    (folder / "big.hip").write_text(" " * 600_000 + '\n#include "x64.hip"\n')
    (folder / "words.hip").write_bytes(b"\xff")
    os.mkfifo(folder / "pipe.hip")
    for name, rule in (
        ("x0.hip", r"x6[012]\.hip: is one of more than 64 sources"),
        ("big.hip", r"x64\.hip: is the end of over 1048576 bytes of sources"),
        ("words.hip", r"words\.hip: must be UTF-8"),
        ("pipe.hip", r"pipe\.hip: is a pipe, not a source"),
    ):
        (folder / "toy.hip").write_text(f'#include "rest.hip"\n#include "{name}"\n')
        with pytest.raises(TemplateError, match=rule):
            load_template(folder)


def test_launches_for_a_problem(template: Template) -> None:
    launch = template.launch(CONFIG, Problem(512, 1024, 64))
    assert (launch.grid, launch.block, launch.dynamic_lds_bytes) == ((16, 1, 1), (512, 1, 1), 98304)
    assert launch.arguments == template.arguments


def test_tile_and_proof(template: Template) -> None:
    assert template.tile(CONFIG) == Tile(128, 256, 64)
    problem = Problem(256, 512, 384)
    assert template.proof_problems(CONFIG) == (ProofProblem(problem), ProofProblem(problem, exact_sums=True))
    assert template.derived_values(CONFIG) == {"warps": 8, "lds_bytes": 98304}


def test_the_order_of_workgroups_is_row_by_row_unless_stated(folder: Path, template: Template) -> None:
    assert template.order(CONFIG) == WorkgroupOrder(1, 1)
    edit(folder / "template.yaml", "tile:", "order: {xcd_chunk: 2 * warps_n, group_rows: warps_m}\ntile:")
    assert load_template(folder).order(CONFIG) == WorkgroupOrder(xcd_chunk=8, group_rows=2)
    edit(folder / "template.yaml", "group_rows: warps_m}", "group_columns: 8 * warps_n}")
    assert load_template(folder).order(CONFIG) == WorkgroupOrder(xcd_chunk=8, group_columns=32)
    edit(folder / "template.yaml", "group_columns:", "group_rows: 2, group_columns:")
    with pytest.raises(TemplateError, match="keep one"):
        load_template(folder).order(CONFIG)


def test_identity_covers_description_and_source(folder: Path, template: Template) -> None:
    parts = [(folder / name).read_bytes() for name in ("template.yaml", "toy.hip")]
    digests = b"".join(hashlib.sha256(part).digest() for part in parts)
    assert template.sha256 == hashlib.sha256(digests).hexdigest()
    for name in ("template.yaml", "toy.hip"):
        before = load_template(folder).sha256
        (folder / name).write_text((folder / name).read_text() + "\n")
        assert load_template(folder).sha256 != before


def test_survives_pickling(template: Template) -> None:
    assert pickle.loads(pickle.dumps(template)).render(CONFIG) == template.render(CONFIG)


def test_a_grid_of_nothing_is_refused(template: Template) -> None:
    with pytest.raises(TemplateError, match="launch grid x is 0: it must be a positive integer"):
        template.launch(CONFIG, Problem(64, 64, 64))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "dynamic_lds_bytes: lds_bytes",
            "dynamic_lds_bytes: 0 - lds_bytes",
            "launch dynamic_lds_bytes is -98304: it must be",
        ),
        (
            "dynamic_lds_bytes: lds_bytes",
            "workspace_bytes: 0 - m",
            "launch workspace_bytes is -256: it must be an integer from",
        ),
        (
            "dynamic_lds_bytes: lds_bytes",
            "workspace_bytes: \"'much'\"",
            "launch workspace_bytes is 'much': it must be an",
        ),
        (
            "(m // block_m) * (n // block_n)",
            "8388608",
            "launch grid x is 8388608 workgroups of 512: at most 4294967295",
        ),
    ],
)
def test_a_launch_that_no_device_could_make_is_refused(folder: Path, old: str, new: str, says: str) -> None:
    edit(folder / "template.yaml", old, new)
    with pytest.raises(TemplateError, match=says):
        load_template(folder).launch(CONFIG, Problem(256, 256, 64))


def test_a_config_without_a_parameter_is_refused(template: Template) -> None:
    with pytest.raises(TemplateError, match=r"gfx950/toy: derived warps: .* name 'warps_m' has no value"):
        template.render(Config({"block_m": 128}))


@pytest.mark.parametrize(
    ("file", "old", "new", "rule"),
    [
        ("toy.hip", "${stages}", "2", "field 'stages' is not in the source: place it or drop it"),
        ("toy.hip", "${stages}", "${stages} + ${depth}", r"source has \$\{depth\}: add it under `fields`"),
        ("toy.hip", "${stages}", "${stages} + ${a b}", "source has .*a b"),
        ("template.yaml", "name: toy", "nmae: toy", "unknown field `nmae`"),
        ("template.yaml", "language: hip", "language: opencl", "Invalid enum value 'opencl'"),
        ("template.yaml", "arch: gfx950", "arch: gfx000", "unknown architecture 'gfx000': known are"),
        ("template.yaml", "source: toy.hip", "source: toi.hip", "toi.hip: cannot be read .No such file"),
        ("template.yaml", "{name: m, kind: i32}", "{name: m, kind: i8}", "Invalid enum value 'i8'"),
        (
            "template.yaml",
            "{name: m, kind: i32}",
            "{name: x, kind: i32}",
            "argument 'x' is not known: known are a, b, c, bias",
        ),
        ("template.yaml", "block_m: block_m", "block_m: block_m * m", "only `launch` may name m, n, k and groups"),
        ("template.yaml", "block_m: block_m", "block_m: block_m **2", "fields block_m: .* operator Pow"),
        ("template.yaml", "k: 64}", "k: [64]}", "Expected `.*`, got `array`"),
        ("template.yaml", "symbol: hktune_toy", "symbol: a\nsymbol: b", "key 'symbol' is repeated"),
        ("template.yaml", "symbol: hktune_toy", "symbol: [", "not YAML"),
    ],
)
def test_mistakes_are_one_line(folder: Path, file: str, old: str, new: str, rule: str) -> None:
    edit(folder / file, old, new)
    with pytest.raises(TemplateError, match=rule) as caught:
        load_template(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_an_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="cannot be read"):
        load_template(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("source: toy.hip", "source: ../toy/toy.hip", "matching regex"),
        ("source: toy.hip", "source: /etc/passwd", "matching regex"),
        ("source: toy.hip", "source: [toy.hip, '']", "matching regex"),
        ("symbol: hktune_toy", 'symbol: "a;b"', "matching regex"),
        ("name: toy", "name: ../toy", "matching regex"),
        ("order: order", "order: \"'a b'\"", "field order is 'a b': it must be an integer or a word"),
    ],
)
def test_what_goes_into_paths_and_sources_is_words(folder: Path, old: str, new: str, rule: str) -> None:
    edit(folder / "template.yaml", old, new)
    with pytest.raises(TemplateError, match=rule):
        load_template(folder).render(CONFIG)


def test_a_source_that_is_no_file_or_no_text_is_refused(folder: Path) -> None:
    source = folder / "toy.hip"
    text = source.read_bytes()
    for data, rule in ((text + b"\xff", "must be UTF-8"), (text + b"\0", "NUL"), (b" " * (1 << 20) + text, "at most")):
        source.write_bytes(data)
        with pytest.raises(TemplateError, match=rule):
            load_template(folder)
    for part in (b"${", b"${x", b"$", b"${}", b"${a\n"):
        source.write_bytes(part * (600_000 // len(part)))
        with pytest.raises(TemplateError, match=r"add it under `fields`|is not in the source"):
            load_template(folder)
    source.unlink()
    os.mkfifo(source)
    with pytest.raises(TemplateError, match="is a pipe, not a source"):
        load_template(folder)


NUMBER = "  - {name: m, kind: i32}"


def with_operations(folder: Path) -> Template:
    """The toy template for two formats, which its source names, and with a bias, which it does not."""
    operations = "operations: [bf16.nt, bf16.nt+bias, f16.nt, f16.nt+bias]"
    edit(folder / "template.yaml", "fields: {", f"{operations}\nfields: {{element: operation.a_dtype, ")
    edit(folder / "template.yaml", NUMBER, f"{NUMBER}\n  - {{name: bias, kind: pointer}}")
    edit(folder / "template.yaml", "proof: [", "proof: [{m: block_m, n: block_n, k: 64, epilogue: bias}, ")
    source = folder / "toy.hip"
    source.write_text(source.read_text() + "using element = ${element};\n")
    return load_template(folder)


def test_an_operation_is_rendered_as_its_code(folder: Path) -> None:
    template = with_operations(folder)
    assert template.operation == BF16_NT
    assert "using element = bf16;" in template.render(CONFIG).source
    f16 = template.for_operation(Operation("f16"))
    assert "using element = f16;" in f16.render(CONFIG).source
    assert f16.sha256 == template.sha256
    assert {str(proof.problem.operation) for proof in f16.proof_problems(CONFIG)} <= {"f16.nt", "f16.nt+bias"}


def test_operations_with_the_same_code_are_one_template(folder: Path) -> None:
    template = with_operations(folder)
    f16, biased = (template.for_operation(operation_of(text)) for text in ("f16.nt", "f16.nt+bias"))
    assert f16 is biased
    assert f16 is template.for_operation(f16.operation)
    assert template.for_operation(BF16_NT_BIAS) is template
    assert template.code_operation(operation_of("f16.nt+bias")) == operation_of("f16.nt")
    assert f16.for_operation(BF16_NT).render(CONFIG) == template.render(CONFIG)


def test_a_template_without_operations_does_what_its_arguments_say(template: Template) -> None:
    assert template.operations == (BF16_NT,)


@pytest.mark.parametrize("text", ["f16.nt", "bf16.nn", "bf16.nt->f32"])
def test_an_operation_that_it_cannot_do_is_refused(template: Template, text: str) -> None:
    with pytest.raises(InputError, match=rf"^gfx950/toy cannot do {re.escape(text)}: it does bf16\.nt$"):
        template.for_operation(operation_of(text))


@pytest.mark.parametrize(
    ("operations", "says"),
    [
        ("[bf16.nt, bf16.nt]", "twice"),
        ("[bf17.nt]", "dtype 'bf17' is not known"),
        ("[bf16]", "must read like bf16.nt"),
    ],
)
def test_operations_that_are_none_are_one_line(folder: Path, operations: str, says: str) -> None:
    edit(folder / "template.yaml", "fields: {", f"operations: {operations}\nfields: {{")
    with pytest.raises(TemplateError, match=says):
        load_template(folder)


def test_what_an_operation_does_to_c_is_compiled_in_and_proved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that reads no operand is another code object; a proof that names no step still does it, behind a bias."""
    monkeypatch.setattr(operation, "ACTIVATIONS", ("halve",))
    monkeypatch.setattr(operation, "COMPILED", ("halve",))
    monkeypatch.setattr(operation, "STEPS", ("bias", "halve"))
    edit(
        folder / "template.yaml",
        "arguments:\n",
        "operations: [bf16.nt, bf16.nt+halve]\narguments:\n  - {name: bias, kind: pointer}\n",
    )
    edit(folder / "template.yaml", "eager: eager,", "eager: eager, does: operation.activation,")
    with (folder / "toy.hip").open("a") as source:
        source.write('constexpr auto does = "${does}";\n')
    plain = load_template(folder)
    assert '"none"' in plain.render(CONFIG).source
    bound = plain.for_operation(operation_of("bf16.nt+halve"))
    assert '"halve"' in bound.render(CONFIG).source
    assert [str(each.problem) for each in bound.proof_problems(CONFIG)] == ["256x512x384 bf16.nt+halve"] * 2
    edit(folder / "template.yaml", "proof: [", "proof: [{m: block_m, n: block_n, k: 64, epilogue: bias}, ")
    edit(folder / "template.yaml", "[bf16.nt,", "[bf16.nt, bf16.nt+bias, bf16.nt+bias+halve,")
    biased = load_template(folder).for_operation(operation_of("bf16.nt+bias+halve"))
    assert '"halve"' in biased.render(CONFIG).source
    first = "128x256x64 bf16.nt+bias+halve"
    proofs = [str(each) for each in biased.proof_problems(CONFIG)]
    assert proofs == [first, f"{first}, exact sums", "256x512x384 bf16.nt+halve, exact sums"]


@pytest.mark.parametrize(
    ("operations", "says"),
    [
        ("[bf16.nt, bf16.nt+bias]", r"operation bf16\.nt\+bias needs an argument bias: add one, or drop it"),
        ("[bf16.nt, batched.bf16.nt]", r"operation batched\.bf16\.nt needs an argument groups: add one, or drop it"),
        ("[bf16.nt, grouped.bf16.nt]", r"operation grouped\.bf16\.nt needs an argument offsets: add one, or drop it"),
        ("[bf16.nt, grouped.bf16.tt]", r"operation grouped\.bf16\.tt: its operands are not known"),
        ("[bf16.nt+bias]", r"proof epilogue '': it is not among the operations"),
    ],
)
def test_an_operation_must_fit_arguments_and_proofs(folder: Path, operations: str, says: str) -> None:
    edit(folder / "template.yaml", "fields: {", f"operations: {operations}\nfields: {{")
    with pytest.raises(TemplateError, match=says):
        load_template(folder)


def test_an_operation_without_a_proof_is_refused(folder: Path) -> None:
    edit(folder / "template.yaml", NUMBER, f"{NUMBER}\n  - {{name: bias, kind: pointer}}")
    assert load_template(folder).operations == (BF16_NT,), "nothing proves the bias"
    edit(folder / "template.yaml", "fields: {", "operations: [bf16.nt, bf16.nt+bias]\nfields: {")
    with pytest.raises(TemplateError, match=r"operation bf16\.nt\+bias has no proof: add one with its epilogue"):
        load_template(folder)


def test_operations_share_code_only_where_a_launch_tells_them_apart(folder: Path) -> None:
    """A template that reads nothing of the operation claims two formats: each is proved by itself."""
    edit(folder / "template.yaml", "fields: {", "operations: [bf16.nt, f16.nt]\nfields: {")
    template = load_template(folder)
    f16 = template.for_operation(Operation("f16"))
    assert f16.render(CONFIG).source == template.render(CONFIG).source
    assert {str(proof.problem.operation) for proof in f16.proof_problems(CONFIG)} == {"f16.nt"}


RESIDUAL = "  - {name: residual, kind: pointer, only: residual}"


def test_an_argument_may_be_of_some_operations_only(folder: Path) -> None:
    edit(folder / "template.yaml", "fields: {", "operations: [bf16.nt, bf16.nt+residual]\nfields: {")
    edit(folder / "template.yaml", NUMBER, f"{RESIDUAL}\n{NUMBER}")
    template = load_template(folder)
    names = {}
    for text in ("bf16.nt", "bf16.nt+residual"):
        bound, operation = template.for_operation(operation_of(text)), operation_of(text)
        launch = bound.launch(CONFIG, Problem(128, 256, 64, operation))
        rule = bound.launch_rule(CONFIG, 256, 64)
        assert rule.arguments == launch.arguments
        names[text] = [argument.name for argument in launch.arguments]
        assert [str(each.problem.operation) for each in bound.proof_problems(CONFIG)] == [text] * 2
    with_residual = names["bf16.nt+residual"]
    at = with_residual.index("residual")
    assert names["bf16.nt"] == [*with_residual[:at], *with_residual[at + 1 :]]


@pytest.mark.parametrize(
    ("operations", "argument", "says"),
    [
        ("bf16.nt", RESIDUAL, "argument residual is only for residual: no operation has one, drop the argument"),
        ("bf16.nt, bf16.nt+residual", NUMBER, r"operation bf16\.nt\+residual needs an argument residual: add one"),
        (
            "bf16.nt, bf16.nt+bias",
            "  - {name: bias, kind: pointer, only: bias}",
            r"argument bias is only for bias: bf16\.nt\+bias and bf16\.nt share their code",
        ),
    ],
)
def test_an_argument_of_some_operations_must_tell_code_apart(
    folder: Path, operations: str, argument: str, says: str
) -> None:
    edit(folder / "template.yaml", "fields: {", f"operations: [{operations}]\nfields: {{")
    edit(folder / "template.yaml", NUMBER, argument if argument == NUMBER else f"{argument}\n{NUMBER}")
    with pytest.raises(TemplateError, match=says):
        load_template(folder)


@pytest.mark.parametrize(
    ("new", "says"),
    [
        ("  - {name: m, kind: pointer}", "argument m is a pointer: it must be a u32, i32 or u64"),
        ("  - {name: m, kind: f32}", "argument m is a f32: it must be a u32, i32 or u64"),
        ("  - {name: bt, kind: i32}", "argument b is a i32: it must be a pointer"),
        ("  - {name: a, kind: pointer}", "argument a is there twice: keep one"),
    ],
)
def test_an_argument_that_cannot_be_passed_is_refused(folder: Path, new: str, says: str) -> None:
    edit(folder / "template.yaml", NUMBER, new)
    with pytest.raises(TemplateError, match=says):
        load_template(folder)
