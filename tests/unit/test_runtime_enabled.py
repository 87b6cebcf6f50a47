"""torch's own products while `hktune.enable` is on: PyTorch's samples, modules that nothing was done to, and whatever
else meets torch's dispatcher. The truth is torch's own product."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from naive_gemm import LAYOUTS_SHA256, published, trial
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import hktune
from hktune.core.errors import TableError
from hktune.core.operation import Operation
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.runtime import LoadedTable, Recorder

M, N, K = 8, 64, 32
EPSILON = {torch.bfloat16: 2**-8, torch.float16: 2**-11, torch.float32: 2**-20}
Step = Callable[[], Any]
Make = Callable[[Step], LoadedTable]


def has_naive_kernel(operation: Operation) -> bool:
    """Whether there is a naive kernel of it: one product with or without a bias, or a batch of bf16 that is not
    transposed."""
    if operation.count:
        return (operation.kind, operation.a, operation.epilogue) == ("batched", "bf16", ()) and operation.layout in (
            "nt",
            "nn",
        )
    return operation.epilogue in ((), ("bias",))


def naive(problem: Problem) -> Trial:
    return trial(problem) if problem.operation.count else trial(problem, object_sha256=LAYOUTS_SHA256)


@pytest.fixture
def make(tmp_path: Path) -> Iterable[Make]:
    """A table, which is then the current one, of what a step calls and there is a naive kernel of."""

    def made(step: Step) -> LoadedTable:
        with Recorder() as recorder:
            step()
        published(tmp_path, *(naive(each) for each in sorted(recorder.calls) if has_naive_kernel(each.operation)))
        return hktune.load(tmp_path, allow_modelled=True)

    yield made
    torch._dynamo.reset()


def random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def close(found: Any, expected: Any) -> None:
    rtol = 2 * EPSILON[expected.dtype]
    torch.testing.assert_close(found, expected, rtol=rtol, atol=8 * rtol)


def linear() -> Tensor:
    return functional.linear(random(M, K), random(N, K))


# ---------------------------------------------------------------- PyTorch's samples

SAMPLED = ("mm", "addmm", "bmm", "baddbmm", "matmul", "nn.functional.linear")


@pytest.mark.slow  # to import PyTorch's samples
@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("name", SAMPLED)
def test_samples_of_pytorch_hold_forward_and_backward(make: Make, name: str, dtype: torch.dtype) -> None:
    pytest.importorskip("expecttest")
    from torch.testing._internal.common_methods_invocations import op_db

    (op,) = (op for op in op_db if op.name == name and not op.variant_test_name)
    samples = list(op.sample_inputs("cpu", dtype, requires_grad=True))

    def results() -> list[tuple[Tensor, ...]]:
        found = []
        for sample in samples:
            operands = [each for each in (sample.input, *sample.args) if isinstance(each, Tensor)]
            out = op.op(sample.input, *sample.args, **sample.kwargs)
            slope = torch.arange(out.numel()).reshape(out.shape).remainder(3).to(dtype)
            wanted = [each for each in operands if each.requires_grad]
            found.append((out.detach(), *torch.autograd.grad(out, wanted, slope)))
        return found

    expected = results()
    with Recorder() as recorder:
        results()
        linear()  # a table has at least one row
    table = make(lambda: (results(), linear()))
    with hktune.enable():
        found = results()
    for mine, torchs in zip(found, expected, strict=True):
        for one, other in zip(mine, torchs, strict=True):
            close(one, other)
    asked = sum(count for problem, count in recorder.calls.items() if has_naive_kernel(problem.operation)) - 1
    print(f"{name} {dtype}: {len(samples)} samples, {asked} products that a table may have, {table.stats()}")
    assert table.stats().hits == asked


# ---------------------------------------------------------------- modules that nothing was done to


class Conv1D(nn.Module):
    """As GPT-2's: weight [K, N], by addmm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight)
        return out.view(*x.shape[:-1], -1)


class Experts(nn.Module):
    """A mixture of experts: a router, and a loop over matrices of the module's own."""

    def __init__(self, width: int, hidden: int, experts: int = 2) -> None:
        super().__init__()
        self.router = nn.Parameter(torch.randn(experts, width) / width**0.5)
        self.up = nn.Parameter(torch.randn(experts, width, hidden) / width**0.5)
        self.down = nn.Parameter(torch.randn(experts, hidden, width) / hidden**0.5)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        shares = functional.linear(rows, self.router).softmax(-1)
        experts = zip(shares.T, self.up, self.down, strict=True)
        parts = [share[:, None] * ((rows @ up).relu() @ down) for share, up, down in experts]
        return torch.stack(parts).sum(0).view(x.shape)


