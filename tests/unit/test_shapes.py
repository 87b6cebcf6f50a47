"""shapes.yaml: what it means, and one clear line for everything that is not legal in it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hktune.cli import main
from hktune.core.errors import ShapesError
from hktune.core.operation import BF16_NT_BIAS, Operation
from hktune.core.problem import Problem
from hktune.core.shapes import Shape, load_shapes, merged_shapes, shapes_yaml
from hktune.session.given_shapes import given_shapes
from hktune.space import load_space

SHIPPED = Path(__file__).parents[2] / "shapes.yaml"
SPACE = Path(__file__).parents[2] / "search_spaces" / "gfx950_gemm_bf16.yaml"


def shapes_of(directory: Path, text: str) -> list[Shape]:
    path = directory / "shapes.yaml"
    path.write_text(text, encoding="utf-8")
    return list(load_shapes(path))


def test_lists_multiply_out_in_order_and_defaults_apply(tmp_path: Path) -> None:
    text = """
    dtype: bf16
    epilogue: bias
    shapes:
      - {name: qkv, m: [16, 1], n: [256, 512], k: 64, weight: 80}
      - {m: 8, n: 8, k: 8, epilogue: none}
    """
    assert shapes_of(tmp_path, text) == [
        Shape(Problem(16, 256, 64, BF16_NT_BIAS), "qkv", 80),
        Shape(Problem(16, 512, 64, BF16_NT_BIAS), "qkv", 80),
        Shape(Problem(1, 256, 64, BF16_NT_BIAS), "qkv", 80),
        Shape(Problem(1, 512, 64, BF16_NT_BIAS), "qkv", 80),
        Shape(Problem(8, 8, 8), "8x8x8 bf16.nt", 1),
    ]


def test_operations_are_texts_of_the_file_or_of_an_entry_and_their_lists_multiply_out(tmp_path: Path) -> None:
    text = """
    operation: f16.nt
    shapes:
      - {name: qkv, m: [16, 1], n: 256, k: 64, operation: [bf16.nt+bias, f16.nt+bias]}
      - {m: 8, n: 8, k: 8}
      - {m: 8, n: 8, k: 8, operation: f16.nn->f32}
    """
    f16 = Operation("f16")
    assert shapes_of(tmp_path, text) == [
        Shape(Problem(16, 256, 64, BF16_NT_BIAS), "qkv", 1),
        Shape(Problem(1, 256, 64, BF16_NT_BIAS), "qkv", 1),
        Shape(Problem(16, 256, 64, f16.with_steps("bias")), "qkv", 1),
        Shape(Problem(1, 256, 64, f16.with_steps("bias")), "qkv", 1),
        Shape(Problem(8, 8, 8, f16), "8x8x8 f16.nt", 1),
        Shape(Problem(8, 8, 8, Operation("f16", "nn", c="f32")), "8x8x8 f16.nn->f32", 1),
    ]


def test_an_operation_of_an_entry_stands_for_the_old_keys_of_its_file(tmp_path: Path) -> None:
    text = "{dtype: bf16, epilogue: bias, shapes: [{m: 1, n: 1, k: 1, operation: f16.nt}, {m: 1, n: 1, k: 1}]}"
    assert [str(shape.problem) for shape in shapes_of(tmp_path, text)] == ["1x1x1 f16.nt", "1x1x1 bf16.nt+bias"]


def test_an_old_key_alone_keeps_the_other_of_the_file(tmp_path: Path) -> None:
    text = "{epilogue: bias, shapes: [{m: 1, n: 1, k: 1, dtype: bf16}, {m: 2, n: 1, k: 1, epilogue: none}]}"
    assert [str(shape.problem) for shape in shapes_of(tmp_path, text)] == ["1x1x1 bf16.nt+bias", "2x1x1 bf16.nt"]


def test_one_problem_asked_for_twice_is_tuned_once_with_both_names_and_weights(tmp_path: Path) -> None:
    text = """
    shapes:
      - {name: o, m: 8, n: 16, k: 16, weight: 32}
      - {name: other, m: 4, n: 16, k: 16}
      - {name: q, m: 8, n: 16, k: 16, weight: 2.5}
    """
    assert shapes_of(tmp_path, text) == [
        Shape(Problem(8, 16, 16), "o, q", 34.5),
        Shape(Problem(4, 16, 16), "other", 1),
    ]


def test_a_problem_of_many_names_is_called_by_the_first_few(tmp_path: Path) -> None:
    entries = ", ".join(f"{{m: 1, n: 8, k: 8, name: {'x' * 90}{number}}}" for number in range(5000))
    (shape,) = shapes_of(tmp_path, f"shapes: [{entries}]")
    assert shape.name == ", ".join(f"{'x' * 90}{number}" for number in range(4)) + " and 4996 more"
    assert shape.weight == 5000


def test_the_shipped_list_is_legal_for_the_template_and_has_every_kind_of_shape() -> None:
    shapes = load_shapes(SHIPPED)
    assert 20 <= len(shapes) <= 32
    assert len(set(shapes.problems)) == len(shapes)
    space = load_space(SPACE)
    for problem in shapes.problems:
        assert problem.k % 128 == 0
        assert any(space.is_legal(seed, problem) for seed in space.seeds), problem
    assert {1, 16, 33} <= {problem.m for problem in shapes.problems}
    assert {0, 1} <= {problem.n % 2 for problem in shapes.problems}
    assert {"bf16.nt", "bf16.nt+bias"} == {str(problem.operation) for problem in shapes.problems}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("shapes: [{m: -4096, n: 4096, k: 4096}]", "shapes[0]: m: must be an integer from 1 to 16777216, got -4096"),
        ("shapes: [{m: 1, n: 1, k: 1}, {m: 0, n: 1, k: 1}]", "shapes[1]: m: must be an integer"),
        ("shapes: [{m: true, n: 1, k: 1}]", "got True"),
        ("shapes: [{m: 1_6, n: 1, k: 1}]", "shapes[0]: m: must be an integer from 1 to 16777216, got '1_6'"),
        ("shapes: [{m: 0x10, n: 1, k: 1}]", "got '0x10'"),
        ("shapes: [{m: 1e3, n: 1, k: 1}]", "got 1000.0"),
        ("shapes: [{m: 010, n: 1, k: 1}]", "got '010'"),
        ("shapes: [{m: 1, n: [1, 0b1], k: 1}]", "n: must be an integer from 1 to 16777216, got '0b1'"),
        ("shapes: [{m: 1, n: 1, k: 1, weight: 1_0}]", "weight: must be a number above 0 (calls per step), got '1_0'"),
        ("shapes: [{m: 1.0, n: 1, k: 1}]", "got 1.0"),
        ("shapes: [{m: '1', n: 1, k: 1}]", "got '1'"),
        ("shapes: [{m: [1, no], n: 1, k: 1}]", "got 'no'"),
        ("shapes: [{m: [1, false], n: 1, k: 1}]", "got False"),
        ("shapes: [{m: [], n: 1, k: 1}]", "m: the list is empty"),
        ("shapes: [{m: 16777217, n: 1, k: 1}]", "got 16777217"),
        ("shapes: [{m: 65536, n: 65536, k: 1}]", "C[m,n] has at most 2147483648 elements, got 65536x65536"),
        ("shapes: [{m: 1, n: 1048576, k: 4096}]", "B[n,k] has at most"),
        ("shapes: [{m: 1, n: 1}]", "shapes[0]: k missing"),
        ("shapes: [{m: 1, n: 1, k: 1, batch: 2}]", "shapes[0]: unknown key 'batch': known are dtype, epilogue, k,"),
        ("shapes: [{m: 1, n: 1, k: 1, weight: 0}]", "weight: must be a number above 0"),
        ("shapes: [{m: 1, n: 1, k: 1, weight: .nan}]", "weight: must be"),
        ("shapes: [{m: 1, n: 1, k: 1, weight: true}]", "weight: must be"),
        (
            "shapes: [{m: 1, n: 1, k: 1, weight: 1e12}]",
            "weight: must be below 1e+12 (calls per step), got 1000000000000",
        ),
        ("shapes: [{m: 1, n: 1, k: 1, dtype: fp8}]", "dtype: must be one of bf16, got 'fp8'"),
        ("shapes: [{m: 1, n: 1, k: 1, epilogue: [bias]}]", "epilogue: must be one of none, bias"),
        ("{epilogue: gelu, shapes: [{m: 1, n: 1, k: 1}]}", "shapes.yaml: epilogue: must be one of"),
        ("{dtype: f16, shapes: [{m: 1, n: 1, k: 1}]}", "dtype: must be one of bf16, got 'f16': write operation"),
        (
            "shapes: [{m: 1, n: 1, k: 1, operation: bf16}]",
            "shapes[0]: operation: operation 'bf16' must read like bf16.nt",
        ),
        ("shapes: [{m: 1, n: 1, k: 1, operation: f16.nt+}]", "operation 'f16.nt+' must read like"),
        ("shapes: [{m: 1, n: 1, k: 1, operation: 7}]", "operation: must be a text such as bf16.nt, got 7"),
        ("shapes: [{m: 1, n: 1, k: 1, operation: null}]", "operation: must be a text such as bf16.nt, got None"),
        ("shapes: [{m: 1, n: 1, k: 1, operation: []}]", "operation: the list is empty"),
        ("shapes: [{m: 1, n: 1, k: 1, operation: [f16.nt, f16.nt]}]", "operation: f16.nt is there 2 times: keep one"),
        ("shapes: [{m: 1, n: 1, k: 1, operation: [f16.nt, f16]}]", "operation 'f16' must read like"),
        ("{operation: f16.xy, shapes: [{m: 1, n: 1, k: 1}]}", "shapes.yaml: operation: operation 'f16.xy' must read"),
        (
            "shapes: [{m: 1, n: 1, k: 1, operation: batched.f16.nt}]",
            "batched.f16.nt: is of any number of products: say",
        ),
        ("shapes: [{m: 1, n: 1, k: 1, operation: batched8.f16.nt+bias}]", "batched8.f16.nt+bias: its operands are not"),
        ("shapes: [{m: 1, n: 1, k: 1, operation: f16.nt+mish}]", "step 'mish' is not known: known are bias"),
        ("shapes: [{m: 1, n: 1, k: 1, operation: f16.nt->f16}]", "operation 'f16.nt->f16' must be written f16.nt"),
        (
            "shapes: [{m: 1, n: 1, k: 1, operation: f16.nt, epilogue: bias}]",
            "shapes[0]: has operation='f16.nt' and epilogue: say all of it in operation, such as bf16.nt+bias",
        ),
        ("{operation: f16.nt, dtype: bf16, shapes: [{m: 1, n: 1, k: 1}]}", "has operation='f16.nt' and dtype: say"),
        (
            "{operation: f16.nt, shapes: [{m: 1, n: 1, k: 1, epilogue: bias}]}",
            "shapes[0]: has epilogue under the file's operation='f16.nt': say all of it in operation",
        ),
        (
            "shapes: [{m: 1048576, n: 1, k: 4096, operation: f16.tn}]",
            "A[k,m] has at most 2147483648 elements, got 4096x1",
        ),
        (
            "shapes: [{m: 1, n: 1048576, k: 4096, operation: f16.nn}]",
            "B[k,n] has at most 2147483648 elements, got 4096x1",
        ),
        ("shapes: [{m: 1, n: 1, k: 1, name: 7}]", "name: must be 1 to 100 printable characters, got 7"),
        ("shapes: [{m: 1, n: 1, k: 1, name: a}, {m: 2, n: 1, k: 1, name: a}]", "shapes[1]: name 'a' is taken by"),
        ("shapes: []", "`shapes` must be a list of at least one entry, got []"),
        ("shapes: {m: 1}", "`shapes` must be a list"),
        ("shapes: [17]", "shapes[0]: must be a mapping"),
        ("shape: [{m: 1, n: 1, k: 1}]", "unknown key 'shape': known are dtype, epilogue, operation, shapes"),
        ("- {m: 1, n: 1, k: 1}", "must be a mapping with a list `shapes`"),
        ("", "must be a mapping with a list `shapes`, got None"),
        ("shapes: [{m: 1, n: 1, k: 1", "not YAML ("),
        (
            "shapes: [!!python/object:os.system {}]",
            "line 1: tags such as 'tag:yaml.org,2002:python",
        ),
        ("shapes: [{m: 1, m: 2, n: 1, k: 1}]", "line 1: key 'm' is repeated: fix that line"),
        ("a: &a [1]\nshapes: *a", "line 1: anchors and aliases are not supported, write the values out"),
        ("shapes: " + "[" * 5000, "line 1: n"),
        ("shapes: [{m: 2026-13-45, n: 1, k: 1}]", "got '2026-13-45'"),
        ("# " + "x" * (1 << 20), "at most 1048576 bytes"),
        (f"shapes: [{{m: {list(range(1, 102))}, n: {list(range(1, 101))}, k: 1}}]", "multiply out to over 10000"),
        (f"shapes: [{', '.join(['{m: [1,2,3,4,5,6], n: ' + str(list(range(1, 1001))) + ', k: 1}'] * 2)}]", "shapes[1]"),
    ],
)
def test_bad_input_is_one_line_with_rule_value_and_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ShapesError) as caught:
        shapes_of(tmp_path, text)
    message = str(caught.value)
    assert says in message
    assert "\n" not in message
    assert str(tmp_path / "shapes.yaml") in message


def test_a_missing_file_a_directory_and_bytes_that_are_not_text(tmp_path: Path) -> None:
    with pytest.raises(ShapesError, match="No such file"):
        load_shapes(tmp_path / "absent.yaml")
    with pytest.raises(ShapesError, match="is a directory, not a shapes file"):
        load_shapes(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"shapes: \xff\xfe")
    with pytest.raises(ShapesError, match="UTF-8 text, byte 8"):
        load_shapes(tmp_path / "binary.yaml")


TOKENS = "shapes:\n  - {m: 64, n: 768, k: 2048, operation: grouped128.bf16.nt, tokens: %s}"


def test_tokens_are_counts_of_groups_by_their_size(tmp_path: Path) -> None:
    [shape] = shapes_of(tmp_path, TOKENS % "{3: 4, 0: 80, 1: 44}")
    assert shape.tokens == ((0, 80), (1, 44), (3, 4))
    again = tmp_path / "again.yaml"
    again.write_text(shapes_yaml([shape]))
    assert list(load_shapes(again)) == [shape]
    [without] = shapes_of(tmp_path, (TOKENS % "").replace(", tokens: ", ""))
    assert without == replace(shape, tokens=()), "as files were before"
    [both] = merged_shapes([shape, replace(shape, tokens=((1, 6), (70, 2)))])
    assert both.tokens == ((0, 80), (1, 50), (3, 4), (70, 2))


def test_several_problems_of_one_name_are_written_so_that_they_are_read_again(tmp_path: Path) -> None:
    """An entry with lists has one name for all its problems, and a file wants each name once."""
    text = """
    shapes:
      - {name: up, m: [16, 128], n: 512, k: 256, weight: 3}
      - {name: down, m: 16, n: [64, 256], k: 512}
      - {name: same, m: 8, n: 8, k: 8, weight: 9e11}
      - {m: 8, n: 8, k: 8, weight: 9e11}
      - {m: 1, n: 512, k: 256}
    """
    shapes = shapes_of(tmp_path, text)
    written = shapes_yaml(shapes)
    assert '{name: "up", m: [16, 128], n: 512, k: 256, operation: bf16.nt, weight: 3}' in written
    again = shapes_of(tmp_path, written)
    assert [shape.problem for shape in again] == sorted(
        (shape.problem for shape in shapes), key=lambda problem: (problem.n, problem.k, problem.m)
    )
    names = {shape.problem: shape.name for shape in again}
    assert [names[Problem(16, n, 512)] for n in (64, 256)] == ["down", "down 2"]
    assert names[Problem(1, 512, 256)] == "1x512x256 bf16.nt"
    (heaviest,) = (shape.weight for shape in again if shape.problem == Problem(8, 8, 8))
    assert heaviest == pytest.approx(1e12, rel=1e-8), "of a sum, as much as an entry may have"


def test_names_of_a_hundred_characters_stay_apart(tmp_path: Path) -> None:
    shapes = [Shape(Problem(8, n, 8), "x" * 120, 1.0) for n in range(1, 13)]
    again = shapes_of(tmp_path, shapes_yaml(shapes))
    assert [shape.problem for shape in again] == [shape.problem for shape in shapes]
    assert {len(shape.name) for shape in again} == {100, 96, 97}


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        ("[1, 2]", r"must be counts by size, got \[1, 2\]"),
        ("12", r"must be counts by size, got 12"),
        ("{}", r"must have 1 to 177 sizes of groups, got 0"),
        (str(dict.fromkeys(range(178), 1)), r"must have 1 to 177 sizes of groups, got 178"),
        ("{-1: 2}", r"a size of groups is an integer from 0 to 16777216, got '-1'"),
        ("{1.5: 2}", r"a size of groups is an integer .*, got '1\.5'"),
        ("{01: 2}", r"a size of groups is an integer .*, got '01'"),
        ("{16777217: 2}", r"a size of groups is an integer .*, got '16777217'"),
        ("{many: 2}", r"a size of groups is an integer .*, got 'many'"),
        ("{4: 0}", r"4: must be how many groups were of that size, an integer from 1, got 0"),
        ("{4: 1.5}", r"4: must be how many .*, got 1\.5"),
        ("{4: true}", r"4: must be how many .*, got True"),
        ("{4: 1e300}", r"4: must be how many .*, got "),
        ("{0: 128}", r"must have a group with rows, got groups of 0 alone"),
    ],
)
def test_tokens_that_are_none_are_one_line(tmp_path: Path, tokens: str, says: str) -> None:
    with pytest.raises(
        ShapesError, match=rf"^.*shapes\.yaml: shapes\[0\]: tokens: {says}.*: write how many"
    ) as refused:
        shapes_of(tmp_path, TOKENS % tokens)
    assert "\n" not in str(refused.value)


def test_tokens_of_a_program_are_checked_too() -> None:
    entry = {"m": 64, "n": 768, "k": 2048, "operation": "grouped128.bf16.nt", "tokens": {0: 80, 2: 48}}
    shapes, _ = given_shapes([entry])
    [shape] = shapes
    assert shape.tokens == ((0, 80), (2, 48))
    assert list(given_shapes([shape])[0]) == [shape]
    with pytest.raises(ShapesError, match=r"^shapes\[0\]: tokens: 2: must be how many groups"):
        given_shapes([replace(shape, tokens=((2, -1),))])


def test_the_shapes_command_keeps_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, out = tmp_path / "first.yaml", tmp_path / "out.yaml"
    first.write_text(TOKENS % "{0: 80, 1: 48}")
    assert main(["shapes", str(first), "-o", str(out)]) == 0
    capsys.readouterr()
    assert list(load_shapes(out).tokens.values()) == [((0, 80), (1, 48))]
    assert main(["shapes", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == {"0": 80, "1": 48}


def test_only_groups_have_tokens(tmp_path: Path) -> None:
    text = (TOKENS % "{1: 2}").replace("grouped128.bf16.nt", "[grouped128.bf16.nt, bf16.nt]")
    with pytest.raises(ShapesError, match=r"tokens: are of grouped operations, got bf16\.nt: leave them out"):
        shapes_of(tmp_path, text)
