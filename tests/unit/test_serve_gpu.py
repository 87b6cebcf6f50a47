"""What the process that owns a GPU answers, and which GPU that is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hip_stand_in import StandIn

from hktune.core.config import Config
from hktune.core.errors import DeviceError, DeviceFull, KernelFault, MachineError
from hktune.core.outcome import Failure, Source, Status, Timing
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import SPACES
from hktune.measure.stopwatch import Attempt, Confirmation
from hktune.workers.gpu_service import GpuService, Serving
from hktune.workers.gpu_worker import Answer, Confirm, Prove, Screen

ATTEMPT = Attempt(Config({"block": 1}), object_sha256="0" * 64)


def answer(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> Answer:
    nothing: Any = None
    serving = Serving(nothing, nothing, nothing, GpuService("cuda", Path("x"), nothing, (), Settings(Path("x"))))

    def proved(attempt: Attempt, problem: Problem | None = None) -> Attempt:
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


@pytest.mark.parametrize(
    "error", [DeviceFull("the CUDA driver says CUDA_ERROR_OUT_OF_MEMORY"), torch.OutOfMemoryError("2 GiB wanted\nmore")]
)
def test_memory_that_another_program_has_is_no_configs_fault(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    with pytest.raises(MachineError, match=r"^GPU 0 has too little free memory \([^\n]*\): end what else uses it"):
        answer(monkeypatch, error)


def test_the_process_is_on_its_own_gpu(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    settings = Settings(tmp_path, rocm_path=stand_in.rocm_path)
    compiler: Any = SimpleNamespace
    serving = GpuService("hip", SPACES / "gfx950_gemm_bf16.yaml", compiler, (), settings, ordinal=1)()
    assert chosen == [1]
    with pytest.raises(DeviceError, match="on cuda:1"):
        serving.device.borrow(stand_in.tensor(torch.zeros(8)))  # which is on cuda:0


def test_every_time_says_which_gpu_took_it() -> None:
    nothing: Any = None
    service = GpuService("cuda", Path("x"), nothing, (), Settings(Path("x")), ordinal=3)
    serving = Serving(nothing, nothing, nothing, service)
    timing, failure = Timing(Source.MEASURED, 1.0), Failure(Status.WRONG, "differs")
    serving.__dict__["stopwatch"] = SimpleNamespace(
        time=lambda attempt, problem: timing,
        confirm=lambda attempts, problem, others, steady: Confirmation((timing, failure), {"other": 0.9}),
        timer=SimpleNamespace(busy_us=2e6),
    )
    placed = replace(timing, gpu=3)
    assert serving(Screen(ATTEMPT, Problem(1, 2, 3))) == Answer(placed, 2.0)
    confirmation = serving(Confirm((ATTEMPT, ATTEMPT), Problem(1, 2, 3)))
    assert confirmation == Answer(Confirmation((placed, failure), {"other": 0.9}), 2.0)
