"""Triton's gfx950 matmul, judged: compiled here with no GPU, every element compared, every hazard looked for.

    pip install triton; python benchmarks/triton_matmul.py

Shows that the emulator covers what another compiler emits, and that the hazard checker has nothing to say of it.
"""

from __future__ import annotations

import warnings
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from hktune.objects.code_object import read_code_object
from hktune.verify.kernel_file import KernelRun, judge, parse_parameters

WAVE = 64
NAMES = {"a": "*bf16", "bt": "*bf16", "c": "*bf16", "m": "i32", "n": "i32", "k": "i32"}
VARIANTS: list[tuple[int, int, int, dict[str, int]]] = [
    (64, 64, 32, {"num_warps": 4, "num_stages": 2}),
    (128, 128, 64, {"num_warps": 4, "num_stages": 2}),
    (128, 128, 32, {"num_warps": 4, "num_stages": 2, "matrix_instr_nonkdim": 32}),
    (128, 128, 64, {"num_warps": 8, "num_stages": 3}),
    (128, 256, 64, {"num_warps": 8, "num_stages": 1}),
    (256, 128, 64, {"num_warps": 8, "num_stages": 3, "matrix_instr_nonkdim": 16}),
    (256, 256, 64, {"num_warps": 8, "num_stages": 2}),
]


@triton.jit  # type: ignore[untyped-decorator]
def matmul(a, bt, c, m, n, k, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: ARG001, N803
    block = tl.program_id(0)
    rows = block // (n // BN) * BM + tl.arange(0, BM)
    columns = block % (n // BN) * BN + tl.arange(0, BN)
    depth = tl.arange(0, BK)
    a_tile = a + rows[:, None] * k + depth[None, :]
    b_tile = bt + columns[None, :] * k + depth[:, None]
    total = tl.zeros((BM, BN), tl.float32)
    for _ in range(0, k, BK):
        total += tl.dot(tl.load(a_tile), tl.load(b_tile))
        a_tile += BK
        b_tile += BK
    tl.store(c + rows[:, None] * n + columns[None, :], total.to(tl.bfloat16))


def compiled(sizes: tuple[int, int, int], options: dict[str, int]) -> Any:
    constants = dict(zip(("BM", "BN", "BK"), sizes, strict=True))
    signature = NAMES | dict.fromkeys(constants, "constexpr")
    aligned = {(i,): [["tt.divisibility", 16]] for i in range(len(NAMES))}
    source = ASTSource(matmul, signature=signature, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=GPUTarget("hip", "gfx950", WAVE), options=options)


def main() -> None:
    warnings.filterwarnings("ignore")
    for m, n, k, options in VARIANTS:
        kernel = compiled((m, n, k), options)
        data = kernel.asm["hsaco"]
        image = read_code_object(data).kernels["matmul"]
        unnamed = len([slot for slot in image.arguments if not slot.hidden]) - len(NAMES)
        scratch = " ".join(f"scratch{i}:u8[16]" for i in range(unnamed))
        parameters = parse_parameters(f"a:bf16[m,k] bt:bf16[n,k] c:out:bf16[m,n] m n k {scratch}")
        dynamic = max(0, kernel.metadata.shared - image.resources.lds_bytes)
        numbers = {"m": 2 * m, "n": 2 * n, "k": 6 * k}
        run = KernelRun(parameters, numbers, "4", str(WAVE * options["num_warps"]), str(dynamic), gemm=True)
        verdict = judge(data, "matmul", run)
        print(f"{m}x{n}x{k} {options}: {verdict.failure or 'right, no hazard'}")


if __name__ == "__main__":
    main()
