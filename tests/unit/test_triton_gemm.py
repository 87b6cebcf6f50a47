"""The Triton GEMM: its order of workgroups without Triton, its proofs with it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from hktune.compile import TritonCompiler
from hktune.core.candidate import Candidate
from hktune.core.operation import operation_of
from hktune.core.shapes import load_shapes
from hktune.core.shipped import KERNELS, SPACES
from hktune.core.variant import CodeObject
from hktune.device.hip import HipDevice
from hktune.emulator.clock.memory_traffic import tiles_of
from hktune.space import SearchSpace, load_space
from hktune.verify import Proof, verify
from hktune.verify.record import RecordStore
from hktune.workers.prover import Prover, compiled

ROOT = Path(__file__).resolve().parents[2]
XCDS = 8


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return load_space(SPACES / "gfx950_triton_gemm.yaml")


@pytest.fixture
def place_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, int]]:
    """The kernel's function as Python alone sees it."""
    triton, language = ModuleType("triton"), ModuleType("triton.language")
    monkeypatch.setattr(triton, "jit", lambda function: function, raising=False)
    monkeypatch.setattr(triton, "language", language, raising=False)
    monkeypatch.setattr(language, "constexpr", int, raising=False)
    monkeypatch.setitem(sys.modules, "triton", triton)
    monkeypatch.setitem(sys.modules, "triton.language", language)
    path = KERNELS / "gfx950" / "triton_gemm" / "matmul.py"
    module = SimpleNamespace(**{"__name__": "matmul"})
    exec(compile(path.read_text(), path, "exec"), vars(module))
    function: Callable[..., tuple[int, int]] = module.place_of
    return function


def test_workgroups_take_tiles_in_the_order_that_the_clock_assumes(place_of: Callable[..., tuple[int, int]]) -> None:
    for tiles_m, tiles_n, chunk, group in itertools.product((1, 3, 8, 13), (1, 5, 16), (1, 4, 32), (1, 4, 16)):
        ids = np.arange(tiles_m * tiles_n)
        rows, columns = tiles_of(ids, tiles_m, tiles_n, XCDS, chunk, group)
        ours = [place_of(tile, tiles_m, tiles_n, XCDS, chunk, group) for tile in range(len(ids))]
        assert ours == list(zip(rows.tolist(), columns.tolist(), strict=True))


def test_every_shape_has_configs_and_seeds(space: SearchSpace) -> None:
    for problem in load_shapes(ROOT / "shapes.yaml").problems:
        bound = space.for_operation(problem.operation)
        assert len(bound.domain(problem).seeds) >= 2, problem


def prover(space: SearchSpace, folder: Path) -> Prover:
    pytest.importorskip("triton", reason="pip install 'hktune[triton]'")
    return Prover(space.template, TritonCompiler(), RecordStore(folder), seed=0)


@pytest.mark.parametrize(
    "words",
    [
        "block_m=16 block_n=64 block_k=128 nonkdim=16",
        "block_m=32 block_n=64 block_k=128 nonkdim=16 split_k=2",
        "block_m=64 block_n=64 block_k=128 nonkdim=16 whole_k=false whole_vectors=false",
    ],
)
@pytest.mark.parametrize("operation", ["bf16.nt", "f16.nt"])
def test_a_config_is_right_in_every_element_and_waits_for_what_it_reads(
    space: SearchSpace, tmp_path: Path, words: str, operation: str
) -> None:
    config = space.parse(words.split())
    attempt = prover(space, tmp_path)(Candidate(config, operation_of(operation)))
    assert attempt.failure is None
    assert attempt.profile is not None


@pytest.mark.slow
def test_every_seed_is_right(space: SearchSpace, tmp_path: Path) -> None:
    prove = prover(space, tmp_path)
    for seed in space.seeds:
        assert prove(Candidate(seed, space.template.operation)).failure is None, seed


@pytest.mark.rocm_virtual
@pytest.mark.parametrize("words", ["block_m=16 block_n=64 block_k=128 nonkdim=16", "block_m=64 nonkdim=16 split_k=2"])
def test_amds_runtime_launches_it(space: SearchSpace, rocm_virtual: HipDevice, tmp_path: Path, words: str) -> None:
    """AMD's runtime fills what Triton hides behind the arguments, and gives the LDS that the object says."""
    config = space.parse(f"{words} num_stages=4".split())
    code = compiled(
        space.template, prover(space, tmp_path).compiler, Candidate(config, space.template.operation), 120.0
    )
    assert isinstance(code, CodeObject), code
    kernel = rocm_virtual.load(code.data, code.symbol)
    for proof in space.template.proof_problems(config)[:2]:
        launch = space.template.launch(config, proof.problem)
        outcome = verify(rocm_virtual, kernel, launch, proof.problem, 1, proof.padding, proof.exact_sums)
        assert isinstance(outcome, Proof), outcome
