"""The vendor's GEMM, timed together with every candidate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from hktune.core.dtype import F32
from hktune.core.errors import DeviceError
from hktune.core.operand import factors_of
from hktune.core.operation import ACTIVATIONS, Operation
from hktune.core.problem import Problem
from hktune.measure.arena import OperandSet
from hktune.measure.scaled_baseline import check_scaled, is_of_8_bits, multiply_scaled

if TYPE_CHECKING:
    import torch


class Baseline(Protocol):
    """A way to have a problem computed that hktune has to beat. One thread at a time."""

    @property
    def name(self) -> str:
        """Whose it is, and which version: one line that does not change."""

    def prepare(self, problem: Problem, operands: OperandSet, stream: int) -> Callable[[OperandSet], None]:
        """What puts one launch on `stream`, for any set of operands of `problem`: it writes all of `c`, from what the
        others hold when it runs, and nothing else.

        Everything slow (handles, workspace, the choice of an algorithm) is done before it is returned; it waits for
        nothing and may be captured. Preparing may compute `operands` once. Several problems may be prepared at once.
        Raises DeviceError, in `prepare`, for a problem that it has no way to compute.
        """


class TorchBaseline:
    """What torch.nn.functional.linear calls for these operands, into an output that is there already.

    `library` is `cublas` or `cublaslt`, torch's words; on ROCm they mean rocBLAS and hipBLASLt, and `name` says so.
    An activation is a kernel behind it. With `fused` it is the library's own epilogue where torch has a function for
    that: relu, and gelu by tanh, behind a bias.
    """

    def __init__(self, library: str, fused: bool = False) -> None:
        import torch

        self._library, self.fused = library, fused
        words = {"cublas": "rocBLAS", "cublaslt": "hipBLASLt"} if torch.version.hip else {}
        called = words.get(library, {"cublas": "cuBLAS", "cublaslt": "cuBLASLt"}[library])
        platform = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
        self.name = f"{called} of {platform} through torch {torch.__version__}"

    def prepare(self, problem: Problem, operands: OperandSet, stream: int) -> Callable[[OperandSet], None]:
        """See Baseline."""
        import torch

        operation, external = problem.operation, torch_stream(stream)
        if is_of_8_bits(operation):
            check_scaled(operation)
        elif operation.a != operation.b or operation.c not in (operation.a, F32.name):
            raise DeviceError(f"torch has no {operation}: both factors have one format, and C that or float32")
        else:
            check_steps(operation)

        def enqueue(operands: OperandSet) -> None:
            with torch.cuda.stream(external), preferring(self._library):
                if is_of_8_bits(operation):
                    multiply_scaled(operation, operands)
                elif self.fused and operation.epilogue in _FUSED:
                    _multiply_fused(operation, operands)
                else:
                    _multiply(operation, operands)

        enqueue(operands)
        external.synchronize()
        return enqueue


def check_steps(operation: Operation) -> None:
    """Raises DeviceError where the epilogue is more than one of the steps that the vendor's library does, and an
    activation behind it."""
    *_, last = (None, *operation.epilogue)
    added = operation.epilogue[:-1] if last in ACTIVATIONS else operation.epilogue
    if added not in ((), ("bias",), ("accumulate",)):
        rule = "it adds a bias, or accumulates on C, before one activation"
        raise DeviceError(f"the vendor's library has no {operation}: {rule}")


def torch_stream(stream: int) -> torch.cuda.Stream:
    """A device's stream as torch's, by its native handle."""
    import torch

    external: torch.cuda.Stream = torch.cuda.ExternalStream(stream)  # type: ignore[no-untyped-call]
    return external


class preferring:  # noqa: N801 - reads as a statement
    """Within it, torch's GEMMs go to `library`."""

    def __init__(self, library: str) -> None:
        self._library = library

    def __enter__(self) -> None:
        import torch

        self._before: torch._C._BlasBackend = torch.backends.cuda.preferred_blas_library()
        torch.backends.cuda.preferred_blas_library(self._library)

    def __exit__(self, *_: object) -> None:
        import torch

        torch.backends.cuda.preferred_blas_library(self._before)


_FUSED: dict[tuple[str, ...], bool] = {("bias", "relu"): False, ("bias", "gelu_tanh"): True}
"""Steps that torch hands to the library together, and whether they are gelu."""


def _multiply_fused(operation: Operation, operands: OperandSet) -> None:
    import torch

    a, b = factors_of(operation, operands)
    torch._addmm_activation(operands["bias"], a, b, use_gelu=_FUSED[operation.epilogue], out=operands["c"])


def _multiply(operation: Operation, operands: OperandSet) -> None:
    import torch

    a, b = factors_of(operation, operands)
    c = operands["c"]
    added = c if operation.accumulates else operands.get("bias")
    wider: dict[str, Any] = {"out_dtype": c.dtype} if c.dtype != a.dtype else {}  # since torch 2.8
    try:
        if added is None:
            torch.mm(a, b, **wider, out=c)
        else:
            torch.addmm(added, a, b, **wider, out=c)
    except (TypeError, NotImplementedError):
        rule = "torch 2.8 is the first that has one, on GPUs"
        raise DeviceError(f"torch {torch.__version__} has no {operation}: {rule}") from None
    for activation in operation.activations:
        _activate(activation, c)


def _activate(activation: str, c: torch.Tensor) -> None:
    """In place, as torch does it behind a product."""
    import torch

    if activation == "relu":
        torch.relu_(c)
    elif activation == "silu":
        torch.nn.functional.silu(c, inplace=True)
    else:
        torch.ops.aten.gelu_(c, approximate="tanh" if activation == "gelu_tanh" else "none")
