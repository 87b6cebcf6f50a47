"""patch and unpatch: what they reach, what they say they left, and whatever else is done to a model before and after.

The truth is the same model before it was patched, and the class of its layers.
"""

from __future__ import annotations

import copy
import functools
import io
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from naive_gemm import published, trial
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch_operands import bf16

import hktune
from hktune.core.operation import BF16_NT_BIAS
from hktune.core.problem import Problem
from hktune.runtime import LoadedTable
from hktune.runtime.layers import PatchedLinear

M, N, K = 4, 64, 32


@pytest.fixture(autouse=True)
def table(tmp_path: Path) -> LoadedTable:
    published(tmp_path, trial(Problem(M, N, K)), trial(Problem(M, N, K, BF16_NT_BIAS)))
    return hktune.load(tmp_path, allow_modelled=True)


def layer(**fields: Any) -> nn.Linear:
    return nn.Linear(K, N, dtype=torch.bfloat16, **fields)


def hits_of(model: nn.Module, table: LoadedTable) -> int:
    """How many products a call of `model` has the table serve."""
    before = table.stats().hits
    with torch.no_grad():
        model(bf16(M, K))
    return table.stats().hits - before


def assert_near(found: Tensor, expected: Tensor) -> None:
    """One bf16 rounding of the same float32 sum apart."""
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=2**-9)


# ---------------------------------------------------------------- what is said


class Special(nn.Linear):
    pass


class Router(nn.Module):
    """Multiplies by a parameter of its own, as experts and routers do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(N, K))


class Conv1D(nn.Module):
    """GPT-2's layer: weight [K, N]."""

    __module__ = "transformers.pytorch_utils"

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(K, N)), nn.Parameter(torch.zeros(N))


class Tagged(Tensor):
    """A weight of another kind, as a quantised one is."""


def tagged() -> nn.Linear:
    linear = layer()
    linear.weight = nn.Parameter(linear.weight.detach().as_subclass(Tagged))
    return linear


def replaced() -> nn.Linear:
    linear = layer()
    own = linear.forward
    linear.forward = lambda x: 2 * own(x)  # type: ignore[method-assign]
    return linear


LEFT: list[tuple[Callable[[], nn.Module], str]] = [
    (lambda: Special(K, N), "Special is a subclass of nn.Linear, and what it adds is not known"),
    (lambda: nn.LazyLinear(N), "has no weight before its first call: call the model once, then patch it"),
    (tagged, "its weight is a Tagged, which has a product of its own"),
    (replaced, "its forward was replaced on the object"),
    (lambda: nn.MultiheadAttention(K, 2), "passes its weights to torch without calling a layer"),
    (Router, "holds weight itself, and what it computes with that is not seen"),
    (lambda: nn.LSTM(K, N), "holds weight_ih_l0, weight_hh_l0 itself, and what it computes with that is not seen"),
    (Conv1D, "calls torch's addmm itself: serve it by hktune.enable()"),
]


@pytest.mark.parametrize(("make", "why"), LEFT, ids=[why.partition(",")[0] for _, why in LEFT])
def test_a_module_that_is_not_reached_is_left_and_named_with_the_reason(
    make: Callable[[], nn.Module], why: str
) -> None:
    odd = make()
    model = nn.ModuleDict(
        {"plain": layer(), "odd": odd, "others": nn.ModuleList([nn.Embedding(4, 4), nn.LayerNorm(4)])}
    )
    kinds = [type(module) for module in odd.modules()]
    report = hktune.patch(model)
    assert report.changed == ("plain",)
    assert report.left == {"odd": why}
    assert [type(module) for module in odd.modules()] == kinds
    assert hktune.unpatch(model).changed == ("plain",)
    assert type(model["plain"]) is nn.Linear


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_a_scripted_layer_is_left() -> None:
    report = hktune.patch(nn.Sequential(torch.jit.script(layer())))
    assert (len(report), report.left) == (0, {"0": "TorchScript has compiled it"})


def test_an_encoder_layer_is_patched_and_said_to_pass_its_layers_by() -> None:
    report = hktune.patch(nn.TransformerEncoderLayer(K, 2, N))
    assert report.changed == ("linear1", "linear2")
    assert set(report.left) == {"", "self_attn"}


