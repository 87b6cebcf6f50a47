"""The contract of `Baseline`, run on every implementation.

Where there is no NVIDIA GPU, torch's CPU takes the place of its libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from simulated_gpu import SimulatedGpu, SimulatedVendor, torch_without_cuda

from hktune.core.errors import DeviceError
from hktune.core.operand import factors_of, operands_of
from hktune.core.operation import ACTIVATIONS, Operation, operation_of
from hktune.core.problem import Problem
from hktune.device.device import TimedDevice
from hktune.device.opening import find_device
from hktune.measure.arena import OperandSet
from hktune.measure.baseline import Baseline, TorchBaseline
from hktune.workers.gpu_service import baselines

WIDE, TALL = Problem(24, 40, 72), Problem(56, 16, 104)
BIASED = Problem(24, 40, 72, Operation(epilogue=("bias",)))
OTHERS = tuple(Problem(24, 40, 72, operation_of(text)) for text in ("f16.nt", "f16.nn+bias", "bf16.tn", "bf16.tt+bias"))
PROBLEMS = (WIDE, TALL, BIASED, *OTHERS)
TORCH = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
Run = Callable[[Callable[[], None]], None]
"""Runs what puts work on a stream, captured and replayed where the device can do that, and waits for it."""


def operands(problem: Problem, seed: int = 0, device: str = "cpu") -> OperandSet:
    """Standard normal inputs, and NaN where the product goes."""
    generator = torch.Generator().manual_seed(seed)

    dtype, layout = TORCH[problem.operation.a], problem.operation.layout

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype).to(device)

    m, n, k = problem.m, problem.n, problem.k
    a = normal(m, k) if layout in ("nt", "nn") else normal(k, m)
    b = normal(n, k) if layout in ("nt", "tt") else normal(k, n)
    bias = {"bias": normal(n)} if problem.operation.has_bias else {}
    c = torch.full((m, n), float("nan"), dtype=TORCH[problem.operation.c], device=device)
    return {"a": a, "b": b, "c": c, **bias}


def assert_product(problem: Problem, operands: OperandSet) -> None:
    """c is the product in float64, but for a rounding to bf16 or finer and a sum in float32."""
    axes = {"nt": "mk,nk->mn", "nn": "mk,kn->mn", "tn": "km,kn->mn", "tt": "km,nk->mn"}[problem.operation.layout]
    exact = torch.einsum(axes, operands["a"].double(), operands["b"].double())
    if "bias" in operands:
        exact += operands["bias"].double()
    torch.testing.assert_close(operands["c"].double(), exact, rtol=2.0**-8, atol=1e-4)


class BaselineContract:
    """Subclasses give the fixtures `baseline`, `where` (a torch device), `stream` and `run`."""

    @pytest.fixture
    def where(self) -> str:
        return "cpu"

    @pytest.fixture
    def stream(self) -> int:
        return 1

    @pytest.fixture
    def run(self) -> Run:
        return lambda enqueue: enqueue()

    def test_its_name_is_one_line_that_stays(self, baseline: Baseline, where: str, stream: int) -> None:
        name = baseline.name
        assert name.strip() == name != ""
        assert name.isprintable()
        baseline.prepare(WIDE, operands(WIDE, device=where), stream)
        assert baseline.name == name

    @pytest.mark.parametrize("problem", PROBLEMS, ids=str)
    def test_it_computes_any_set_of_the_problem_and_writes_nothing_else(
        self, baseline: Baseline, where: str, stream: int, run: Run, problem: Problem
    ) -> None:
        first, second = (operands(problem, seed, where) for seed in (1, 2))
        before = {name: tensor.clone() for name, tensor in second.items() if name != "c"}
        enqueue = baseline.prepare(problem, first, stream)
        first["c"].fill_(float("nan"))
        for each in (second, first):
            run(lambda each=each: enqueue(each))
            assert_product(problem, each)
        assert all(torch.equal(was, second[name]) for name, was in before.items())

    def test_it_reads_operands_when_it_runs(self, baseline: Baseline, where: str, stream: int, run: Run) -> None:
        given, other = operands(BIASED, 1, where), operands(BIASED, 2, where)
        enqueue = baseline.prepare(BIASED, given, stream)
        for name in ("a", "b", "bias"):
            given[name].copy_(other[name])
        run(lambda: enqueue(given))
        assert_product(BIASED, given)

    def test_several_problems_are_prepared_at_once(self, baseline: Baseline, where: str, stream: int, run: Run) -> None:
        sets = [operands(problem, 3, where) for problem in PROBLEMS]
        prepared = [baseline.prepare(problem, each, stream) for problem, each in zip(PROBLEMS, sets, strict=True)]
        for problem, enqueue, each in reversed(list(zip(PROBLEMS, prepared, sets, strict=True))):
            each["c"].fill_(float("nan"))
            run(lambda enqueue=enqueue, each=each: enqueue(each))
            assert_product(problem, each)


class VendorContract(BaselineContract):
    """Of the vendor's libraries, which know fewer steps of an epilogue than a kernel may do."""

    def test_it_adds_to_what_c_holds(self, baseline: Baseline, where: str, stream: int, run: Run) -> None:
        # Onto bf16, cuBLAS rounds the product first and the sum again. Onto float32, torch adds on GPUs only.
        problem = Problem(
            24, 40, 72, operation_of("bf16.tn+accumulate" if where == "cpu" else "bf16.tn->f32+accumulate")
        )
        given = operands(problem, 1, where)
        enqueue = baseline.prepare(problem, given, stream)
        before = torch.randn(24, 40, generator=torch.Generator().manual_seed(2)).to(given["c"].dtype).to(where)
        given["c"].copy_(before)
        run(lambda: enqueue(given))
        exact = given["a"].double().T @ given["b"].double() + before.double()
        torch.testing.assert_close(given["c"].double(), exact, rtol=2.0**-8, atol=1e-4)

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_an_activation_follows_the_product(
        self, baseline: Baseline, where: str, stream: int, run: Run, activation: str
    ) -> None:
        if where == "cpu" and activation == "gelu_tanh" and baseline.fused:  # type: ignore[attr-defined]
            pytest.skip("on the CPU torch's fused gelu is the one by erf")
        problem = Problem(24, 40, 72, operation_of(f"bf16.nt+bias+{activation}"))
        given = operands(problem, 1, where)
        enqueue = baseline.prepare(problem, given, stream)
        run(lambda: enqueue(given))
        exact = given["a"].double() @ given["b"].double().T + given["bias"].double()
        by_torch = (
            torch.nn.functional.gelu if activation.startswith("gelu") else getattr(torch.nn.functional, activation)
        )
        named = {"approximate": "tanh"} if activation == "gelu_tanh" else {}
        torch.testing.assert_close(given["c"].double(), by_torch(exact, **named), rtol=2.0**-7, atol=2e-3)

    @pytest.mark.parametrize(
        "text", ["bf16.nt+residual", "bf16.nt+bias+residual", "bf16.nt+bias+silu+gated", "bf16.nn+gelu+gated+residual"]
    )
    def test_gates_and_a_residual_follow_the_product(
        self, baseline: Baseline, where: str, stream: int, run: Run, text: str
    ) -> None:
        problem = Problem(24, 40, 72, operation_of(text))
        random, sizes = torch.Generator().manual_seed(5), problem.sizes
        given = {
            name: torch.randn(*each.shape(sizes), generator=random).bfloat16().to(where)
            for name, each in operands_of(problem.operation).items()
        }
        enqueue = baseline.prepare(problem, given, stream)
        run(lambda: enqueue(given))
        a, b = factors_of(problem.operation, {name: tensor.double() for name, tensor in given.items()})
        exact = a @ b + given.get("bias", 0.0)
        if problem.operation.is_gated:
            gate, up = exact.chunk(2, dim=1)
            exact = getattr(torch.nn.functional, problem.operation.activations[0])(gate) * up
        exact = exact + given.get("residual", 0.0)
        # Each kernel behind another rounds to bf16: sums of a size of 8, and of gates their products.
        torch.testing.assert_close(given["c"].double(), exact, rtol=2.0**-6, atol=0.25)

    @pytest.mark.parametrize(
        "text", ["bf16.nt+silu+gated_interleaved", "bf16.nt+alpha+bias+gelu+beta_residual", "bf16.nt->e4m3+silu+gated"]
    )
    def test_numbers_that_multiply_gates_in_turn_and_float8_follow_the_product(
        self, baseline: Baseline, where: str, stream: int, run: Run, text: str
    ) -> None:
        problem = Problem(24, 40, 72, operation_of(text))
        random, sizes = torch.Generator().manual_seed(6), problem.sizes
        given = {
            name: torch.randn(*each.shape(sizes), generator=random).to(getattr(torch, each.dtype.torch_name)).to(where)
            for name, each in operands_of(problem.operation).items()
        }
        enqueue = baseline.prepare(problem, given, stream)
        run(lambda: enqueue(given))
        wide = {name: tensor.double() for name, tensor in given.items()}
        exact = wide["a"] @ wide["b"].T * wide.get("alpha", 1.0) + wide.get("bias", 0.0)
        if problem.operation.is_gated:
            in_turn = "interleaved" in text
            gate, up = (exact[:, ::2], exact[:, 1::2]) if in_turn else exact.chunk(2, dim=1)
            exact = torch.nn.functional.silu(gate) * up
        elif problem.operation.activations:
            exact = torch.nn.functional.gelu(exact)
        exact = exact + wide.get("beta", 0.0) * wide.get("residual", 0.0)
        exact = (exact * wide.get("scale_c", 1.0)).clamp(-448, 448) if "scale_c" in wide else exact
        tolerance = 2.0**-4 if "scale_c" in wide else 2.0**-6
        torch.testing.assert_close(given["c"].double(), exact, rtol=tolerance, atol=0.3)

    def test_an_epilogue_that_it_cannot_do_is_refused(self, baseline: Baseline, where: str, stream: int) -> None:
        problem = Problem(24, 40, 72, Operation(epilogue=("relu", "bias")))
        with pytest.raises(DeviceError, match=r"^the vendor's library has no bf16.nt\+relu\+bias: it adds"):
            baseline.prepare(problem, operands(BIASED, device=where), stream)


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with torch_without_cuda(monkeypatch):
        yield