class Own(nn.Module):
    """A module that calls F.linear and einsum on matrices of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(width, width) / width**0.5)
        self.second = nn.Parameter(torch.randn(width, width) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("...k,kn->...n", functional.linear(x, self.first).relu(), self.second)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "Conv1D": lambda: nn.Sequential(Conv1D(K, N), nn.GELU(), Conv1D(N, K)),
    "experts": lambda: Experts(K, N),
    "F.linear": lambda: Own(K),
}


@pytest.mark.parametrize("way", ["eager", "checkpoint", "compiled", "autocast"])
@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES.keys())
def test_modules_train_by_the_table(make: Make, module: Callable[[], nn.Module], way: str) -> None:
    torch.manual_seed(0)
    model = module() if way == "autocast" else module().bfloat16()
    x, slope = random(2, M, K), random(2, M, K)
    forward: Callable[[Tensor], Tensor] = model
    if way == "checkpoint":
        forward = lambda x: checkpoint(model, x, use_reentrant=False)  # type: ignore[assignment, return-value] # noqa: E731
    if way == "compiled":
        forward = torch.compile(model, backend="aot_eager", fullgraph=True)

    def step(forward: Callable[[Tensor], Tensor] = forward) -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
            out = forward(leaf)
        wanted = [leaf, *model.parameters()]
        return [out.detach(), *torch.autograd.grad(out, wanted, slope.to(out.dtype))]

    expected = step(model)
    table = make(lambda: step(model))
    with hktune.enable():
        found = step()
    for mine, torchs in zip(found, expected, strict=True):
        assert mine.dtype is torchs.dtype
        assert (mine - torchs).float().norm() <= 0.03 * torchs.float().norm()
    assert table.stats().hits > 4
    assert not table.stats().fallbacks


# ---------------------------------------------------------------- each product counts once


def test_what_hktune_leaves_to_torch_is_counted_once(make: Make) -> None:
    table = make(linear)
    x, weight = random(M, 3), random(N, 3)
    with hktune.enable():
        with pytest.warns(hktune.runtime.FallbackWarning, match="no entry"):
            hktune.linear(x, weight)
        hktune.matmul(x, weight.t())
        assert table.stats().fallbacks == {"no entry for the shape": 2}
        functional.linear(x, weight)
    hktune.linear(x, weight)
    assert table.stats().fallbacks == {"no entry for the shape": 4}
    assert table.stats().hits == 0


def test_what_hktune_leaves_to_a_product_that_is_served_is_a_hit(make: Make) -> None:
    """A transform is torch's to follow, and the product that it makes of a linear is the table's."""
    table = make(linear)
    x, weight = random(M, K), random(N, K)
    with hktune.enable(), pytest.warns(hktune.runtime.FallbackWarning, match="functorch"):
        slope = torch.func.grad(lambda x: hktune.linear(x, weight).sum())(x)
    close(slope, weight.float().sum(0).bfloat16().expand(M, K))
    assert table.stats().hits == 1
    assert set(table.stats().fallbacks) <= {"no entry for the shape"}  # of the gradient's own product


@pytest.mark.parametrize("layouts", [("nt",), ("nt", "nn"), ("nt", "nn", "tn")])
def test_a_step_counts_each_product_once(tmp_path: Path, layouts: tuple[str, ...]) -> None:
    sizes = {"nt": (M, N, K), "nn": (M, K, N), "tn": (N, K, M)}
    problems = [Problem(*sizes[layout], Operation("bf16", layout)) for layout in layouts]
    published(tmp_path, *(trial(each, object_sha256=LAYOUTS_SHA256) for each in problems))
    table = hktune.load(tmp_path, allow_modelled=True)
    x, weight = random(M, K).requires_grad_(), random(N, K).requires_grad_()
    slope = random(M, N)
    expected = torch.autograd.grad(functional.linear(x, weight), (x, weight), slope)
    with hktune.enable():
        for _ in range(3):
            found = torch.autograd.grad(hktune.linear(x, weight), (x, weight), slope)
    for mine, torchs in zip(found, expected, strict=True):
        close(mine, torchs)
    assert table.stats().hits == 3 * len(layouts)
    assert sum(table.stats().fallbacks.values()) == 3 * (3 - len(layouts))


# ---------------------------------------------------------------- manners


def test_it_ends_with_its_context_and_with_disable(make: Make) -> None:
    table = make(linear)
    with hktune.enable():
        linear()
    linear()
    assert table.stats().hits == 1
    hktune.enable(table)
    linear()
    hktune.disable()
    hktune.disable()
    linear()
    assert table.stats().hits == 2
    assert not table.stats().fallbacks


def test_it_needs_a_table() -> None:
    with pytest.raises(TableError, match="no dispatch table is loaded"):
        hktune.enable()


def test_what_is_no_table_is_refused_and_leaves_nothing_behind(make: Make) -> None:
    make(linear)
    with pytest.raises(TypeError, match=r"argument 'table' .* must be LoadedTable, not str"):
        hktune.enable("out")  # type: ignore[arg-type]
    with hktune.enable() as entered:
        linear()
    assert entered.table.stats().hits == 1


def test_the_innermost_table_serves_and_contexts_may_end_in_any_order(make: Make, tmp_path: Path) -> None:
    first = make(linear)
    published(tmp_path / "other", trial(Problem(M, N, K)))
    second = hktune.load(tmp_path / "other", allow_modelled=True)
    outer = hktune.enable(first)
    inner = hktune.enable(second)
    linear()
    with outer:
        pass
    linear()
    assert (first.stats().hits, second.stats().hits) == (0, 2)
    with inner:
        pass
    linear()
    assert (first.stats().hits, second.stats().hits) == (0, 2)


def test_calls_of_hktune_that_no_kernel_serves_end_with_torch(make: Make) -> None:
    make(linear)
    x, weight = random(M, 3), random(N, 3)
    expected = functional.linear(x, weight)
    with hktune.enable(), pytest.warns(hktune.runtime.FallbackWarning, match="no entry"):
        assert torch.equal(hktune.linear(x, weight), expected)


def test_an_out_is_written_where_a_kernel_can_and_else_by_torch(make: Make) -> None:
    a, b, bias = random(M, K), random(K, N), random(N)

    def step() -> None:
        torch.mm(a, b)
        torch.addmm(bias, a, b)

    table = make(step)
    outs = [random(M, N), random(N, M).t(), random(M, N, dtype=torch.float32)]
    with hktune.enable():
        assert torch.mm(a, b, out=outs[0]) is outs[0]
        close(outs[0], a @ b)
        torch.addmm(bias, a, b, out=outs[0])
        close(outs[0], torch.addmm(bias, a, b))
        torch.mm(a, b, out=outs[1])
        close(outs[1], a @ b)
        hits = table.stats().hits
        with pytest.raises(RuntimeError, match="dtype"):
            torch.mm(a, b, out=outs[2])
        with pytest.raises(RuntimeError):
            torch.mm(a[None], b)
        with pytest.raises(RuntimeError):
            torch.mm(a, b.t())
        assert table.stats().hits == hits


def test_an_out_that_is_an_operand_too_is_torchs(make: Make) -> None:
    square = random(K, K)
    table = make(lambda: square @ square)
    with hktune.enable():
        torch.mm(square, square, out=random(K, K))
        torch.mm(square, square, out=square)
    assert table.stats().hits == 1


def test_a_bias_may_be_one_row_but_not_of_the_out(make: Make) -> None:
    a, b, bias = random(M, K), random(K, N), random(N)
    expected = torch.addmm(bias, a, b)
    table = make(lambda: torch.addmm(bias, a, b))
    with hktune.enable():
        for rows in (bias[None], bias.expand(M, N)):
            close(torch.addmm(rows, a, b), expected)
        assert table.stats().hits == 2
        with pytest.raises(RuntimeError, match="expanded size"):
            torch.addmm(bias.expand(M + 1, N), a, b)
        out = bias.repeat(M, 1)
        close(torch.addmm(out[0], a, b, out=out), expected)
    assert table.stats().hits == 2


def test_threads_are_served_and_may_turn_it_on_and_off(make: Make) -> None:
    table = make(linear)
    expected, wrong = linear(), []

    def work() -> None:
        for _ in range(20):
            with hktune.enable(table):
                if (linear() - expected).abs().max() > 0.1:
                    wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert table.stats().hits > 0


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, of jvp
def test_meta_fake_and_transformed_tensors_are_torchs(make: Make) -> None:
    table = make(linear)
    x, weight = random(M, K), random(N, K)
    expected = functional.linear(x, weight)
    with hktune.enable():
        assert functional.linear(x.to("meta"), weight.to("meta")).shape == (M, N)
        with torch._subclasses.FakeTensorMode() as mode:
            assert functional.linear(mode.from_tensor(x), mode.from_tensor(weight)).shape == (M, N)
        assert table.stats().hits == 0
        close(torch.vmap(lambda row: functional.linear(row, weight))(x), expected)
        slope = torch.func.grad(lambda x: functional.linear(x, weight).sum())(x)
        close(slope, weight.sum(0).expand(M, K))
        _, tangent = torch.func.jvp(lambda x: functional.linear(x, weight), (x,), (x,))
        close(tangent, expected)
        with FlopCounterMode(display=False) as counter:
            functional.linear(x, weight)
        assert counter.get_total_flops() == 2 * M * N * K
        program = torch.export.export(nn.Linear(K, N, bias=False, dtype=torch.bfloat16), (x,))
        assert "hktune" not in str(program.graph)


def test_another_override_of_an_operator_goes_on(make: Make) -> None:
    table = make(linear)
    seen: list[tuple[int, ...]] = []
    before = torch.library.get_kernel("aten::mm", "CPU")

    def watching(keys: Any, a: Tensor, b: Tensor) -> Tensor:
        seen.append(tuple(a.shape))
        return before.call_boxed(keys, a, b)

    other: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    other.impl("mm", watching, "CPU", with_keyset=True)
    try:
        with hktune.enable():
            linear()
            random(M, 3) @ random(3, N)  # no row: the other's
        assert table.stats().hits == 1
        assert seen == [(M, 3)]
        linear()
        assert seen == [(M, 3), (M, K)]
    finally:
        other._destroy()
    linear()
    assert len(seen) == 2


def test_function_modes_see_torchs_functions_only(make: Make) -> None:
    class Functions(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    seen: list[Any] = []
    table = make(linear)
    x, weight = random(M, K), random(N, K)
    with hktune.enable(), Functions():
        functional.linear(x, weight)
    assert seen == [functional.linear]
    assert table.stats().hits == 1