def test_a_report_reads_as_one_block_with_like_names_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(*(nn.ModuleDict({"up": layer(), "odd": Special(K, N)}) for _ in range(12)), layer())
    report = hktune.patch(model)
    assert len(report) == 13
    assert str(report).splitlines() == [
        "hktune: 13 layers patched, 12 modules left to torch",
        "  patched  *.up (x12)",
        "  patched  *",
        "  left  *.odd (x12): Special is a subclass of nn.Linear, and what it adds is not known",
    ]
    assert str(hktune.patch(model)).startswith("hktune: 0 layers patched, 13 served already, 12 modules left to torch")
    capsys.readouterr()
    assert str(hktune.unpatch(model[12])) == "hktune: 1 layer unpatched\n  unpatched  (the model itself)"
    assert capsys.readouterr().out == "hktune: 1 layer unpatched\n  unpatched  (the model itself)\n"
    assert repr(hktune.patch(model[12], quiet=True)) == "<hktune patched 1, already 0, left 0>"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("function", [hktune.patch, hktune.unpatch])
@pytest.mark.parametrize("model", [5, None, nn.Linear, [nn.Linear(2, 2)]])
def test_what_is_no_module_is_a_type_error_as_torchs(function: Callable[[Any], object], model: object) -> None:
    with pytest.raises(TypeError, match=rf"patch\(\): argument 'model' .* must be Module, not {type(model).__name__}"):
        function(model)


# ---------------------------------------------------------------- layers that something else was done to


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def hooked(linear: nn.Linear) -> None:
    """As accelerate hooks a layer: its forward kept, and another put over it that calls what was kept."""

    def forward(module: Any, x: Tensor) -> Tensor:
        out: Tensor = module._old_forward(x + 1)
        return out

    linear._old_forward = linear.forward  # type: ignore[assignment]
    linear.forward = functools.update_wrapper(functools.partial(forward, linear), linear.forward)  # type: ignore


def unhooked(linear: Any) -> None:
    linear.forward = linear._old_forward
    del linear._old_forward


WRAPPINGS: dict[str, tuple[Callable[[nn.Linear], object], Callable[[nn.Linear], object] | None]] = {
    "weight_norm": (parametrizations.weight_norm, lambda each: parametrize.remove_parametrizations(each, "weight")),
    "spectral_norm by a hook": (torch.nn.utils.spectral_norm, torch.nn.utils.remove_spectral_norm),
    "parametrized": (
        lambda each: parametrize.register_parametrization(each, "weight", Doubled()),
        lambda each: parametrize.remove_parametrizations(each, "weight"),
    ),
    "pruned": (
        lambda each: prune.ln_structured(each, "weight", 4, 2, 0),
        lambda each: prune.remove(each, "weight"),
    ),
    "hooked as by accelerate": (hooked, unhooked),
    "bound forward": (lambda each: setattr(each, "forward", MethodType(nn.Linear.forward, each)), None),
}


@pytest.mark.parametrize("name", WRAPPINGS)
@pytest.mark.parametrize("copied", [False, True])
def test_a_layer_wrapped_before_it_is_patched(name: str, copied: bool, table: LoadedTable) -> None:
    wrap, unwrap = WRAPPINGS[name]
    model, x = nn.Sequential(layer()).eval().requires_grad_(False), bf16(M, K)
    wrap(model[0])
    kind, expected = type(model[0]).__name__, model(x)
    report = hktune.patch(model)
    assert (report.changed, report.left) == (("0",), {})
    assert type(model[0]).__name__ in (kind, "PatchedLinear")
    if copied:
        model = copy.deepcopy(model)
    assert hits_of(model, table) == 1
    assert_near(model(x), expected)
    assert hktune.unpatch(model).changed == ("0",)
    assert (hits_of(model, table), type(model[0]).__name__) == (0, kind)
    assert torch.equal(model(x), expected)
    hktune.patch(model)
    if unwrap is not None:  # under the patch
        unwrap(model[0])
        assert hits_of(model, table) == 1
        assert len(hktune.unpatch(model)) == 1
        assert (hits_of(model, table), type(model[0])) == (0, nn.Linear)


@pytest.mark.parametrize("name", [name for name in WRAPPINGS if name != "bound forward"])
def test_a_layer_wrapped_after_it_was_patched(name: str, table: LoadedTable) -> None:
    wrap, unwrap = WRAPPINGS[name]
    model, x = nn.Sequential(layer()).eval(), bf16(M, K)
    hktune.patch(model)
    wrap(model[0])
    assert hits_of(model, table) == 1
    with torch.no_grad():
        served = model(x)
    report = hktune.unpatch(model)
    assert (report.changed, report.left) == (("0",), {})
    assert hits_of(model, table) == 0
    assert_near(served, model(x).detach())
    assert unwrap is not None
    unwrap(model[0])
    assert type(model[0]) is nn.Linear


