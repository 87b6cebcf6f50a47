"""float16 calls by a table's f16 rows, alone and beside bf16 rows of the same shapes. The truth is torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from naive_gemm import OBJECTS, published, table_of, trial
from torch import Tensor, nn
from torch.nn import functional
from torch_alike import assert_alike

import hktune
from hktune.core.operation import Operation, operation_of
from hktune.core.problem import Problem
from hktune.core.shapes import load_shapes
from hktune.core.trial import Trial
from hktune.device.emulated import EmulatedDevice, EmulatedKernel
from hktune.dispatch import write_table
from hktune.runtime import FallbackWarning, LoadedTable, operators

M, N, K = 8, 64, 32
F16, BF16 = torch.float16, torch.bfloat16


class CountingDevice(EmulatedDevice):
    """The emulated device, with a count of the kernels that it loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: Counter[str] = Counter()

    def load(self, data: bytes, symbol: str) -> EmulatedKernel:
        self.loaded[symbol] += 1
        return super().load(data, symbol)


@pytest.fixture
def device() -> CountingDevice:
    return CountingDevice()


Make = Callable[..., LoadedTable]


@pytest.fixture
def make(tmp_path: Path, device: CountingDevice) -> Make:
    """Loads a table of these operations for M, N and K, and of these trials."""

    def made(*texts: str, trials: tuple[Trial, ...] = ()) -> LoadedTable:
        published(tmp_path, *(trial(Problem(M, N, K, operation_of(text))) for text in texts), *trials)
        return hktune.load(tmp_path, allow_modelled=True, device=device)

    return made


def vendor(text: str) -> Trial:
    """A row whose vendor was faster."""
    return trial(Problem(M, N, K, operation_of(text)), baseline="hipBLASLt", baseline_us=0.5)


