"""Which GEMMs a live model calls, and how often: written as the shapes.yaml that `hktune tune` reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hktune.core.errors import ShapesError
from hktune.core.problem import Problem
from hktune.core.publish import publish
from hktune.core.shapes import ShapeList, shapes_yaml
from hktune.dispatch.calls import CALL_DTYPES
from hktune.runtime import current, operators
from hktune.runtime.calls.call_operations import CALLS, KERNEL_DTYPES
from hktune.runtime.calls.finish import Finish, gated_without_table, linear_without_table
from hktune.runtime.calls.forms import (
    ADDED,
    ADDED_FLOAT32,
    FACTORED,
    FLOAT8,
    MATMUL,
    MATMUL_BIAS,
    MATMUL_BIAS_FLOAT32,
    MATMUL_FLOAT32,
    Form,
    linear_form,
)
from hktune.runtime.calls.given import check_bool, check_path
from hktune.runtime.calls.gradients import asks_gradient
from hktune.runtime.calls.operands import layout_of
from hktune.runtime.calls.scaled_call import ScaledCall, by_torch, call_of_integers, call_of_operator, call_of_recipes
from hktune.runtime.calls.several_by_torch import by_torch as several_by_torch
from hktune.runtime.calls.several_call import SeveralCall, added_to_products, is_one_product
from hktune.runtime.calls.several_operators import CALLS_OF_OPERATORS
from hktune.runtime.fusing.recorded_fusion import GraphLinears
from hktune.runtime.fusing.recorded_scaled import GraphScaled
from hktune.runtime.kept_shapes import KeptShapes, shapes_of
from hktune.runtime.left_out import named_dtype, why_left_out, why_not_seen
from hktune.runtime.loaded import LoadedTable
from hktune.runtime.now_and_then import EVERY_S
from hktune.runtime.recorded_several import several_problem
from hktune.runtime.token_counts import TokenCounts
from hktune.runtime.torch_state import as_autocast

if TYPE_CHECKING:
    from torch._ops import OpOverload, OpOverloadPacket

Function = Callable[..., object]
Arguments = tuple[Any, ...]
Named = dict[str, Any]
"""What a mode of torch's is handed: the arguments of any function, by position and by name."""

_aten = torch.ops.aten
_SUMS = (_aten.addmm, _aten.addmm_, _aten.baddbmm, _aten.baddbmm_)
_CURRENTS: dict[Function, Function] = {
    current.linear: linear_without_table,
    current.gated_linear: gated_without_table,
    current.matmul: torch.matmul,
}
_GATED = frozenset({current.gated_linear, LoadedTable.gated_linear})
_LINEARS = frozenset({functional.linear, current.linear, LoadedTable.linear, *_GATED})
_PATCHED = frozenset({current.linear, LoadedTable.linear})
_MATMULS = frozenset({torch.matmul, Tensor.matmul, torch.linalg.matmul, current.matmul, LoadedTable.matmul})
_LINEAR, _MATMUL = ("input", "weight", "bias", "activation"), ("input", "other")
"""What torch calls the arguments of either. hktune's come by position."""


def record(path: str | PathLike[str], *, compiled: bool = False) -> Recorder:
    """A context that counts the bf16 and f16 GEMMs called within it on this thread, and writes them to `path`: at its
    end, where the process ends, and every 30 s in which one came, by a thread that no call waits for.

    Seen are linear, matmul, mm, addmm and hktune's own functions, under whatever module or function, before and after
    `patch`, under autocast as it casts, with a table or without one, and the products of backward passes. Each is noted
    in the layout of its operands. Batched and grouped products are seen too, and of the latter how many rows groups
    have: counted where these are, and read at the end. A compiled model runs eager meanwhile (in every thread): its
    graph would show no products. Not seen: replays of captured graphs. Raises ShapesError at the end when there was
    none, and TypeError for what is no path.

    With `compiled`, linears are counted as torch.compile has them after `patch(model, fuse=True)`: with the sum behind
    one, and those of one input together. So are scaled products, with what is behind them.
    """
    check_bool("record", "compiled", compiled)
    return Recorder(check_path("record", "path", path), compiled)


