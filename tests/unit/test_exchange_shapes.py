"""Shapes of other tools' files: what each format means, by BLAS' definition and by torch; and what odd files are."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from foreign_files import AITER_OLD, AITER_TUNED, BENCH_OUTPUT, LOG, TUNABLE, YAML

from hktune.cli import main
from hktune.core.errors import ShapesError
from hktune.core.operand import factors_of, operands_of
from hktune.core.operation import Operation
from hktune.core.problem import Problem
from hktune.core.shapes import load_shapes
from hktune.dispatch import read_table
from hktune.exchange import blas, foreign_file, profiler_trace
from hktune.exchange.foreign_shapes import FoundShapes, read_shapes

BF16, F16 = Operation("bf16"), Operation("f16")


def found_in(directory: Path, text: str | bytes, operation: Operation | None = None) -> FoundShapes:
    path = directory / "file"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_shapes(path, operation)


def weights(found: FoundShapes) -> dict[Problem, float]:
    return {shape.problem: shape.weight for shape in found.shapes}


def reasons(found: FoundShapes) -> dict[str, int]:
    return {each.why: each.lines for each in found.left_out}


@pytest.mark.parametrize(("trans_a", "trans_b"), ["NN", "NT", "TN", "TT"])
def test_a_call_of_blas_is_the_product_of_the_same_memory_read_by_rows(
    monkeypatch: pytest.MonkeyPatch, trans_a: str, trans_b: str
) -> None:
    """BLAS' definition in column-major numpy, and hktune's operands over the very bytes."""
    layouts = [Operation("bf16", "".join(layout)) for layout in itertools.product("nt", "nt")]
    monkeypatch.setattr("hktune.exchange.product.CALL_OPERATIONS", layouts)
    m, n, k = 3, 5, 7
    rng = np.random.default_rng(0)
    a = np.asfortranarray(rng.standard_normal((m, k) if trans_a == "N" else (k, m)))
    b = np.asfortranarray(rng.standard_normal((k, n) if trans_b == "N" else (n, k)))
    c = np.asfortranarray((a if trans_a == "N" else a.T) @ (b if trans_b == "N" else b.T))
    problem = blas.blas_problem({"m": m, "n": n, "k": k, "transa": trans_a, "transb": trans_b, "a_type": "bf16_r"})
    operands = operands_of(problem.operation)
    memory = {"a": b, "b": a, "c": c}  # BLAS' second operand is the left one by rows
    stored = {
        name: array.ravel(order="F").reshape(operands[name].extents(problem.sizes)) for name, array in memory.items()
    }
    left, right = factors_of(problem.operation, {"a": stored["a"], "b": stored["b"]})
    assert np.allclose(left @ right, stored["c"])


def test_aiters_files_of_every_age(tmp_path: Path) -> None:
    found = found_in(tmp_path, AITER_TUNED)
    assert found.format == "AITER's CSV"
    assert weights(found) == {Problem(1, 8192, 4096): 1, Problem(64, 256, 5120, F16.with_steps("bias")): 1}
    assert reasons(found) == {"an operand that is stored in blocks": 1, "scaled operands": 1}
    assert weights(found_in(tmp_path, AITER_OLD)) == {Problem(64, 256, 5120): 1}
    untuned = "M,N,K\r\n16,1536,7168\r\n\r\n# QKV\r\n32,1536,7168\r\n"
    assert weights(found_in(tmp_path, untuned, BF16)) == {Problem(16, 1536, 7168): 1, Problem(32, 1536, 7168): 1}
    with pytest.raises(
        ShapesError, match=r"2 without the format of its operands \(hktune shapes --operation says it\)"
    ):
        found_in(tmp_path, untuned)


def test_public_csv_files_have_lines_that_are_none(tmp_path: Path) -> None:
    """As AITER's history has them: an unfinished merge, a missing cell, a tab for a comma, sizes as floats."""
    text = (
        "M,N,K,bias,dtype,outdtype,scaleAB\n8192.000000,8192,256.000000,False,torch.bfloat16,torch.bfloat16,False\n"
        "<<<<<<< HEAD\n1,2,False,torch.bfloat16,torch.bfloat16,False\n"
        "1,10240\t8192,3,False,torch.bfloat16,torch.bfloat16,False\n"
        "1,2,3,False,torch.float8_e4m3fnuz,torch.bfloat16,False\n"
    )
    found = found_in(tmp_path, text)
    assert weights(found) == {Problem(8192, 8192, 256): 1}
    assert list(reasons(found).values()) == [2, 1, 1]
    assert [each.first.line for each in found.left_out] == [3, 5, 6]