def test_a_forward_replaced_after_the_patch_is_said_to_be_out_of_reach() -> None:
    model = nn.Sequential(layer())
    hktune.patch(model)
    served = model[0].forward
    model[0].forward = lambda x: 2 * served(x)
    report = hktune.unpatch(model)
    assert report.changed == ("0",)
    assert report.left == {"0": "its forward was replaced on the object, and may call hktune still"}
    assert str(report).splitlines()[0] == "hktune: 1 layer unpatched, 1 module out of reach"


def test_a_lazy_layer_can_be_patched_once_it_has_a_weight(table: LoadedTable) -> None:
    model = nn.Sequential(nn.LazyLinear(N, dtype=torch.bfloat16))
    assert len(hktune.patch(model)) == 0
    model(bf16(M, K))
    assert len(hktune.patch(model)) == 1
    assert hits_of(model, table) == 1


# ---------------------------------------------------------------- copies and files


def test_a_copy_is_patched_too_and_apart_from_the_model(table: LoadedTable) -> None:
    model = nn.Sequential(layer())
    hktune.patch(model)
    other = copy.deepcopy(model)
    assert len(hktune.unpatch(other)) == 1
    assert (type(model[0]), type(other[0])) == (PatchedLinear, nn.Linear)
    assert (hits_of(model, table), hits_of(other, table)) == (1, 0)


def test_a_patched_model_is_saved_whole_and_as_a_state_dict(table: LoadedTable) -> None:
    model, plain = nn.Sequential(layer()), nn.Sequential(layer())
    hktune.patch(model)
    whole, state = io.BytesIO(), io.BytesIO()
    torch.save(model, whole)
    torch.save(model.state_dict(), state)
    again = torch.load(io.BytesIO(whole.getvalue()), weights_only=False)
    assert hits_of(again, table) == 1
    assert torch.equal(again[0].weight, model[0].weight)
    plain.load_state_dict(torch.load(io.BytesIO(state.getvalue())))
    assert torch.equal(plain[0].weight, model[0].weight)
    assert len(hktune.unpatch(again)) == 1
    assert type(again[0]) is nn.Linear


def test_weights_are_moved_swapped_and_tied_under_the_patch(table: LoadedTable) -> None:
    model, x = nn.Sequential(layer(bias=False)), bf16(M, K)
    hktune.patch(model)
    embedding = nn.Embedding(N, K, dtype=torch.bfloat16)
    model[0].weight = embedding.weight
    with torch.no_grad():
        assert_near(model(x), nn.functional.linear(x, embedding.weight))
        model[0].weight = nn.Parameter(bf16(N, K))
        assert_near(model(x), nn.functional.linear(x, model[0].weight))
        model.float().bfloat16()
        assert_near(model(x), nn.functional.linear(x, model[0].weight))
    assert table.stats().hits == 3


def test_weights_are_swapped_after_calls_that_were_served(monkeypatch: pytest.MonkeyPatch, table: LoadedTable) -> None:
    model, x, other = nn.Sequential(layer(bias=False)), bf16(M, K), nn.Parameter(bf16(N, K))
    hktune.patch(model)
    model(x).sum().backward()
    values, weight = other.detach().clone(), model[0].weight
    torch.utils.swap_tensors(model[0].weight, other)
    assert model[0].weight is weight
    with torch.no_grad():
        assert_near(model(x), nn.functional.linear(x, values))
    monkeypatch.setattr(torch.__future__, "_swap_module_params_on_conversion", True)
    model.float().bfloat16()
    assert model[0].weight is weight
    with torch.no_grad():
        assert_near(model(x), nn.functional.linear(x, values))
    assert table.stats().hits == 3


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_sees_that_it_was_patched_and_unpatched(backend: str, table: LoadedTable) -> None:
    model = nn.Sequential(layer())
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    served = []
    for change in (None, hktune.patch, hktune.unpatch, hktune.patch):
        if change is not None:
            change(model)
        served.append(hits_of(compiled, table))
    torch._dynamo.reset()
    assert served == [0, 1, 0, 1]
