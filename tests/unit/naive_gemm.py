"""Real gfx950 code objects small enough to keep (tests/recorded/naive_gemm), and trials and tables that name them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from hktune.core.config import Config
from hktune.core.identity import Identity
from hktune.core.launch import Argument
from hktune.core.launch_rule import LaunchRule
from hktune.core.operand import operands_of
from hktune.core.operation import Operation
from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.dispatch import Table, table_json, write_table
from hktune.tables import build_table

_FOLDER = Path(__file__).parents[1] / "recorded" / "naive_gemm"
OBJECT = (_FOLDER / "naive_gemm.hsaco").read_bytes()
SHA256 = hashlib.sha256(OBJECT).hexdigest()
F16_OBJECT = (_FOLDER / "naive_gemm_f16.hsaco").read_bytes()
F16_SHA256 = hashlib.sha256(F16_OBJECT).hexdigest()
LAYOUTS_OBJECT = (_FOLDER / "naive_gemm_layouts.hsaco").read_bytes()
"""Of every layout and both formats, with row strides."""
LAYOUTS_SHA256 = hashlib.sha256(LAYOUTS_OBJECT).hexdigest()
SCALED_OBJECT = (_FOLDER / "naive_gemm_scaled.hsaco").read_bytes()
"""Of numbers of 8 bits or fewer, with scales or without."""
SCALED_SHA256 = hashlib.sha256(SCALED_OBJECT).hexdigest()
SEVERAL_OBJECT = (_FOLDER / "naive_gemm_several.hsaco").read_bytes()
"""Of several products: batched and grouped bf16, nt and nn, batched ones with strides; and grouped ones of K, tn. Also
grouped ones in nt with silu and gates, bf16 or e4m3 with scales of rows. Some have a bias of each group, or are added
to C."""
SEVERAL_SHA256 = hashlib.sha256(SEVERAL_OBJECT).hexdigest()
FINISHED_OBJECT = (_FOLDER / "naive_gemm_finished.hsaco").read_bytes()
"""Of e4m3 with scales, in bf16, with what is behind: +residual, +silu, +silu+gated."""
FINISHED_SHA256 = hashlib.sha256(FINISHED_OBJECT).hexdigest()
OBJECTS = {
    **{SHA256: OBJECT, F16_SHA256: F16_OBJECT, LAYOUTS_SHA256: LAYOUTS_OBJECT},
    SCALED_SHA256: SCALED_OBJECT,
    SEVERAL_SHA256: SEVERAL_OBJECT,
    FINISHED_SHA256: FINISHED_OBJECT,
}
EMULATED = Identity("emulated", "gfx950", "emulated gfx950", 256)
MI355X = Identity("hip", "gfx950", "AMD Instinct MI355X", 256, "0x75a3", "SPX")


def trial(problem: Problem, time_us: float | None = 1.0, variant: int = 0, **fields: Any) -> Trial:
    """An ok, modelled trial of the naive kernel; `variant` makes another config."""
    config = Config({"variant": variant})
    row = Trial(
        trial=0, m=problem.m, n=problem.n, k=problem.k, operation=problem.operation,
        config_id=config.id, config=config.json, status=Status.OK, source=Source.MODELLED, time_us=time_us,
        object_sha256=_object_of(problem.operation),
        template="naive_gemm", template_sha256="0" * 64, target="gfx950", device=EMULATED.name,
    )  # fmt: skip
    return replace(row, **fields)


def algorithm_trial(problem: Problem, algorithm: VendorAlgorithm, time_us: float = 1e-3, **fields: Any) -> Trial:
    """An ok trial of an algorithm of a vendor's library, faster than the naive kernel."""
    config = algorithm.config
    made_from = {"template": None, "template_sha256": None, "object_sha256": None, "library": algorithm.library}
    return replace(trial(problem, time_us), config=config.json, config_id=config.id, **made_from, **fields)