def test_tunableops_results_and_untuned_products(tmp_path: Path) -> None:
    found = found_in(tmp_path, TUNABLE)
    assert weights(found) == {
        Problem(2, 8192, 3584): 1,
        Problem(1, 8192, 4096): 1,
        Problem(2, 1280, 8192, F16.with_steps("bias")): 1,
        Problem(8, 16, 64): 1,
    }
    assert reasons(found) == {"batched": 1, "scaled operands": 1, "operands of float64": 1}
    untuned = "GemmTunableOp_BFloat16_TN,tn_4096_1024_7168_ld_7168_7168_4096\n" * 3
    assert weights(found_in(tmp_path, untuned)) == {Problem(1024, 4096, 7168): 1}


def test_logs_of_hipblaslt_and_rocblas_count_calls(tmp_path: Path) -> None:
    found = found_in(tmp_path, LOG)
    assert weights(found) == {
        Problem(109, 16032, 16384, BF16.with_steps("bias")): 1,
        Problem(512, 1024, 1024, F16): 51,
        Problem(113, 16032, 16384): 7,
        Problem(4547, 12288, 4608): 136,
    }
    assert reasons(found) == {"batched": 1}


def test_what_benchmarks_print_and_yaml_of_several_lines(tmp_path: Path) -> None:
    assert weights(found_in(tmp_path, BENCH_OUTPUT)) == {Problem(16, 4096, 4096): 1}
    found = found_in(tmp_path, YAML)
    assert weights(found) == {Problem(16, 4096, 1024): 1}
    assert reasons(found) == {"operands of d": 1}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--beta 1", "beta is not 0: it adds to C"),
        ("--alpha 2.5", "alpha is not 1"),
        ("--batch_count 4", "batched"),
        ("--grouped_gemm", "grouped"),
        ("-m 64 -m 128", "grouped"),
        ("--activation_type gelu", "an activation in its epilogue"),
        ("--use_e", "another step than a bias in its epilogue"),
        ("--swizzleA", "an operand that is stored in blocks"),
        ("--scaleA 1", "scaled operands"),
        ("--bias_vector --bias_type f32_r", "a bias of another format than C"),
        ("--transA X", "a transposition that is none of N, T, C"),
    ],
)
def test_what_a_table_cannot_serve_has_a_reason(tmp_path: Path, words: str, why: str) -> None:
    line = "hipblaslt-bench -m 64 -n 64 -k 64 --transA T --a_type bf16_r --d_type bf16_r"
    found = found_in(tmp_path, f"{line}\n{line} {words}\n")
    assert reasons(found) == {why: 1}


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A trace by torch itself, and the shapes that hktune's recorder saw of the same calls."""
    torch = pytest.importorskip("torch")
    import hktune

    folder = tmp_path_factory.mktemp("trace")
    biased = torch.nn.Linear(64, 32).bfloat16()
    plain = torch.nn.Linear(64, 48, bias=False).half()
    x = torch.randn(2, 5, 64).bfloat16()
    weight = torch.randn(24, 64).bfloat16()

    def calls() -> None:
        for _ in range(3):
            biased(x)
        plain(x.half())
        torch.matmul(x, weight.t())
        torch.addmm(torch.randn(24).bfloat16(), x[0], weight.t())
        x[0] @ weight.t()

    with torch.no_grad(), hktune.record(folder / "recorded.yaml"):
        calls()
    with torch.no_grad(), torch.profiler.profile(record_shapes=True) as profile:
        calls()
        torch.bmm(x, x.transpose(1, 2))
    profile.export_chrome_trace(str(folder / "trace.json"))
    return folder / "trace.json", folder / "recorded.yaml"


def test_a_trace_has_what_the_recorder_sees_each_call_once(traced: tuple[Path, Path]) -> None:
    trace, recorded = traced
    found = read_shapes(trace)
    assert found.format == profiler_trace.NAME
    assert weights(found) == {shape.problem: shape.weight for shape in load_shapes(recorded)}
    assert reasons(found) == {"batched": 1}


def test_a_trace_may_be_packed_and_of_a_torch_without_strides(traced: tuple[Path, Path], tmp_path: Path) -> None:
    trace, _ = traced
    (tmp_path / "trace.json.gz").write_bytes(gzip.compress(trace.read_bytes()))
    assert weights(read_shapes(tmp_path / "trace.json.gz")) == weights(read_shapes(trace))
    document = json.loads(trace.read_text())
    for event in document["traceEvents"]:
        event.get("args", {}).pop("Input Strides", None)
    found = found_in(tmp_path, json.dumps(document))
    assert weights(found) == {
        Problem(10, 32, 64, BF16.with_steps("bias")): 3,
        Problem(10, 48, 64, F16): 1,
    }
    assert reasons(found) == {"a layout that the trace does not say (no strides)": 3, "batched": 1}


