"""What else torch may do around a call: modes, transforms, layers of a model, graph capture."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from naive_gemm import published, trial
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn import functional
from torch.nn.utils import parametrize, prune
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch_operands import bf16

import hktune
from hktune.core.errors import TableError
from hktune.core.launch import WORKSPACE_COUNTER_BYTES
from hktune.core.operation import BF16_NT_BIAS
from hktune.core.problem import Problem
from hktune.runtime import FallbackWarning, LoadedTable, operators
from hktune.runtime.layers import PatchedLinear
from hktune.runtime.serving import place, workspaces
from hktune.runtime.serving.workspaces import Workspaces

M, N, K = 4, 64, 32


@pytest.fixture(autouse=True)
def table(tmp_path: Path) -> LoadedTable:
    published(tmp_path, trial(Problem(M, N, K)), trial(Problem(M, N, K, BF16_NT_BIAS)))
    return hktune.load(tmp_path, allow_modelled=True)


def close(found: Tensor, exact: Tensor) -> None:
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=2**-8, atol=1e-5)


class Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_dispatch_mode_sees_one_operator_and_may_fake_it(table: LoadedTable) -> None:
    x, weight = bf16(M, K), bf16(N, K)
    with Seen() as seen:
        close(hktune.linear(x, weight), x.float() @ weight.float().T)
        hktune.matmul(x, weight.T)
    assert [name for name in seen.names if "hktune" in name] == ["hktune.linear.default", "hktune.matmul.default"]
    with torch._subclasses.FakeTensorMode() as mode:
        fake = hktune.linear(mode.from_tensor(x), mode.from_tensor(weight), mode.from_tensor(bf16(N)))
        assert fake.shape == (M, N)
        assert fake.dtype is torch.bfloat16
    assert table.stats().hits == 2


def test_a_function_mode_that_is_disabled_sees_nothing_and_stops_nothing(table: LoadedTable) -> None:
    class Functions(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            raise AssertionError(f"{func} came here, though modes of torch's functions are disabled")

    x, weight = bf16(M, K), bf16(N, K).requires_grad_()
    for mode in (torch.device("cpu"), Functions()):
        with mode, torch._C.DisableTorchFunction():
            theirs = functional.linear(x, weight)
            found = [
                hktune.linear(x, weight),
                hktune.matmul(x, weight.T),
                table.linear(x, weight),
            ]
            with torch.autocast("cpu", torch.bfloat16):
                found.append(hktune.linear(x.float(), weight))
            layer = hktune.Linear(K, N)
            layer.weight = nn.Parameter(weight.detach())
            found.append(layer(x) - layer.bias)
        for each in found:
            torch.testing.assert_close(each, theirs, rtol=2**-5, atol=2**-5)
    assert table.stats().fallbacks == {}
    with torch.device("cpu"), torch._C.DisableTorchFunctionSubclass():
        close(hktune.linear(x, weight).detach(), theirs.detach().float())


def test_the_operators_keep_torchs_rules_of_operators() -> None:
    x, weight, bias = bf16(M, K).requires_grad_(), bf16(N, K).requires_grad_(), bf16(N).requires_grad_()
    torch.library.opcheck(operators.linear, (x, weight, bias, operators.CURRENT))
    torch.library.opcheck(operators.linear, (bf16(2, 2, K), weight, None, operators.CURRENT))
    torch.library.opcheck(operators.matmul, (x, weight.detach().T, operators.CURRENT))


def test_it_exports_as_one_operator() -> None:
    layer = hktune.Linear(K, N)
    program = torch.export.export(layer, (bf16(M, K),))
    assert "hktune.linear" in str(program.graph)
    with torch.no_grad():
        assert torch.equal(program.module()(bf16(M, K)), layer(bf16(M, K)))


def test_a_default_device_changes_nothing(table: LoadedTable) -> None:
    x, weight = bf16(M, K), bf16(N, K)
    with torch.device("meta"):
        out = hktune.linear(x, weight)
    close(out, x.float() @ weight.float().T)
    assert table.stats().hits == 1


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # forward-mode AD's own use of it
def test_transforms_and_traces_are_torchs(table: LoadedTable) -> None:
    x, weight = bf16(3, M, K), bf16(N, K)
    with pytest.warns(FallbackWarning, match="because of: functorch"):
        batched = vmap(hktune.linear, in_dims=(0, None))(x, weight)
    assert torch.equal(batched, functional.linear(x, weight))
    slope = grad(lambda w: hktune.linear(x[0], w).float().sum())(weight)
    assert slope.shape == weight.shape
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x[0], torch.ones_like(x[0]))
        tangent = torch.autograd.forward_ad.unpack_dual(hktune.linear(dual, weight)).tangent
        assert tangent is not None
    assert table.stats().hits == 0


def test_gradients_agree_with_torchs_and_reach_only_who_asked() -> None:
    for wanted in ((True, True, True), (True, False, False), (False, True, False), (False, False, True)):
        ours = [
            each.requires_grad_(want) for each, want in zip((bf16(2, 2, K), bf16(N, K), bf16(N)), wanted, strict=True)
        ]
        theirs = [each.detach().clone().requires_grad_(want) for each, want in zip(ours, wanted, strict=True)]
        slope = bf16(2, 2, N)
        hktune.linear(*ours).backward(slope)
        functional.linear(*theirs).backward(slope)
        for mine, torchs in zip(ours, theirs, strict=True):
            assert (mine.grad is None) == (torchs.grad is None)
            if mine.grad is not None and torchs.grad is not None:
                torch.testing.assert_close(mine.grad, torchs.grad, rtol=2**-7, atol=2**-6)


def test_gradients_of_matmul_agree_with_torchs() -> None:
    a, b, slope = bf16(2, 2, K).requires_grad_(), bf16(N, K).t().requires_grad_(), bf16(2, 2, N)
    a2, b2 = a.detach().clone().requires_grad_(), b.detach().clone().requires_grad_()
    hktune.matmul(a, b).backward(slope)
    torch.matmul(a2, b2).backward(slope)
    for mine, torchs in ((a, a2), (b, b2)):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, torchs.grad, rtol=2**-7, atol=2**-6)


# ---------------------------------------------------------------- layers


def test_a_layer_is_initialised_as_nn_linear_is() -> None:
    torch.manual_seed(3)
    ours = hktune.Linear(K, N)
    torch.manual_seed(3)
    theirs = nn.Linear(K, N, dtype=torch.bfloat16)
    assert torch.equal(ours.weight, theirs.weight)
    assert ours.bias is not None
    assert torch.equal(ours.bias, theirs.bias)
    assert ours.bias.abs().max() <= 1 / K**0.5
    theirs.load_state_dict(ours.state_dict())


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def test_a_layer_uses_what_stands_in_for_its_parameters() -> None:
    layer, x = hktune.Linear(K, N), bf16(M, K)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    with torch.no_grad():
        plain = layer(x)
        given = torch.func.functional_call(layer, {"weight": 2 * weight, "bias": bias}, (x,))
        parametrize.register_parametrization(layer, "weight", Doubled())
        assert torch.equal(layer(x), given)
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        assert torch.equal(layer(x), plain)
        layer.weight = nn.Parameter(2 * weight)
        assert torch.equal(layer(x), given)
        prune.random_unstructured(layer, "bias", amount=N)  # the mask leaves nothing
        close(layer(x), x.float() @ (2 * weight).float().T)


class Looked(hktune.Linear):
    """Finds its weight where nn.Module would not look."""

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        return 2 * found if name == "weight" else found


class AsProperty(hktune.Linear):
    @property
    def bias(self) -> Tensor:  # type: ignore[override]
        return self._parameters["bias"] + 1  # type: ignore[operator]


class Mixed:
    weight = torch.ones(N, K).bfloat16()


class Inherits(hktune.Linear, Mixed):
    """nn.Module's own lookup comes last, after whatever a class holds."""


