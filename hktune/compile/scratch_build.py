"""One compile from beginning to end: a source in a private folder, a compiler run on it, and what that came to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hktune.compile.described import Image, described
from hktune.compile.diagnostics import machine_fault
from hktune.compile.process import Finished, disk_at_fault
from hktune.core.errors import ToolchainError
from hktune.core.outcome import Failure, Status
from hktune.core.publish import scratch_folder
from hktune.core.variant import CodeObject, Variant


@dataclass(frozen=True)
class ScratchBuild:
    """How one compiler is run.

    `run(source, seconds)` leaves `object_name` next to the file `source`; None when the time passed. `verdict` is the
    line that says why a source was refused: of how the compiler ended, and the source's name. `read` parses the object.
    """

    ending: str
    object_name: str
    compiler: str
    read: Callable[[bytes], Image]
    run: Callable[[Path, float], Finished | None]
    verdict: Callable[[Finished, str], str]

    def __call__(self, variant: Variant, deadline_s: float) -> CodeObject | Failure:
        """Build `variant`; see Compiler."""
        started = time.monotonic()
        data = self.bytes_of(variant, deadline_s)
        if isinstance(data, Failure):
            return data
        return described(variant, data, self.read, self.compiler, time.monotonic() - started)

    def bytes_of(self, variant: Variant, deadline_s: float) -> bytes | Failure:
        """The object that `variant` becomes, whatever kernels it has."""
        name = f"{PurePosixPath(variant.template).name}{self.ending}"
        with scratch_folder() as folder, disk_at_fault(folder):
            source = folder / name
            source.write_text(variant.source, encoding="utf-8")
            finished = self.run(source, deadline_s)
            if finished is None:
                return Failure(Status.TIMEOUT, f"{name}: still compiling after {deadline_s:g} s")
            built = folder / self.object_name
            if finished.status != 0 or not built.is_file():
                return self._failed(finished, name)
            return built.read_bytes()

    def _failed(self, finished: Finished, name: str) -> Failure:
        """The verdict on the source. Raises ToolchainError where the machine is to blame."""
        fault = machine_fault(finished.stderr)
        if fault:
            raise ToolchainError(f"{name} cannot be compiled here: {fault}")
        return Failure(Status.COMPILE_ERROR, self.verdict(finished, name))
