"""What aiter_attention.py compares with: attention and its gradients in float64, of the operands that a kernel gets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hktune.core.dtype import BF16, F16, Dtype

Numbers = npt.NDArray[np.float64]
_NAME = re.compile(
    r"(?P<way>fwd|bwd)_hd(?P<qk>\d+)(_(hd)?(?P<v>\d+))?_(?P<step>odo_|dq_convert_|dq_shuffle_?)?(?P<dtype>bf16|fp16|fp8)?"
    r"(?P<mask>_causal_br|_causal|_swa)?(?P<sum>_a16|_a32)?(?P<round>_rtne|_rtna|_rtz)?(_psskddv|_pssk)?(?P<group>_group)?$"
)
F32 = ("lse", "d")
WINDOW = (70, 30)  # keys to the left and to the right that a window shows


@dataclass(frozen=True)
class Kernel:
    """What a file's name says. `step`: of the gradients, empty for the main kernel. `sums`: in which bits dQ is
    summed."""

    name: str
    way: str
    qk_dim: int
    v_dim: int
    step: str
    dtype: Dtype
    mask: str
    sums: str
    rounding: str
    group: bool

    @classmethod
    def of(cls, name: str) -> Kernel | None:
        """None for another kernel's name, or for one of 8-bit floats."""
        found = _NAME.match(name)
        if found is None or found["dtype"] == "fp8":
            return None
        word = {key: (value or "").strip("_") for key, value in found.groupdict().items()}
        dims = int(word["qk"]), int(word["v"] or word["qk"])
        dtype = F16 if word["dtype"] == "fp16" else BF16
        return cls(name, word["way"], *dims, word["step"], dtype, word["mask"], word["sum"], word["round"],
                   bool(word["group"]))  # fmt: skip

    @property
    def kind(self) -> str:
        return "fwd" if self.way == "fwd" else "bwd" if not self.step else "odo" if self.step == "odo" else "post"

    @property
    def keys(self) -> int:
        """Keys of a workgroup's tile, by AITER's tables."""
        if self.mask == "swa" or self.qk_dim == 64 or self.qk_dim != self.v_dim:
            return 192
        return 256 if self.qk_dim == 128 else 64

    @property
    def sums_dtype(self) -> str:
        short = "f16" if self.dtype is F16 else "bf16"
        return short if self.sums == "a16" or self.step == "dq_shuffle" else "f32"


@dataclass(frozen=True)
class Case:
    """Sequences of queries and keys; `heads` of queries share `heads / ratio` of keys."""

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    heads: int = 2
    ratio: int = 1

    def __str__(self) -> str:
        pairs = ",".join(f"{q}x{k}" for q, k in zip(self.queries, self.keys, strict=True))
        return f"{pairs} h{self.heads}/{self.ratio}"


def cases(kernel: Kernel) -> Iterator[Case]:
    """Whole tiles, ragged ones with shared heads, and sequences of several lengths."""
    tile = kernel.keys
    if kernel.group:
        yield Case((96, 170), (tile + 40, 120), 2, 2)
        return
    yield Case((tile,), (tile,), 1)
    if kernel.sums == "a16" and kernel.qk_dim == 64:
        yield Case((2 * tile, 2 * tile), (2 * tile, 2 * tile), 2, 2)  # this one takes whole tiles only
    else:
        yield Case((203, 203), (tile + 77, tile + 77), 2, 2)


