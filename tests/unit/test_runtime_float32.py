"""torch's products that are float32 of 16-bit operands, and those that are added to a matrix, by a table that has them.

The truth is float64: products of bfloat16 are exact in it, and a kernel's sum in float32 is as near as float32 is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from naive_gemm import LAYOUTS_SHA256, published, trial
from torch import Tensor
from torch_device import TorchDevice
from torch_operands import bf16

import hktune
from hktune.core.operation import LAYOUTS, operation_of
from hktune.core.problem import Problem
from hktune.dispatch.calls import ENDINGS
from hktune.runtime import LoadedTable, Recorder

M, N, K = 8, 64, 32
F32 = torch.float32
Enter = Callable[[], LoadedTable]


@pytest.fixture
def table(tmp_path: Path) -> Iterator[LoadedTable]:
    """Enabled, with every ending and layout of these sizes."""
    texts = [f"bf16.{layout}{ending}" for layout in LAYOUTS for ending in ENDINGS]
    texts = [text for text in texts if not operation_of(text).activations]
    published(tmp_path, *(trial(Problem(M, N, K, operation_of(text)), object_sha256=LAYOUTS_SHA256) for text in texts))
    loaded = hktune.load(tmp_path, allow_modelled=True, device=TorchDevice())
    with hktune.enable():
        yield loaded


def launched(table: LoadedTable) -> list[str]:
    """The operations of the launches so far, which are forgotten."""
    place = table._places[-1]
    assert place is not None
    device = place.place.device
    assert isinstance(device, TorchDevice)
    found, device.launched = device.launched, []
    return found


def operands(layout: str) -> tuple[Tensor, Tensor]:
    """A [M, K] and B [K, N], stored as `layout` says."""
    a, b = bf16(M, K), bf16(K, N)
    return (a if layout[0] == "n" else a.t().contiguous().t()), (b if layout[1] == "n" else b.t().contiguous().t())


def close(found: Tensor, expected: Tensor) -> None:
    """Within what float32 sums of K terms, and one rounding to the format, may be."""
    epsilon = {F32: 2.0**-20, torch.bfloat16: 2.0**-8}[found.dtype]
    torch.testing.assert_close(found.double(), expected, rtol=epsilon, atol=epsilon * 8)


@pytest.mark.parametrize("layout", LAYOUTS)
class TestFloat32:
    def test_of_two_matrices(self, table: LoadedTable, layout: str) -> None:
        a, b = operands(layout)
        exact = a.double() @ b.double()
        for out in (torch.mm(a, b, out_dtype=F32), torch.bmm(a[None], b[None], out_dtype=F32)[0]):
            assert out.dtype is F32
            close(out, exact)
        assert launched(table) == [f"bf16.{layout}->f32"] * 2
        assert table.stats().hits == 2

    def test_with_a_bias(self, table: LoadedTable, layout: str) -> None:
        a, b = operands(layout)
        bias = torch.randn(N)
        close(torch.addmm(bias, a, b, out_dtype=F32), a.double() @ b.double() + bias.double())
        assert launched(table) == [f"bf16.{layout}->f32+bias"]

    def test_added_to_a_matrix_which_stays(self, table: LoadedTable, layout: str) -> None:
        a, b = operands(layout)
        c = torch.randn(M, N)
        before = c.clone()
        exact = a.double() @ b.double() + c.double()
        close(torch.addmm(c, a, b, out_dtype=F32), exact)
        close(torch.baddbmm(c[None], a[None], b[None], out_dtype=F32)[0], exact)
        assert torch.equal(c, before)
        assert launched(table) == [f"bf16.{layout}->f32+accumulate"] * 2


def test_gradients_of_weights_are_summed_in_place(table: LoadedTable) -> None:
    """As of ten parts of a batch, in float32."""
    summed, exact = torch.zeros(M, N), torch.zeros(M, N).double()
    at = summed.data_ptr()
    for part in range(10):
        slope, x = bf16(K, M) + part, bf16(K, N) - part
        out = torch.ops.aten.addmm.dtype_out(summed, slope.t(), x, F32, out=summed)
        assert out is summed
        exact += slope.double().t() @ x.double()
    assert summed.data_ptr() == at
    torch.testing.assert_close(summed.double(), exact, rtol=2**-20, atol=2**-20 * 10 * K * 100)
    assert launched(table) == ["bf16.tn->f32+accumulate"] * 10


def test_sums_in_place_in_16_bits(table: LoadedTable) -> None:
    a, b, c = bf16(M, K), bf16(K, N), bf16(M, N)
    exact = a.double() @ b.double() + c.double()
    close(torch.addmm(c, a, b), exact)
    close(torch.addmm(c, a, b, out=bf16(M, N)), exact)
    close(torch.baddbmm(c[None], a[None], b[None])[0], exact)
    ours = c.clone()
    assert ours.addmm_(a, b) is ours
    close(ours, exact)
    batch = c.clone()[None]
    version = batch._version
    assert batch.baddbmm_(a[None], b[None]) is batch
    assert batch._version > version
    close(batch[0], exact)
    assert torch.addmm(ours, a, b, out=ours) is ours
    assert launched(table) == ["bf16.nn+accumulate"] * 6
    assert not table.stats().fallbacks


def test_a_gradient_passes_through_a_sum(table: LoadedTable) -> None:
    def gradients() -> tuple[Tensor, ...]:
        leaves = [bf16(M, N).requires_grad_(), bf16(M, K).requires_grad_(), bf16(K, N).requires_grad_()]
        return torch.autograd.grad(torch.addmm(*leaves), leaves, bf16(M, N))  # type: ignore[call-overload]

    found = gradients()
    assert launched(table)[0] == "bf16.nn+accumulate"
    hktune.disable()
    for mine, torchs in zip(found, gradients(), strict=True):
        torch.testing.assert_close(mine, torchs, rtol=2**-7, atol=2**-5)


def test_what_does_not_fit_is_torchs(table: LoadedTable) -> None:
    a, b, c = bf16(M, K), bf16(K, N), bf16(M, N)
    twice = torch.zeros(M, 2 * N).bfloat16()
    cases: list[Callable[[], Tensor]] = [
        lambda: torch.addmm(c, a, b, beta=2),
        lambda: torch.addmm(c, a, b, alpha=0.5),
        lambda: torch.addmm(bf16(1), a, b),
        lambda: torch.addmm(bf16(M, 1), a, b),
        lambda: c.t().contiguous().t().addmm_(a, b),  # stored by columns
        lambda: torch.addmm(c, a, b, out=twice[:, :N]),
        lambda: torch.baddbmm(c.expand(2, M, N), a.expand(2, M, K), b.expand(2, K, N)),
    ]
    found = [case() for case in cases]
    assert launched(table) == []
    hktune.disable()
    for mine, case in zip(found, cases, strict=True):
        torch.testing.assert_close(mine, case())
    with hktune.enable(table):
        for wrong in (lambda: torch.addmm(c[:, 1:], a, b), lambda: torch.addmm(c.float(), a, b)):
            with pytest.raises(RuntimeError):
                wrong()
        square = bf16(K, K)
        with pytest.raises(NotImplementedError, match=r"no aten::mm\.dtype for CPU, and the table has no row"):
            torch.mm(square, square, out_dtype=F32)


def test_they_are_recorded(table: LoadedTable) -> None:
    a, b = operands("nn")
    c = torch.randn(M, N)
    with Recorder() as recorder:
        torch.mm(a, b, out_dtype=F32)
        torch.bmm(a[None], b[None], out_dtype=F32)
        torch.addmm(torch.randn(N), a, b, out_dtype=F32)
        torch.addmm(c, a, b, out_dtype=F32)
        torch.ops.aten.addmm.dtype_out(c, a, b, F32, out=c)
        torch.baddbmm(c[None], a[None], b[None], out_dtype=F32)
        c.bfloat16().addmm_(a, b)
        c.addmm_(a.float(), b.float())
    assert {str(problem.operation): count for problem, count in recorder.calls.items()} == {
        "bf16.nn->f32": 2,
        "bf16.nn->f32+bias": 1,
        "bf16.nn->f32+accumulate": 3,
    }
    assert recorder.left_out == {"added to a bfloat16 matrix": 1, "float32": 1}
    assert table.stats().hits == 7


@pytest.mark.slow  # to compile and prove
def test_a_tuned_kernel_adds_in_place_on_the_emulated_device(tmp_path: Path) -> None:
    shapes = ["32x64x64 bf16.tn->f32+accumulate", "32x64x64 bf16.tn->f32", "32x64x64 bf16.tn+accumulate"]
    words = [tuple(shape.split()) for shape in shapes]
    result = hktune.tune([f"{operation} {sizes}" for sizes, operation in words], device="emulated", trials=1,
                         rivals="none", out=tmp_path, progress=False)  # fmt: skip
    table = result.load(allow_modelled=True)
    slope, x, c = bf16(64, 32), bf16(64, 64), torch.randn(32, 64)
    exact = slope.double().t() @ x.double()
    with hktune.enable():
        close(torch.mm(slope.t(), x, out_dtype=F32), exact)
        close(c.bfloat16().addmm_(slope.t(), x), exact + c.bfloat16().double())
        exact += c.double()
        torch.ops.aten.addmm.dtype_out(c, slope.t(), x, F32, out=c)
        close(c, exact)
    assert table.stats().hits == 3
