"""The Compiler protocol."""

from __future__ import annotations

from typing import Protocol

from hktune.core.outcome import Failure
from hktune.core.variant import CodeObject, Variant


class Compiler(Protocol):
    """Turns a variant into a device-only code object, or into a typed failure.

    `identity` names compiler, version, target and every flag and header that change the output: two compilers of equal
    identity give interchangeable objects, so it is part of the object cache's key. `compile` may be called from many
    threads and processes at once. It returns `Failure(COMPILE_ERROR)` with the first error line, `Failure(TIMEOUT)`
    past `deadline_s`, and raises MachineError when this machine is to blame: no compiler, header, disk or memory.
    """

    @property
    def identity(self) -> str: ...

    def compile(self, variant: Variant, deadline_s: float) -> CodeObject | Failure: ...
