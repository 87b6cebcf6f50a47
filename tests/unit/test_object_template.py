"""Templates whose kernels are code objects that others have built."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from importlib import metadata
from pathlib import Path

import msgspec
import numpy as np
import pytest
from naive_gemm import OBJECT, SHA256, launch_of, table_of, trial

from hktune.compile import compiler_for
from hktune.compile.object_files import ObjectFiles
from hktune.core.candidate import Candidate
from hktune.core.dtype import BF16, F16, Dtype
from hktune.core.errors import DeviceError, InputError, TemplateError, ToolchainError
from hktune.core.launch import Argument
from hktune.core.operation import BF16_NT, BF16_NT_BIAS, operation_of
from hktune.core.outcome import Failure, Status
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import SPACES
from hktune.device.argument_bytes import pack_argument
from hktune.dispatch.table import Launch as TableLaunch
from hktune.measure.stopwatch import Attempt
from hktune.objects.code_object import read_code_object
from hktune.space import SearchSpace, load_space
from hktune.tables import build_table
from hktune.verify.record import RecordStore
from hktune.verify.reference import compare, random_operands
from hktune.workers.prover import Prover

TEMPLATE = """
name: naive
arch: gfx950
language: object
operations: [bf16.nt]
objects:
  parameter: kernel
  licence: our own
  files:
    naive: {file: naive_gemm.hsaco, sha256: SHA256, symbol: naive_gemm, facts: {columns: 64}}
    other: {file: other.hsaco, sha256: SHA256, symbol: naive_gemm, facts: {columns: 32}}
arguments:
  - {name: a, kind: pointer, offset_bytes: 0}
  - {name: b, kind: pointer, offset_bytes: 8}
  - {name: c, kind: pointer, offset_bytes: 16}
  - {name: n, kind: u32, offset_bytes: 24}
  - {name: k, kind: u32, offset_bytes: 28}
tile: {m: 1, n: columns, k: 8}
launch:
  grid: ["ceil_div(n, columns)", m, 1]
  block: [columns, 1, 1]
proof:
  - {m: 4, n: 2 * columns, k: 64}
  - {m: 3, n: columns - 5, k: 24}
"""
SPACE = """
name: naive
template: gfx950/naive
parameters:
  kernel: {values: [naive, other], default: naive, help: the code object}
constraints:
  - {name: wide, require: columns == 64 or m > 1, reason: "{kernel} has tiles of {columns} columns"}
"""
Edit = Callable[[str], str]


@pytest.fixture
def described(tmp_path: Path) -> Callable[..., SearchSpace]:
    """A space of described objects, after edits of its template's text; the recorded object is in its folder."""

    def make(edit: Edit = str, space: Edit = str) -> SearchSpace:
        folder = tmp_path / "kernels" / "gfx950" / "naive"
        folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / "search_spaces").mkdir(exist_ok=True)
        (folder / "naive_gemm.hsaco").write_bytes(OBJECT)
        (folder / "template.yaml").write_text(edit(TEMPLATE.replace("SHA256", SHA256)))
        path = tmp_path / "search_spaces" / "naive.yaml"
        path.write_text(space(SPACE))
        return load_space(path)

    return make


def proved(space: SearchSpace, settings: Settings, words: str = "", operation: str = "bf16.nt") -> Attempt:
    own = space.for_operation(operation_of(operation))
    prover = Prover(own.template, compiler_for("object", settings), RecordStore(settings.cache_dir / "proofs"), 0)
    return prover(Candidate(space.parse(words.split()), own.template.operation))


