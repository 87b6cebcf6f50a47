"""hktune finds, proves and dispatches the fastest correct GEMM kernel for every shape a model runs."""

from __future__ import annotations

from hktune.core.version import __version__ as __version__

TYPE_CHECKING = False  # as typing has it, whose import takes longer than all else here
if TYPE_CHECKING:
    from hktune.runtime import (
        Linear,
        disable,
        enable,
        gated_grouped_mm,
        gated_linear,
        grouped_mm,
        linear,
        load,
        matmul,
        patch,
        record,
        scaled_grouped_mm,
        scaled_mm,
        stats,
        unload,
        unpatch,
    )
    from hktune.session import StopTuning, tune
    from hktune.verify.called_kernel import verify_kernel as verify

__all__ = [
    "Linear",
    "StopTuning",
    "disable",
    "enable",
    "gated_grouped_mm",
    "gated_linear",
    "grouped_mm",
    "linear",
    "load",
    "matmul",
    "patch",
    "record",
    "scaled_grouped_mm",
    "scaled_mm",
    "stats",
    "tune",
    "unload",
    "unpatch",
    "verify",
]
_OF_TUNING = ("StopTuning", "tune")


def __getattr__(name: str) -> object:
    """The functions of the runtime and of tuning, imported at first use: `import hktune` alone loads neither torch nor
    numpy, and production none of what tunes."""
    if name not in __all__:
        raise AttributeError(f"module 'hktune' has no attribute {name!r}")
    if name == "verify":  # the room itself, which can be called
        import hktune.verify as called

        return called
    if name in _OF_TUNING:
        from hktune import session as room
    else:
        from hktune import runtime as room  # type: ignore[no-redef]
    found: object = getattr(room, name)
    globals()[name] = found  # from now on without this function
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