class Truth:
    """Operands, and attention and its gradients of them in float64. Sequences lie one behind the other: (all, heads,
    width); lse and D are (sequence, head, query), or (head, all queries) for sequences of several lengths."""

    def __init__(self, kernel: Kernel, case: Case) -> None:
        rng = np.random.default_rng(1)
        self._kernel, self.case = kernel, case
        rows_q, rows_k, shared = sum(case.queries), sum(case.keys), case.heads // case.ratio
        self.scale = kernel.qk_dim**-0.5
        shapes = {"q": (rows_q, case.heads, kernel.qk_dim), "k": (rows_k, shared, kernel.qk_dim),
                  "v": (rows_k, shared, kernel.v_dim), "do": (rows_q, case.heads, kernel.v_dim)}  # fmt: skip
        dtype = kernel.dtype
        self.bits = {name: dtype.bits(rng.standard_normal(shape).astype(np.float32)) for name, shape in shapes.items()}
        values = {name: dtype.values(each).astype(np.float64) for name, each in self.bits.items()}
        self.want: dict[str, Numbers] = {}
        self.magnitude: dict[str, Numbers] = {}
        parts = [self._head(values, *place) for place in self._places()]
        for name in parts[0][0]:
            for into, side in ((self.want, 0), (self.magnitude, 1)):
                into[name] = self._joined(name, [part[side][name] for part in parts])
        self.bits["o"] = dtype.bits(self.want["o"].astype(np.float32))
        o = dtype.values(self.bits["o"]).astype(np.float64)
        self.bits["lse"] = self.want["lse"].astype(np.float32).view(np.uint32)
        rows = np.einsum("rhd,rhd->hr", values["do"], o)
        self.want["d"] = rows if kernel.group else self._joined("d", list(self._split(rows)))
        self.magnitude["d"] = self.want["d"] * 0 + np.abs(values["do"] * o).sum(-1).max()
        self.bits["d"] = self.want["d"].astype(np.float32).view(np.uint32)

    def _places(self) -> Iterator[tuple[int, slice, slice]]:
        """Head, queries and keys of each sequence."""
        at_q = at_k = 0
        for queries, keys in zip(self.case.queries, self.case.keys, strict=True):
            for head in range(self.case.heads):
                yield head, slice(at_q, at_q + queries), slice(at_k, at_k + keys)
            at_q, at_k = at_q + queries, at_k + keys

    def _split(self, rows: Numbers) -> Iterator[Numbers]:
        for head, queries, _ in self._places():
            yield rows[head, queries]

    def _joined(self, name: str, parts: list[Numbers]) -> Numbers:
        """One array of the parts of sequence after sequence, head after head."""
        heads = self.case.heads
        by_head = [np.concatenate(parts[head::heads]) for head in range(heads)]
        if name not in F32:
            return np.stack(by_head, axis=1)
        return np.stack(by_head) if self._kernel.group else np.concatenate(parts)

    def _seen(self, queries: int, keys: int) -> npt.NDArray[np.bool_]:
        row, column = np.arange(queries)[:, None], np.arange(keys)[None]
        if self._kernel.mask == "swa":
            return (column >= row - WINDOW[0]) & (column <= row + WINDOW[1])
        if not self._kernel.mask:
            return np.ones((queries, keys), bool)
        bottom_right = self._kernel.mask == "causal_br" or self._kernel.way == "fwd"
        return column <= row + (keys - queries if bottom_right else 0)

    def _head(
        self, values: Mapping[str, Numbers], head: int, queries: slice, keys: slice
    ) -> tuple[dict[str, Numbers], dict[str, Numbers]]:
        """Attention of one head of one sequence; and the sums of magnitudes of each result, in one step's formats."""
        q, do = values["q"][queries, head], values["do"][queries, head]
        k, v = values["k"][keys, head // self.case.ratio], values["v"][keys, head // self.case.ratio]
        logits = np.where(self._seen(len(q), len(k)), q @ k.T * self.scale, -np.inf)
        top = np.maximum(logits.max(1, keepdims=True), -1e30)
        weights = np.exp(logits - top)
        total = np.maximum(weights.sum(1, keepdims=True), 1e-300)
        p = weights / total
        o = p @ v
        d = (do * self._kernel.dtype.values(self._kernel.dtype.bits(o.astype(np.float32)))).sum(1, keepdims=True)
        ds = p * (do @ v.T - d)
        size = p * (np.abs(do) @ np.abs(v).T + np.abs(d))  # dS is a difference, of rounded products
        small = 2.0**-10
        none = weights.sum(1) == 0  # a row that sees no key
        want = {"o": o, "lse": np.where(none, -np.inf, (top + np.log(total))[:, 0]), "dv": p.T @ do,
                "dk": ds.T @ q * self.scale, "dq": ds @ k * self.scale}  # fmt: skip
        magnitude = {"o": p @ np.abs(v), "lse": np.where(none, 1, np.abs(want["lse"]) + 1), "dv": p.T @ np.abs(do),
                     "dk": (np.abs(ds) + small * size).T @ np.abs(q) * self.scale,
                     "dq": (np.abs(ds) + small * size) @ np.abs(k) * self.scale}  # fmt: skip
        return want, magnitude
