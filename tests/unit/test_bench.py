"""Which device and which space a run takes, on a machine whose GPUs are made up."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from hktune.cli import make_parser
from hktune.commands.asked_code import space_for
from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.errors import DeviceError, InputError
from hktune.core.identity import Identity
from hktune.core.operation import BF16_NT_BIAS, operation_of
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.space import load_space
from hktune.tuning.benches import device_choice
from hktune.tuning.benches.device_choice import choose_device
from hktune.tuning.benches.gpu_bench import GpuBench

SPACES = Path(__file__).resolve().parents[2] / "search_spaces"
GFX950, SM90A = SPACES / "gfx950_gemm_bf16.yaml", SPACES / "sm90a_gemm_bf16.yaml"
SETTINGS = Settings(Path("/nowhere"))
H100 = Identity("cuda", "sm90a", "NVIDIA H100", 132)
A100 = Identity("cuda", "sm80", "NVIDIA A100", 108)
MI355X = Identity("hip", "gfx950", "AMD Instinct MI355X", 256)


class Found:
    """A device of which only the identity matters."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity


def machine(monkeypatch: pytest.MonkeyPatch, *gpus: Identity) -> None:
    def open_device(kind: str, ordinal: int = 0, settings: Settings | None = None) -> Found:
        found = [gpu for gpu in gpus if gpu.kind == kind]
        if not found:
            raise DeviceError(f"no {kind} device: install a driver")
        return Found(found[0])

    monkeypatch.setattr(device_choice, "open_device", open_device)


@pytest.mark.parametrize(
    ("gpus", "space", "chosen"),
    [
        ((), None, ("emulated", GFX950)),
        ((H100,), None, ("cuda", SM90A)),
        ((MI355X,), None, ("hip", GFX950)),
        ((MI355X, H100), None, ("hip", GFX950)),
        ((MI355X, H100), SM90A, ("cuda", SM90A)),
        ((H100,), GFX950, ("emulated", GFX950)),
        ((A100,), None, ("emulated", GFX950)),
    ],
)
def test_auto_takes_the_gpu_that_the_space_is_for(
    monkeypatch: pytest.MonkeyPatch, gpus: tuple[Identity, ...], space: Path | None, chosen: tuple[str, Path]
) -> None:
    machine(monkeypatch, *gpus)
    assert choose_device("auto", space, SETTINGS) == chosen


def test_a_space_follows_the_device_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, H100, MI355X)
    assert choose_device("cuda", None, SETTINGS) == ("cuda", SM90A)
    assert choose_device("hip", None, SETTINGS) == ("hip", GFX950)
    assert choose_device("emulated", None, SETTINGS) == ("emulated", GFX950)


@pytest.mark.parametrize(
    ("gpus", "device", "space", "said"),
    [
        ((), "auto", SM90A, "is for sm90a, the emulated device is gfx950"),
        ((H100,), "cuda", GFX950, "is for gfx950, the cuda device is sm90a"),
        ((A100,), "cuda", None, "no search space for sm80 comes with hktune"),
    ],
)
def test_what_does_not_go_together_is_refused(
    monkeypatch: pytest.MonkeyPatch, gpus: tuple[Identity, ...], device: str, space: Path | None, said: str
) -> None:
    machine(monkeypatch, *gpus)
    with pytest.raises(InputError, match=said):
        choose_device(device, space, SETTINGS)


def test_a_device_that_is_not_there_is_an_error_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    with pytest.raises(DeviceError, match="no cuda device"):
        choose_device("cuda", None, SETTINGS)


def test_the_line_that_reproduces_a_failure_is_a_command_of_ours(tmp_path: Path) -> None:
    line = GpuBench("cuda", SM90A, 0, SETTINGS)._reproduce(
        Candidate(Config({"block_m": 64, "swapped": True})), Problem(1, 2, 3)
    )
    where = "--device cuda --space sm90a_gemm_bf16 --problem 1x2x3"
    assert line == f"hktune bench {where} block_m=64 swapped=true  # on GPU 0"
    path = tmp_path / "my spaces" / "a.yaml"
    path.parent.mkdir()
    path.write_bytes(SM90A.read_bytes())
    own = GpuBench("cuda", path, 0, SETTINGS)
    biased = own._reproduce(Candidate(Config({"block_m": 64})), Problem(1, 2, 3, BF16_NT_BIAS))
    assert f"--space '{path}' --problem 1x2x3+bias block_m=64" in biased


@pytest.mark.parametrize("text", ["bf16.nt", "bf16.nt+bias", "f16.nt", "f16.nt+bias"])
def test_the_line_that_reproduces_a_failure_is_read_as_that_operation(text: str) -> None:
    operation = operation_of(text)
    bench, config = GpuBench("cuda", SM90A, 0, SETTINGS), Config({"block_m": 64})
    candidate, problem = Candidate(config, operation.bare), Problem(16, 256, 512, operation)
    for line, problems in (
        (bench._reproduce(candidate, problem), [problem]),
        (bench._reproduce(candidate, None), None),
    ):
        options = make_parser().parse_args(shlex.split(line, comments=True)[1:])
        assert options.problem == problems
        space = space_for(load_space(options.space), options.operation, options.problem or [])
        assert space.template.operation == operation.bare
        assert options.config == ["block_m=64"]
