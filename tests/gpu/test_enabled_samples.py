"""PyTorch's own samples of its matrix products on a real GPU, while `hktune.enable` is on: forward and backward.

Their sizes are 5 and 10, which 16-byte loads cannot read; here they are 8 and 16, so that most are served. The truth is
torch's own product. How many products a table was asked for, and served, is printed (`pytest -s`).
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from default_kernels import is_served, published
from torch import Tensor

import hktune
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.device.cuda import CudaDevice
from hktune.runtime import Recorder

SAMPLED = ("mm", "addmm", "bmm", "baddbmm", "matmul", "nn.functional.linear")
EPSILON = {torch.bfloat16: 2**-8, torch.float16: 2**-11, torch.float32: 2**-12}  # float32: cuBLAS may use TF32
ONE = Problem(8, 8, 8, operation_of("bf16.nt"))  # a table has at least one row


@pytest.mark.slow  # to import PyTorch's samples, and to compile each layout and format
@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("name", SAMPLED)
def test_samples_of_pytorch_hold_forward_and_backward(
    hopper: CudaDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, dtype: torch.dtype
) -> None:
    pytest.importorskip("expecttest")
    from torch.testing._internal import common_methods_invocations as theirs

    monkeypatch.setattr(theirs, "S", 8)
    monkeypatch.setattr(theirs, "M", 16)
    (op,) = (op for op in theirs.op_db if op.name == name and not op.variant_test_name)
    samples = list(op.sample_inputs("cuda", dtype, requires_grad=True))

    def results() -> list[tuple[Tensor, ...]]:
        found = []
        for sample in samples:
            operands = [each for each in (sample.input, *sample.args) if isinstance(each, Tensor)]
            out = op.op(sample.input, *sample.args, **sample.kwargs)
            slope = torch.arange(out.numel(), device="cuda").reshape(out.shape).remainder(3).to(dtype)
            wanted = [each for each in operands if each.requires_grad]
            found.append((out.detach(), *torch.autograd.grad(out, wanted, slope)))
        return found

    expected = results()
    with Recorder() as recorder:
        results()
    served = [problem for problem in sorted(recorder.calls) if is_served(problem)]
    published(tmp_path, hopper.identity, served or [ONE])
    table = hktune.load(tmp_path, allow_modelled=True)
    with hktune.enable():
        found = results()
    rtol = 2 * EPSILON[dtype]
    for mine, torchs in zip(found, expected, strict=True):
        for one, other in zip(mine, torchs, strict=True):
            torch.testing.assert_close(one, other, rtol=rtol, atol=8 * rtol)
    asked = sum(recorder.calls[problem] for problem in served)
    print(f"{name} {dtype}: {len(samples)} samples, {sum(recorder.calls.values())} products, {table.stats()}")
    assert table.stats().hits <= asked  # operands that do not begin on 16 bytes are torch's
    assert table.stats().hits > 0 or not asked
