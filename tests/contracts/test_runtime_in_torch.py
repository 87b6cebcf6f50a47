"""What a loaded table promises inside torch: one body, for the emulated gfx950 and for an H100 where there is one, and
for each dtype of operands.

The truth is float32 arithmetic on the same operands. Graph capture and streams exist on the GPU only.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import hktune
from hktune.core.dtype import BF16, F16, Dtype
from hktune.core.identity import Identity
from hktune.core.operation import Operation
from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.core.variant import CodeObject
from hktune.dispatch import write_table
from hktune.runtime import LoadedTable
from hktune.tables import build_table

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

ROOT = Path(__file__).resolve().parents[2]
M, N, K = 16, 128, 64


@dataclass(frozen=True)
class Bench:
    """A loaded table of the products of `format` that an Mlp computes, and of the first with a bias where kernels add
    one, on torch's device `where`."""

    table: LoadedTable
    where: torch.device
    format: Dtype
    biased: bool

    @property
    def dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.format.torch_name)
        return found

    def random(self, *shape: int) -> Tensor:
        generator = torch.Generator().manual_seed(sum(shape))
        return torch.randn(*shape, generator=generator).to(self.where, self.dtype)

    def assert_close(self, found: Tensor, exact: Tensor) -> None:
        """Within one rounding of a float32 sum."""
        assert found.dtype is self.dtype
        torch.testing.assert_close(found.float(), exact, rtol=self.format.unit_roundoff, atol=1e-4)


def emulated(directory: Path, dtype: Dtype) -> Bench:
    from naive_gemm import published, trial

    bare = Operation(dtype.name)
    problems = Problem(M, N, K, bare), Problem(M, N, K, bare.with_steps("bias")), Problem(M, K, N, bare)
    published(directory, *map(trial, problems))
    return Bench(hktune.load(directory, allow_modelled=True), torch.device("cpu"), dtype, biased=True)


def cuda(directory: Path, dtype: Dtype) -> Bench:
    """The default sm90a kernel, compiled here. Nothing was measured: its rows say modelled."""
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs an sm_90 GPU and a torch that drives it")
    from hktune.compile.nvrtc import NvrtcCompiler
    from hktune.device.opening import open_device
    from hktune.space import load_space

    operation = Operation(dtype.name)
    space = load_space(ROOT / "search_spaces" / "sm90a_gemm_bf16.yaml").for_operation(operation)
    config, template = space.config({}), space.template
    code = NvrtcCompiler().compile(template.render(config), 120.0)
    assert isinstance(code, CodeObject), code
    identity: Identity = open_device("cuda").identity
    trials = [
        Trial(
            trial=0, m=each.m, n=each.n, k=each.k, operation=each.operation, config_id=config.id,
            config=config.json, status=Status.OK, source=Source.MODELLED, time_us=1.0, object_sha256=code.sha256,
            template=template.name, template_sha256=template.sha256, target=identity.arch, device=identity.name,
        )
        for each in (Problem(M, N, K, operation), Problem(M, K, N, operation))
    ]  # fmt: skip
    table = build_table(
        trials, lambda row: (code.symbol, template.launch_rule(config, row.n, row.k)), identity, "nvrtc", "0", "now"
    )
    write_table(table, {code.sha256: code.data}, directory)
    where = torch.device("cuda", torch.cuda.current_device())
    return Bench(hktune.load(directory, allow_modelled=True), where, dtype, biased=False)


@pytest.fixture(params=[emulated, cuda], ids=["emulated", "cuda"])
def device(request: pytest.FixtureRequest) -> Callable[[Path, Dtype], Bench]:
    made: Callable[[Path, Dtype], Bench] = request.param
    return made


@pytest.fixture(params=[BF16, F16], ids=str)
def bench(
    request: pytest.FixtureRequest,
    device: Callable[[Path, Dtype], Bench],
    tmp_path: Path,
) -> Iterator[Bench]:
    yield device(tmp_path, request.param)
    torch._dynamo.reset()


