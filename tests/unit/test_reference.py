"""The reference of an operation against torch in float64, and its judgement of every way to round."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch_device import TorchMemory

from hktune.core.dtype import DTYPES
from hktune.core.errors import InputError
from hktune.core.launch import Argument, Launch
from hktune.core.operand import operands_of
from hktune.core.operation import BF16_NT, BF16_NT_BIAS, operation_of
from hktune.core.outcome import Failure, Status
from hktune.core.problem import Problem, ProofProblem
from hktune.verify import Operands, Proof, compare, random_operands, verify
from hktune.verify.activations import ACTIVATION_VALUES
from hktune.verify.arrays import HOST, Arrays
from hktune.verify.on_device import TorchArrays, verify_on_device
from hktune.verify.reference import answer_of

TORCH = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32, "e4m3": torch.float8_e4m3fn}
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32}
PRODUCTS = {"nt": "mk,nk->mn", "nn": "mk,kn->mn", "tn": "km,kn->mn", "tt": "km,nk->mn"}
OPERATIONS = [
    *(f"{dtype}.{layout}{bias}" for dtype in ("bf16", "f16", "f32") for layout in PRODUCTS for bias in ("", "+bias")),
    "f16.nt->f32+bias",
    "bf16.nn->f16",
    "f16*bf16.tn->bf16",
    "bf16.tn->f32+accumulate",
    "f16.nt+bias+accumulate",
    "bf16.nt+bias+relu",
    "f16.nn+gelu",
    "bf16.nt+bias+gelu",
    "bf16.tt+gelu_tanh",
    "f16.nt+bias+silu",
    "bf16.nt->f32+silu",
    "bf16.nt+residual",
    "f16.nn->f32+bias+residual",
    "bf16.nt+bias+gelu+residual",
    "bf16.nt+gated",
    "f16.nn+silu+gated",
    "bf16.nt+bias+gelu_tanh+gated+residual",
    "f16.tt->f32+bias+relu+gated",
    "bf16.nt+silu+gated_interleaved",
    "f16.nn+alpha+bias+gelu_tanh+gated_interleaved+residual",
    "bf16.nn+alpha+beta_residual",
    "f16.nt+alpha+bias+gelu+beta_residual",
    "bf16.nt->f32+beta_residual",
    "bf16.nt->e4m3",
    "f16.nn->e4m3+bias+silu",
    "bf16.nt->e4m3+alpha+bias+relu+beta_residual",
    "bf16.nt->e4m3+bias+silu+gated_interleaved",
    "e4m3.nt+bias",
]
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
}
M, N, K = 24, 40, 56
Round = Callable[[torch.Tensor, torch.dtype], torch.Tensor]


def to_nearest(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    single = values.float()
    return (saturated(single, dtype) if dtype is torch.float8_e4m3fn else single).to(dtype)


def saturated(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return values.clamp(torch.finfo(dtype).min, torch.finfo(dtype).max)


def towards_zero(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    nearest = to_nearest(values, dtype)
    bits = nearest.view(INTEGERS[dtype.itemsize])
    return (bits - (nearest.double().abs() > values.double().abs()).to(bits.dtype)).view(dtype)


def torch_product(operation: str, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """float64, by the layout that the operation's text names."""
    layout = next(layout for layout in PRODUCTS if f".{layout}" in operation)
    return torch.einsum(PRODUCTS[layout], a.double(), b.double())


