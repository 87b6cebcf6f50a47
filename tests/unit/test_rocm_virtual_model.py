"""The model library of scripts/rocm-virtual, driven without ROCm: packets, signals, kernels, and what cannot go on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from gfx950_code import assemble
from rocm_virtual.set_up import build_model
from test_hip_device import STORE

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "built"
    build_model(folder)
    (folder / "store").write_bytes(assemble(STORE, pointers=1))
    return folder


def run(model: Path, case: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HSA_MODEL_LIB": str(model / "libmodel.so"), "PYTHONPATH": str(ROOT / "scripts")}
    client = Path(__file__).with_name("rocm_model_client.py")
    return subprocess.run(
        [sys.executable, client, case, model / "store"],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("case", ["barriers", "barrier_values", "order", "kernel"])
def test_packets_are_carried_out(model: Path, case: str) -> None:
    done = run(model, case)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.parametrize(
    ("case", "line"),
    [
        ("fault", "virtual GPU: hazard: global_store_dword "),
        ("part_of_a_workgroup", "virtual GPU: crashed: a grid of (100, 1, 1) work-items is not whole workgroups of "),
        ("unknown", "virtual GPU: a queue holds a packet of an unknown type"),
    ],
)
def test_what_cannot_go_on_is_a_line_and_the_end(model: Path, case: str, line: str) -> None:
    done = run(model, case)
    assert done.returncode < 0
    (said,) = [each for each in done.stderr.splitlines() if each.startswith("virtual GPU")]
    assert said.startswith(line)
