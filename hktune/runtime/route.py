"""What serves one problem: an entry's kernel as it is launched, or the vendor library."""

from __future__ import annotations

from hktune.core.launch import Launch
from hktune.core.problem import Key
from hktune.device.device import Kernel, PreparedLaunch
from hktune.dispatch.choice import Choice
from hktune.runtime.counts import Fallback


class Route:
    """A kernel, `prepared` once it is loaded, or the vendor library for the reason `why`."""

    __slots__ = ("kernel", "launch", "name", "near", "numbers", "prepared", "why", "workspace_bytes")

    def __init__(self, key: Key, choice: Choice | None) -> None:
        m, n, k, _ = key
        self.numbers = {"m": m, "n": n, "k": k, "lda": k, "ldb": k, "ldc": n}
        self.why: Fallback | None = None
        self.launch: Launch | None = None
        self.name = ("", "")
        if choice is None:
            self.why = Fallback.NO_ENTRY if m and n and k else Fallback.EMPTY
        elif choice.entry.kernel is None:
            self.why = Fallback.VENDOR_CHOSEN
        else:
            self.launch = choice.launch
            self.name = (choice.entry.kernel.object_sha256, choice.entry.kernel.symbol)
        self.near = choice is not None and choice.near
        self.workspace_bytes = self.launch.workspace_bytes if self.launch else 0
        self.prepared: PreparedLaunch | None = None
        self.kernel: Kernel | None = None

    @property
    def takes_strides(self) -> bool:
        return self.launch is not None and self.launch.takes("lda") and self.launch.takes("ldb")