def values(*shape: int, dtype: torch.dtype = F16) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def close(found: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
    """Within one rounding to float16 (11 bits of significand) of a float32 sum."""
    assert found.dtype is F16
    expected = functional.linear(x.float(), weight.float(), None if bias is None else bias.float())
    torch.testing.assert_close(found.float(), expected, rtol=2**-11, atol=1e-5)


def test_each_dtype_runs_the_kernel_of_its_own_row(make: Make, device: CountingDevice) -> None:
    table = make("bf16.nt", "f16.nt", "f16.nt+bias")
    x, weight, bias = values(M, K), values(N, K), values(N)
    for _ in range(3):
        close(hktune.linear(x, weight), x, weight)
        close(hktune.linear(x.view(2, 4, K), weight, bias).view(M, N), x, weight, bias)
        close(hktune.matmul(x, weight.T), x, weight)
        assert hktune.linear(x.bfloat16(), weight.bfloat16()).dtype is BF16
    assert device.loaded == {"naive_gemm": 1, "naive_gemm_f16": 1, "naive_gemm_f16_bias": 1}
    assert table.stats().hits == 12
    assert not table.stats().fallbacks


def test_warm_loads_what_calls_can_reach(make: Make, device: CountingDevice) -> None:
    make("f16.nt+bias", trials=(trial(Problem(M, N, K, Operation("f32"))),)).warm()
    assert device.loaded == {"naive_gemm_f16_bias": 1}


def why(table: LoadedTable, call: Callable[[], object]) -> dict[str, int]:
    """The reasons of three equal calls."""
    before = Counter(table.stats().fallbacks)
    for _ in range(3):
        call()
    return dict(Counter(table.stats().fallbacks) - before)


@pytest.mark.parametrize(
    ("rows", "dtype", "reason"),
    [
        (("bf16.nt",), F16, "dtype"),
        (("f16.nt",), BF16, "dtype"),
        (("f16.nt",), torch.float32, "dtype"),
        (("bf16.nt", "f16.nt"), torch.float32, "dtype"),
        (("bf16.nt", "vendor f16.nt"), F16, "vendor chosen by the table"),
        (("f16.nt", "vendor bf16.nt"), BF16, "vendor chosen by the table"),
        (("f16.nt", "vendor bf16.nt"), torch.float64, "dtype"),
        (("vendor bf16.nt",), BF16, "vendor chosen by the table"),
        (("vendor bf16.nt",), F16, "no entry for the shape"),
        (("vendor bf16.nt",), torch.float32, "vendor chosen by the table"),
        (("vendor bf16.nt", "vendor f16.nt"), F16, "vendor chosen by the table"),
        (("f16.nt+bias",), F16, "no entry for the shape"),
    ],
)
@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
def test_what_has_no_row_of_its_own_goes_to_torch_for_a_reason(
    make: Make, rows: tuple[str, ...], dtype: torch.dtype, reason: str
) -> None:
    kernels = [row for row in rows if not row.startswith("vendor ")]
    table = make(*kernels, trials=tuple(vendor(row[7:]) for row in rows if row.startswith("vendor ")))
    x, weight = values(M, K, dtype=dtype), values(N, K, dtype=dtype)
    assert torch.equal(hktune.linear(x, weight), functional.linear(x, weight))
    assert why(table, lambda: hktune.linear(x, weight)) == {reason: 3}
    assert why(table, lambda: hktune.matmul(x, weight.T)) == {reason: 3}
    assert table.stats().hits == 0


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
def test_two_dtypes_in_one_call_are_torchs_error(make: Make) -> None:
    table = make("bf16.nt", "f16.nt", "bf16.nt+bias", "f16.nt+bias")
    x, weight, bias = values(M, K), values(N, K), values(N)
    for operands in (
        (x, weight.bfloat16()),
        (x.bfloat16(), weight),
        (x, weight, bias.bfloat16()),
        (x, weight, bias.float()),
    ):
        with pytest.raises(RuntimeError, match="same dtype"):
            hktune.linear(*operands)
        with pytest.raises(RuntimeError, match="same dtype"):
            torch.compile(lambda *each: hktune.linear(*each), backend="eager")(*operands)
    assert table.stats().fallbacks == {"dtype": 4}


def test_the_next_step_names_the_dtypes_of_the_table(make: Make) -> None:
    x, weight = values(M, K), values(N, K)
    make("bf16.nt")
    with pytest.warns(FallbackWarning, match="float16 .8, 32. on cpu.*: cast to bfloat16, or autocast to it"):
        hktune.linear(x, weight)
    make("f16.nt")
    with pytest.warns(FallbackWarning, match="cast to float16, or autocast to it"):
        hktune.linear(x.bfloat16(), weight.bfloat16())
    make("f16.nt", "bf16.nt")
    with pytest.warns(FallbackWarning, match="cast to bfloat16 or float16, or autocast to it"):
        hktune.linear(x.float(), weight.float())


def test_more_rows_than_were_tuned_are_near_hits(tmp_path: Path) -> None:
    table = table_of(trial(Problem(M, N, K, operation_of("f16.nt"))))
    (entry,) = table.entries
    write_table(msgspec.structs.replace(table, entries=(msgspec.structs.replace(entry, m_to=16),)), OBJECTS, tmp_path)
    loaded = hktune.load(tmp_path, allow_modelled=True)
    x, weight = values(M + 3, K), values(N, K)
    close(hktune.linear(x, weight), x, weight)
    assert (loaded.stats().hits, loaded.stats().near_hits) == (0, 1)


def test_calls_of_both_dtypes_in_turn_are_all_known_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once each kind of call was served, none asks all questions again."""
    table = make("bf16.nt", "f16.nt")
    x, weight = values(M, K, dtype=torch.float32), values(N, K, dtype=torch.float32)

    def calls() -> list[Tensor]:
        outs = [hktune.linear(x.half(), weight.half()), hktune.linear(x.bfloat16(), weight.bfloat16())]
        for dtype in (F16, BF16):
            with torch.autocast("cpu", dtype):
                outs.append(hktune.linear(x, weight))
        return outs

    first = [calls(), calls()][-1]  # the first call of a kernel loads it, and is not remembered
    for slow in ("plain", "autocast"):
        monkeypatch.setattr(LoadedTable, slow, None)
    for _ in range(3):
        for found, expected in zip(calls(), first, strict=True):
            assert found.dtype is expected.dtype
            assert torch.equal(found, expected)
    assert torch.equal(first[0], first[2])
    assert torch.equal(first[1], first[3])
    assert table.stats().hits == 20


# ---------------------------------------------------------------- gradients, layers, graphs

ALL = ("bf16.nt", "bf16.nt+bias", "f16.nt", "f16.nt+bias")


@pytest.mark.parametrize(
    "wanted", [(True, True, True), (True, False, False), (False, True, False), (False, False, True)]
)
def test_gradients_are_torchs(make: Make, wanted: tuple[bool, ...]) -> None:
    table = make(*ALL)
    operands = [
        each.requires_grad_(want) for each, want in zip((values(2, 4, K), values(N, K), values(N)), wanted, strict=True)
    ]
    for _ in range(2):
        assert_alike(hktune.linear, functional.linear, operands)
        assert_alike(lambda a, w: hktune.matmul(a, w.T), lambda a, w: a @ w.T, operands[:2])
    assert table.stats().hits == 4
    assert not table.stats().fallbacks


def test_layers_patched_models_and_compiled_ones(make: Make) -> None:
    table = make(*ALL)
    x, layer = values(M, K), hktune.Linear(K, N, dtype=F16)
    close(layer(x).detach(), x, layer.weight, layer.bias)
    model = nn.Sequential(nn.Linear(K, N), nn.ReLU()).half()
    expected = model(x)
    hktune.patch(model, quiet=True)
    torch.testing.assert_close(model(x), expected, rtol=2**-10, atol=1e-4)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), expected, rtol=2**-10, atol=1e-4)
    compiled(x).sum().backward()
    assert model[0].weight.grad is not None
    assert model[0].weight.grad.dtype is F16
    program = torch.export.export(layer, (x,))
    assert "hktune.linear" in str(program.graph)
    assert torch.equal(program.module()(x), layer(x))
    with torch._subclasses.FakeTensorMode() as mode:
        fake = hktune.linear(mode.from_tensor(x), mode.from_tensor(values(N, K)))
        assert (fake.shape, fake.dtype) == ((M, N), F16)
    assert not table.stats().fallbacks
    assert table.stats().hits >= 5


def test_the_operators_keep_torchs_rules_of_operators(make: Make) -> None:
    make(*ALL)
    x, weight, bias = values(M, K).requires_grad_(), values(N, K).requires_grad_(), values(N).requires_grad_()
    torch.library.opcheck(operators.linear, (x, weight, bias, operators.CURRENT))
    torch.library.opcheck(operators.matmul, (x, weight.detach().T, operators.CURRENT))


# ---------------------------------------------------------------- what float16 cannot hold


@pytest.mark.parametrize("product", [hktune.linear, lambda x, w: hktune.matmul(x, w.T)], ids=["linear", "matmul"])
def test_overflow_infinities_and_nans_are_torchs(make: Make, product: Callable[..., Tensor]) -> None:
    table = make("f16.nt")
    x, weight = values(M, K), values(N, K)
    x[0, 0], x[1, 1], x[2, 2] = float("inf"), float("-inf"), float("nan")
    x[3], weight[5] = 60000.0, 60000.0  # 3.6e9 times 32 in float32, inf in float16
    x[4], weight[6] = 2.0**-24, 2.0**-14  # the least of the numbers, and products far below it
    for _ in range(2):
        found = product(x, weight)
        torch.testing.assert_close(found, functional.linear(x, weight), rtol=2**-10, atol=2**-24, equal_nan=True)
    assert found[3, 5] == float("inf")
    assert table.stats().hits == 2


@pytest.mark.parametrize("is_autocast", [True, False])
def test_a_scaled_step_skips_what_overflows_and_takes_the_rest_as_torch_does(make: Make, is_autocast: bool) -> None:
    """Five steps: torch's GradScaler finds the scale too large at first, halves it, and then goes on."""
    table = make("f16.nt+bias")

    def trained(product: Callable[..., Tensor]) -> tuple[list[float], Tensor]:
        weight, bias = values(N, K, dtype=torch.float32), values(N, dtype=torch.float32)
        leaves = [weight.requires_grad_(), bias.requires_grad_()]
        optimizer = torch.optim.SGD(leaves, lr=0.01)
        scaler, scales = torch.amp.GradScaler("cpu", init_scale=2.0**20), []
        for step in range(5):
            optimizer.zero_grad()
            x = torch.randint(-3, 4, (M, K), generator=torch.Generator().manual_seed(step)).float()
            if is_autocast:
                with torch.autocast("cpu", F16):
                    out = product(x, *leaves)
            else:
                out = product(x.half(), leaves[0].half(), leaves[1].half())
            scaler.scale(out.float().square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
            scales.append(scaler.get_scale())
        return scales, weight.detach()

    ours, theirs = trained(hktune.linear), trained(functional.linear)
    assert ours[0] == theirs[0]
    assert ours[0][0] < 2.0**20, "the first step overflowed"
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-4, atol=1e-4)
    assert table.stats().hits == 5


# ---------------------------------------------------------------- recording


def test_both_dtypes_are_recorded_as_operations_that_tune_reads(tmp_path: Path) -> None:
    x, weight, bias = values(M, K), values(N, K), values(N)
    path = tmp_path / "shapes.yaml"
    with hktune.record(path) as recorder:
        functional.linear(x, weight, bias)
        functional.linear(x.bfloat16(), weight.bfloat16())
        x @ weight.T
        with torch.autocast("cpu", F16):
            functional.linear(x.float(), weight.float(), bias.float())
        functional.linear(x.float(), weight.float())
        torch.mm(x.to("meta"), weight.bfloat16().T.to("meta"))
    found = {str(shape.problem): shape.weight for shape in load_shapes(path)}
    assert found == {"8x64x32 f16.nt+bias": 2, "8x64x32 bf16.nt": 1, "8x64x32 f16.nt": 1}
    assert recorder.left_out == {"float32": 1, "float16 and bfloat16": 1}