def test_the_command_writes_what_tune_reads_and_says_what_it_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.csv").write_text(TUNABLE)
    (tmp_path / "log").write_text(LOG)
    out = tmp_path / "shapes.yaml"
    assert main(["shapes", str(tmp_path / "results.csv"), str(tmp_path / "log"), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "1: batched, such as" in said
    assert f"{out}: 8 shapes" in said
    written = {shape.problem: shape.weight for shape in load_shapes(out)}
    assert written == weights(read_shapes(tmp_path / "log")) | weights(read_shapes(tmp_path / "results.csv"))
    assert main(["shapes", str(tmp_path / "results.csv"), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["left_out"] for line in lines if "left_out" in line] == [
        "batched",
        "scaled operands",
        "operands of float64",
    ]


ODD_SIZES = (
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1e30",
    "1.5",
    "",
    "99999999999999999999",
    "0x10",
    "1_0",
    "\uff11",
    "True",
)


@pytest.mark.parametrize("size", ODD_SIZES)
def test_a_size_that_is_none_is_left_out_in_every_format(tmp_path: Path, size: str) -> None:
    line = "hipblaslt-bench -m 64 -n {} -k 64 --transA T --a_type bf16_r\n"
    yaml = "- {{function: matmul, M: 64, N: {}, K: 64, transA: T, a_type: bf16_r}}\n"
    texts = {
        "csv": f"M,N,K,dtype\n64,64,64,torch.bfloat16\n{size},64,64,torch.bfloat16\n",
        "tunable": f"GemmTunableOp_BFloat16_TN,tn_64_64_64\nGemmTunableOp_BFloat16_TN,tn_64_{size}_64\n",
        "command": line.format(64) + line.format(size),
        "yaml": yaml.format(64) + yaml.format(size or "~"),
    }
    for name, text in texts.items():
        found = found_in(tmp_path, text)
        assert (name, weights(found)) == (name, {Problem(64, 64, 64): 1})
        assert sum(reasons(found).values()) == 1


def bomb() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("trace.json", b"0" * (4 << 20))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (gzip.compress(b"0" * (4 << 20)), "has more than 1048576 bytes when unpacked"),
        (bomb(), "has more than 1048576 bytes when unpacked"),
        (gzip.compress(AITER_TUNED.encode())[:-9], "cannot be unpacked"),
        (b'{"traceEvents": [{"name": 3}]}', "Expected `str`, got `int`"),
        (b'{"traceEvents": [' + b'{"args": ' * 100_000, "traceEvents|nested|truncated|depth"),
        (b'{"traceEvents": []}', "with 0 products, none of which a table can serve"),
        (b"M,N,K\n", "with 0 products"),
        (b"N,M,L\n1,2,3\n", "must be a mapping with a list `shapes`.*nor is it AITER's CSV, TunableOp's results"),
        (b"Validator,PT_VERSION,2.5.0\n", "with 0 products"),
        (b"\xff\xfe" + "M,N,K\n1,2,3\n".encode("utf-16-le"), "must be UTF-8 text"),
        (b"", "must be a mapping with a list `shapes`"),
    ],
)
def test_a_file_that_is_broken_as_a_whole_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, says: str
) -> None:
    monkeypatch.setattr(foreign_file, "BYTES_MAX", 1 << 20)
    with pytest.raises(ShapesError, match=says) as caught:
        found_in(tmp_path, data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [AITER_TUNED, TUNABLE, LOG, BENCH_OUTPUT, YAML])
def test_a_byte_order_mark_carriage_returns_empty_and_repeated_lines_change_nothing(tmp_path: Path, text: str) -> None:
    plain = found_in(tmp_path, text)
    marked = b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"\r\n\r\n"
    assert weights(found_in(tmp_path, marked)) == weights(plain)
    assert reasons(found_in(tmp_path, marked)) == reasons(plain)
    if text in (AITER_TUNED, TUNABLE):  # they count no calls
        assert weights(found_in(tmp_path, text + text)) == weights(plain)


def test_a_long_line_and_many_braces_take_no_time(tmp_path: Path) -> None:
    rng = random.Random(0)
    line = "".join(rng.choice("{}-/ ") for _ in range(1 << 20)) + "hipblaslt-bench function: {" * 1000
    with pytest.raises(ShapesError):
        found_in(tmp_path, "\n".join([line] * 8))


def test_tune_takes_such_a_file_and_says_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ziglang")
    (tmp_path / "results.csv").write_text(
        "GemmTunableOp_BFloat16_TN,tn_256_256_512_ld_512_512_256,Default,0.1\n"
        "GemmTunableOp_float_TN,tn_256_256_512_ld_512_512_256,Default,0.1\n"
    )
    words = ("--out", str(tmp_path / "out"), "--device", "emulated", "--trials", "1", "--rivals", "none")
    assert main(["tune", "--shapes", str(tmp_path / "results.csv"), *words]) == 0
    left_out = "left out: 1 (1 f32.nt, which no call asks a table for)"
    assert f"hktune: TunableOp's results: 1 shapes; {left_out}" in capsys.readouterr().err
    assert read_table(tmp_path / "out").entries[0].problem == Problem(256, 256, 512)
