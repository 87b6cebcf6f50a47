"""One pure function judges a row: hard or soft, saved=... current=..., for code objects of both makers."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from naive_gemm import EMULATED, MI355X, OBJECT, published, table_of, trial

from hktune.core.config import Config
from hktune.core.identity import Identity
from hktune.core.outcome import Source
from hktune.core.problem import Problem
from hktune.core.variant import CodeObject, Variant
from hktune.dispatch import Entry, Found, Reason, judge, validate
from hktune.dispatch.table import Kernel
from hktune.objects.code_object import AmdCodeObject, read_code_object
from hktune.objects.cubin import Box, Cubin, read_cubin

SMALL = Problem(8, 128, 64)
MI350X = replace(MI355X, name="AMD Instinct MI350X", pci_id="0x75a0")
H100 = Identity("cuda", "sm90a", "NVIDIA H100 80GB HBM3", 132, "10de:2330:16c1")


def row(**launch: Any) -> Entry:
    """The naive kernel's measured row, its launch changed."""
    (entry,) = table_of(trial(SMALL, source=Source.MEASURED)).entries
    assert isinstance(entry.kernel, Kernel)
    changed = msgspec.structs.replace(entry.kernel.launch, **launch)
    return msgspec.structs.replace(entry, kernel=msgspec.structs.replace(entry.kernel, launch=changed))


@lru_cache
def naive() -> AmdCodeObject:
    return read_code_object(OBJECT)


def judged(entry: Entry, saved: Identity, current: Identity, code: Any = None, **found: Any) -> list[tuple[str, str]]:
    mismatches = judge(entry, saved, Found(current, **{"allow_modelled": False, **found}), code or naive())
    return [(mismatch.level, str(mismatch.reason)) for mismatch in mismatches]


def test_a_row_as_saved_has_no_mismatch() -> None:
    assert judged(row(), MI355X, MI355X) == []
    assert judged(row(), MI355X, replace(MI355X, name="as another driver spells it")) == []


@pytest.mark.parametrize("pair", [(MI350X, MI355X), (MI355X, MI350X)])
def test_siblings_need_a_word_and_are_reported_with_both_ids(tmp_path: Path, pair: tuple[Identity, Identity]) -> None:
    saved, current = pair
    assert judged(row(), saved, current) == [("hard", "other device")]
    assert judged(row(), saved, current, allow_sibling_board=True) == [("soft", "sibling device")]
    spelled = replace(current, pci_id=f"1002:{str(current.pci_id)[2:]}:0c34")
    assert judged(row(), saved, spelled, allow_sibling_board=True) == [("soft", "sibling device")]
    table = published(tmp_path, trial(SMALL, source=Source.MEASURED), identity=saved)
    validated = validate(table, tmp_path, current, allow_modelled=False, allow_sibling_board=True)
    assert validated.usable == table.entries
    assert validated.skipped == ()
    assert validated.reported_by_reason == {"sibling device": 1}
    assert f"pci_id:{saved.pci_id}" in validated.reported[0].detail
    assert f"current=compute_units:256 pci_id:{current.pci_id}" in validated.reported[0].detail


@pytest.mark.parametrize(
    "change", [{"compute_units": 128}, {"partition": "CPX"}, {"pci_id": "0x75a2"}, {"pci_id": None}]
)
def test_anything_else_about_the_device_is_hard(change: dict[str, Any]) -> None:
    assert judged(row(), MI350X, replace(MI355X, **change)) == [("hard", "other device")]


@pytest.mark.parametrize("change", [{"compute_units": 128}, {"partition": "CPX"}])
def test_a_board_of_another_size_is_so_with_any_word(change: dict[str, Any]) -> None:
    other = replace(MI355X, **change)
    assert judged(row(), MI350X, other, allow_sibling_board=True) == [("hard", "other device")]


def test_architecture_template_and_time_are_hard_and_come_first() -> None:
    assert judged(row(), MI355X, H100)[:2] == [("hard", "other architecture"), ("hard", "other device")]
    assert judged(row(), MI355X, MI355X, templates={"naive_gemm": "1" * 64}) == [("hard", "other template")]
    assert judged(row(), MI355X, MI355X, templates={"another": "1" * 64, "naive_gemm": "0" * 64}) == []
    modelled = msgspec.structs.replace(row(), source=Source.MODELLED)
    assert judged(modelled, EMULATED, MI355X) == [("hard", "modelled")]
    assert judged(modelled, EMULATED, MI355X, allow_modelled=True) == []
    assert judged(modelled, EMULATED, MI350X, allow_modelled=True) == [("hard", "other device")]
    allowed: Any = {"allow_modelled": True, "allow_sibling_board": True}
    assert judged(modelled, EMULATED, MI350X, **allowed) == [("soft", "sibling device")]
    a_part = replace(MI350X, compute_units=32, partition="CPX")
    assert judged(modelled, EMULATED, a_part, **allowed) == [("hard", "other device")]
    mixed = judged(row(), MI350X, MI355X, templates={"naive_gemm": "1" * 64}, allow_sibling_board=True)
    assert mixed == [("hard", "other template"), ("soft", "sibling device")]


