"""Runs AITER's attention kernels for gfx950 on the emulator: forward and backward, for values and hazards.

    python benchmarks/aiter_attention.py FOLDER [--only TEXT] [--show]

FOLDER holds the objects: hsa/gfx950 of the AITER repository (MIT), with fmha_v3_fwd and fmha_v3_bwd. What each computes
is in its name (`Kernel`). The gradients need up to three kernels: `odo` makes D = sum(dO * O), the main kernel dK, dV
and a sum of dQ, and `dq_convert` or `dq_shuffle` turns that sum into dQ. Every one is judged by itself.

Each output is compared with float64 formulas of the same operands. Allowed is what rounding P and dS to the operands'
format may change (`Allowed`). The launches are those of AITER's csrc/cpp_itfs: argument places, tiles and grids.
Prints a line a launch: the largest error as a part of what is allowed, and how many places break which rule.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from attention_truth import F32, WINDOW, Case, Kernel, Truth, cases

from hktune.core.dtype import F16
from hktune.core.errors import HktuneError
from hktune.objects.code_object import read_code_object
from hktune.verify.kernel_arguments import parse_parameters
from hktune.verify.kernel_file import KernelRun, Verdict, judge

Array = npt.NDArray[np.generic]
_SLOT_BYTES = 16  # of one argument, padding included
_ARGUMENTS = {
    "fwd": "o q k v lse scale seqlen_q q_seq q_tile q_head q_batch ratio k_seq k_head k_batch order with_lse seqlen_k "
    "qk_dim v_dim heads v_seq v_head v_batch o_seq o_head o_batch starts_q starts_k lse_head padded_q padded_k",
    "bwd": "dq_sum dk dv q k v do lse d scale log2e seqlen_q k_tile q_head q_batch q_seq ratio k_head k_batch k_seq "
    "dk_seq seqlen_k qk_dim v_dim heads v_head v_batch v_seq do_head do_batch do_seq dk_head dk_batch dv_head dv_batch "
    "dv_seq lse_head starts_q starts_k padded_q padded_k rows_dq mask_x mask_y",
    "odo": "o do d o_head o_batch o_seq do_head do_batch do_seq lse_head lse_batch lse_seq seqlen_q v_dim starts_q "
    "padded_q",
    "post": "dq_sum dq sum_head sum_batch sum_seq q_head q_batch q_seq seqlen_q qk_dim starts_q padded_q",
}
"""Of each kind of kernel, in order."""
_POINTERS = re.compile("o|q|k|v|lse|do|d|dk|dv|dq|dq_sum|(starts|padded)_[qk]")
_WRITTEN = {"fwd": ("o", "lse"), "odo": ("d",), "bwd": ("dk", "dv", "dq_sum"), "post": ("dq",)}


class Launch:
    """One kernel on one case: its arguments by name, and its grid."""

    def __init__(self, kernel: Kernel, truth: Truth, given: Mapping[str, Array]) -> None:
        self._kernel, self._truth = kernel, truth
        self.arrays = {**truth.bits, **given}
        if kernel.group:
            starts = {"q": np.cumsum([0, *truth.case.queries]), "k": np.cumsum([0, *truth.case.keys])}
            self.arrays |= {f"{word}_{side}": each.astype(np.uint32) for word in ("starts", "padded")
                            for side, each in starts.items()}  # fmt: skip

    def numbers(self) -> dict[str, int | float]:
        """Every argument that is no pointer; strides are in bytes."""
        kernel, case = self._kernel, self._truth.case
        shared, group = case.heads // case.ratio, kernel.group
        queries, keys = (max(case.queries), max(case.keys))
        found: dict[str, int | float] = {
            "scale": self._truth.scale, "log2e": 1.4426950408889634, "ratio": case.ratio, "heads": case.heads,
            "qk_dim": kernel.qk_dim, "v_dim": kernel.v_dim, "order": 3 if kernel.mask else 5, "with_lse": 1,
            "seqlen_q": sum(case.queries) if group and kernel.way == "bwd" else queries,
            "seqlen_k": sum(case.keys) if group and kernel.way == "bwd" else keys, "lse_seq": 4,
            "lse_head": 4 * (sum(case.queries) if group else queries), "lse_batch": 4 * case.heads * queries,
            "rows_dq": self._rows(), "mask_x": WINDOW[1] + 1, "mask_y": WINDOW[0] + 1,
        }  # fmt: skip
        widths = {"q": (case.heads, kernel.qk_dim), "o": (case.heads, kernel.v_dim), "do": (case.heads, kernel.v_dim),
                  "k": (shared, kernel.qk_dim), "v": (shared, kernel.v_dim), "dk": (case.heads, kernel.qk_dim),
                  "dv": (case.heads, kernel.v_dim)}  # fmt: skip
        for name, (heads, width) in widths.items():
            rows = queries if name in ("q", "o", "do") else keys
            batch = 0 if group else 2 * heads * width * rows
            found |= {f"{name}_seq": 2 * heads * width, f"{name}_head": 2 * width, f"{name}_batch": batch}
        found |= {"q_tile": self._queries() * found["q_seq"], "k_tile": kernel.keys * found["k_seq"]}
        shape = self.sum_shape()
        size = 2 if kernel.sums_dtype != "f32" else 4
        return found | {"sum_seq": size * shape[-1], "sum_head": size * shape[-1] * shape[-2],
                        "sum_batch": 0 if len(shape) < 4 else size * shape[-1] * shape[-2] * shape[-3]}  # fmt: skip

    def _queries(self) -> int:
        return 256 if self._kernel.qk_dim == 128 else 128

    def _rows(self) -> int:
        most = max(self._truth.case.queries)
        return most if self._kernel.sums_dtype == "f32" else -(-most // 16) * 16

    def sum_shape(self) -> tuple[int, ...]:
        """Of what dQ is summed in."""
        kernel, case = self._kernel, self._truth.case
        if kernel.sums_dtype == "f32":
            rows = (sum(case.queries),) if kernel.group else ()
            return (case.heads, *rows, kernel.qk_dim) if rows else (
                len(case.queries), case.heads, max(case.queries), kernel.qk_dim)  # fmt: skip
        if kernel.qk_dim == 64:
            return sum(case.queries), case.heads, kernel.qk_dim
        return len(case.queries), case.heads, self._rows(), max(kernel.qk_dim, 128)

    def grid(self) -> tuple[int, int, int]:
        kernel, case = self._kernel, self._truth.case
        tile, rows = self._queries(), max(case.queries)
        if kernel.kind == "bwd":
            tile, rows = kernel.keys, max(case.keys)
        elif kernel.way == "bwd":
            tile = 128 if kernel.kind == "odo" else 64
        tiles = -(-rows // tile)
        if kernel.mask in ("causal", "causal_br") and kernel.kind != "post":
            tiles = -(-tiles // 2)
        sides = (case.heads, len(case.queries), tiles) if kernel.kind == "fwd" and kernel.group else None
        return sides or (tiles, case.heads, len(case.queries))

    def run(self, data: bytes, trials_s: float) -> Verdict:
        """Raises HktuneError."""
        kernel, numbers = self._kernel, self.numbers()
        names = _ARGUMENTS[kernel.kind].split()
        written = {name: self._empty(name) for name in _WRITTEN[kernel.kind]}
        arrays = {name: self.arrays[name] for name in names if name in self.arrays and name not in written}
        text, place = [], 0
        for name in names:
            at, place = f"{name}@{place}", place + _SLOT_BYTES
            if name in written:
                way, shape, kind = written[name]
                text.append(f"{at}:{way}:{kind}[{','.join(map(str, shape))}]" + "=zeros" * (way == "inout"))
            elif name in arrays:
                array = arrays[name]
                kind = "u32" if array.dtype == np.uint32 else "u16"
                text.append(f"{at}:{kind}[{','.join(map(str, array.shape))}]")
            elif _POINTERS.fullmatch(name):
                text.append(f"{at}:null")
            else:
                value = numbers[name]
                text.append(f"{at}:{'f32' if isinstance(value, float) else 'u32'}={value!r}")
        block = 512 if kernel.kind == "fwd" and kernel.qk_dim == kernel.v_dim else 256
        symbol = next(iter(read_code_object(data).kernels))
        run = KernelRun(parse_parameters(" ".join(text)), {}, ",".join(map(str, self.grid())), str(block),
                        arrays=arrays, trials_s=trials_s)  # fmt: skip
        return judge(data, symbol, run)

    def _empty(self, name: str) -> tuple[str, tuple[int, ...], str]:
        short = "f16" if self._kernel.dtype is F16 else "bf16"
        if name == "dq_sum":
            return "inout", self.sum_shape(), self._kernel.sums_dtype
        return "out", self._truth.want[name].shape, "f32" if name in F32 else short


def error(kernel: Kernel, truth: Truth, name: str, found: Array) -> float:
    """The largest deviation as a part of what is allowed."""
    want, magnitude = truth.want[name], truth.magnitude[name]
    unit = 2.0**-11 if kernel.dtype is F16 else 2.0**-8
    steps = 2.0 if kernel.rounding == "rtz" or kernel.dtype is F16 else 1.0  # v_cvt_pkrtz_f16_f32 cuts off, too
    if name in F32:
        unit, steps = 2.0**-16, 1.0
    elif name == "dq" and kernel.sums_dtype != "f32":
        steps += max(truth.case.keys) // kernel.keys + 1  # dQ is rounded with every tile of keys
    found = found.reshape(want.shape)
    known = np.isfinite(want)
    if not (known | (found == want)).all():
        return float("inf")
    allowed = 1.5 * unit * (steps * magnitude + np.abs(want)) + 1e-6
    deviation = np.abs(found[known].astype(np.float64) - want[known]) / allowed[known]
    return float(np.nan_to_num(deviation, nan=np.inf).max())


def values(kernel: Kernel, array: Array) -> Array:
    """The numbers of an output, whatever its bits."""
    if array.dtype == np.uint16:
        return kernel.dtype.values(array.view(np.uint16))
    return array.view(np.float32) if array.dtype == np.uint32 else array


@dataclass
class Outcome:
    """Of one launch: errors by output, broken rules, and the first failure."""

    errors: dict[str, float]
    rules: Counter[str]
    failure: str = ""

    def __str__(self) -> str:
        errors = " ".join(f"{name} {each:.2f}" for name, each in self.errors.items())
        rules = ", ".join(f"{count} {rule}" for rule, count in sorted(self.rules.items()))
        return f"{self.failure or errors}; {rules or 'nothing found'}"

    @property
    def right(self) -> bool:
        return not self.failure and all(each <= 1 for each in self.errors.values())


def run(kernel: Kernel, case: Case, folder: Path, show: bool, trials_s: float) -> Outcome:
    """The kernel on the case, and behind one of the gradients what makes dQ of its sums. Raises HktuneError."""
    truth = Truth(kernel, case)
    launch = Launch(kernel, truth, {})
    if kernel.kind == "post":
        rng = np.random.default_rng(2)
        summed = rng.standard_normal(launch.sum_shape()).astype(np.float32)
        launch.arrays["dq_sum"] = summed.view(np.uint32)
        by_head = summed.transpose(1, 0, 2) if kernel.group else summed.transpose(0, 2, 1, 3)
        truth.want["dq"] = by_head.reshape(truth.want["dq"].shape).astype(np.float64)
        truth.magnitude["dq"] = np.zeros_like(truth.want["dq"])
    verdict = launch.run((folder / f"{kernel.name}.co").read_bytes(), trials_s)
    outcome = judged(kernel, truth, verdict, show)
    if kernel.kind == "bwd" and verdict.outputs:
        sums = verdict.outputs["dq_sum"]
        if kernel.sums == "a16" and kernel.qk_dim == 64:
            outcome.errors["dq"] = error(kernel, truth, "dq", values(kernel, sums))
            return outcome
        step = "dq_shuffle" if kernel.sums == "a16" else f"dq_convert_{'fp16' if kernel.dtype is F16 else 'bf16'}"
        name = f"bwd_hd{kernel.qk_dim}_{step}{'_group' * kernel.group}"
        second = Kernel(name, "bwd", kernel.qk_dim, kernel.v_dim, step, kernel.dtype, "", kernel.sums, "", kernel.group)
        made = Launch(second, truth, {"dq_sum": sums}).run((folder / f"{name}.co").read_bytes(), trials_s)
        after = judged(second, truth, made, show)
        if made.outputs:
            after.errors["dq"] = error(kernel, truth, "dq", values(kernel, made.outputs["dq"]))
        outcome.errors |= after.errors
        outcome.rules += Counter({f"{rule} of {step}": count for rule, count in after.rules.items()})
        outcome.failure = outcome.failure or after.failure
    return outcome


def judged(kernel: Kernel, truth: Truth, verdict: Verdict, show: bool) -> Outcome:
    rules = Counter(each.rule.name for each in verdict.findings)
    for each in verdict.findings if show else ():
        print(f"  {each.level}: {each.rule.name}: {each.what}\n    {each.here}\n    {each.other}\n    {each.fix}")
    failure = f"{verdict.failure.status}: {verdict.failure.detail}" if verdict.failure else ""
    errors = {
        name: error(kernel, truth, name, values(kernel, array))
        for name, array in verdict.outputs.items()
        if name in truth.want
    }
    return Outcome(errors, rules, failure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="kernels whose name has this text")
    parser.add_argument("--show", action="store_true", help="every finding, with both sides")
    parser.add_argument("--trials", type=float, default=0.0, help="seconds for other schedules and for fixes")
    options = parser.parse_args()
    count = wrong = 0
    for path in sorted(options.folder.glob("fmha_v3_*/*.co")):
        kernel = Kernel.of(path.stem)
        if kernel is None or options.only not in path.stem or kernel.step == "dq_shuffle":
            continue  # what is shuffled is known to the kernel in front only: it is run behind that
        for case in cases(kernel):
            started, count = time.perf_counter(), count + 1
            try:
                outcome = run(kernel, case, path.parent, options.show, options.trials)
            except HktuneError as found:
                outcome = Outcome({}, Counter(), str(found))
            spent_s = time.perf_counter() - started
            print(f"{path.stem:44} {case!s:28} {spent_s:6.2f} s  {outcome}", flush=True)
            wrong += not outcome.right
    print(f"{count} launches, {wrong} wrong")
    return 1 if wrong or not count else 0


if __name__ == "__main__":
    sys.exit(main())
