"""Boards of one architecture differ in how many compute units they have: launches count those of the device, in a run,
in the process that owns a GPU, and in a table. Kernels, and what is proved of them, are the same.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from made_up_gpus import H200, find_gpus
from simulated_gpu import SimulatedGpu

from hktune.core.config import Config
from hktune.core.identity import Identity
from hktune.core.launch import Launch
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.measure.stopwatch import Attempt
from hktune.space import SearchSpace, load_space, load_spaces
from hktune.tuning.begun_run import begin
from hktune.tuning.callbacks import Callbacks
from hktune.tuning.run_options import RunOptions
from hktune.workers import gpu_service
from hktune.workers.gpu_service import GpuService

SPACES = Path("search_spaces")
SM90A, TRITON = SPACES / "sm90a_gemm_bf16.yaml", SPACES / "gfx950_triton_gemm.yaml"
# SMs: NVIDIA's data sheets of H100 PCIe, H20, H200 (and H100 SXM, GH200), and of an H200's smallest MIG part.
UNITS = (114, 78, 132, 16)
H20 = replace(H200, name="NVIDIA H20", compute_units=78, pci_id="10de:2329:198b")
MANY, FEW = Problem(8192, 8192, 512), Problem(100, 200, 512)


@pytest.fixture(scope="module")
def sm90a() -> SearchSpace:
    return load_space(SM90A)


def staying(space: SearchSpace) -> list[Config]:
    """Configs whose blocks stay, in clusters of several sizes, one and two blocks of them on an SM."""
    values = [
        {"cluster_rows": rows, "cluster_columns": columns, "block_m": m, "block_n": n, "blocks_per_sm": blocks}
        for rows, columns, m, n, blocks in product((1, 2), (1, 2), (64, 128), (64, 128, 256), (1, 2))
    ]
    configs = [space.config({**each, "persistent": True}) for each in values]
    return [config for config in configs if space.is_legal(config)]


def blocks_that_stay(space: SearchSpace, config: Config, units: int) -> int:
    """In whole clusters, as many as so many SMs hold."""
    cluster = int(config["cluster_rows"]) * int(config["cluster_columns"])
    return units * int(config["blocks_per_sm"]) // cluster * cluster


@pytest.mark.parametrize("units", UNITS)
def test_blocks_stay_on_the_sms_that_there_are(sm90a: SearchSpace, units: int) -> None:
    own, configs = sm90a.on(units), staying(sm90a)
    assert len(configs) > 8
    for config in configs:
        wanted = blocks_that_stay(sm90a, config, units)
        for launch in (own.template.launch(config, MANY), own.launch_rule(config, MANY).at(MANY.m)):
            assert launch is not None
            assert launch.grid == (wanted, 1, 1), config
        few = own.template.launch(config, FEW).grid[0]
        assert few == own.launch_rule(config, FEW).at(FEW.m).grid[0] <= wanted  # type: ignore[union-attr]


def test_kernels_and_their_proofs_are_the_same_on_all(sm90a: SearchSpace) -> None:
    for config in staying(sm90a)[:3]:
        for units in UNITS:
            own = sm90a.on(units).template
            assert own.render(config) == sm90a.template.render(config)
            assert own.proof_problems(config) == sm90a.template.proof_problems(config)
            assert own.sha256 == sm90a.template.sha256


@pytest.mark.parametrize("identity", [H200, H20], ids=lambda each: each.name)
def test_a_run_counts_the_sms_of_its_gpu(
    identity: Identity, sm90a: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="pip install 'hktune[cuda]'")
    find_gpus(monkeypatch, 1, identity)
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text("shapes:\n  - {m: 8192, n: 8192, k: 512}\n")
    options = RunOptions(shapes, device="cuda", out=tmp_path / "out", workers=1)
    run = begin(options, Settings(tmp_path / "cache"), [], Callbacks(), None)
    config = staying(sm90a)[0]
    wanted = blocks_that_stay(sm90a, config, identity.compute_units)
    launch = run.place.spaces.of(sm90a.template.sha256).launch_rule(config, MANY).at(MANY.m)
    assert launch is not None
    assert launch.grid == (wanted, 1, 1)
    assert run.context.templates.own.launch(config, MANY).grid == (wanted, 1, 1)


@pytest.mark.parametrize("identity", [H200, H20], ids=lambda each: each.name)
def test_so_does_the_process_that_owns_it(
    identity: Identity, sm90a: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gpu(SimulatedGpu):
        pass

    Gpu.identity = identity
    launched: list[Launch] = []

    def proved(device: object, kernel: object, launch: Launch, *_: object) -> Any:
        launched.append(launch)
        return SimpleNamespace(relative_error=0.0)

    monkeypatch.setattr(gpu_service, "open_device", lambda *_: Gpu())
    monkeypatch.setattr(gpu_service, "TimedDevice", Gpu)
    monkeypatch.setattr(gpu_service, "verify_on_device", proved)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(gpu_service.Serving, "_load", lambda *_: None)
    serving = GpuService("cuda", SM90A, lambda: None, (), Settings(tmp_path))()  # type: ignore[arg-type,return-value]
    config = staying(sm90a)[0]
    serving.proved(Attempt(config, sm90a.template.operation, template=sm90a.template.sha256))
    assert max(launch.grid[0] for launch in launched) == blocks_that_stay(sm90a, config, identity.compute_units)


@pytest.mark.parametrize("units", [256, 128, 64, 32])
def test_a_partition_of_an_amd_gpu_has_the_rules_of_its_own(units: int) -> None:
    """MI350X and MI355X have 256 compute units, an eighth of them in the mode CPX. A table serves the rows for which a
    config is legal there."""
    space = load_spaces([TRITON]).on(units).own
    counted = 0
    for words, m in product(
        ({"split_k": 2}, {"split_k": 4}, {"block_m": 256, "num_warps": 8}), (64, 1024, 4096, 32768)
    ):
        config, problem = space.config(words), Problem(m, 2048, 4096)
        served = space.launch_rule(config, problem).at(m) is not None
        assert served == space.is_legal(config, problem), (words, m)
        counted += served
    assert counted