class Always(hktune.Linear):
    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return -found if name == "bias" else found


class Same(hktune.Linear):
    pass


@pytest.mark.parametrize("kind", [Looked, AsProperty, Inherits, Always, Same], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("is_compiled", [False, True], ids=["eager", "compiled"])
def test_a_subclass_decides_what_its_weight_and_bias_are(kind: type[hktune.Linear], is_compiled: bool) -> None:
    layer, x = hktune.Linear(K, N), bf16(M, K)
    layer.__class__ = kind  # made as any other

    def theirs(x: Tensor) -> Tensor:
        return nn.Linear.forward(layer, x)

    ours = layer.forward
    if is_compiled:
        ours, theirs = (torch.compile(each, backend="aot_eager") for each in (ours, theirs))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=2**-7, atol=2**-7)
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize("is_compiled", [False, True], ids=["eager", "compiled"])
def test_what_shadows_a_parameter_is_used(name: str, is_compiled: bool) -> None:
    layer, x = hktune.Linear(K, N), bf16(M, K)
    run = torch.compile(layer, backend="aot_eager") if is_compiled else layer
    with torch.no_grad():
        for shadow in (torch.zeros_like(getattr(layer, name)), getattr(layer, name) * 3):
            layer.__dict__[name] = shadow
            torch.testing.assert_close(run(x), nn.Linear.forward(layer, x), rtol=2**-7, atol=2**-7)
        before = functional.linear(x, layer.weight, layer.bias)
        del layer.__dict__[name]
        torch.testing.assert_close(run(x), nn.Linear.forward(layer, x), rtol=2**-7, atol=2**-7)
        assert not torch.equal(run(x), before)
    torch._dynamo.reset()


