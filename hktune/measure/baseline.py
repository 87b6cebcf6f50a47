"""The vendor's GEMM, timed together with every candidate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from hktune.core.dtype import F32
from hktune.core.errors import DeviceError
from hktune.core.operand import factors_of
from hktune.core.operation import Operation
from hktune.core.problem import Problem
from hktune.measure.arena import OperandSet
from hktune.measure.grouped_baseline import GroupedProducts
from hktune.measure.scaled_baseline import ScaledProduct, is_of_8_bits
from hktune.measure.torch_epilogue import FUSED, check_steps, finish, multiplied, multiply_fused, product_of

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
        nothing, and may be captured after one call of each set that is not. Where the library has no other way, a graph
        has its output elsewhere. Preparing may compute `operands` once. Several problems may be prepared at once.
        Raises DeviceError, in `prepare`, for a problem that it has no way to compute.
        """


class TorchBaseline:
    """What torch.nn.functional.linear calls for these operands, into an output that is there already.

    `library` is `cublas` or `cublaslt`, torch's words; on ROCm they mean rocBLAS and hipBLASLt, and `name` says so.
    Steps behind a bias are kernels of their own. With `fused` they are the library's where torch has a function for
    that: relu, or gelu by tanh, behind a bias; a residual alone.
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
        scaled = ScaledProduct(operation) if is_of_8_bits(operation) else None
        if scaled is None:
            _check(operation)
        if operation.is_grouped:
            if self._library != "cublas":
                raise DeviceError(f"{self._library} has no {operation}: torch's own kernels do it")
            return GroupedProducts(external).prepared(operation, operands)
        own = product_of(operation, operands)

        def enqueue(operands: OperandSet) -> None:
            with torch.cuda.stream(external), preferring(self._library):
                if scaled:
                    scaled(operands)
                elif self.fused and operation.epilogue in FUSED:
                    multiply_fused(operation, operands)
                else:
                    _multiply(operation, operands, operands["c"] if own is None else own)

        enqueue(operands)
        external.synchronize()
        return enqueue


def _check(operation: Operation) -> None:
    """Raises DeviceError where torch's products are none of `operation`."""
    if operation.a != operation.b or operation.added_dtype not in (operation.a_dtype, F32):
        raise DeviceError(f"torch has no {operation}: both factors have one format, and C that or float32")
    check_steps(operation)


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


def _multiply(operation: Operation, operands: OperandSet, product: torch.Tensor) -> None:
    import torch

    a, b = factors_of(operation, operands)
    first = multiplied(operation)
    added = operands["c"] if first.accumulates else operands.get("bias") if first.has_bias else None
    wider: dict[str, Any] = {"out_dtype": product.dtype} if product.dtype != a.dtype else {}  # since torch 2.8
    try:
        if added is None:
            (torch.mm if a.ndim == 2 else torch.bmm)(a, b, **wider, out=product)
        else:
            torch.addmm(added, a, b, **wider, out=product)
    except (TypeError, NotImplementedError):
        rule = "torch 2.8 is the first that has one, on GPUs"
        raise DeviceError(f"torch {torch.__version__} has no {operation}: {rule}") from None
    finish(operation, product, operands)
