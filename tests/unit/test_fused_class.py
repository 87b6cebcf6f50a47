"""What `patch(model, fuse=True)` makes of a module's class: whoever looks at it, copies it, makes another of it, traces
or exports it finds what was there. The truth is the same module, not patched.
"""

from __future__ import annotations

import abc
import copy
import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from naive_gemm import published, trial
from torch import Tensor, nn
from torch.nn import functional
from torch_operands import bf16

import hktune
from hktune.core.problem import Problem
from hktune.runtime import operators

K = 16
pytestmark = pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "_current", None)
    published(tmp_path, trial(Problem(8, K, K)))
    hktune.load(tmp_path, allow_modelled=True)


class Plain(nn.Module):
    def __init__(self) -> None:
        nn.Module.__init__(self)  # borrowed below by a class that is no Plain
        self.layer = nn.Linear(K, K, dtype=torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.layer(x))


def fused(module: nn.Module) -> Any:
    assert hktune.patch(module, fuse=True, quiet=True).fused
    return module


def assert_alike(found: nn.Module, expected: nn.Module) -> None:
    x = bf16(8, K)
    with torch.no_grad():
        torch.testing.assert_close(found(x), expected(x), rtol=2**-6, atol=2**-6)


_registered: dict[str, type] = {}


class Registers(nn.Module):
    """Knows its subclasses, each by a name of its own, and wants a word of them."""

    def __init_subclass__(cls, *, word: str) -> None:
        assert cls.__name__ not in _registered
        _registered[cls.__name__] = cls


class Registered(Registers, word="any"):
    __init__, forward = Plain.__init__, Plain.forward


class _Marked(type):
    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
        assert "mark" in body
        return super().__new__(cls, name, bases, body)


class Marked(Plain, metaclass=_Marked):
    mark = True


class Abstract(Plain, abc.ABC):
    @abc.abstractmethod
    def extra(self) -> None: ...


class Concrete(Abstract):
    def extra(self) -> None:
        return None


@pytest.mark.parametrize("kind", [Registered, Marked, Concrete])
def test_the_class_of_a_module_is_not_told_of_another(kind: Callable[[], nn.Module]) -> None:
    module = kind()
    twin = copy.deepcopy(module)
    assert_alike(fused(module), twin)
    assert _registered == {"Registered": Registered}
    assert isinstance(module, kind)  # type: ignore[arg-type]
    hktune.unpatch(module, quiet=True)
    assert type(module) is kind


class WithLock(Plain):
    """Holds what cannot be copied, and says what can."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def __getstate__(self) -> Any:
        return {name: each for name, each in vars(self).items() if name != "lock"}

    def __setstate__(self, state: Any) -> None:
        vars(self).update(state)
        self.lock = threading.Lock()


class Reduced(Plain):
    def __reduce__(self) -> Any:
        return _restored, (type(self), self.state_dict())


def _restored(kind: Callable[[], nn.Module], state: dict[str, Any]) -> nn.Module:
    made = kind()
    made.load_state_dict(state)
    return made


class Copies(Plain):
    """Copies itself as a program may write it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        made = type(self).__new__(type(self))
        vars(made).update({name: copy.deepcopy(each, memo) for name, each in vars(self).items()})
        return made


@pytest.mark.parametrize("kind", [WithLock, Reduced, Copies])
def test_a_copy_is_made_as_the_module_has_it(kind: Callable[[], nn.Module]) -> None:
    module = kind()
    twin = fused(copy.deepcopy(module))
    for each in (copy.deepcopy(twin), copy.copy(twin) if kind is not Reduced else twin):
        assert isinstance(each, kind)  # type: ignore[arg-type]
        assert_alike(each, module)
    if kind is WithLock:
        assert copy.deepcopy(twin).lock.acquire(blocking=False)
    if kind is not Copies:
        assert type(copy.deepcopy(twin)) is kind


def test_a_slice_of_a_sequence_is_one() -> None:
    module = nn.Sequential(nn.Linear(K, K, dtype=torch.bfloat16), nn.ReLU(), nn.Linear(K, K, dtype=torch.bfloat16))
    twin = copy.deepcopy(module)
    fused(module)
    assert_alike(module[:2], twin[:2])
    assert_alike(module[1:], twin[1:])
    assert_alike(module + module, twin + twin)
    hktune.unpatch(nn.ModuleList([module[:2], module]), quiet=True)
    assert_alike(module, twin)


class Notes(nn.Module):
    """Changes what it holds at each call."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer = nn.Linear(K, K, dtype=torch.bfloat16)
        self.kind, self.calls, self.seen = kind, 0, ["made"]
        self.count: Tensor
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "number":
            self.calls += 1
        elif self.kind == "list":
            self.seen.append("called")
        elif self.kind == "attribute":
            self.last = "called"
        else:
            self.count.add_(1)
        return functional.relu(self.layer(x))

    @property
    def noted(self) -> tuple[object, ...]:
        return self.calls, list(self.seen), getattr(self, "last", None), self.count.item()


@pytest.mark.parametrize("kind", ["number", "list", "attribute", "buffer"])
def test_a_forward_that_changes_what_its_module_holds_is_left(kind: str) -> None:
    module, twin = Notes(kind), Notes(kind)
    assert not hktune.patch(module, fuse=True, quiet=True).fused
    assert module.noted == twin.noted, "it was not called"
    for each in (module, twin):
        each(bf16(8, K))
        each(bf16(8, K))
    assert module.noted == twin.noted


class Chooses(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.is_smooth, self.act = False, functional.relu

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(self.layer(x)) if self.is_smooth else self.act(self.layer(x))


@pytest.mark.parametrize(("name", "value"), [("is_smooth", True), ("act", functional.silu)])
def test_a_forward_that_depends_on_what_its_module_holds_is_read_no_more(name: str, value: object) -> None:
    module = Chooses()
    twin = copy.deepcopy(module)
    fused(module)
    assert_alike(module, twin)
    before = module(bf16(8, K))
    for each in (module, twin):
        setattr(each, name, value)
    assert_alike(module, twin)
    assert not torch.equal(module(bf16(8, K)), before)


def test_it_takes_the_arguments_that_it_took() -> None:
    module, x = Plain(), bf16(8, K)
    twin = copy.deepcopy(module)
    fused(module)
    assert inspect.signature(module.forward) == inspect.signature(twin.forward)
    rows = ({0: torch.export.Dim("rows", min=2, max=64)},)
    program = torch.export.export(module, (x,), dynamic_shapes=rows)
    torch.testing.assert_close(program.module()(x), twin(x), rtol=2**-6, atol=2**-6)
    assert_alike(module, twin)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
def test_a_jit_trace_holds_with_gradients_and_without() -> None:
    module = Plain()
    twin = copy.deepcopy(module)
    traced = torch.jit.trace(fused(module), (bf16(8, K),))  # type: ignore[no-untyped-call]
    assert_alike(traced, twin)


def test_a_model_patched_in_inference_mode_can_be_trained() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.up = (nn.Linear(K, 2 * K, bias=False, dtype=torch.bfloat16) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return functional.silu(self.gate(x)) * self.up(x)  # type: ignore[no-any-return]

    module = Gated()
    twin = copy.deepcopy(module)
    with torch.inference_mode():
        fused(module)
        made = Gated()
        fused(made)  # whose parameters are of that mode
        assert_alike(made, made)
    for each in (module, twin):
        each(bf16(8, K)).sum().backward()
    for mine, torchs in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, torchs.grad, rtol=2**-5, atol=2**-4)
