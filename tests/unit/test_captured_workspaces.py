"""What launches that are captured into graphs have for their scratch memory. Graphs are played here."""

from __future__ import annotations

import weakref
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from hktune.core.errors import DeviceError
from hktune.core.launch import WORKSPACE_COUNTER_BYTES
from hktune.device.device import Capture, GraphLife
from hktune.runtime.serving import workspaces
from hktune.runtime.serving.workspaces import Workspaces

SIZE = WORKSPACE_COUNTER_BYTES + 512


class Graphs:
    """Captures by number, and memory that none of them owns: full of bits, and seen to go."""

    def __init__(self) -> None:
        self.current = 1
        self.lives = {number: SimpleNamespace(is_over=False) for number in (1, 2, 3)}
        self._outside: list[weakref.ref[Tensor]] = []

    def captured_by(self, stream: int) -> Capture:
        number = self.current
        return Capture(number, lambda: self.lives[number])

    def outside_graph(self, size_bytes: int) -> Tensor:
        memory = torch.full((size_bytes,), 0xA5, dtype=torch.uint8)
        self._outside.append(weakref.ref(memory))
        return memory

    @property
    def kept(self) -> list[Tensor | None]:
        return [memory() for memory in self._outside]


@pytest.fixture
def graphs() -> Graphs:
    return Graphs()


@pytest.fixture
def made(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> Workspaces:
    made = Workspaces(torch.device("cpu"), captured_by=graphs.captured_by)
    monkeypatch.setattr(made, "_outside_graph", graphs.outside_graph)
    monkeypatch.setattr(workspaces, "is_capturing", lambda: True)
    return made


def test_launches_of_one_graph_and_stream_share_one(graphs: Graphs, made: Workspaces) -> None:
    addresses = [made.of(stream, SIZE).data_ptr() for stream in (7, 7, 8, 7)]
    assert addresses[0] == addresses[1] == addresses[3] != addresses[2]
    for memory in graphs.kept:
        assert memory is not None
        assert not memory[:WORKSPACE_COUNTER_BYTES].any()
        assert memory[WORKSPACE_COUNTER_BYTES:].all(), "only counters are cleared"


def test_a_larger_one_replaces_it_and_both_stay(graphs: Graphs, made: Workspaces) -> None:
    first = made.of(7, SIZE).data_ptr()
    larger = made.of(7, SIZE + 1).data_ptr()
    assert made.of(7, SIZE).data_ptr() == larger != first
    assert [memory is not None for memory in graphs.kept] == [True, True], "launches before use the first"


def test_each_graph_has_its_own_for_as_long_as_it_lives(graphs: Graphs, made: Workspaces) -> None:
    first = made.of(7, SIZE).data_ptr()
    graphs.current = 2
    assert made.of(7, SIZE).data_ptr() != first
    assert [memory is not None for memory in graphs.kept] == [True, True]
    graphs.lives[1].is_over, graphs.current = True, 3
    made.of(7, SIZE)
    assert [memory is not None for memory in graphs.kept] == [False, True, True]


def test_an_eager_launch_has_another(graphs: Graphs, made: Workspaces, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = made.of(7, SIZE)
    monkeypatch.setattr(workspaces, "is_capturing", lambda: False)
    eager = made.of(7, SIZE)
    assert eager.data_ptr() != captured.data_ptr()
    assert not eager[:WORKSPACE_COUNTER_BYTES].any()


def _refuses() -> GraphLife:
    raise DeviceError("not supported")


@pytest.mark.parametrize("captured_by", [None, lambda stream: None, lambda stream: Capture(1, _refuses)])
def test_without_word_of_a_graph_each_launch_has_its_own(captured_by: object, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Workspaces(torch.device("cpu"), captured_by=captured_by)  # type: ignore[arg-type]
    monkeypatch.setattr(workspaces, "is_capturing", lambda: True)
    first, second = (made.of(7, WORKSPACE_COUNTER_BYTES) for _ in range(2))
    assert first.data_ptr() != second.data_ptr()
    assert not first.any()
    assert not second.any()