def finished(operation: str, total: torch.Tensor, added: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """By torch, what the steps of the operation's text make of a product; `added` is what they read, by name."""
    steps = operation.split("+")[1:]
    for step, following in itertools.pairwise([*steps, ""]):
        if step == "alpha":
            total = total * added["alpha"].double()
        elif step == "beta_residual":
            total = total + added["beta"].double() * added["residual"].double()
        elif step in ACTIVATIONS and following.startswith("gated"):
            gates = gates_of(following, torch.arange(total.shape[1]))[0]
            total = total.clone().index_copy(1, gates, ACTIVATIONS[step](total[:, gates]))
        elif step.startswith("gated"):
            gates, up = gates_of(step, torch.arange(total.shape[1]))
            total = total[:, gates] * total[:, up]
        else:
            total = ACTIVATIONS[step](total) if step in ACTIVATIONS else total + added[step].double()
    return total * added["scale_c"].double() if "scale_c" in added else total


def gates_of(step: str, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Those of gates, and those of what they gate."""
    return (columns[::2], columns[1::2]) if step == "gated_interleaved" else columns.chunk(2)


class PythonKernel(TorchMemory):
    """A device for either judge, whose one kernel is torch on the host: `operation`, rounded by `rounded`."""

    def __init__(self, operation: str, rounded: Round = to_nearest) -> None:
        self._operation, self._round = operation, rounded
        made = operation_of(operation)
        self._dtypes = {"a": TORCH[made.a], "b": TORCH[made.b]}
        added = made.c if made.c != "e4m3" else made.a if made.a in ("bf16", "f16") else "bf16"
        self._dtypes |= dict.fromkeys(("bias", "residual"), TORCH[added]) | {"c": TORCH[made.c]}
        self._dtypes |= dict.fromkeys(("alpha", "beta", "scale_c"), torch.float32)

    def launch(self, kernel: Any, launch: Launch, binding: Any, stream: int | None = None) -> None:
        layout = operation_of(self._operation).layout
        m, n, k = (binding[size] for size in "mnk")
        of_b = 2 * n if "gated" in self._operation else n
        shapes = {"a": (m, k) if layout[0] == "n" else (k, m), "b": (k, of_b) if layout[1] == "n" else (of_b, k)}
        shapes |= {"c": (m, n)} | ({"residual": (m, n)} if "residual" in self._operation else {})
        typed = {
            name: buffer.memory.view(self._dtypes[name])
            for name, buffer in binding.items()
            if name in self._dtypes and buffer
        }
        typed |= {name: typed[name].as_strided(shape, (binding[f"ld{name}"], 1)) for name, shape in shapes.items()}
        c, total = typed["c"], self.product(typed["a"], typed["b"])
        c.copy_(self._round(finished(self._operation, total, {**typed, "accumulate": c}), c.dtype))

    def product(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch_product(self._operation, a, b)


def launch_of_all() -> Launch:
    """A launch that takes whatever a problem may have."""
    pointers = ("alpha", "beta", "scale_c", "bias", "residual", "c", "b", "a")
    arguments = [Argument(name, "pointer") for name in pointers]
    arguments += [Argument(name, "i32") for name in ("ldc", "ldresidual", "lda", "ldb", "m", "n", "k")]
    return Launch((1, 1, 1), (64, 1, 1), 0, tuple(arguments))


def judgements(operation: str, rounded: Round = to_nearest, padding: int = 8) -> list[Proof | Failure]:
    """Of both judges."""
    launch, problem = launch_of_all(), Problem(M, N, K, operation_of(operation))
    device: Any = PythonKernel(operation, rounded)
    kernel = SimpleNamespace(symbol="k")
    return [
        verify(device, kernel, launch, problem, 3, padding),
        verify_on_device(device, kernel, launch, ProofProblem(problem, padding), 3, "cpu"),
    ]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_product_by_torch_is_right_for_both_judges(operation: str) -> None:
    for judged in judgements(operation):
        assert isinstance(judged, Proof), judged
        bits = operation_of(operation).c_dtype.significand_bits
        assert 2.0 ** -(bits + 3) < judged.relative_error < 2.0**-bits


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_answer_is_torchs(operation: str) -> None:
    made = operation_of(operation)
    operands = random_operands(Problem(M, N, K, made), 5)

    def tensor(name: str, dtype: str) -> torch.Tensor:
        return torch.from_numpy(operands.stored[name].view(f"i{TORCH[dtype].itemsize}")).view(TORCH[dtype])

    exact = torch_product(operation, tensor("a", made.a), tensor("b", made.b))
    added = {"accumulate": tensor("c", made.c)} if made.accumulates else {}
    of_c = made.c if made.c != "e4m3" else made.a if made.a in ("bf16", "f16") else "bf16"
    for name, dtype in (("bias", of_c), ("residual", of_c), ("alpha", "f32"), ("beta", "f32"), ("scale_c", "f32")):
        if name in operands.stored:
            added[name] = tensor(name, dtype)
    exact = finished(operation, exact, added)
    np.testing.assert_allclose(operands.answer.exact, exact.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("operation", [text for text in OPERATIONS if not text.startswith("f32") and "f32" not in text])
def test_truncation_instead_of_rounding_is_wrong(operation: str) -> None:
    for judged in judgements(operation, towards_zero):
        assert isinstance(judged, Failure)
        assert judged.status is Status.WRONG


@pytest.mark.parametrize("arrays", [HOST, TorchArrays("cpu")], ids=["numpy", "torch"])
@pytest.mark.parametrize("name", ACTIVATION_VALUES)
def test_an_activation_is_torchs_from_end_to_end_and_no_steeper_than_it_says(name: str, arrays: Arrays) -> None:
    """Of sums up to 2^60; relative errors count far below 0 too, where gelu is next to nothing."""
    x = torch.cat(
        [torch.linspace(-38, 38, 40001, dtype=torch.float64), 2.0 ** torch.arange(0, 60, dtype=torch.float64)]
    )
    x = torch.cat([x, -x]).requires_grad_()
    exact = ACTIVATIONS[name](x)
    exact.sum().backward()
    assert x.grad is not None
    activation, sums = ACTIVATION_VALUES[name], x.detach()
    given: Any = sums.numpy() if arrays is HOST else sums
    found, error = activation.of(given, 0 * given + 2.0**-10, arrays)
    expected = exact.detach()
    if name == "gelu":  # torch's own difference cancels far below 0
        expected = sums * torch.special.log_ndtr(sums).exp()
    atol = 1e-15 if name == "gelu_tanh" else 1e-300
    torch.testing.assert_close(torch.as_tensor(found), expected, rtol=1e-9, atol=atol)
    steepest = x.grad.abs().max()
    assert steepest <= activation.slope <= 1.01 * steepest
    assert (torch.as_tensor(error) >= 2.0**-10 * x.grad.abs()).all()


@pytest.mark.parametrize(
    ("operation", "wrong"),
    [
        ("bf16.nt+silu+gated", "bf16.nt+gated"),
        ("bf16.nt+bias+gelu_tanh+gated", "bf16.nt+bias+silu+gated"),
        ("f16.nn+relu+gated+residual", "f16.nn+relu+gated"),
        ("f16.nt+bias+residual", "f16.nt+bias"),
        ("bf16.nt+gelu+residual", "bf16.nt+residual+gelu"),
        ("bf16.nt+silu+gated_interleaved", "bf16.nt+silu+gated"),
        ("bf16.nt+alpha+bias+beta_residual", "bf16.nt+bias+beta_residual"),
        ("f16.nn+alpha+bias+gelu+beta_residual", "f16.nn+alpha+bias+gelu+residual"),
        ("bf16.nt->f32+alpha+bias", "bf16.nt->f32+bias"),
    ],
)
@pytest.mark.parametrize("exact_sums", [False, True])
def test_another_epilogue_is_wrong(operation: str, wrong: str, exact_sums: bool) -> None:
    launch, problem = launch_of_all(), Problem(M, N, K, operation_of(operation))
    for text, outcome in ((operation, Proof), (wrong, Failure)):
        device: Any = PythonKernel(text)
        judged = verify(device, SimpleNamespace(symbol="k"), launch, problem, 3, 8, exact_sums)
        assert isinstance(judged, outcome), judged


def test_gates_and_what_they_gate_are_not_exchanged() -> None:
    class Exchanged(PythonKernel):
        def product(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return torch.cat(super().product(a, b).chunk(2, 1)[::-1], 1)

    launch, problem = launch_of_all(), Problem(M, N, K, operation_of("bf16.nt+silu+gated"))
    device: Any = Exchanged("bf16.nt+silu+gated")
    assert isinstance(verify(device, SimpleNamespace(symbol="k"), launch, problem, 3), Failure)


@pytest.mark.parametrize("operation", ["bf16.tn->f32", "bf16.nt+bias"])
def test_a_kernel_that_overwrites_c_does_not_accumulate(operation: str) -> None:
    launch, problem = launch_of_all(), Problem(M, N, K, operation_of(f"{operation}+accumulate"))
    device: Any = PythonKernel(operation)
    judged = verify(device, SimpleNamespace(symbol="k"), launch, problem, 3, 8)
    assert isinstance(judged, Failure)
    assert judged.status is Status.WRONG


@pytest.mark.parametrize(
    ("operation", "texts"),
    [("bf16.nt", ("bf16.nn",)), ("f16.tt", ("f16.tn", "f16.nt"))],
)
def test_another_layout_is_wrong(operation: str, texts: tuple[str, ...]) -> None:
    """Of square matrices, whose shapes do not tell."""
    problem, rounded = Problem(32, 32, 32, operation_of(operation)), TORCH[operation_of(operation).c]
    operands = random_operands(problem, 1)
    a, b = (torch.from_numpy(operands.stored[name].view(np.int16)).view(rounded) for name in ("a", "b"))
    for text in (operation, *texts):
        output = to_nearest(torch_product(text, a, b), rounded).view(torch.int16).numpy().view(np.uint16)
        mismatch = compare(output, operands)
        assert (mismatch is None) == (text == operation), text


def one_term(values: np.ndarray, dtype: str, scale: float = 1.0) -> Operands:
    """A problem of one product each: `values` [m] times `scale`."""
    problem = Problem(len(values), 1, 1, operation_of(f"{dtype}.nt"))
    form = DTYPES[dtype]
    stored = {
        "a": form.bits(values.astype(np.float32)).reshape(-1, 1),
        "b": form.bits(np.array([[scale]], np.float32)),
    }
    return Operands(problem, stored, answer_of(problem, stored))


def bits_of(values: np.ndarray, dtype: str) -> np.ndarray:
    return torch.from_numpy(np.ascontiguousarray(values)).to(TORCH[dtype]).view(torch.int16).numpy().view(np.uint16)


def test_subnormal_outputs_round_to_their_own_steps() -> None:
    """Products from half of float16's smallest step to its smallest normal number."""
    steps = np.random.default_rng(0).integers(1, 2048, 500) * 2.0**-1
    steps = steps[steps % 1 != 0.5]  # a tie may go either way
    operands = one_term(steps * 2.0**-10, "f16", 2.0**-14)
    right = bits_of((steps * 2.0**-24).astype(np.float32)[:, None], "f16")
    assert compare(right, operands) is None
    assert right.max() <= 0x0400
    for wrong in (right + 1, right - 1, np.zeros_like(right)):
        mismatch = compare(wrong, operands)
        assert mismatch is not None
        assert mismatch.wrong == len(steps)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("a", "b", "right"), [(1598, 41, 65504.0), (2047, 32, 65504.0), (362, 181, np.inf), (1024, 96, np.inf)]
)
def test_what_is_beyond_the_largest_number_is_infinite(a: int, b: int, right: float, sign: float) -> None:
    """float16 overflows from 65520 on, half of a step beyond 65504; the products are 65518, 65504, 65522 and 98304."""
    operands = one_term(np.array([float(a)]), "f16", sign * b)
    for output in (65504.0, 65472.0, np.inf, -np.inf, np.nan):
        found = compare(bits_of(np.array([[sign * output]], np.float32), "f16"), operands)
        assert (found is None) == (output == right), (output, found)


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_one_step_off_is_wrong_wherever_the_sum_is_not_near_a_tie(dtype: str) -> None:
    values = np.random.default_rng(1).standard_normal(2000)
    operands = one_term(values, dtype, 1.71875)
    exact = operands.answer.exact
    right = bits_of(exact.astype(np.float32), dtype)
    assert compare(right, operands) is None
    for wrong in (right + 1, right - 1):
        mismatch = compare(wrong, operands)
        assert mismatch is not None
        assert mismatch.wrong > 0.95 * mismatch.elements


def test_both_kinds_of_arrays_hold_the_same_numbers() -> None:
    values = np.concatenate([np.random.default_rng(2).standard_normal(4000) * 2.0**e for e in (0, 16, -20, -140)])
    for dtype in DTYPES.values():
        arrays = TorchArrays("cpu")
        there = arrays.encoded(torch.from_numpy(values), dtype)
        here = HOST.encoded(values, dtype)
        np.testing.assert_array_equal(here, there.numpy().view(here.dtype))
        np.testing.assert_array_equal(dtype.values(here).astype(np.float64), arrays.decoded(there, dtype).numpy())


@pytest.mark.parametrize(
    ("problem", "seed", "sha256"),
    [
        (Problem(33, 70, 64, BF16_NT), 3, "a57f2f79ce36acc32b8677e3620fc0e10e8e272be5d213a40e3414f3d9098ce2"),
        (Problem(17, 24, 40, BF16_NT_BIAS), 1, "fae3ce489727063da83107c3a337b3115e465fdf0f2f28878f932380d83b9f97"),
    ],
)
def test_seeded_operands_are_those_of_recorded_proofs(problem: Problem, seed: int, sha256: str) -> None:
    """Taken on 2026-11-29, before there were other operations: remembered proofs and recorded errors are of these."""
    stored = random_operands(problem, seed).stored
    assert hashlib.sha256(b"".join(stored[name].tobytes() for name in stored)).hexdigest() == sha256


@pytest.mark.parametrize(
    "text",
    ["grouped8.bf16.tt", "batched8.f16.nn+bias", "grouped8.e4m3.nt.tensor->bf16",
     "bf16.nt.rows", "i32.nt", "i8*bf16.nt->bf16", "mxfp4*bf16.nt->bf16",
     "mxfp4.nn->bf16", "mxfp4.nt", "mxfp4.nt.rows->bf16", "e5m2.nt", "i8.nt", "bf16.nt->i32", "i8.nt.rows->i32",
     "i8.nt->i32+bias", "bf16.nt->e4m3+accumulate", "batched8.bf16.nt->e4m3", "bf16.nt->e5m2"],
)  # fmt: skip
def test_an_operation_without_a_reference_is_refused(text: str) -> None:
    with pytest.raises(
        InputError, match=f"operation {re.escape(text)}: its operands are not known: .*known (are|is) "
    ) as refused:
        random_operands(Problem(8, 8, 8, operation_of(text)), 0)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "bytes_", "shapes"),
    [
        ("bf16.nt", 2 * (2 * 5 + 3 * 5 + 2 * 3), {"a": (2, 5), "b": (3, 5), "c": (2, 3)}),
        ("f16.tn+bias", 2 * (2 * 5 + 3 * 5 + 2 * 3 + 3), {"a": (5, 2), "b": (5, 3), "bias": (3,), "c": (2, 3)}),
        (
            "f16.nn->f32+bias",
            2 * (2 * 5 + 3 * 5) + 4 * (2 * 3 + 3),
            {"a": (2, 5), "b": (5, 3), "bias": (3,), "c": (2, 3)},
        ),
        (
            "bf16.nt+bias+silu+gated+residual",
            2 * (2 * 5 + 6 * 5 + 6 + 2 * (2 * 3)),
            {"a": (2, 5), "b": (6, 5), "bias": (6,), "residual": (2, 3), "c": (2, 3)},
        ),
        (
            "bf16.nt->e4m3+alpha+bias+silu+gated_interleaved+beta_residual",
            2 * (2 * 5 + 6 * 5 + 6 + 2 * 3) + 2 * 3 + 3 * 4,
            {"a": (2, 5), "b": (6, 5), "alpha": (1,), "bias": (6,), "residual": (2, 3), "beta": (1,), "scale_c": (1,)}
            | {"c": (2, 3)},
        ),
        (
            "e4m3.nt.blocks->bf16+gated",
            2 * 5 + 6 * 5 + 4 * (2 + 1) + 2 * (2 * 3),
            {"a": (2, 5), "b": (6, 5), "scale_a": (2, 1), "scale_b": (1, 1), "c": (2, 3)},
        ),
    ],
)
def test_bytes_shapes_and_strides_are_those_of_storage(
    text: str, bytes_: int, shapes: dict[str, tuple[int, ...]]
) -> None:

    problem = Problem(2, 3, 5, operation_of(text))
    assert problem.bytes == bytes_
    assert {name: operand.shape(problem.sizes) for name, operand in operands_of(problem.operation).items()} == shapes
    strides = {
        f"ld{name}": shape[1] + (14 if name == "residual" else 7) for name, shape in shapes.items() if len(shape) == 2
    }
    increments = {"incscale_a": 1} if problem.operation.scales == "blocks" else {}
    assert problem.numbers(7) == {"m": 2, "n": 3, "k": 5, **strides, **increments}
    assert strides["ldc"] == 10