@pytest.mark.parametrize(
    ("launch", "says"),
    [
        ({"dynamic_lds_bytes": 163841}, "needs lds_bytes=163841, gfx950 has 163840"),
        ({"block": (1024, 1, 1)}, "launches 1024 work-items"),
        ({"block": (32, 32, 32)}, "launches 32768 work-items"),
        ({"grid": ("m * 67108864", 1, 1)}, "has 2**32 work-items or more along an axis (m=8)"),
    ],
)
def test_what_a_driver_would_refuse_is_named(launch: dict[str, Any], says: str) -> None:
    (mismatch,) = judge(row(**launch), MI355X, Found(MI355X, False), naive())
    assert (mismatch.reason, mismatch.level) == (Reason.RESOURCES, "hard")
    assert says in mismatch.detail


def test_registers_beyond_the_compute_units_are_named() -> None:
    image = naive().kernels["naive_gemm"]
    for block, needs, says in [
        (64, {"vgprs": 600}, "needs 600 registers a work-item, gfx950 has 512"),
        (512, {"vgprs": 400, "max_workgroup_size": 1024}, "do not fit one compute unit"),
    ]:
        heavy = replace(image, resources=replace(image.resources, **needs))
        code = replace(naive(), kernels={"naive_gemm": heavy})
        (mismatch,) = judge(row(block=(block, 1, 1)), MI355X, Found(MI355X, False), code)
        assert says in mismatch.detail


FLOAT16 = 6  # CU_TENSOR_MAP_DATA_TYPE_FLOAT16
CUDA_SOURCE = """
struct alignas(64) Map { unsigned long long opaque[16]; };
struct Box { unsigned rows, columns; };
extern "C" __constant__ Box hktune_box_a = {64, 64};
extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(128)
gemm(const __grid_constant__ Map a, const void* bt, int* c, int m) { c[threadIdx.x] = a.opaque[m % 16] + (long) bt; }
"""


@lru_cache
def cubin() -> Cubin:
    pytest.importorskip("cuda.bindings.nvrtc", reason="pip install 'hktune[cuda]'")
    from hktune.compile.nvrtc import NvrtcCompiler

    code = NvrtcCompiler().compile(Variant("t", "0" * 64, "sm90a", "cuda", "gemm", CUDA_SOURCE, Config({})), 120.0)
    assert isinstance(code, CodeObject), code
    return read_cubin(code.data)


def cuda_row(**changes: Any) -> Entry:
    arguments = [{"name": name, "kind": "pointer"} for name in ("a", "b", "c")] + [{"name": "m", "kind": "i32"}]
    launch = {"grid": ["m * 2", 1, 1], "block": [128, 1, 1], "dynamic_lds_bytes": 0, "arguments": arguments, **changes}
    made = msgspec.to_builtins(row())
    return msgspec.convert({**made, "kernel": {**made["kernel"], "symbol": "gemm", "launch": launch}}, Entry)


def test_a_cubin_is_held_against_the_same_rules() -> None:
    assert judged(cuda_row(), H100, H100, cubin()) == []
    swapped = [{"name": name, "kind": "pointer"} for name in ("b", "a", "c")] + [{"name": "m", "kind": "i32"}]
    for changes, reason, says in [
        ({"arguments": swapped}, "arguments", "takes b as a tensor map, and the cubin has no box for it"),
        ({"arguments": swapped[:3]}, "arguments", "takes 4 arguments, the launch gives 3"),
        ({"grid": ["m * 2 + 1", 1, 1]}, "resources", "grid (17, 1, 1) is not whole clusters of (2, 1, 1) blocks"),
        ({"grid": [2, 65536, 1]}, "resources", "too many blocks along y or z"),
        ({"grid": [2, 1, "m"], "block": [1, 1, 128]}, "resources", "threads along z"),
        ({"block": [256, 1, 1]}, "resources", "launches 256 work-items a workgroup, gemm takes 128"),
        ({"dynamic_lds_bytes": 232449}, "resources", "needs lds_bytes=232449, sm90a has 232448"),
    ]:
        (mismatch,) = judge(cuda_row(**changes), H100, Found(H100, False), cubin())
        assert (str(mismatch.reason), says in mismatch.detail) == (reason, True), mismatch
    for box in (Box(257, 64), Box(64, 12), Box(0, 64)):
        (mismatch,) = judge(cuda_row(), H100, Found(H100, False), replace(cubin(), boxes={"a": box}))
        assert "which no map can have" in mismatch.detail
    float16 = Found(H100, False), replace(cubin(), boxes={"a": Box(64, 64, FLOAT16)})
    (mismatch,) = judge(cuda_row(), H100, *float16)
    assert (str(mismatch.reason), mismatch.level) == ("arguments", "hard")
    assert mismatch.detail == "gemm copies a as f16, bf16.nt has it as bf16"
    assert not judge(msgspec.structs.replace(cuda_row(), operation="f16.nt"), H100, *float16)
    stack = replace(cubin(), boxes={"b": Box(64, 64, dimensions=3)})
    (mismatch,) = judge(cuda_row(arguments=swapped), H100, Found(H100, False), stack)
    assert mismatch.detail == "gemm takes b as a stack of matrices, bf16.nt has but one"
    in_turn = msgspec.structs.replace(cuda_row(arguments=swapped), operation="bf16.nt+gated_interleaved")
    assert not judge(in_turn, H100, Found(H100, False), stack)
    older = replace(H100, arch="sm80")
    assert ("hard", "object unreadable") in judged(cuda_row(), older, older, cubin())