def test_a_described_object_is_proved_like_a_variant(described, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """It is right everywhere; having no MFMA, it has no modelled time."""
    attempt = proved(described(), Settings(tmp_path / "cache"))
    assert attempt.object_sha256 == SHA256
    assert attempt.failure is not None
    assert attempt.failure.detail.startswith("right, but its time cannot be modelled")


def test_a_wrong_argument_is_seen(described, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    def halved(text: str) -> str:
        return text.replace(
            "{name: k, kind: u32, offset_bytes: 28}", "{name: half, kind: u32, offset_bytes: 28, value: 8}"
        )

    attempt = proved(described(halved), Settings(tmp_path / "cache"))
    assert attempt.failure is not None
    assert attempt.failure.status is Status.WRONG


def test_facts_are_known_to_rules_and_launches(described) -> None:  # type: ignore[no-untyped-def]
    space = described()
    other = space.parse(["kernel=other"])
    assert space.template.launch(other, Problem(2, 96, 64)).grid == (3, 2, 1)
    assert space.template.launch_rule(other, 96, 64).grid == (3, "m", 1)
    assert [str(each) for each in space.violations(other, Problem(1, 96, 64))] == [
        "wide: other has tiles of 32 columns"
    ]
    assert not space.violations(other, Problem(2, 96, 64))


def test_a_file_that_is_not_there_names_what_to_do(described, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    settings = Settings(tmp_path / "cache")
    with pytest.raises(ToolchainError, match=r"code object other.hsaco is not here: put it into .*naive$"):
        proved(described(), settings, "kernel=other")
    of_a_package = described(
        lambda text: text.replace("licence:", "distribution: no-such-package\n  extra: aiter\n  licence:")
    )
    with pytest.raises(ToolchainError, match=r"pip install 'hktune\[aiter\]' or pass --aiter DIR$"):
        proved(of_a_package, settings, "kernel=other")
    files = ObjectFiles(settings)
    objects = of_a_package.template.objects
    assert files.has(objects.file({"kernel": "naive"}))
    assert not files.has(objects.file({"kernel": "other"}))


def test_bytes_of_another_version_are_refused(described, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    space = described(lambda text: text.replace(SHA256, hashlib.sha256(b"newer").hexdigest()))
    with pytest.raises(ToolchainError, match=rf"naive_gemm.hsaco has sha256 {SHA256[:12]}, described is "):
        proved(space, Settings(tmp_path / "cache"))


def test_a_folder_of_the_user_is_looked_into(described, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    checkout = tmp_path / "checkout" / "hsa"
    checkout.mkdir(parents=True)
    space = described(lambda text: text.replace("licence:", "extra: aiter\n  checkout: hsa\n  licence:"))
    shutil.copy(tmp_path / "kernels/gfx950/naive/naive_gemm.hsaco", checkout / "other.hsaco")
    settings = Settings(tmp_path / "cache", aiter_dir=tmp_path / "checkout")
    assert ObjectFiles(settings).has(space.template.objects.file({"kernel": "other"}))


def test_a_copy_that_cannot_be_read_hides_no_good_one(described, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The template's own copy is larger than any code object."""
    space = described(lambda text: text.replace("licence:", "extra: aiter\n  checkout: hsa\n  licence:"))
    own = tmp_path / "kernels/gfx950/naive/naive_gemm.hsaco"
    os.truncate(own, (64 << 20) + 1)
    settings = Settings(tmp_path / "cache", aiter_dir=tmp_path / "checkout")
    file = space.template.objects.file({"kernel": "naive"})
    with pytest.raises(
        ToolchainError, match=r"naive_gemm.hsaco.*; code object naive_gemm.hsaco is not here: "
    ) as caught:
        compiler_for("object", settings).compile(space.template.render(space.config({})), 1.0)
    assert "\n" not in str(caught.value)
    good = tmp_path / "checkout" / "hsa" / "naive_gemm.hsaco"
    good.parent.mkdir(parents=True)
    good.write_bytes(OBJECT)
    assert ObjectFiles(settings).has(file)
    code = compiler_for("object", settings).compile(space.template.render(space.config({})), 1.0)
    assert not isinstance(code, Failure)
    assert code.data == OBJECT


def test_a_folder_that_may_not_be_entered_hides_no_good_copy(
    described,  # type: ignore[no-untyped-def]
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space = described(lambda text: text.replace("licence:", "extra: aiter\n  checkout: hsa\n  licence:"))
    own, good = tmp_path / "kernels/gfx950/naive", tmp_path / "checkout" / "hsa" / "naive_gemm.hsaco"
    good.parent.mkdir(parents=True)
    good.write_bytes(OBJECT)
    is_file = Path.is_file

    def refused(path: Path) -> bool:
        if path.parent == own:
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refused)  # tests of root may enter any folder
    settings = Settings(tmp_path / "cache", aiter_dir=tmp_path / "checkout")
    assert ObjectFiles(settings).has(space.template.objects.file({"kernel": "naive"}))
    with pytest.raises(ToolchainError, match="Permission denied"):
        compiler_for("object", settings).compile(space.template.render(space.parse(["kernel=other"])), 1.0)


def with_argument(text: str, argument: str) -> str:
    """The template with one more argument, `argument` as YAML."""
    return text.replace("tile:", f"  - {{{argument}, offset_bytes: 32}}\ntile:")


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda text: text.replace("language: object", "language: hip"), "language hip and its objects must agree"),
        (lambda text: text + "source: naive.hip\n", "has no source, symbol or fields"),
        (lambda text: text.replace(", facts: {columns: 32}", ""), "do not all have the fact 'columns'"),
        (lambda text: text.replace(", offset_bytes: 28", ""), "give each its place, or none"),
        (lambda text: text.replace("offset_bytes: 28", "offset_bytes: 28, scale: m"), "needs the problem"),
        (lambda text: text.replace("offset_bytes: 8}", "offset_bytes: 8, value: 0}"), "argument b has a value"),
        (lambda text: text.replace("name: n, kind: u32", "name: n, value: 8, kind: u32"), "argument n has a value"),
        (lambda text: with_argument(text, "name: bias_given, kind: u32, value: 1"), "argument bias_given has a value"),
        (lambda text: with_argument(text, "name: one, kind: u32"), "argument 'one' is not known"),
        (lambda text: with_argument(text, "name: one, kind: pointer, value: 8"), "argument one is a pointer: the only"),
        (lambda text: with_argument(text, "name: one, kind: u32, value: 2 ** 3"), "argument one"),
        (lambda text: with_argument(text, "name: one, kind: u32, value: 0 - 1"), "argument one is a u32: its value"),
        (lambda text: with_argument(text, "name: one, kind: u32, value: 4294967296"), "argument one is a u32"),
        (lambda text: with_argument(text, "name: one, kind: i32, value: 2147483648"), "argument one is a i32"),
        (lambda text: with_argument(text, "name: one, kind: u64, value: -1"), "argument one is a u64"),
        (lambda text: with_argument(text, "name: one, kind: u32, value: 1.0"), "argument one is a u32: an f32 has"),
        (lambda text: with_argument(text, "name: one, kind: f32, value: 3.5e+38"), "argument one is an f32"),
        (lambda text: with_argument(text, "name: one, kind: f32, value: .nan"), "argument one: `.nan`: not an"),
        (lambda text: with_argument(text, "name: one, kind: u32, value: 2, scale: 2"), "argument one has a scale"),
        (lambda text: with_argument(text, "name: one, kind: u32, value: \"'word'\""), "argument one is 'word'"),
        (lambda text: with_argument(text, "name: lda, kind: u32, scale: 0"), "argument lda has scale 0"),
        (lambda text: with_argument(text, "name: lda, kind: u32, scale: 65"), "argument lda has scale 65"),
        (lambda text: with_argument(text, "name: lda, kind: pointer, scale: columns"), "argument lda has a scale"),
        (lambda text: with_argument(text, "name: lda, kind: f32, scale: columns"), "argument lda is a f32"),
        (lambda text: text.replace("offset_bytes: 28", "offset_bytes: 24"), "argument k at offset_bytes 24 overlaps n"),
        (lambda text: text.replace("offset_bytes: 24", "offset_bytes: 20"), "argument n at offset_bytes 20 overlaps c"),
        (lambda text: text.replace("offset_bytes: 28", "offset_bytes: 30"), "argument k has offset_bytes 30"),
        (lambda text: text.replace("columns: ", "m: "), "fact 'm' has a name"),
        (lambda text: text.replace("columns: ", "lda: "), "fact 'lda' has a name"),
        (lambda text: text.replace("columns: ", "b: "), "fact 'b' has a name"),
        (lambda text: text.replace("columns: ", "operation: "), "fact 'operation' has a name"),
        (lambda text: text.replace("columns: ", "kernel: "), "fact 'kernel' has a name"),
        (lambda text: text + "storage: {scale_a: transposed}\n", "storage of scale_a: it is a matrix of none"),
        (lambda text: text + "storage: {a: scales_32x8}\n", "storage of a is scales_32x8: that is for e8m0"),
        (lambda text: text + "derived: {columns: 3}\n", "derived columns is a fact too"),
        (lambda text: text.replace(SHA256, "abc"), "sha256"),
        (lambda text: text.replace("file: naive_gemm.hsaco", "file: ../naive_gemm.hsaco"), "file"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_description_is_one_line(described, edit: Edit, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError) as caught:
        described(edit)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("name: lda, kind: u32, scale: columns - 64", "argument lda has scale 0: it must be 1 to 64"),
        ("name: lda, kind: u32, scale: 2 * columns", "argument lda has scale 128"),
        ("name: lda, kind: u32, scale: operation.a_dtype", "argument lda scale is 'bf16': it must be an integer"),
        ("name: one, kind: u32, value: columns - 65", "argument one is a u32: its value must be 0 to 4294967295"),
        ("name: one, kind: i32, value: columns * 33554432", "argument one is a i32"),
        ("name: one, kind: pointer, value: columns", "argument one is a pointer"),
        ("name: one, kind: u32, value: operation.a_dtype", "argument one is 'bf16': it must be an integer"),
    ],
)
def test_what_a_config_makes_unfit_is_refused_where_it_is_launched(described, argument: str, says: str) -> None:  # type: ignore[no-untyped-def]
    template = described(lambda text: with_argument(text, argument)).template
    config = {"kernel": "naive"}
    for launched in (lambda: template.launch(config, Problem(4, 64, 64)), lambda: template.launch_rule(config, 64, 64)):
        with pytest.raises(TemplateError, match=re.escape(says)) as caught:
            launched()
        assert "\n" not in str(caught.value)


def test_what_a_launch_can_pass_is_read(described) -> None:  # type: ignore[no-untyped-def]
    for argument, passed in (
        ("name: lda, kind: u32, scale: columns", Argument("lda", "u32", 64, None, 32)),
        ("name: one, kind: u32, value: 4294967295", Argument("one", "u32", 1, 2**32 - 1, 32)),
        ("name: one, kind: f32, value: 3", Argument("one", "f32", 1, 3.0, 32)),
        ("name: one, kind: pointer, value: 0", Argument("one", "pointer", 1, 0, 32)),
    ):
        template = described(lambda text, argument=argument: with_argument(text, argument)).template
        assert template.launch({"kernel": "naive"}, Problem(4, 64, 64)).arguments[-1] == passed


IMAGE = read_code_object(OBJECT).kernels["naive_gemm"]


def test_arguments_by_offset_need_no_order_and_no_padding() -> None:
    k, c = Argument("k", "u32", offset_bytes=28), Argument("c", "pointer", offset_bytes=16)
    assert IMAGE.mismatch((k, c)) is None
    assert [slot.offset_bytes for slot, _ in IMAGE.filled((k, c))] == [28, 16]
    assert "no argument at offset 30" in str(IMAGE.mismatch((replace(k, offset_bytes=30),)))
    assert "at offset 28" in str(IMAGE.mismatch((k, k)))
    assert "8 bytes at offset 16" in str(IMAGE.mismatch((replace(k, offset_bytes=16),)))


def test_numbers_are_scaled_and_constants_need_no_value() -> None:
    assert pack_argument(Argument("lda", "u32", scale=2), 4096) == struct.pack("<I", 8192)
    assert pack_argument(Argument("alpha", "f32", constant=1.0), None) == struct.pack("<f", 1.0)
    assert pack_argument(Argument("unused", "pointer", constant=0), None) == bytes(8)
    for argument in (
        Argument("lda", "u32", scale=2),
        Argument("x", "f32", constant=1e300),
        Argument("y", "u32", constant=-1),
    ):
        with pytest.raises(DeviceError, match="does not fit"):
            pack_argument(argument, 2**31)


def test_a_launch_knows_whether_it_adds_a_bias() -> None:
    space = load_space(SPACES / "gfx950_aiter_bf16_prefetch.yaml")
    for operation, given in ((BF16_NT, 0), (BF16_NT_BIAS, 1)):
        launch = space.template.launch(space.config({}), Problem(64, 128, 256, operation))
        rule = space.launch_rule(space.config({}), Problem(64, 128, 256, operation))
        for arguments in (launch.arguments, rule.at(64, operation).arguments):  # type: ignore[union-attr]
            assert {each.name: each.constant for each in arguments}["bias_given"] == given
        assert launch.takes("bias")
        assert not launch.takes("bias_given")


def test_a_table_keeps_how_arguments_are_passed() -> None:
    """Arguments without anything of that are written as before."""
    row = trial(Problem(8, 64, 64))

    def launch(_: object) -> tuple[str, object]:
        symbol, rule = launch_of(row)
        *others, k = rule.arguments
        arguments = (*others, replace(k, scale=2), Argument("one", "f32", constant=1.0))
        places = (0, 8, 16, 24, 28, 32)
        placed = (replace(each, offset_bytes=at) for each, at in zip(arguments, places, strict=True))
        return symbol, replace(rule, arguments=tuple(placed))

    plain = table_of(row).entries[0].kernel
    assert plain is not None
    assert msgspec.to_builtins(plain.launch.arguments)[0] == {"name": "a", "kind": "pointer"}
    made = build_table([row], launch, **_made_by())  # type: ignore[arg-type]
    kernel = made.entries[0].kernel
    assert kernel is not None
    again = msgspec.json.decode(msgspec.json.encode(kernel.launch), type=TableLaunch)
    assert again.rule.arguments[-2:] == launch(row)[1].arguments[-2:]  # type: ignore[attr-defined]
    for wrong in ({"kind": "f32", "constant": 1}, {"kind": "pointer", "constant": 3}, {"kind": "u32", "constant": 1.5}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({**msgspec.to_builtins(kernel.launch), "arguments": [{"name": "x", **wrong}]}, TableLaunch)


def _made_by() -> dict[str, object]:
    from naive_gemm import EMULATED

    return {"identity": EMULATED, "compiler": "none", "version": "0", "created_at": "2026-11-29T18:00:00+00:00"}


@pytest.mark.parametrize("dtype", [BF16, F16])
def test_halfway_is_rounded_away_where_a_kernel_says_so(dtype: Dtype) -> None:
    """Of exact sums, against rational arithmetic: both neighbours are right where ties are even, and then one."""
    problem = Problem(48, 64, 64, replace(BF16_NT, a=dtype.name, b=dtype.name, c=dtype.name))
    operands = random_operands(problem, 3, exact_sums=True)
    even = dtype.bits(operands.answer.exact.astype(np.float32))
    assert compare(even, operands) is None
    away = even.copy()
    ties = 0
    for place, exact in np.ndenumerate(operands.answer.exact):
        got = _number(dtype, even[place])
        if got is None or abs(got) >= abs(Fraction(float(exact))):
            continue
        above = _number(dtype, even[place] + 1)  # the next further from zero
        if above is not None and abs(above) - abs(Fraction(float(exact))) == abs(Fraction(float(exact))) - abs(got):
            away[place] += 1
            ties += 1
    assert ties > 5
    assert compare(away, replace(operands, rounding="half_away")) is None
    assert compare(away, operands) is not None
    assert compare(even, replace(operands, rounding="half_away")) is not None


def _number(dtype: Dtype, bits: np.unsignedinteger) -> Fraction | None:
    value = float(dtype.values(np.array([bits]))[0])
    return Fraction(value) if np.isfinite(value) else None


def _has_aiter() -> bool:
    try:
        return metadata.version("amd-aiter") == "0.1.7.post2.dev18"
    except metadata.PackageNotFoundError:
        return False


@pytest.mark.skipif(not _has_aiter(), reason="pip install 'hktune[aiter]'")
@pytest.mark.parametrize(("kernel", "split_k"), [("pf3_32", 2), ("pf3_48", 1), ("pf3_64", 1), ("pf3_96", 1)])
def test_the_kernels_of_the_package_are_right(kernel: str, split_k: int, tmp_path: Path) -> None:
    """Every element of every proof, with hazards looked for: C of float32 is within its sums' bound, then exact."""
    space = load_space(SPACES / "gfx950_aiter_bf16_outf32.yaml")
    attempt = proved(space, Settings(tmp_path), f"kernel={kernel} split_k={split_k}", "bf16.nt->f32")
    assert attempt.failure is None
    assert attempt.relative_error is not None
    assert attempt.relative_error < 2**-20


@pytest.mark.skipif(not _has_aiter(), reason="pip install 'hktune[aiter]'")
def test_the_kernels_of_the_package_take_any_rows(tmp_path: Path) -> None:
    space = load_space(SPACES / "gfx950_aiter_bf16_outf32.yaml")
    operation = operation_of("bf16.nt->f32")
    own = space.for_operation(operation)
    prover = Prover(own.template, compiler_for("object", Settings(tmp_path)), RecordStore(tmp_path / "proofs"), 0)
    for m, n, k in ((1, 64, 192), (33, 192, 320), (161, 64, 256)):
        assert not isinstance(prover.on(space.config({}), Problem(m, n, k, operation)), Failure)
