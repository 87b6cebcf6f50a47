"""The VendorLibrary protocol: a vendor's matrix library on one GPU, asked for its algorithms one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from hktune.core.operation import Operation
from hktune.core.problem import Problem
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.device.device import CALL_OPERANDS, PreparedLaunch


class VendorLibrary(Protocol):
    """One library on one GPU: the calling thread's current one when it was first asked, which must be current in every
    later call. To open it, and to ask for its name and version, needs no GPU. Calls, and the launches that it prepares,
    may come from several threads.

    What a row or a table says of an algorithm comes from a file, and is compared only. What is passed to the library is
    always what the library itself answered in this process. So no file, however made, reaches its code.
    """

    @property
    def name(self) -> str:
        """One of `core.vendor_algorithm.LIBRARIES`."""

    @property
    def version(self) -> str:
        """Its own version, one word: an algorithm is known to the version only that named it."""

    def algorithms(self, problem: Problem) -> Sequence[VendorAlgorithm]:
        """All that it names for `problem`, each once, those that it takes for faster first. None where it does not
        compute the operation. All matrices are contiguous and begin on 16 bytes. Launches nothing.

        Equal problems have equal answers, also in another process with the same GPU and version. Raises DeviceError
        where the library itself fails.
        """

    def refusal(self, algorithm: VendorAlgorithm, problem: Problem) -> str | None:
        """Why a stored `algorithm` cannot compute `problem` here, one line; None where it can.

        Another library or version; one that is not among `algorithms`; one that the library's own check refuses.
        Launches nothing. Raises DeviceError where the library itself fails.
        """

    def prepare(
        self, algorithm: VendorAlgorithm, problem: Problem, operands: Sequence[str] = CALL_OPERANDS
    ) -> PreparedLaunch:
        """A launch of `algorithm` on `problem` for many calls, which give their tensors in the order of `operands`, and
        then the stream. They are contiguous, on this GPU, and begin on 16 bytes. `workspace` has at least
        `workspace_bytes` and need not be cleared; it may be None where that is 0.

        A launch writes all of C, and nothing but C and the workspace. It allocates nothing, waits for nothing, and may
        be captured. Raises DeviceError where `refusal` says why, and so does a launch that the library refuses.
        """


def out_of_place(
    library: VendorLibrary, algorithm: VendorAlgorithm, operation: Operation, computes: Callable[[Operation], bool]
) -> str | None:
    """Why `library` need not be asked for `algorithm`: that is of another library or version, or `operation` is none
    that it computes. None where it must be asked."""
    if (algorithm.library, algorithm.version) == (library.name, library.version):
        return None if computes(operation) else f"{library.name} does not compute {operation}"
    saved = f"{algorithm.library} {algorithm.version}"
    return f"the algorithm is of another library: saved={saved} current={library.name} {library.version}"
