"""The text of an operation, its formats, and what templates make of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from epilogues import epilogues
from hypothesis import given
from hypothesis import strategies as st

from hktune.core.dtype import BF16, DTYPES, F16, F32, Dtype
from hktune.core.errors import InputError
from hktune.core.operation import (
    ACCUMULATIONS,
    BF16_NT,
    BF16_NT_BIAS,
    COUNT_MAX,
    COUNTED,
    KINDS,
    LAYOUTS,
    SCALES,
    Operation,
    legacy_operation,
    legacy_words,
    operation_of,
)
from hktune.core.problem import Problem

NAMES = st.sampled_from(sorted(DTYPES))
OPERATIONS = st.builds(
    Operation,
    a=NAMES,
    b=NAMES,
    c=NAMES,
    layout=st.sampled_from(LAYOUTS),
    epilogue=epilogues(),
    scales=st.sampled_from(("", *SCALES)),
    kind=st.sampled_from(KINDS),
    accumulation=st.sampled_from(("", *ACCUMULATIONS)),
)
OPERATIONS = st.builds(
    lambda operation, count: replace(operation, count=count if operation.kind in COUNTED else 0),
    OPERATIONS,
    st.integers(0, COUNT_MAX),
)


@pytest.mark.parametrize(
    ("text", "operation"),
    [
        ("bf16.nt", Operation()),
        ("bf16.nt+bias", Operation(epilogue=("bias",))),
        ("f16.nn->f32", Operation("f16", "nn", c="f32")),
        ("bf16*f16.tn", Operation("bf16", "tn", b="f16")),
        ("bf16.nn+bias+gelu_tanh", Operation(layout="nn", epilogue=("bias", "gelu_tanh"))),
        ("grouped.bf16.nt", Operation(kind="grouped")),
        ("batched.f16.tt.rows->bf16+bias", Operation("f16", "tt", "f16", "bf16", ("bias",), "rows", "batched")),
        ("mxfp4.nt->bf16", Operation("mxfp4", c="bf16")),
        ("i8.nt.rows->bf16", Operation("i8", c="bf16", scales="rows")),
        ("e4m3.nt.fast->bf16", Operation("e4m3", c="bf16", accumulation="fast")),
        ("e4m3.nt.rows.fast->f32+bias", Operation("e4m3", "nt", "", "f32", ("bias",), "rows", accumulation="fast")),
        ("e4m3*e5m2.nn.blocks->f32+bias", Operation("e4m3", "nn", "e5m2", "f32", ("bias",), "blocks")),
        ("bf16.nt+bias+silu+gated+residual", Operation(epilogue=("bias", "silu", "gated", "residual"))),
        ("bf16.nt+silu+gated_interleaved", Operation(epilogue=("silu", "gated_interleaved"))),
        ("f16.nn+alpha+bias+beta_residual", Operation("f16", "nn", epilogue=("alpha", "bias", "beta_residual"))),
        ("bf16.nt->e4m3+bias", Operation(c="e4m3", epilogue=("bias",))),
        ("e4m3.nt.tensor", Operation("e4m3", scales="tensor")),
    ],
)
def test_an_operation_has_the_text_that_it_is_read_from(text: str, operation: Operation) -> None:
    assert operation_of(text) == operation
    assert str(operation) == text


@given(OPERATIONS)
def test_every_operation_is_read_back_from_its_text(operation: Operation) -> None:
    assert operation_of(str(operation)) == operation


@given(OPERATIONS, OPERATIONS)
def test_texts_are_equal_for_equal_operations_alone(one: Operation, other: Operation) -> None:
    assert (str(one) == str(other)) == (one == other)
    assert (hash(one) == hash(other)) >= (one == other)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must read like"),
        ("bf16", "must read like"),
        ("bf16.nt+", "must read like"),
        ("BF16.nt", "must read like"),
        ("bf16.nt+gelu\n", "must read like"),
        ("bf16.xy", "must read like"),
        ("bf17.nt", f"dtype 'bf17' is not known: known are {', '.join(DTYPES)}"),
        ("bf16.nt+mish", "step 'mish' is not known: known are bias, accumulate, relu, gelu, gelu_tanh, silu"),
        ("bf16.nt+bias+bias", "a step twice"),
        ("batched00.bf16.nt+bias", "is of no product: say how many, such as batched8.bf16.nt+bias"),
        ("bf16.nt+residual+bias", "must be written +bias+residual"),
        ("bf16.nt+silu+bias+gated", "+gated comes after +alpha or not, +bias or not, and then one activation or none"),
        ("bf16.nt+accumulate+gated", "+gated comes after"),
        ("bf16.nt+relu+gelu+gated", "+gated comes after"),
        ("bf16.nt+bias+alpha", "must be written +alpha+bias"),
        ("bf16.nt+beta_residual+bias", "must be written +bias+beta_residual"),
        ("bf16.nt+residual+beta_residual", "has +residual and +beta_residual: keep one of them"),
        ("bf16.nt+gated+gated_interleaved", "has +gated and +gated_interleaved: keep one of them"),
        ("bf16.nt+residual+gated_interleaved", "+gated_interleaved comes after"),
        ("sparse.bf16.nt", "kind 'sparse' is not known"),
        ("bf16.nt.odd", "scales 'odd' is not known"),
        ("gemm.bf16.nt", "must be written bf16.nt"),
        ("bf16*bf16.nt", "must be written bf16.nt"),
        ("bf16.nt->bf16", "must be written bf16.nt"),
        ("bf16.nt" + "+bias" * 10_000, "must read like"),
        ("\x1b[2Jbf16.nt", "must read like"),
    ],
)
def test_any_other_text_is_one_line(text: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        operation_of(text)
    assert says in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400


@given(st.text(max_size=60))
def test_no_text_is_read_as_an_operation_that_is_written_otherwise(text: str) -> None:
    try:
        operation = operation_of(text)
    except InputError:
        return
    assert str(operation) == text


def test_the_words_of_earlier_formats() -> None:
    assert legacy_operation("bf16", "none") == BF16_NT
    assert legacy_operation("bf16", "bias") == BF16_NT_BIAS
    for epilogue in ("none", "bias"):
        assert legacy_words(legacy_operation("bf16", epilogue)) == ("bf16", epilogue)
    for words, says in ((("f16", "none"), "dtype 'f16'"), (("f32", "bias"), "dtype 'f32'"), (("bf16", ""), "epilogue")):
        with pytest.raises(InputError, match=f"{says}.* is not known: known are"):
            legacy_operation(*words)
    for operation in (Operation("f16"), Operation("bf16", "nn")):
        with pytest.raises(InputError, match=r"'f16' is not known|bf16\.nn has no dtype and epilogue"):
            legacy_words(operation)


@pytest.mark.parametrize("dtype", [BF16, F16, F32], ids=str)
def test_a_format_is_what_torch_says_it_is(dtype: Dtype) -> None:
    info = torch.finfo(getattr(torch, dtype.torch_name))
    assert dtype.bytes * 8 == info.bits
    assert 2 * dtype.unit_roundoff == info.eps
    poison = torch.from_numpy(np.array([dtype.poison_bits], dtype.bits_type).view(f"i{dtype.bytes}"))
    assert poison.view(getattr(torch, dtype.torch_name)).isnan().all()


@pytest.mark.parametrize("dtype", [BF16, F16, F32], ids=str)
def test_numbers_are_rounded_as_torch_rounds_them(dtype: Dtype) -> None:
    random = np.random.default_rng(1)
    wide = np.ldexp(random.standard_normal(40_000), random.integers(-160, 130, 40_000))
    info = torch.finfo(getattr(torch, dtype.torch_name))
    smallest_step = info.smallest_normal * info.eps
    near_ends = [info.max, -info.max, info.smallest_normal, smallest_step, smallest_step / 2, 0.0]
    ties = 1 + np.arange(64) * dtype.unit_roundoff / 2
    with np.errstate(over="ignore"):
        values = np.concatenate([wide, near_ends, ties]).astype(np.float32)
    values = values[np.isfinite(values)]
    expected = torch.from_numpy(values).to(getattr(torch, dtype.torch_name))
    bits = dtype.bits(values)
    assert bits.dtype == dtype.bits_type
    assert np.array_equal(bits, expected.view(getattr(torch, f"int{8 * dtype.bytes}")).numpy().view(dtype.bits_type))
    assert np.array_equal(dtype.values(bits), expected.float().numpy())


def test_a_problem_counts_the_bytes_of_its_operands() -> None:
    assert Problem(2, 3, 5).bytes == 2 * (2 * 5 + 3 * 5 + 2 * 3)
    assert Problem(2, 3, 5, operation_of("f16.nn->f32+bias")).bytes == 2 * (2 * 5 + 3 * 5) + 4 * (2 * 3 + 3)
    assert Problem(2, 3, 5, operation_of("bf16.nt->e4m3+bias")).bytes == 2 * (2 * 5 + 3 * 5 + 3) + 2 * 3 + 4
    assert Problem(2, 3, 5, operation_of("bf16.nt+beta_residual")).bytes == 2 * (2 * 5 + 3 * 5 + 2 * 2 * 3) + 4
    assert Problem(2, 3, 5).flops == 60
    assert Problem(2, 3, 5, operation_of("bf16.nt+silu+gated")).flops == 120
    assert str(Problem(2, 3, 5, BF16_NT_BIAS)) == "2x3x5 bf16.nt+bias"
