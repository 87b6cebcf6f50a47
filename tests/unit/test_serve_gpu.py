"""What the process that owns a GPU answers when something goes wrong in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hktune.contained import Answer, Prove
from hktune.errors import DeviceError, KernelFault
from hktune.measure.stopwatch import Attempt
from hktune.model import Config, Failure, Status
from hktune.serve_gpu import GpuService, Serving
from hktune.settings import Settings

ATTEMPT = Attempt(Config({"block": 1}), object_sha256="0" * 64)


def answer(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> Answer:
    nothing: Any = None
    serving = Serving(nothing, nothing, nothing, GpuService("cuda", Path("x"), nothing, (), Settings(Path("x"))))

    def proved(attempt: Attempt) -> Attempt:
        if error:
            raise error
        return attempt

    monkeypatch.setattr(serving, "proved", proved)
    assert serving(None) == Answer(None)
    return serving(Prove(ATTEMPT))


def test_an_answer_is_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer(monkeypatch, None) == Answer(ATTEMPT)


@pytest.mark.parametrize(
    ("error", "failure", "lost"),
    [
        (KernelFault("crashed", "illegal address"), Failure(Status.CRASHED, "illegal address"), True),
        (KernelFault("timeout", "launch timeout"), Failure(Status.TIMEOUT, "launch timeout"), True),
        (DeviceError("grid 0"), Failure(Status.CRASHED, "grid 0"), False),
        (RuntimeError("CUDA error: unspecified\nmore"), Failure(Status.CRASHED, "CUDA error: unspecified"), True),
    ],
    ids=["fault", "timeout", "refusal", "torch's own"],
)
def test_a_fault_loses_the_device_and_a_refusal_does_not(
    monkeypatch: pytest.MonkeyPatch, error: Exception, failure: Failure, lost: bool
) -> None:
    assert answer(monkeypatch, error) == Answer(failure, lost=lost)
