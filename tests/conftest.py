"""Fixtures that more than one folder of tests needs."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from toy_space import TOY_SOURCE, TOY_SPACE, TOY_TEMPLATE, space_in

if TYPE_CHECKING:
    from hip_stand_in import StandIn

    from hktune.device.hip import HipDevice


for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # each core has a process already, and threads of several wait for one another
os.environ["HKTUNE_RIVALS"] = "none"  # kernels of others take seconds, and are raced by the tests of that alone


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden files anew instead of comparing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs AMD's own HIP runtime, with the packages that the mark names, where scripts/rocm-virtual has not
    set it up."""
    for item in items:
        mark = item.get_closest_marker("rocm_virtual")
        packages = mark.args[0] if mark and mark.args else "runtime"
        if mark and os.environ.get("HKTUNE_ROCM_VIRTUAL") != packages:
            command = f"scripts/rocm-virtual --packages {packages}"
            item.add_marker(pytest.mark.skip(reason=f"needs AMD's HIP runtime over a virtual GPU: {command} runs it"))


@pytest.fixture(autouse=True)
def nothing_left_over() -> Iterator[None]:
    """No table is current, torch's own products are torch's, and compilers have no pass of hktune's, whatever another
    test did. A test that imports no runtime is not made to."""
    _leave_nothing()
    yield
    _leave_nothing()


def _leave_nothing() -> None:
    modules = sys.modules
    if "hktune.runtime" not in modules:
        return
    runtime, operators = modules["hktune.runtime"], modules["hktune.runtime.operators"]
    runtime.disable()
    runtime.unload()
    operators.when_traced.clear()
    config = modules.get("torch._inductor.config")
    if config is not None and type(config.post_grad_custom_pre_pass).__name__ == "HktuneGraphFusion":
        config.post_grad_custom_pre_pass = None


@pytest.fixture
def rocm_virtual() -> HipDevice:
    """The HIP device over AMD's own runtime, whose GPU is emulated."""
    from hktune.device.hip import HipDevice

    return HipDevice(rocm_path=Path(os.environ["ROCM_PATH"]))


@pytest.fixture(scope="session")
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether a test writes its golden files anew."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """What presses Ctrl-C, from any thread. A shell starts its background jobs deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def toy_space_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML of a small search space with coupled parameters, its template beside it in ../kernels/gfx950/toy."""
    return space_in(tmp_path_factory.mktemp("toy"), "gfx950/toy.hip", TOY_TEMPLATE, TOY_SOURCE, TOY_SPACE)


@pytest.fixture
def own_toy_space_path(toy_space_path: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    root = shutil.copytree(toy_space_path.parent.parent, tmp_path / "toy")
    return root / "search_spaces" / "toy.yaml"


@pytest.fixture(scope="session")
def stand_in_rocm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like ROCm's with a HIP runtime in it that has no device."""
    pytest.importorskip("ziglang")
    from hip_stand_in import build

    return build(tmp_path_factory.mktemp("rocm")).parent.parent


@pytest.fixture
def stand_in(stand_in_rocm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Two emulated MI350X behind that runtime, and the kernel driver's files about them."""
    import torch
    from hip_stand_in import StandIn

    from hktune.device import hip_identity, hip_library, hip_sensors

    # On a machine with ROCm the runtime that torch has loaded would come first.
    monkeypatch.setattr(hip_library, "_loaded", list)
    monkeypatch.setattr(hip_library, "_package_folder", lambda name: None)
    hip_library.hip_library.cache_clear()
    for module in (hip_identity, hip_sensors):
        monkeypatch.setattr(module, "PCI_DEVICES", tmp_path / "pci")
    monkeypatch.setattr(torch.version, "hip", "7.0.51831", raising=False)
    for address in ("0000:e5:00.0", "0000:e6:00.0"):
        folder = tmp_path / "pci" / address
        folder.mkdir(parents=True)
        files = {"vendor": "0x1002", "device": "0x75a0", "subsystem_device": "0x0ee9"}
        files |= {"current_compute_partition": "SPX", "current_memory_partition": "NPS1"}
        for name, text in files.items():
            (folder / name).write_text(f"{text}\n")
    runtime = StandIn(stand_in_rocm)
    yield runtime
    runtime.close()
    hip_library.hip_library.cache_clear()
    assert not runtime.broken