class TestSimulatedVendor(BaselineContract):
    @pytest.fixture
    def gpu(self) -> SimulatedGpu:
        return SimulatedGpu()

    @pytest.fixture
    def run(self, gpu: SimulatedGpu) -> Run:
        return lambda enqueue: gpu.replay(gpu.capture(enqueue, 1), 1)

    @pytest.fixture
    def baseline(self, gpu: SimulatedGpu) -> Baseline:
        return SimulatedVendor(gpu, time_us=60.0)


@pytest.mark.usefixtures("on_cpu")
class TestTorchBaseline(VendorContract):
    @pytest.fixture(params=[("cublas", True), ("cublaslt", False)], ids=["cublas", "cublaslt"])
    def baseline(self, request: pytest.FixtureRequest, on_cpu: None) -> Baseline:
        return TorchBaseline(*request.param)

    def test_it_is_called_what_the_vendor_calls_it(self, baseline: Baseline, monkeypatch: pytest.MonkeyPatch) -> None:
        assert baseline.name.startswith(("cuBLAS of CUDA", "cuBLASLt of CUDA"))
        monkeypatch.setattr(torch.version, "hip", "7.0.51831", raising=False)
        assert TorchBaseline("cublas").name == f"rocBLAS of ROCm 7.0.51831 through torch {torch.__version__}"

    def test_what_torch_has_no_product_for_is_refused(self, baseline: Baseline) -> None:
        for text in ("f16.nt->bf16", "f16.nt->f32"):  # the second it has on GPUs
            mixed = Problem(24, 40, 72, operation_of(text))
            with pytest.raises(DeviceError, match=rf"^torch .*has no {text}"):
                baseline.prepare(mixed, operands(mixed), 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
class TestOnGpu(VendorContract):
    """Every way that candidates are compared with on this machine, captured and replayed."""

    @pytest.fixture
    def where(self) -> str:
        return "cuda"

    @pytest.fixture
    def device(self) -> TimedDevice:
        device = find_device()
        assert isinstance(device, TimedDevice)
        return device

    @pytest.fixture
    def stream(self, device: TimedDevice) -> int:
        return device.create_stream()

    @pytest.fixture
    def run(self, device: TimedDevice, stream: int) -> Run:
        def captured(enqueue: Callable[[], None]) -> None:
            torch.cuda.synchronize()
            device.replay(device.capture(enqueue, stream), stream)
            torch.cuda.synchronize()

        return captured

    @pytest.fixture(params=range(2))
    def baseline(self, request: pytest.FixtureRequest, device: TimedDevice) -> Baseline:
        return baselines()[request.param]