class Special(nn.Linear):
    pass


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(N, K, dtype=torch.bfloat16)
        self.head = nn.Linear(K, N, bias=False, dtype=torch.bfloat16)
        self.head.weight = self.embedding.weight  # tied
        self.twice = nn.ModuleList([self.head, nn.Linear(K, N, dtype=torch.bfloat16)])
        self.special = Special(K, N, dtype=torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x) + self.twice[1](x) + self.special(x)
        return out


def test_patch_changes_the_class_and_nothing_else(table: LoadedTable) -> None:
    model, x = Model(), bf16(M, K)
    seen: list[str] = []
    model.head.register_forward_hook(lambda module, inputs, output: seen.append("hook"))
    before, state, modules = model(x), copy.deepcopy(model.state_dict()), list(model.modules())
    assert len(hktune.patch(model)) == 2
    assert list(model.modules()) == modules
    assert type(model.head) is PatchedLinear
    assert type(model.special) is Special
    assert model.head.weight is model.embedding.weight
    assert list(model.state_dict()) == list(state)
    with torch.no_grad():
        torch.testing.assert_close(model(x), before, rtol=2**-6, atol=2**-6)
    assert table.stats().hits == 2
    assert seen == ["hook", "hook"]
    model.load_state_dict(state)
    assert len(hktune.patch(model)) == 0
    assert len(hktune.unpatch(model)) == 2
    assert type(model.head) is nn.Linear
    assert torch.equal(model(x), before)


def test_unpatch_leaves_layers_that_were_made_as_ours() -> None:
    model = nn.Sequential(hktune.Linear(K, N), nn.Linear(N, K))
    assert len(hktune.patch(model)) == 1
    assert len(hktune.unpatch(model)) == 1
    assert [type(layer) for layer in model] == [hktune.Linear, nn.Linear]


def test_a_layer_without_a_table_says_what_to_do() -> None:
    hktune.unload()
    with pytest.raises(TableError, match=r"call hktune\.load\(DIR\) first"):
        hktune.Linear(K, N)(bf16(M, K))
    with pytest.raises(TableError, match=r"call hktune\.load\(DIR\) first"):
        torch.compile(lambda x: hktune.linear(x, x), fullgraph=True, backend="eager")(bf16(M, K))


# ---------------------------------------------------------------- other products


@pytest.mark.parametrize("shapes", [((K,), (K, N)), ((2, 3, K), (2, K, N)), ((M, K), (K,))])
def test_other_products_are_torchs(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = bf16(*shapes[0]), bf16(*shapes[1])
    with pytest.warns(FallbackWarning):
        assert torch.equal(hktune.matmul(a, b), torch.matmul(a, b))


# ---------------------------------------------------------------- workspaces


def test_launches_that_may_run_at_once_do_not_share_a_workspace() -> None:
    made, bytes_needed = Workspaces(torch.device("cpu")), WORKSPACE_COUNTER_BYTES + 512
    first, second = made.of(7, bytes_needed), made.of(8, bytes_needed)
    assert first.data_ptr() != second.data_ptr()
    assert made.of(7, bytes_needed - 1) is first
    larger = made.of(7, bytes_needed + 1)
    assert larger is not first
    assert made.of(7, bytes_needed) is larger
    for workspace in (first, second, larger):
        assert not workspace[:WORKSPACE_COUNTER_BYTES].any()


def test_every_captured_launch_has_a_workspace_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made, size = Workspaces(torch.device("cpu")), WORKSPACE_COUNTER_BYTES
    eager = made.of(7, size)
    monkeypatch.setattr(workspaces, "is_capturing", lambda: True)
    captured = [made.of(7, size) for _ in range(3)]
    assert len({each.data_ptr() for each in (eager, *captured)}) == 4
    assert not any(each[:WORKSPACE_COUNTER_BYTES].any() for each in captured)


def test_a_capture_loads_no_kernel(table: LoadedTable, monkeypatch: pytest.MonkeyPatch) -> None:
    a, weight = bf16(M, K), bf16(N, K)
    with monkeypatch.context() as capture:
        capture.setattr(place, "is_capturing", lambda: True)
        with pytest.warns(FallbackWarning, match=r"kernel not loaded before graph capture.*: call warm\(\)"):
            hktune.linear(a, weight)
    table.warm()
    monkeypatch.setattr(place, "is_capturing", lambda: True)
    hktune.matmul(a, weight.T)
    assert table.stats().hits == 1
    assert table.stats().fallbacks == {"kernel not loaded before graph capture": 1}


def test_threads_may_load_use_and_count_at_once(table: LoadedTable) -> None:
    weight, bias = bf16(N, K), bf16(N)

    def work() -> None:
        for _ in range(5):
            close(
                table.linear(bf16(M, K), weight, bias),
                functional.linear(bf16(M, K).float(), weight.float(), bias.float()),
            )

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert table.stats().hits == 20
