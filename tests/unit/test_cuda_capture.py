"""How long a captured graph lives, asked of a driver that is played here. Semaphores are the C library's own."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import pytest

from hktune.core.errors import DeviceError
from hktune.device.cuda_capture import cuda_capture

Destroy = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class CUstreamCaptureStatus(IntEnum):
    CU_STREAM_CAPTURE_STATUS_NONE = 0
    CU_STREAM_CAPTURE_STATUS_ACTIVE = 1


class Driver:
    """Streams 1 and 2 are being captured, as numbers 11 and 12. Keeps what a graph retains, and destroys it."""

    CUstreamCaptureStatus = CUstreamCaptureStatus
    CUuserObject_flags = SimpleNamespace(CU_USER_OBJECT_NO_DESTRUCTOR_SYNC=1)
    CUuserObjectRetain_flags = SimpleNamespace(CU_GRAPH_USER_OBJECT_MOVE=1)

    def __init__(self, refusal: Any = 0) -> None:
        self.refusal = refusal
        self.retained: dict[str, Any] = {}

    def CUstream(self, handle: int) -> int:  # noqa: N802 - the driver's names, here and below
        return handle

    def CUhostFn(self, address: int) -> Any:  # noqa: N802
        return Destroy(address)

    def cuStreamGetCaptureInfo(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        return 0, CUstreamCaptureStatus(stream in (1, 2)), 10 + stream, f"graph {stream}", [], [], 0

    def cuUserObjectCreate(self, pointer: int, destroy: Any, count: int, flags: int) -> tuple[Any, ...]:  # noqa: N802
        assert (count, flags) == (1, 1)
        return self.refusal, lambda: destroy(pointer)

    def cuGraphRetainUserObject(self, graph: str, handle: Any, count: int, flags: int) -> tuple[int]:  # noqa: N802
        assert (count, flags) == (1, 1)
        self.retained[graph] = handle
        return (0,)


def test_a_graph_lives_until_the_driver_destroys_what_it_holds() -> None:
    driver: Any = Driver()
    first, second = cuda_capture(driver, 1), cuda_capture(driver, 2)
    assert first is not None
    assert second is not None
    assert (first.number, second.number) == (11, 12)
    lives = [first.life(), second.life()]
    assert [life.is_over for life in lives] == [False, False]
    driver.retained["graph 2"]()
    assert [life.is_over for life in lives] == [False, True]
    assert [life.is_over for life in lives] == [False, True], "asked again"


def test_a_stream_that_is_not_captured_has_no_capture() -> None:
    driver: Any = Driver()
    assert cuda_capture(driver, 3) is None
    assert not driver.retained


def test_a_driver_that_refuses_says_so() -> None:
    driver: Any = Driver(SimpleNamespace(name="CUDA_ERROR_NOT_SUPPORTED"))
    capture = cuda_capture(driver, 1)
    assert capture is not None
    with pytest.raises(DeviceError, match="CUDA_ERROR_NOT_SUPPORTED"):
        capture.life()
