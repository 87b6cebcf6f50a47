"""Which graph a stream is being captured into, and whether that graph is still there."""

from __future__ import annotations

import ctypes
import functools
from types import ModuleType

from hktune.core.errors import DeviceError
from hktune.device.cuda_driver import checked
from hktune.device.device import Capture

_SEMAPHORE_BYTES = 64  # more than a sem_t has on any Linux


class _GraphLife:
    """A user object of the driver's, which a graph and all that is made of it hold. When the last of them is destroyed,
    the driver calls a function that may neither call the driver nor be Python, for Python may have ended: the C
    library's `sem_post`. The semaphore is never freed, as nobody knows when that call comes."""

    def __init__(self, driver: ModuleType, graph: object) -> None:
        library = _c_library()
        self._semaphore = library.calloc(1, _SEMAPHORE_BYTES)
        if not self._semaphore or library.sem_init(self._semaphore, 0, 0):
            raise DeviceError("no memory for a semaphore: end what else runs here")
        self._over = False
        post = driver.CUhostFn(ctypes.cast(library.sem_post, ctypes.c_void_p).value)
        needed = driver.CUuserObject_flags.CU_USER_OBJECT_NO_DESTRUCTOR_SYNC
        handle = checked(driver.cuUserObjectCreate(self._semaphore, post, 1, needed))
        moved = driver.CUuserObjectRetain_flags.CU_GRAPH_USER_OBJECT_MOVE
        checked(driver.cuGraphRetainUserObject(graph, handle, 1, moved))

    @property
    def is_over(self) -> bool:
        self._over = self._over or _c_library().sem_trywait(self._semaphore) == 0
        return self._over


@functools.cache
def _c_library() -> ctypes.CDLL:
    library = ctypes.CDLL(None)
    library.calloc.restype, library.calloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t, ctypes.c_size_t]
    library.sem_init.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint]
    library.sem_post.argtypes = library.sem_trywait.argtypes = [ctypes.c_void_p]
    return library


def cuda_capture(driver: ModuleType, stream: int) -> Capture | None:
    """What `stream` is being captured into, or None. Raises DeviceError where the driver does not say."""
    status, *values = driver.cuStreamGetCaptureInfo(driver.CUstream(stream))
    checked((status,))
    state, number, graph, *_ = values
    if state != driver.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_ACTIVE:
        return None
    return Capture(int(number), functools.partial(_GraphLife, driver, graph))
