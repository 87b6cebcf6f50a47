"""hktune finds, proves and dispatches the fastest correct GEMM kernel for every shape a model runs."""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, whose import takes longer than all else here
if TYPE_CHECKING:
    from hktune.runtime import Linear, linear, load, matmul, patch, prepare, record, stats, unload, unpatch

__version__ = "0.1.0"
__all__ = ["Linear", "linear", "load", "matmul", "patch", "prepare", "record", "stats", "unload", "unpatch"]


def __getattr__(name: str) -> object:
    """The runtime's functions, imported at first use: `import hktune` alone loads neither torch nor numpy."""
    if name not in __all__:
        raise AttributeError(f"module 'hktune' has no attribute {name!r}")
    from hktune import runtime

    found: object = getattr(runtime, name)
    globals()[name] = found  # from now on without this function
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
