"""What Inductor makes of a training step: graphs that its caches keep, and the code around hktune's operators."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from naive_gemm import LAYOUTS_SHA256, published, trial
from torch import Tensor
from torch._dynamo.utils import counters
from torch._inductor.utils import fresh_cache, run_and_get_code
from torch.nn import functional
from torch_device import TorchDevice
from torch_operands import bf16

import hktune
from hktune.core.operation import Operation
from hktune.core.problem import Problem
from hktune.runtime import LoadedTable

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script")  # Inductor's own, which it imports

M, N, K = 16, 64, 32
BF16_NT = Operation("bf16", "nt")
NT, NN, TN = (M, N, K, "nt"), (M, K, N, "nn"), (N, K, M, "tn")
Make = Callable[..., LoadedTable]
Product = Callable[[Tensor, Tensor], Tensor]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes a table of these problems the current one. torch's caches of graphs are empty when the test begins."""

    def made(*problems: tuple[int, int, int, str]) -> LoadedTable:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        trials = [
            trial(Problem(*sizes, Operation("bf16", layout)), object_sha256=LAYOUTS_SHA256)
            for *sizes, layout in problems
        ]
        published(folder, *trials)
        return hktune.load(folder, allow_modelled=True, device=TorchDevice())

    with fresh_cache():
        yield made
    torch._dynamo.reset()


def gradients(product: Product) -> tuple[Tensor, ...]:
    x, weight = bf16(M, K).requires_grad_(), bf16(N, K).requires_grad_()
    return torch.autograd.grad(product(x, weight), (x, weight), bf16(M, N))


def compiled_anew() -> Product:
    """As a new process compiles it, whose caches on disk are those of the last one."""
    torch._dynamo.reset()
    counters.clear()
    return torch.compile(lambda x, weight: hktune.linear(x, weight))  # type: ignore[no-any-return]


def test_a_kept_graph_is_of_a_table_of_the_same_entries(make: Make) -> None:
    expected = gradients(functional.linear)
    for problems, hits, kept in (
        ((NT,), 1, 0),
        ((NT, NN, TN), 3, 0),
        ((NT, NN, TN), 3, 1),
        ((NT,), 1, 1),
        ((NT, TN), 2, 0),
    ):
        table = make(*problems)
        for found, torchs in zip(gradients(compiled_anew()), expected, strict=True):
            torch.testing.assert_close(found, torchs, rtol=2**-7, atol=2**-5)
        assert counters["aot_autograd"]["autograd_cache_hit"] == kept
        assert table.stats().hits == hits
        assert not table.stats().fallbacks


def test_a_table_of_the_same_entries_has_the_same_number(make: Make) -> None:
    first, again = make(NT, TN), make(TN, NT)
    others = make(NT), make(NT, NN), make(NT, TN, (2 * M, N, K, "nt"))
    assert first.entries_number == again.entries_number
    assert len({first.entries_number, *(each.entries_number for each in others)}) == 4


def test_a_shape_that_the_vendor_serves_is_an_entry_too(make: Make, tmp_path: Path) -> None:
    """For a graph asks whether the table says what serves a joined product."""
    row, other = trial(Problem(M, N, K, BF16_NT)), Problem(M, 2 * N, K, BF16_NT)
    published(tmp_path / "without", row)
    published(tmp_path / "with", row, trial(other, vendor_best="torch", vendor_best_us=0.5))
    without, also = (
        hktune.load(tmp_path / name, allow_modelled=True, device=TorchDevice()) for name in ("without", "with")
    )
    assert also.has_entry(torch.bfloat16, "", M, 2 * N, K) > without.has_entry(torch.bfloat16, "", M, 2 * N, K)
    assert also.entries_number != without.entries_number


@pytest.mark.slow  # Inductor compiles C++
def test_operands_are_computed_once(make: Make) -> None:
    """What a kernel of the table reads is kept for the backward pass too: as torch's product has it, and no copy."""
    make(NT, NN, TN)
    table, tokens = bf16(K, K).requires_grad_(), torch.arange(M)[None] % K
    weight, scale = bf16(N, K).requires_grad_(), bf16(K).requires_grad_()

    def buffers(product: Product) -> list[str]:
        def forward(table: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
            return product(functional.rms_norm(functional.embedding(tokens, table), (K,), scale), weight)

        torch._dynamo.reset()
        _, codes = run_and_get_code(torch.compile(forward), table, scale, weight)
        return re.findall(r"empty_strided_cpu\(\((.*?)\), \(.*?\), torch.bfloat16\)", codes[0])

    with torch._inductor.config.patch({"cpp.weight_prepack": False}):
        ours, theirs = buffers(hktune.linear), buffers(functional.linear)
    activation = f"1, {M}, {K}"
    assert ours.count(activation) == theirs.count(activation) > 0