def _object_of(operation: Operation) -> str:
    if operation.count:
        return SEVERAL_SHA256
    if operation.scales and operation.compiled:
        return FINISHED_SHA256
    if operation.scales or operation.a_dtype.width_bits <= 8:
        return SCALED_SHA256
    if operation.layout != "nt":
        return LAYOUTS_SHA256
    return F16_SHA256 if operation.a == "f16" else SHA256


def launch_of(row: Trial) -> tuple[str, LaunchRule]:
    """One work-item per element of C, 64 columns a workgroup."""
    grid, block = (-(-row.n // 64), "m", 1), (64, 1, 1)
    if row.operation.count:
        pointers = [Argument(name, "pointer") for name in operands_of(row.operation)]
        given = ["n", "k", "groups"] if row.operation.divides_rows else ["m", "n", "k"]
        given += ["groups"] * row.operation.divides_k + ["lda", "ldb"] * (not row.operation.is_grouped)
        several = [Argument(name, "u32") for name in given]
        if not row.operation.is_grouped:
            several += [Argument(name, "u64") for name in ("stride_a", "stride_b")]
        products = 1 if row.operation.divides_rows else row.operation.count
        names = ("a", "b", "c", "bias", "residual", "scale_a", "scale_b", "offsets")
        order = sorted(pointers, key=lambda each: names.index(each.name))
        rule = LaunchRule((grid[0], "m", products), block, 0, (*order, *several))
        words = (row.operation.a, row.operation.c) if row.operation.scales else (row.operation.layout,)
        words = (*words, "f32") if row.operation.divides_k and row.operation.c == "f32" else words
        return "_".join(("naive", row.operation.kind, *words, *row.operation.epilogue)), rule
    if row.object_sha256 == FINISHED_SHA256:
        names = ("a", "b", "c", *(("residual",) if row.operation.has_residual else ()), "scale_a", "scale_b")
        given = (*(Argument(name, "pointer") for name in names), *(Argument(name, "u32") for name in ("n", "k")))
        return "_".join(("naive_e4m3", row.operation.scales, *row.operation.epilogue)), LaunchRule(
            grid, block, 0, given
        )
    if row.object_sha256 == SCALED_SHA256:
        scales = ("scale_a", "scale_b") if "scale_a" in operands_of(row.operation) else ()
        names = ("a", "b", "c", "bias", *scales)
        strides = ("ldscale_a", "incscale_a") if str(row.operation).startswith("e4m3.nt.blocks->bf16") else ()
        numbers = [Argument(name, "u32") for name in ("n", "k", *strides)]
        words = (row.operation.a, row.operation.b, row.operation.scales, row.operation.c)
        rule = LaunchRule(grid, block, 0, (*(Argument(name, "pointer") for name in names), *numbers))
        return "_".join(("naive", *words)), rule
    bias, has_strides = row.operation.has_bias, row.object_sha256 == LAYOUTS_SHA256
    pointers = [Argument(name, "pointer") for name in (["a", "b", "c", "bias"] if bias else ["a", "b", "c"])]
    numbers = [Argument(name, "u32") for name in (["n", "k", "lda", "ldb"] if has_strides else ["n", "k"])]
    layout = f"_{row.operation.layout}" if has_strides else ""
    symbol = f"naive_gemm{'_f16' if row.operation.a == 'f16' else ''}{layout}{'_bias' if bias else ''}"
    return symbol, LaunchRule(grid, block, 0, (*pointers, *numbers))


def table_of(*trials: Trial, identity: Identity = EMULATED) -> Table:
    return build_table(trials, launch_of, identity, "clang 22", "0.1.0", "2026-11-22T18:00:00+00:00")


def reseal(directory: Path, edit: Callable[[str], str]) -> Table:
    """Edit table.json as its author would: with a content_sha256 that fits again."""
    path = directory / "table.json"
    document = json.loads(edit(path.read_text()))
    del document["content_sha256"]
    table = msgspec.convert(document, Table)
    path.write_bytes(table_json(table))
    return table


def published(directory: Path, *trials: Trial, identity: Identity = EMULATED) -> Table:
    table = table_of(*trials, identity=identity)
    write_table(table, OBJECTS, directory)
    return table
