"""What the bindings of AMD's libraries say of numbers, structures and functions, against AMD's own headers."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from hktune.device import hipblaslt_library as lt
from hktune.device import rocblas

HIPBLASLT = {
    "HIPBLAS_STATUS_SUCCESS": 0,
    "HIPBLAS_OP_N": lt.AS_STORED,
    "HIPBLAS_OP_T": lt.TRANSPOSED,
    "HIPBLAS_COMPUTE_32F": lt.COMPUTE_FLOAT32,
    "HIPBLAS_COMPUTE_32I": lt.COMPUTE_INT32,
    "HIPBLASLT_MATMUL_DESC_TRANSA": lt.TRANSPOSE_FIRST,
    "HIPBLASLT_MATMUL_DESC_TRANSB": lt.TRANSPOSE_SECOND,
    "HIPBLASLT_MATMUL_DESC_EPILOGUE": lt.EPILOGUE,
    "HIPBLASLT_MATMUL_DESC_BIAS_POINTER": lt.BIAS_POINTER,
    "HIPBLASLT_MATMUL_DESC_BIAS_DATA_TYPE": lt.BIAS_TYPE,
    "HIPBLASLT_MATMUL_DESC_A_SCALE_POINTER": lt.SCALE_POINTER_FIRST,
    "HIPBLASLT_MATMUL_DESC_B_SCALE_POINTER": lt.SCALE_POINTER_SECOND,
    "HIPBLASLT_MATMUL_DESC_A_SCALE_MODE": lt.SCALE_MODE_FIRST,
    "HIPBLASLT_MATMUL_DESC_B_SCALE_MODE": lt.SCALE_MODE_SECOND,
    "HIPBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F": lt.SCALE_VECTOR,
    "HIPBLASLT_EPILOGUE_BIAS": lt.ADDS_BIAS,
    "HIPBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES": lt._MAX_WORKSPACE,
    "hipblaslt_ext::GemmType::HIPBLASLT_GEMM": lt._ONE_PRODUCT,
}
HIP_TYPES = {
    "f32": "HIP_R_32F", "f16": "HIP_R_16F", "bf16": "HIP_R_16BF", "i8": "HIP_R_8I", "i32": "HIP_R_32I",
    "e4m3": "HIP_R_8F_E4M3", "e5m2": "HIP_R_8F_E5M2",
}  # fmt: skip
STRUCTURES = {
    "hipblasLtMatmulAlgo_t": (lt.Algorithm, ("data", "max_workspace_bytes")),
    "hipblasLtMatmulHeuristicResult_t": (lt.Heuristic, ("algo", "workspaceSize", "state", "wavesCount", "reserved")),
}
_LAYOUT = "hipblasLtMatrixLayout_t"
_RESULTS = "std::vector<hipblasLtMatmulHeuristicResult_t>&"
SIGNATURES = {
    "hipblasLtGetVersion": "hipblasStatus_t(hipblasLtHandle_t, int*)",
    "hipblasLtGetGitRevision": "hipblasStatus_t(hipblasLtHandle_t, char*)",
    "hipblasLtMatrixLayoutCreate": f"hipblasStatus_t({_LAYOUT}*, hipDataType, uint64_t, uint64_t, int64_t)",
    "hipblasLtMatmulDescCreate": "hipblasStatus_t(hipblasLtMatmulDesc_t*, hipblasComputeType_t, hipDataType)",
    "hipblasLtMatmulDescSetAttribute": "hipblasStatus_t(hipblasLtMatmulDesc_t, hipblasLtMatmulDescAttributes_t, "
    "const void*, size_t)",
    "hipblasLtMatmulAlgoGetHeuristic": f"hipblasStatus_t(hipblasLtHandle_t, hipblasLtMatmulDesc_t, {_LAYOUT}, "
    f"{_LAYOUT}, {_LAYOUT}, {_LAYOUT}, hipblasLtMatmulPreference_t, int, hipblasLtMatmulHeuristicResult_t*, int*)",
    "hipblasLtMatmul": "hipblasStatus_t(hipblasLtHandle_t, hipblasLtMatmulDesc_t, const void*, const void*, "
    f"{_LAYOUT}, const void*, {_LAYOUT}, const void*, const void*, {_LAYOUT}, void*, {_LAYOUT}, "
    "const hipblasLtMatmulAlgo_t*, void*, size_t, hipStream_t)",
    "hipblaslt_ext::getAllAlgos": "hipblasStatus_t(hipblasLtHandle_t, hipblaslt_ext::GemmType, hipblasOperation_t, "
    f"hipblasOperation_t, hipDataType, hipDataType, hipDataType, hipDataType, hipblasComputeType_t, {_RESULTS})",
    "hipblaslt_ext::getIndexFromAlgo": "int(hipblasLtMatmulAlgo_t&)",
    "hipblaslt_ext::getSolutionNameFromAlgo": "std::string(hipblasLtHandle_t, hipblasLtMatmulAlgo_t&)",
}
SUPPORTED = (
    f"(hipblasStatus_t (*)(hipblasLtHandle_t, hipblasLtMatmulDesc_t, const void*, {_LAYOUT}, {_LAYOUT}, const void*, "
    f"{_LAYOUT}, {_LAYOUT}, hipblasLtMatmulAlgo_t&, size_t&))&hipblaslt_ext::matmulIsAlgoSupported"
)
ROCBLAS = {
    "rocblas_status_success": 0,
    "rocblas_operation_none": rocblas._AS_STORED,
    "rocblas_operation_transpose": rocblas._TRANSPOSED,
    "rocblas_gemm_algo_solution_index": rocblas._BY_INDEX,
    "rocblas_gemm_flags_none": rocblas._NO_FLAGS,
}
ROCBLAS_TYPES = {"f16": "f16_r", "f32": "f32_r", "bf16": "bf16_r", "i8": "i8_r", "i32": "i32_r"}
ROCBLAS_HANDLES = {
    "rocblas_set_stream": "rocblas_status(rocblas_handle, hipStream_t)",
    "rocblas_set_workspace": "rocblas_status(rocblas_handle, void*, size_t)",
    "rocblas_get_version_string": "rocblas_status(char*, size_t)",
    "rocblas_get_version_string_size": "rocblas_status(size_t*)",
}


def equal(numbers: Mapping[str, int]) -> list[str]:
    return [f'static_assert(int({name}) == {value}, "{name}");' for name, value in numbers.items()]


def declared(signatures: Mapping[str, str]) -> list[str]:
    return [f'static_assert(std::is_same_v<decltype({name}), {each}>, "{name}");' for name, each in signatures.items()]


def compiles(tmp_path: Path, headers: Sequence[str], lines: Sequence[str]) -> None:
    included = ["<cstddef>", "<string>", "<type_traits>", "<vector>", *headers]
    source = tmp_path / "check.cpp"
    source.write_text("\n".join([*(f"#include {each}" for each in included), *lines, ""]))
    flags = ("-std=c++17", "-D__HIP_PLATFORM_AMD__", "-DROCBLAS_BETA_FEATURES_API", "-c", "-o", tmp_path / "check.o")
    include = Path(os.environ["ROCM_PATH"]) / "include"
    command = [sys.executable, "-m", "ziglang", "c++", *flags, "-isystem", include, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if "error" in line)


@pytest.mark.rocm_virtual("hipblaslt")
def test_hipblaslts_binding_is_what_its_headers_say(tmp_path: Path) -> None:
    numbers = HIPBLASLT | {name: lt.DATA_TYPES[dtype] for dtype, name in HIP_TYPES.items()}
    assert set(HIP_TYPES) == set(lt.DATA_TYPES)
    lines = [*equal(numbers), *declared(SIGNATURES), f"auto supported = {SUPPORTED};"]
    for name, (structure, fields) in STRUCTURES.items():
        ours = [getattr(structure, field).offset for field, *_ in structure._fields_]
        places = dict(zip(fields, ours, strict=True))
        offsets = {f"offsetof({name}, {field})": at for field, at in places.items()}
        lines += equal({f"sizeof({name})": ctypes.sizeof(structure), **offsets})
    compiles(tmp_path, ["<hipblaslt/hipblaslt.h>", "<hipblaslt/hipblaslt-ext.hpp>"], lines)


@pytest.mark.rocm_virtual("rocblas")
def test_rocblas_binding_is_what_its_headers_say(tmp_path: Path) -> None:
    types = {f"rocblas_datatype_{name}": rocblas._DATA_TYPES[dtype] for dtype, name in ROCBLAS_TYPES.items()}
    assert set(ROCBLAS_TYPES) == set(rocblas._DATA_TYPES)
    begin = (
        "rocblas_handle, rocblas_operation, rocblas_operation, rocblas_int, rocblas_int, rocblas_int, const void*, "
        "const void*, rocblas_datatype, rocblas_int, const void*, rocblas_datatype, rocblas_int, const void*, "
        "const void*, rocblas_datatype, rocblas_int, void*, rocblas_datatype, rocblas_int, rocblas_datatype, "
        "rocblas_gemm_algo"
    )
    signatures = {
        **ROCBLAS_HANDLES,
        "rocblas_gemm_ex": f"rocblas_status({begin}, int32_t, uint32_t)",
        "rocblas_gemm_ex_get_solutions": f"rocblas_status({begin}, uint32_t, rocblas_int*, rocblas_int*)",
    }
    compiles(tmp_path, ["<rocblas/rocblas.h>"], [*equal(ROCBLAS | types), *declared(signatures)])