def exact(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.linear(x.float(), weight.float(), None if bias is None else bias.float())


class Mlp(nn.Module):
    """Two layers and what lies between, so that a break of the graph would show."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.up = hktune.Linear(K, N, bias=False, dtype=dtype)
        self.down = hktune.Linear(N, K, bias=False, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(functional.relu(self.up(x)))
        return out


class TestRuntime:
    def test_eager(self, bench: Bench) -> None:
        x, weight, bias = bench.random(M, K), bench.random(N, K), bench.random(N)
        with torch.no_grad():
            bench.assert_close(hktune.linear(x, weight), exact(x, weight))
            bench.assert_close(hktune.linear(x.view(2, M // 2, K), weight), exact(x, weight).view(2, M // 2, N))
            bench.assert_close(hktune.matmul(x, weight.T), exact(x, weight))
            if bench.biased:
                bench.assert_close(hktune.linear(x, weight, bias), exact(x, weight, bias))
        assert bench.table.stats().hits == (4 if bench.biased else 3)
        assert not bench.table.stats().fallbacks

    @pytest.mark.parametrize("dynamic", [False, True])
    def test_compiled_without_a_break(self, bench: Bench, dynamic: bool) -> None:
        x, weight = bench.random(M, K), bench.random(N, K)

        def layer(x: Tensor, weight: Tensor) -> Tensor:
            return functional.relu(hktune.linear(x, weight) + 1) + hktune.matmul(x, weight.T)

        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=dynamic)
        with torch.no_grad():
            found = compiled(x, weight)
            eager = layer(x, weight)
        assert torch.equal(found, eager)
        assert bench.table.stats().hits == 4

    def test_a_table_is_compiled_by_its_own_method_and_the_current_one_by_the_function(self, bench: Bench) -> None:
        x, weight = bench.random(M, K), bench.random(N, K)
        compiled = torch.compile(lambda x, w: bench.table.linear(x, w), fullgraph=True, backend="aot_eager")
        with torch.no_grad():
            bench.assert_close(compiled(x, weight), exact(x, weight))
        assert bench.table.stats().hits == 1

    @pytest.mark.parametrize("compiled", [False, True])
    def test_a_training_step_has_the_gradients_of_float32(self, bench: Bench, compiled: bool) -> None:
        torch.manual_seed(0)
        model = Mlp(bench.dtype).to(bench.where)
        x, goal = bench.random(M, K).requires_grad_(), bench.random(M, K)
        run: Callable[[Tensor], Tensor] = model
        if compiled:
            run = torch.compile(model, fullgraph=True, backend="aot_eager")
        functional.mse_loss(run(x), goal).backward()
        copies = [tensor.detach().float().requires_grad_() for tensor in (x, model.up.weight, model.down.weight)]
        hidden = functional.relu(functional.linear(copies[0], copies[1]))
        functional.mse_loss(functional.linear(hidden, copies[2]), goal.float()).backward()
        for found, copy in zip((x, model.up.weight, model.down.weight), copies, strict=True):
            assert found.grad is not None
            assert copy.grad is not None
            error = (found.grad.float() - copy.grad).norm() / copy.grad.norm()
            assert error < 5 * bench.format.unit_roundoff  # a chain of four roundings, and the loss's own
        assert bench.table.stats().hits == 2

    @pytest.mark.parametrize("compiled", [False, True])
    def test_autocast_casts_as_it_does_for_torchs_linear(self, bench: Bench, compiled: bool) -> None:
        x, weight = bench.random(M, K).float(), bench.random(N, K).float().requires_grad_()
        run: Callable[[Tensor, Tensor], Tensor] = hktune.linear
        if compiled:
            run = torch.compile(lambda x, w: hktune.linear(x, w), fullgraph=True, backend="aot_eager")
        with torch.autocast(bench.where.type, bench.dtype):
            out = run(x, weight)
        bench.assert_close(out.detach(), exact(x, weight.detach()))
        out.sum().backward()
        assert weight.grad is not None
        assert weight.grad.dtype is torch.float32
        assert bench.table.stats().hits == 1

    def test_threads_get_their_own_results(self, bench: Bench) -> None:
        weight = bench.random(N, K)
        inputs = [bench.random(M, K) + number for number in range(8)]
        found: dict[int, Tensor] = {}

        def work(number: int) -> None:
            with torch.no_grad():
                for _ in range(3):
                    found[number] = hktune.linear(inputs[number], weight)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number, x in enumerate(inputs):
            bench.assert_close(found[number], exact(x, weight))

    def test_streams(self, bench: Bench) -> None:
        if bench.where.type != "cuda":
            pytest.skip("the emulated device has no streams")
        weight, inputs = bench.random(N, K), [bench.random(M, K) + number for number in range(4)]
        streams = [torch.cuda.Stream() for _ in inputs]
        torch.cuda.synchronize()
        found = []
        with torch.no_grad():
            for x, stream in zip(inputs, streams, strict=True):
                with torch.cuda.stream(stream):
                    found.append(hktune.linear(x, weight))
        torch.cuda.synchronize()
        for x, out in zip(inputs, found, strict=True):
            bench.assert_close(out, exact(x, weight))

    def test_another_gpu_of_the_same_model_is_served_too(self, bench: Bench) -> None:
        if bench.where.type != "cuda" or torch.cuda.device_count() < 2:
            pytest.skip("needs two GPUs")
        x, weight = bench.random(M, K).to("cuda:1"), bench.random(N, K).to("cuda:1")
        with torch.no_grad():
            found = [hktune.linear(x, weight) for _ in range(2)]
        assert torch.cuda.current_device() == 0
        for out in found:
            bench.assert_close(out, exact(x, weight))
        assert bench.table.stats().hits == 2

    def test_a_captured_graph_reads_its_operands_at_replay(self, bench: Bench) -> None:
        if bench.where.type != "cuda":
            pytest.skip("the emulated device has no graphs")
        bench.table.warm()
        x, weight, b = bench.random(M, K), bench.random(N, K), bench.random(K, N)
        torch.matmul(x, b)  # torch's own library starts with its first product, which a capture does not allow
        graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(graph):
            out, product = hktune.linear(x, weight), hktune.matmul(x, b)
        with torch.no_grad():
            for each in (x, weight, b):
                each.copy_(torch.randn_like(each))
        graph.replay()
        torch.cuda.synchronize()
        bench.assert_close(out, exact(x, weight))
        bench.assert_close(product, x.float() @ b.float())

    def test_an_unwarmed_kernel_is_not_loaded_in_a_capture(self, bench: Bench) -> None:
        if bench.where.type != "cuda":
            pytest.skip("the emulated device has no graphs")
        x, weight = bench.random(M, K), bench.random(N, K)
        with torch.no_grad():
            functional.linear(x, weight)  # cuBLAS loads its own
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph), pytest.warns(hktune.runtime.FallbackWarning, match="before graph capture"):
                out = hktune.linear(x, weight)
        graph.replay()
        torch.cuda.synchronize()
        bench.assert_close(out, exact(x, weight))
