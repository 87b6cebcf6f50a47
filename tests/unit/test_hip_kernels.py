"""HIP kernels of usual kinds, compiled with hktune's own headers: every instruction is implemented, nothing is called
a hazard, values are numpy's and torch's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hip_kernels import KERNELS, PRELUDE

from hktune.compile.command_line import device_flags
from hktune.core.settings import settings_here
from hktune.verify.called_kernel import KernelResult, verify_kernel
from hktune.verify.kernel_source import kernel_code

pytest.importorskip("ziglang")


def code_of(names: list[str]) -> bytes:
    """One code object with these kernels."""
    source = PRELUDE + "\n".join(KERNELS[name].source for name in names)
    return kernel_code(source.encode(), Path("kernels.hip"), names[0], device_flags(""), settings_here())[0]


def verified(name: str, code: bytes) -> KernelResult:
    kernel = KERNELS[name]
    args = kernel.args(np.random.default_rng(7))
    whole = None if kernel.notes.get("outputs") else kernel.outputs
    return verify_kernel(
        code,
        kernel.grid,
        kernel.block,
        args,
        symbol=name,
        outputs=whole,
        reference=kernel.reference,
        tolerance=kernel.tolerance,
        lds_bytes=kernel.lds_bytes,
    )


@pytest.fixture(scope="module")
def quick() -> bytes:
    return code_of([name for name, kernel in KERNELS.items() if kernel.quick])


@pytest.mark.parametrize("name", [name for name, kernel in KERNELS.items() if kernel.quick])
def test_usual_kernels(name: str, quick: bytes) -> None:
    assert verified(name, quick).notes == ()


@pytest.fixture(scope="module")
def rest() -> bytes:
    return code_of([name for name, kernel in KERNELS.items() if not kernel.quick])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, kernel in KERNELS.items() if not kernel.quick])
def test_other_usual_kernels(name: str, rest: bytes) -> None:
    verified(name, rest)
