"""Which GEMMs a live model calls, and how often: written as the shapes.yaml that `hktune tune` reads."""

from __future__ import annotations

from collections import Counter
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hktune.errors import ShapesError
from hktune.model import Problem
from hktune.publish import publish
from hktune.runtime import operators
from hktune.runtime.torch_state import as_autocast

_aten = torch.ops.aten


def record(path: str | PathLike[str]) -> Recorder:
    """A context that counts the bf16 GEMMs called within it on this thread, and at its end writes them to `path`.

    Seen are linear, matmul, mm and addmm, under whatever module or function, before and after `patch`, under autocast
    as it casts. Not seen: backward passes (no table serves them), replays of captured graphs, batched products, and
    what torch.compile has compiled: record the model eager. Raises ShapesError at the end when there was none.
    """
    return Recorder(Path(path))


class Recorder:
    """What was recorded: calls of each problem, and of what was left out, by dtype."""

    def __init__(self, path: Path) -> None:
        self._path = path
        below = _Operators(self)
        self._modes = (below, _Functions(self, below))
        self.calls: Counter[Problem] = Counter()
        self.left_out: Counter[str] = Counter()

    def __enter__(self) -> Recorder:
        if not self._path.parent.is_dir():
            raise ShapesError(f"{self._path}: there is no folder {self._path.parent}: make it")
        for mode in self._modes:
            mode.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        if kind is None:
            publish(self._path, self.yaml().encode())

    def note(self, x: Tensor, n: int, has_bias: bool) -> None:
        """Count x [..., K] times something [K, n]."""
        k = x.shape[-1] if x.dim() else 0
        if not x.numel() or not n:
            return
        if x.dtype is torch.bfloat16:
            self.calls[Problem(x.numel() // k, n, k, epilogue="bias" if has_bias else "none")] += 1
        else:
            self.left_out[str(x.dtype).removeprefix("torch.")] += 1

    def yaml(self) -> str:
        """The calls as shapes.yaml, `weight` their number. Raises ShapesError when there are none."""
        if not self.calls:
            others = ", ".join(f"{dtype}: {count}" for dtype, count in sorted(self.left_out.items())) or "none at all"
            raise ShapesError(
                f"{self._path}: no bf16 GEMM was called ({others}): record a bf16 model, or under autocast"
            )
        lines = ["dtype: bf16", "shapes:"]
        for problem, count in sorted(self.calls.items(), key=lambda item: (item[0].n, item[0].k, item[0])):
            sizes = f"m: {problem.m}, n: {problem.n}, k: {problem.k}"
            lines.append(f"  - {{{sizes}, epilogue: {problem.epilogue}, weight: {count}}}")
        return "\n".join(lines) + "\n"


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes products where torch dispatches them: below every module, and below autocast."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._recorder = recorder
        self.is_quiet = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if not self.is_quiet and torch._C._current_autograd_node() is None:
            self._note(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def _note(self, func: Any, args: Any, kwargs: Any) -> None:
        if func in (_aten.linear.default, operators.linear):
            self._recorder.note(args[0], args[1].shape[0], len(args) > 2 and args[2] is not None)
        elif func in (_aten.mm.default, _aten.matmul.default, operators.matmul) and args[1].dim() == 2:
            self._recorder.note(args[0], args[1].shape[1], False)
        elif func is _aten.addmm.default and not kwargs:
            self._recorder.note(args[1], args[2].shape[1], args[0].dim() == 1)


class _Functions(TorchFunctionMode):
    """Notes torch's linear by itself: with strided rows torch makes a batched product of it, and an addition."""

    def __init__(self, recorder: Recorder, below: _Operators) -> None:
        super().__init__()
        self._recorder = recorder
        self._below = below

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        if func is not functional.linear:
            return func(*args, **kwargs)
        names = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        self._below.is_quiet = True
        try:
            out = func(*args, **kwargs)
        finally:
            self._below.is_quiet = False
        x, weight, _ = as_autocast(names["input"], names["weight"], None)
        self._recorder.note(x, weight.shape[0], names.get("bias") is not None)
        return out