class Recorder:
    """What was recorded: calls of each problem, and of what no table serves, by dtype or by what the tensors are.
    Without a path nothing is written."""

    def __init__(self, path: Path | None = None, compiled: bool = False) -> None:
        self._path = path
        self.graph = GraphLinears(self.note) if compiled else None
        self.scaled = GraphScaled(self.note_scaled) if compiled else None
        self._entered = ExitStack()
        self.calls: Counter[Problem] = Counter()
        self.left_out: Counter[str] = Counter()
        self._tokens = TokenCounts(None if path is None else EVERY_S)
        self._kept = None if path is None else KeptShapes(path, self.calls, self._tokens)

    def __enter__(self) -> Recorder:
        if self._kept:
            self._kept.begin()
        below = _Operators(self)
        if hasattr(torch.compiler, "set_stance"):  # torch 2.6
            self._entered.enter_context(torch.compiler.set_stance("force_eager"))
        self._entered.enter_context(below)
        self._entered.enter_context(_Functions(self, below))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.close()
        for held in (self.graph, self.scaled):
            if held is not None:
                held.end()
        if self._kept:
            self._kept.end(is_done=kind is None)
        if kind is None and self._path:
            publish(self._path, self.yaml().encode())

    def note(self, form: Form, left: Tensor, right: Tensor, bias: Tensor | None) -> None:
        """Count the product of two operands as `form` has them, and perhaps a bias."""
        why = why_left_out(left) or why_left_out(right)
        dtypes = dict.fromkeys(each.dtype for each in (left, right, bias) if each is not None)
        has_own = form.is_float32 and bias is not None and bias.dtype is torch.float32
        if not why and len(dtypes) > 1 + has_own:
            why = " and ".join(map(named_dtype, dtypes))
        if why:
            self.left_out[why] += 1
            return
        sizes = form.sizes(left.shape, right.shape)
        if sizes is None or 0 in sizes:
            return
        _, m, n, k = sizes
        columns = 2 * n if form.is_gated else n
        if bias is not None and bias.shape != (columns,):
            self.left_out[f"bias of shape {list(bias.shape)}"] += 1
            return
        layout = layout_of(form, left, right, {"m": m, "n": columns, "k": k})
        operation = CALLS.get((left.dtype, form.ending, layout))
        if operation is None:
            self.left_out[f"{layout} with {form.ending}"] += 1
        else:
            self.calls[Problem(m, n, k, operation)] += 1

    def note_added(self, form: Form, left: Tensor, right: Tensor, to: Tensor) -> None:
        """Count a product that is added to a matrix. A matrix of 16 bits is left out: not every template adds to one,
        and a file with what a template cannot do is refused as a whole."""
        if left.dtype in KERNEL_DTYPES and not (form.is_float32 and to.dtype is torch.float32):
            self.left_out[f"added to a {named_dtype(to.dtype)} matrix"] += 1
        else:
            self.note(form, left, right, None)

    def note_scaled(self, call: ScaledCall | None) -> None:
        """Count a product of numbers of 8 bits or fewer."""
        why = None if call is None else next(filter(None, map(why_not_seen, call.tensors)), None)
        problem = None if why or call is None else call.problem
        if problem is not None:
            self.calls[problem] += 1
        elif call is None or 0 not in (call.sizes or ()):
            self.left_out[why or "scaled in another way"] += 1

    def note_several(self, call: SeveralCall | None) -> None:
        """Count a batched or a grouped product; None is one that kernels do not know."""
        found = several_problem(call)
        if isinstance(found, str):
            self.left_out[found] += 1
        elif found is not None and call is not None:
            self.calls[found] += 1
            if call.offsets is not None:
                self._tokens.add(found, call.offsets)

    @property
    def shapes(self) -> ShapeList:
        """What was called, `weight` the number of calls, and the sizes that groups had. Raises ShapesError when there
        was nothing."""
        if not self.calls:
            dtypes = " or ".join(map(str, CALL_DTYPES))
            rule = f"{self._path or 'the model'}: no {dtypes} GEMM was called ({self.others or 'none at all'})"
            raise ShapesError(f"{rule}: record a {dtypes} model, or under autocast")
        return shapes_of(self.calls, self._tokens.of)

    @property
    def others(self) -> str:
        """The calls that no table serves, counted."""
        return ", ".join(f"{why}: {count}" for why, count in sorted(self.left_out.items()))

    def yaml(self) -> str:
        """The calls as shapes.yaml. Raises ShapesError when there are none."""
        return shapes_yaml(self.shapes)


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes products where torch dispatches them: below every module, and below autocast."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._recorder = recorder
        self.is_quiet = False

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Arguments = (), kwargs: Named | None = None
    ) -> object:
        del types
        kwargs = kwargs or {}
        if not self.is_quiet and not _is_whole(func.overloadpacket, args):
            with self:  # in inference mode products come within what is made of them, such as einsum
                parts: object = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out: object = func(*args, **kwargs)
        if not self.is_quiet:
            self._note(func.overloadpacket, args, kwargs, out)
        return out

    def without_table(self, call: ScaledCall) -> Tensor:
        """See NotesScaled."""
        out = self._quietly(by_torch, call)
        if not self.is_quiet:
            self._called(call, out)
        return out

    def several_without_table(self, call: SeveralCall) -> Tensor:
        """See NotesSeveral."""
        if not self.is_quiet:
            self._recorder.note_several(call)
        return self._quietly(several_by_torch, call)

    def _quietly(self, product: Callable[..., Tensor], call: object) -> Tensor:
        was_quiet, self.is_quiet = self.is_quiet, True
        try:
            return product(call)
        finally:
            self.is_quiet = was_quiet

    def _called(self, call: ScaledCall | None, out: object) -> None:
        scaled = self._recorder.scaled
        if scaled is None or call is None:
            self._recorder.note_scaled(call)
        else:
            scaled.called(call, out)

    def _note(self, packet: OpOverloadPacket, args: Arguments, kwargs: Named, out: object) -> None:
        note = self._recorder.note
        if self._recorder.scaled is not None:
            self._recorder.scaled.seen(packet, args, kwargs, out)
        if packet in (_aten.add, _aten.add_) and self._recorder.graph is not None:
            if kwargs.get("alpha", 1) == 1:
                self._recorder.graph.added(*args[:2])
        elif packet.__name__.endswith("scaled_mm") or packet.__name__ == "_scaled_mm_v2":
            self._note_scaled(packet, args, kwargs, out)
        elif packet.__name__ == "_int_mm":
            self._recorder.note_scaled(call_of_integers(*args))
        elif packet._qualified_op_name in CALLS_OF_OPERATORS:
            self._recorder.note_several(CALLS_OF_OPERATORS[packet._qualified_op_name](*args, **kwargs))
        elif packet is _aten.bmm and not _are_single(*args[:2]) and kwargs.keys() <= {"out"} and len(args) == 2:
            if is_one_product(args[0], args[1]):
                self._note_product(args[0], args[1][0])
            else:
                self._recorder.note_several(SeveralCall(args[0], args[1]))
        elif packet in (_aten.linear, torch.ops.hktune.linear) and args[1].dim() == 2:
            bias = args[2] if len(args) > 2 else None
            note(linear_form(bias), args[0], args[1], bias)
        elif packet is torch.ops.hktune.linear_activated and args[1].dim() == 2:
            note(linear_form(args[2], args[3]), args[0], args[1], args[2])
        elif packet is torch.ops.hktune.linear_finished and args[1].dim() == 2:
            note(Finish(args[4] or None, args[5], **kwargs).form(args[2], args[3]), args[0], args[1], args[2])
        elif packet is torch.ops.hktune.matmul or packet in (_aten.mm, _aten.matmul):
            if args[1].dim() == 2:
                self._note_product(args[0], args[1], *args[2:3])
        elif packet is _aten.bmm and len(args[1]) == 1:
            self._note_product(args[0][0], args[1][0], *args[2:3])
        elif packet in _SUMS:
            self._note_added(packet, args, kwargs)

    def _note_added(self, packet: OpOverloadPacket, args: Arguments, kwargs: Named) -> None:
        """A product that torch adds to something."""
        if packet in (_aten.addmm, _aten.addmm_) and kwargs.keys() <= {"out"}:
            self._note_sum(*args)
        elif packet is _aten.addmm and kwargs.keys() <= {"out", "alpha", "beta"} and args[0].dim() == 2:
            alpha, beta = kwargs.get("alpha", 1), kwargs.get("beta", 1)
            if alpha == beta == 1:
                self._note_sum(*args)
            else:
                self._recorder.note(FACTORED[alpha != 1 or beta == 0, beta != 0], args[1], args[2], None)
        elif packet is _aten.baddbmm and kwargs.keys() <= {"out"} and not _are_single(*args[:3]):
            call = added_to_products(*args[:3])
            if call is not None:
                self._recorder.note_several(call)
        elif packet in (_aten.baddbmm, _aten.baddbmm_) and kwargs.keys() <= {"out"} and _are_single(*args[:3]):
            self._note_sum(*(each[0] for each in args[:3]), *args[3:])

    def _note_scaled(self, packet: OpOverloadPacket, args: Arguments, kwargs: Named, result: object) -> None:
        out = kwargs.pop("out", None)
        if packet.__name__ == "_scaled_mm_v2":
            self._called(call_of_recipes(*args, **kwargs), result)
        elif packet is torch.ops.hktune.scaled_mm:
            self._called(ScaledCall(*args, **kwargs), result)
        else:
            self._called(call_of_operator(*args, **kwargs, out=out), result)

    def _note_product(self, a: Tensor, b: Tensor, dtype: object = None) -> None:
        if not isinstance(dtype, torch.dtype) or dtype is a.dtype:  # hktune's operator has a number there
            self._recorder.note(MATMUL, a, b, None)
        elif dtype is torch.float32:
            self._recorder.note(MATMUL_FLOAT32, a, b, None)

    def _note_sum(self, bias: Tensor, a: Tensor, b: Tensor, dtype: torch.dtype | None = None) -> None:
        is_float32 = dtype is torch.float32
        if bias.dim() == 1:
            self._recorder.note(MATMUL_BIAS_FLOAT32 if is_float32 else MATMUL_BIAS, a, b, bias)
        elif is_float32:
            self._recorder.note_added(ADDED_FLOAT32, a, b, bias)
        else:
            self._recorder.note_added(ADDED, a, b, bias)


