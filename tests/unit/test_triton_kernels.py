"""Triton kernels of usual kinds: every instruction is implemented, nothing is called a hazard, values are torch's.

Where Triton is installed all are compiled for gfx950; elsewhere some that were compiled before are run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hktune.cli import main
from hktune.verify.called_kernel import verify_kernel

RECORDED = Path(__file__).resolve().parents[1] / "recorded" / "triton_kernels"


def scaled(a: torch.Tensor, sa: torch.Tensor, b: torch.Tensor, sb: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    left, right = (
        values.double() * torch.exp2(scale.double() - 127).repeat_interleave(32, 1)
        for values, scale in ((a, sa), (b, sb))
    )
    return (left @ right.T).float()


def elementary(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    x, size = x.double(), x.double().abs()
    logs = torch.log(size + 1) + torch.log2(size + 2)
    return x.sin() + x.cos() + logs + x.floor() + x.ceil() + size.sqrt() + torch.exp2(x * 0.1)


def bytes_of_scale() -> torch.Tensor:
    return torch.randint(120, 134, (32, 4), dtype=torch.uint8)


def f8(*shape: int) -> torch.Tensor:
    return torch.randn(*shape).to(torch.float8_e4m3fn)


def half(*shape: int) -> torch.Tensor:
    return torch.randn(*shape).half()


CASES: dict[str, tuple[Any, ...]] = {
    "softmax": (3, lambda: [torch.randn(3, 700), torch.zeros(3, 700), 700], lambda x, *_: torch.softmax(x, 1), None),
    "cumsum_rows": (
        2,
        lambda: [torch.randn(2, 256), torch.zeros(2, 256)],
        lambda x, _: torch.cumsum(x.double(), 1),
        (1e-5, 1e-4),
    ),
    "histogram": (
        1,
        lambda: [torch.randint(0, 32, (512,), dtype=torch.int32), torch.zeros(32, dtype=torch.int32)],
        lambda x, _: torch.bincount(x, minlength=32),
        None,
    ),
    "elementary": (1, lambda: [torch.randn(256) * 3, torch.zeros(256)], elementary, (1e-5, 1e-5)),
    "matmul_mx": (
        1,
        lambda: [f8(32, 128), bytes_of_scale(), f8(32, 128), bytes_of_scale(), torch.zeros(32, 32)],
        scaled,
        (1e-4, 1e-3),
    ),
    "attention": (
        (2, 2),
        lambda: [half(2, 64, 64), half(2, 128, 64), half(2, 128, 64), torch.zeros(2, 64, 64).half(), 64, 128, 0.125],
        lambda q, k, v, *_: torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double()),
        (1e-2, 2e-3),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_kernels_that_triton_made_before(name: str) -> None:
    """Waves, LDS and scratch are read from what Triton left next to the code object."""
    grid, args, reference, tolerance = CASES[name]
    torch.manual_seed(3)
    outputs = {"matmul_mx": [4], "attention": [3]}.get(name, [1])
    verify_kernel(
        RECORDED / f"{name}.hsaco", grid, args=args(), outputs=outputs, reference=reference, tolerance=tolerance
    )


def test_the_command_reads_what_triton_says_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "truth.py").write_text("import numpy\ndef truth(x): return numpy.cumsum(x.astype(float), 1)\n")
    command = ["verify", "--args", "x:f32[2,256] y:out:f32[2,256]", "--grid", "2", "--tolerance", "1e-5,1e-4"]
    command += ["--reference", f"{tmp_path / 'truth.py'}:truth", "--kernel"]
    assert main([*command, str(RECORDED / "cumsum_rows.hsaco")]) == 0
    assert "cumsum_rows: no hazard found; outputs are as expected" in capsys.readouterr().out
    alone = tmp_path / "alone.hsaco"
    alone.write_bytes((RECORDED / "cumsum_rows.hsaco").read_bytes())
    assert main([*command, str(alone), "--block", "256", "--lds", "64"]) == 0
    assert "2 arguments, nameless pointers, are taken for Triton's scratch" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # Triton's own, of its later versions
def test_all_kernels() -> None:
    pytest.importorskip("triton", reason="pip install 'hktune[triton]'")
    from triton_kernels import KERNELS

    assert len(KERNELS) >= 30
    for name, kernel in KERNELS.items():
        torch.manual_seed(3)
        result = verify_kernel(
            kernel.function,
            kernel.grid,
            args=kernel.args(),
            constants=kernel.constants,
            options=kernel.options,
            outputs=kernel.outputs,
            reference=kernel.reference,
            tolerance=kernel.tolerance,
            check=False,
        )
        assert result.right, f"{name}: {result}"
