"""How the GPUs of a machine are chosen, and the problems shared out between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from hip_stand_in import StandIn
from hypothesis import given
from hypothesis import strategies as st

from hktune.core.errors import InputError
from hktune.core.operation import BF16_NT, BF16_NT_BIAS
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shapes import load_shapes
from hktune.tuning.benches.emulated_bench import EmulatedBench
from hktune.tuning.benches.gpu_bench import GpuBench
from hktune.tuning.benches.gpus import choose_gpus, share_out, trial_s

ROOT = Path(__file__).resolve().parents[2]
SPACE = ROOT / "search_spaces" / "sm90a_gemm_bf16.yaml"
SETTINGS = Settings(Path("/nowhere"))

sides = st.sampled_from([8, 512, 4096, 28672])
problems = st.lists(
    st.builds(Problem, sides, sides, sides, st.sampled_from([BF16_NT, BF16_NT_BIAS])),
    min_size=1,
    unique=True,
)


def family(problem: Problem) -> tuple[int, int, str, str]:
    return problem.n, problem.k, problem.operation


def work_s(share: Sequence[Problem]) -> float:
    return sum(map(trial_s, share))


@given(problems, st.integers(1, 9))
def test_every_problem_is_one_gpus_and_families_stay_together(wanted: list[Problem], gpus: int) -> None:
    shares = share_out(wanted, gpus)
    assert sorted(itertools.chain(*shares)) == sorted(wanted)
    owners = {family(problem): index for index, share in enumerate(shares) for problem in share}
    assert all(owners[family(problem)] == index for index, share in enumerate(shares) for problem in share)
    assert len(shares) == min(gpus, len(owners))
    assert all(shares)
    assert [sorted(share) for share in share_out(wanted[::-1], gpus)] == [sorted(share) for share in shares]


@given(problems, st.integers(1, 9))
def test_the_busiest_gpu_has_at_most_its_part_and_one_family_more(wanted: list[Problem], gpus: int) -> None:
    shares = share_out(wanted, gpus)
    families = [[p for p in wanted if family(p) == key] for key in {family(problem) for problem in wanted}]
    most_s = max(map(work_s, shares))
    assert most_s <= work_s(wanted) / len(shares) + max(map(work_s, families)) * (1 + 1e-9)


@pytest.mark.parametrize(("gpus", "above_mean"), [(2, 1.05), (4, 1.1), (8, 1.3)])
def test_the_shapes_of_language_models_are_spread_evenly(gpus: int, above_mean: float) -> None:
    """Of 15 families, 70B's gate-up alone is more than an eighth of the work."""
    wanted = load_shapes(ROOT / "shapes-llm.yaml").problems
    shares = share_out(wanted, gpus)
    assert max(map(work_s, shares)) <= above_mean * work_s(wanted) / gpus


def test_a_run_uses_every_gpu_it_sees_or_as_many_as_asked(stand_in: StandIn, tmp_path: Path) -> None:
    settings = Settings(tmp_path, rocm_path=stand_in.rocm_path)
    assert choose_gpus("hip", None, settings) == (0, 1)
    assert choose_gpus("hip", 1, settings) == (0,)
    with pytest.raises(InputError, match=r"^--gpus 3: this process sees 2; pass --gpus 2 or leave it out$"):
        choose_gpus("hip", 3, settings)


def test_gpus_of_two_models_are_refused_unless_one_is_asked_for(stand_in: StandIn, tmp_path: Path) -> None:
    settings = Settings(tmp_path, rocm_path=stand_in.rocm_path)
    (tmp_path / "pci" / "0000:e6:00.0" / "device").write_text("0x75a3\n")
    with pytest.raises(InputError) as refused:
        choose_gpus("hip", None, settings)
    assert str(refused.value) == (
        "GPU 0 is AMD Instinct MI350X (gfx950, 256 CUs, 1002:75a0:0ee9, SPX/NPS1), GPU 1 is AMD Instinct MI350X "
        "(gfx950, 256 CUs, 1002:75a3:0ee9, SPX/NPS1): a table is for one model; choose GPUs with HIP_VISIBLE_DEVICES, "
        "or pass --gpus 1"
    )
    assert choose_gpus("hip", 1, settings) == (0,)


def test_of_partitions_of_one_package_a_run_uses_one(stand_in: StandIn, tmp_path: Path) -> None:
    settings = Settings(tmp_path, rocm_path=stand_in.rocm_path)
    for address in ("0000:e5:00.0", "0000:e6:00.0"):
        (tmp_path / "pci" / address / "current_compute_partition").write_text("CPX\n")
    assert choose_gpus("hip", None, settings) == (0,)
    assert choose_gpus("hip", 2, settings) == (0, 1)


@pytest.mark.parametrize(("workers", "each"), [(1, [1, 1, 1]), (3, [1, 1, 1]), (8, [3, 3, 2])])
def test_the_compiling_workers_are_shared_too(workers: int, each: list[int]) -> None:
    wanted = [Problem(64, n, 64) for n in (64, 128, 256)]
    parts = GpuBench("cuda", SPACE, 0, SETTINGS, workers=workers, gpus=(0, 1, 2, 3)).parts(wanted)
    benches = [part for part, _ in parts if isinstance(part, GpuBench)]
    assert [bench.workers for bench in benches] == each
    assert [bench.gpus for bench in benches] == [(0,), (1,), (2,)], "three families keep three GPUs busy"


def test_the_emulated_device_is_one(tmp_path: Path) -> None:
    wanted = [Problem(64, n, 64) for n in (64, 128)]
    bench = EmulatedBench(SPACE, 0, Settings(tmp_path), workers=5)
    assert bench.parts(wanted) == [(bench, wanted)]
