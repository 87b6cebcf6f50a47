"""What of torch's thread-local state makes a call mean more than its operands say.

A kernel launched from Python is invisible to whatever watches torch's dispatcher: modes, tracers, transforms. Each
question here costs 30 to 120 ns (torch 2.13, 2-core x86-64, 2026-11-22), and a call asks them all.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType

import torch
from torch import Tensor
from torch.autograd import forward_ad

compiling = torch.compiler.is_dynamo_compiling
grad_enabled = torch.is_grad_enabled
is_jit_trace: Callable[[], bool] = torch._C._is_tracing
profiling: Callable[[], bool] = torch._C._autograd._profiler_enabled

_dispatch_modes: Callable[[], int] = torch._C._len_torch_dispatch_stack
_key_included: Callable[[torch._C.DispatchKey], bool] = torch._C._dispatch_tls_is_dispatch_key_included
_PRE_DISPATCH = torch._C.DispatchKey.PreDispatch  # of make_fx(pre_dispatch=True), whose modes are on no stack
_key_excluded: Callable[[torch._C.DispatchKey], bool] = torch._C._dispatch_tls_is_dispatch_key_excluded
_AUTOGRAD = torch._C.DispatchKey.AutogradFunctionality
_function_modes: Callable[[], int] = torch._C._len_torch_function_stack
_functorch: Callable[[], object] = torch._C._functorch.peek_interpreter_stack
_autocast: Callable[[], bool] = torch._C._is_any_autocast_enabled
_fx: ModuleType = torch.fx._symbolic_trace


def exporting() -> bool:
    """Whether torch.export traces. To the tracer of torch 2.11, its own `is_exporting` is true of every compiled
    graph."""
    return bool(getattr(torch.compiler, "_is_exporting_flag", False))  # torch 2.7


def is_plain() -> bool:
    """Whether nothing watches, and autocast is off."""
    return not (
        _dispatch_modes()
        or _key_included(_PRE_DISPATCH)
        or _function_modes()
        or _functorch() is not None
        or _autocast()
        or forward_ad._current_level >= 0
        or is_jit_trace()
        or _fx._is_fx_tracing_flag
    )


def unseen_by_guards() -> bool | int:
    """Whether something watches that a guard of seen_calls.py does not see, or that must not meet a tensor's shape."""
    return (
        _function_modes()
        or _dispatch_modes()
        or is_jit_trace()
        or forward_ad._current_level >= 0
        or _fx._is_fx_tracing_flag
    )


def is_below_autograd() -> bool:
    """Whether torch records no gradient here, whatever `grad_enabled` says: in inference mode, and in what dispatches
    below autograd, as a tensor type's own `__torch_dispatch__` does."""
    return _key_excluded(_AUTOGRAD)


def has_function_mode() -> bool:
    """Whether a mode of torch's functions is on; they may be there and disabled."""
    return bool(_function_modes()) and torch._C._is_torch_function_mode_enabled()


def has_dispatch_mode() -> bool:
    return bool(_dispatch_modes() or _key_included(_PRE_DISPATCH))


def is_transformed() -> bool:
    """Under vmap, grad and their like, forward-mode AD, or torch.jit.trace."""
    return _functorch() is not None or forward_ad._current_level >= 0 or is_jit_trace()


def is_made_a_graph() -> bool:
    """Whether an export, make_fx, torch.jit.trace or symbolic_trace makes of this call a graph, which may be kept
    longer than what the call was made with, in another process too."""
    if exporting() or is_jit_trace() or _fx._is_fx_tracing_flag:
        return True
    if not has_dispatch_mode():
        return False
    from torch.fx.experimental.proxy_tensor import get_proxy_mode

    return get_proxy_mode() is not None


def is_transformed_in_trace() -> bool:
    """`is_transformed` in words that torch.compile's tracer knows: to it, what it finds on an empty stack is not
    None."""
    return isinstance(_functorch(), torch._C._functorch.CInterpreter) or forward_ad._current_level >= 0


def operator_range(name: str, *operands: Tensor) -> AbstractContextManager[object]:
    """What a profiler shows of a product that torch's dispatcher does not see."""
    return torch._C._profiler._RecordFunctionFast(name, operands)


def is_autocast(x: Tensor) -> bool:
    """Whether autocast is on where x is: for the meta device, as for what is no tensor, there is none."""
    if not isinstance(x, Tensor):
        return False
    kind = x.device.type
    return (kind in ("cpu", "cuda") or torch.amp.is_autocast_available(kind)) and torch.is_autocast_enabled(kind)


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """What autocast casts to where x is; None where it is off."""
    return torch.get_autocast_dtype(x.device.type) if is_autocast(x) else None


def as_autocast(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The operands as autocast would have them where x is: in its dtype, but for float64; as they are where it is
    off."""
    dtype = autocast_dtype(x)
    if dtype is None:
        return x, weight, bias
    return _cast(x, dtype), _cast(weight, dtype), None if bias is None else _cast(bias, dtype)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if not isinstance(tensor, Tensor) or tensor.dtype is dtype or tensor.dtype is torch.float64:
        return tensor
    if not tensor.is_floating_point():
        return tensor
    return tensor.bfloat16() if dtype is torch.bfloat16 else tensor.to(dtype)  # 1.5 us against 2.4


def autocast_done(x: Tensor) -> AbstractContextManager[object]:
    """What follows on operands that are cast already."""
    return torch.autocast(x.device.type, enabled=False) if is_autocast(x) else nullcontext()


def is_capturing() -> bool:
    """Whether this thread's current stream is being captured into a graph."""
    initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return bool(initialized) and torch.cuda.is_current_stream_capturing()