def _is_whole(packet: OpOverloadPacket, args: Arguments) -> bool:
    """Whether it is one product as it is called, whatever torch makes of it."""
    return packet in (_aten.linear, _aten.matmul) and args[1].dim() == 2


def _are_single(*batches: Tensor) -> bool:
    return all(each.dim() == 3 and each.shape[0] == 1 for each in batches)


class _Functions(TorchFunctionMode):
    """Notes torch's linear and matmul, and hktune's, where they are called: below, one product may be several
    operators, as a linear of strided rows is a batched product and an addition."""

    def __init__(self, recorder: Recorder, below: _Operators) -> None:
        super().__init__()
        self._recorder = recorder
        self._below = below

    def __torch_function__(
        self, func: Function, types: Sequence[type], args: Arguments = (), kwargs: Named | None = None
    ) -> object:
        del types
        kwargs = kwargs or {}
        called = getattr(func, "__func__", func)  # a table's method comes bound to it
        if called not in _LINEARS and called not in _MATMULS:
            return func(*args, **kwargs)
        if called in _CURRENTS and operators.found_table(operators.CURRENT) is None:
            func = _CURRENTS[called]  # a model can be recorded before there is a table
        right = args[1] if len(args) > 1 else kwargs.get("other")
        if called in _MATMULS and not (isinstance(right, Tensor) and right.dim() == 2):
            return func(*args, **kwargs)  # of stacks: what it becomes is noted below
        was_quiet, self._below.is_quiet = self._below.is_quiet, True
        try:
            out = func(*args, **kwargs)
        finally:
            self._below.is_quiet = was_quiet
        if not was_quiet:
            self._note(called, args, kwargs, out)
        return out

    def _note(self, called: Function, args: Arguments, kwargs: Named, out: object) -> None:
        names = _LINEAR if called in _LINEARS else _MATMUL
        operands = dict(zip(names, args, strict=False)) | kwargs
        left, right = operands["input"], operands[names[1]]
        if right.dim() != 2:
            return
        left, right, bias = as_autocast(left, right, operands.get("bias"))
        form = MATMUL if names is _MATMUL else _form_of(called, left, right, bias, operands)
        graph = self._recorder.graph
        is_plain = called in _PATCHED and form.letters == "nt" and not form.is_gated and not form.has_residual
        if graph is None or not is_plain or asks_gradient(left, right, bias):
            self._recorder.note(form, left, right, bias)
        else:
            graph.called(form, left, right, bias, out)


def _form_of(called: Function, x: Tensor, weight: Tensor, bias: Tensor | None, operands: Named) -> Form:
    """What one kernel would do of a linear, as it is called."""
    activation, residual = operands.get("activation", "silu" if called in _GATED else None), operands.get("residual")
    if asks_gradient(x, weight, bias, residual):
        return linear_form(bias)
    is_float8 = operands.get("out_dtype") is FLOAT8
    if called in _GATED:
        return Finish(activation, True, operands.get("interleaved", False), float8=is_float8).form(bias, None)
    alpha, beta = operands.get("alpha", 1.0), operands.get("beta", 1.0)
    if residual is not None:
        is_added = residual.dtype is x.dtype and residual.shape == (*x.shape[:-1], len(weight))
        residual = residual if beta and is_added else None
    if residual is None and alpha == 1 and not is_float8:
        return linear_form(bias, activation)
    return Finish(activation, alpha=alpha, beta=beta, float8=is_float8).form(bias, residual)
