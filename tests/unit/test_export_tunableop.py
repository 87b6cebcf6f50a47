"""`hktune export --format tunableop`: what PyTorch would find in the file, by its own headers and our reader of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stored_algorithm import measured

from hktune.cli import main
from hktune.core.operation import operation_of
from hktune.core.outcome import Stage, Status
from hktune.core.problem import Problem
from hktune.core.solution_index import handle_of
from hktune.core.trial import Trial
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.exchange.foreign_file import read_foreign
from hktune.store import TrialStore

HEADERS = Path(torch.__file__).parent / "include" / "ATen" / "cuda" / "tunable"
VALIDATORS = {
    "PT_VERSION": "2.10.0",
    "HIP_VERSION": "702",
    "HIPBLASLT_VERSION": "100202-dabb6df2b9",
    "GCN_ARCH_NAME": "gfx950:sramecc+:xnack-",
    "ROCBLAS_VERSION": "5.2.0.dabb6df2b9",
}
HIPBLASLT = VendorAlgorithm("hipBLASLt", "1.2.2-dabb6df2b9", handle_of(93702), "Cijk_Alik_Bljk_BBS", 4096)
ROCBLAS = VendorAlgorithm("rocBLAS", "5.2.0.dabb6df2b9", handle_of(-621294427))
TORCHS = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


def row(problem: Problem, algorithm: VendorAlgorithm, time_us: float) -> Trial:
    return measured(problem, algorithm, time_us, "gfx950", "AMD Instinct MI355X")


@pytest.fixture
def exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, list[str]]]:
    """Exit code, what was printed, and the lines of results, of an export of `rows`."""

    def run(rows: Sequence[Trial], said: str = "", **validators: str) -> tuple[int, str, list[str]]:
        TrialStore(tmp_path / "out").extend(rows)
        lines = [f"Validator,{name},{value}" for name, value in {**VALIDATORS, **validators}.items()]
        own = tmp_path / "tunableop_results0.csv"
        own.write_text("\n".join((*lines, said, "")))
        out = tmp_path / "tuned0.csv"
        code = main(
            ["export", str(tmp_path / "out"), "--format", "tunableop", "--validators", str(own), "-o", str(out)]
        )
        printed = capsys.readouterr()
        text = out.read_text() if out.exists() else ""
        if text:
            assert text.splitlines()[: len(lines)] == lines, "PyTorch takes no file with other validators"
        return code, printed.out + printed.err, text.splitlines()[len(lines) :]

    return run


def signature(problem: Problem) -> str:
    """What PyTorch says of torch.mm(a, b) or linear: by the format of its own header, from strides of real tensors."""
    wanted = r'struct GemmParams .*?string Signature\(\) const override {\s*return fmt::sprintf\("([^"]+)"'
    found = re.search(wanted, read("GemmCommon.h"), re.DOTALL)
    assert found
    m, n, k, (of_a, of_b, *_) = problem.m, problem.n, problem.k, problem.operation.layout
    a = torch.empty(m, k) if of_a == "n" else torch.empty(k, m).T
    b = torch.empty(k, n) if of_b == "n" else torch.empty(n, k).T
    # BLAS computes C^T = B^T A^T: it sees a tensor whose rows are contiguous as one that it need not transpose.
    (trans_a, lda), (trans_b, ldb) = (("n", x.stride(0)) if x.stride(1) == 1 else ("t", x.stride(1)) for x in (b, a))
    return found[1].replace("%ld", "%d") % (trans_a, trans_b, n, m, k, lda, ldb, torch.empty(m, n).stride(0))


def read(header: str) -> str:
    return (HEADERS / header).read_text()


@pytest.mark.parametrize("layout", ["nt", "nn", "tn", "tt"])
@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
def test_a_solution_has_the_names_and_sizes_of_pytorchs_headers(
    exported: Callable[..., tuple[int, str, list[str]]], tmp_path: Path, dtype: str, layout: str
) -> None:
    problem = Problem(32, 256, 64, operation_of(f"{dtype}.{layout}"))
    code, said, [line] = exported([row(problem, HIPBLASLT, 9.0), row(problem, ROCBLAS, 8.5)])
    assert (code, said) == (0, f"{tmp_path / 'tuned0.csv'}: 1 product\n")
    operator, sizes, way, time_ms = line.split(",")
    type_name = re.search(rf'TypeName\({CPLUSPLUS[dtype]} v\).*?return "(\w+)";\s*}}', read("TunableGemm.h"), re.DOTALL)
    assert type_name
    named = "float" if dtype == "f32" else type_name[1]  # of float, tf32 comes first: where it is allowed
    transposes = sizes[:2].upper()
    assert '"GemmTunableOp_%s_%c%c", TypeName<T>(T{})' in read("TunableGemm.h")
    assert operator == f"GemmTunableOp_{named}_{transposes}"
    assert sizes == signature(problem)
    assert '"Gemm_Rocblas_%d", solution' in read("GemmRocblas.h")
    assert way == "Gemm_Rocblas_-621294427"
    assert float(time_ms) == 0.0085
    foreign = read_foreign(tmp_path / "tuned0.csv")
    assert foreign
    assert dict(foreign.facts) == VALIDATORS
    if dtype != "f32":  # which no call asks a table for
        found = [(each.problem, each.way, each.time_us, each.arch) for each in foreign.products]
        assert found == [(problem, way, 8.5, "gfx950")]


CPLUSPLUS = {"bf16": "BFloat16", "f16": "Half", "f32": "float"}


def test_a_bias_is_another_operator_and_hipblaslts(exported: Callable[..., tuple[int, str, list[str]]]) -> None:
    problem = Problem(32, 64, 256, operation_of("bf16.nt+bias"))
    _, _, lines = exported([row(problem, HIPBLASLT, 9.0)])
    assert '"GemmAndBiasTunableOp_%s_%c%c"' in read("TunableGemm.h")
    assert '"Gemm_Hipblaslt_%d", algo_index' in read("GemmHipblaslt.h")
    assert lines == ["GemmAndBiasTunableOp_BFloat16_TN,tn_64_32_256_ld_256_256_64,Gemm_Hipblaslt_93702,0.009"]


def test_where_torchs_own_choice_is_as_fast_it_stays(exported: Callable[..., tuple[int, str, list[str]]]) -> None:
    problem = Problem(32, 64, 256, operation_of("bf16.nt"))
    _, _, [line] = exported([row(problem, HIPBLASLT, 19.95), row(problem, ROCBLAS, 25.0)])
    assert line == "GemmTunableOp_BFloat16_TN,tn_64_32_256_ld_256_256_64,Default,0.02"


def test_confirmed_rows_decide(exported: Callable[..., tuple[int, str, list[str]]]) -> None:
    problem = Problem(32, 64, 256, operation_of("bf16.nt"))
    lucky, steady = row(problem, HIPBLASLT, 8.0), row(problem, ROCBLAS, 9.0)
    again = [
        replace(each, stage=Stage.CONFIRMED, time_us=time_us, time_us_low=time_us, time_us_high=time_us)
        for each, time_us in ((lucky, 11.0), (steady, 10.0))
    ]
    _, _, [line] = exported([lucky, steady, *again])
    assert line.endswith(",Gemm_Rocblas_-621294427,0.01")


def test_older_names_are_kept_where_the_file_has_them(exported: Callable[..., tuple[int, str, list[str]]]) -> None:
    problem = Problem(32, 64, 256, operation_of("bf16.nn"))
    said = "GemmTunableOp_BFloat16_TN,tn_8192_2_3584,Gemm_Hipblaslt_TN_572,0.0240676"
    _, _, [line] = exported([row(problem, HIPBLASLT, 9.0)], said)
    assert line.split(",")[2] == "Gemm_Hipblaslt_NN_93702"


@pytest.mark.parametrize("hipblaslt", ["100202-dabb6df2b9", "1.2.2-dabb6df2b9"])
@pytest.mark.parametrize("rocblas", ["5.2.0.dabb6df2b9", "5.2.0-dabb6df2b9"])
def test_versions_are_the_same_however_they_are_said(
    exported: Callable[..., tuple[int, str, list[str]]], hipblaslt: str, rocblas: str
) -> None:
    problems = [Problem(m, 64, 256, operation_of("bf16.nt")) for m in (16, 32)]
    rows = [row(problems[0], HIPBLASLT, 9.0), row(problems[1], ROCBLAS, 9.0)]
    _, _, lines = exported(rows, HIPBLASLT_VERSION=hipblaslt, ROCBLAS_VERSION=rocblas)
    assert [line.split(",")[2] for line in lines] == ["Gemm_Hipblaslt_93702", "Gemm_Rocblas_-621294427"]


def test_what_tunableop_cannot_run_is_counted(exported: Callable[..., tuple[int, str, list[str]]]) -> None:
    own = replace(ROCBLAS, handle=handle_of(0), name="its own choice")
    older = replace(HIPBLASLT, version="1.2.1-0123abc")
    plain = operation_of("bf16.nt")
    code, said, lines = exported([
        row(Problem(16, 64, 256, plain), HIPBLASLT, 9.0),
        row(Problem(17, 64, 256, plain), own, 9.0),
        row(Problem(18, 64, 256, plain), older, 9.0),
        row(Problem(19, 64, 256, operation_of("bf16.nt->f32")), HIPBLASLT, 9.0),
        row(Problem(20, 64, 256, operation_of("bf16.nt+accumulate")), HIPBLASLT, 9.0),
        replace(row(Problem(21, 64, 256, plain), HIPBLASLT, 9.0), status=Status.WRONG, time_us=None, source=None),
    ])  # fmt: skip
    assert (code, len(lines)) == (0, 1)
    assert said.endswith(
        ": 1 product; left out: 1 of another version of its library than the validators say; "
        "left out: 2 of operations that TunableOp does not tune; left out: 1 with nothing but rocBLAS' own choice\n"
    )


def test_what_cannot_be_written_is_one_line(
    exported: Callable[..., tuple[int, str, list[str]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = Problem(32, 64, 256, operation_of("bf16.nt"))
    code, said, _ = exported([row(problem, HIPBLASLT, 9.0)], GCN_ARCH_NAME="gfx942:sramecc+:xnack-")
    assert (code, said.count("\n")) == (2, 1)
    assert "the validators are of gfx942, the trials of gfx950: take a file of TunableOp on gfx950" in said
    words = ["export", str(tmp_path / "out"), "--format", "tunableop", "-o", str(tmp_path / "x")]
    assert main(words) == 2
    assert "--format tunableop: needs --validators FILE: let the PyTorch" in capsys.readouterr().err
    (tmp_path / "none.csv").write_text("GemmTunableOp_BFloat16_TN,tn_8192_2_3584\n")
    assert main([*words, "--validators", str(tmp_path / "none.csv")]) == 2
    assert "has no line `Validator,NAME,VALUE`" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "out"), "--format", "t4", "--validators", "x", "-o", "y"]) == 2
    assert "--validators x: is for --format tunableop: leave it out" in capsys.readouterr().err
