"""The HIP device on AMD's own runtime, whose GPU is hktune's emulator (scripts/rocm-virtual)."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import threading
from ctypes import byref, c_void_p
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from gemm_bf16_variants import built, space
from gfx950_code import assemble
from naive_gemm import OBJECT
from test_hip_device import GEMM, POINTER, STORE, STRAY

from hktune.core.config import Config
from hktune.core.dtype import BF16
from hktune.core.launch import Launch
from hktune.device.device_buffer import DeviceBuffer
from hktune.device.hip import HipDevice
from hktune.device.hip_library import HipLibrary, hip_library
from hktune.verify import Proof, verify

pytestmark = pytest.mark.rocm_virtual

SEEDS = 30
STORE_LAUNCH = Launch((1, 1, 1), (64, 1, 1), 0, (POINTER,))
STRAY_LOAD = "s_mov_b32 s1, 0x1000\n    s_load_dword s4, s[0:1], 0x0\n    s_endpgm"
ENDLESS = "again:\n    s_branch again\n    s_endpgm"
LAUNCH_IN_A_PROCESS = """
import os, sys
from pathlib import Path
from hktune.core.launch import Argument, Launch
from hktune.device.hip import HipDevice
device = HipDevice(rocm_path=Path(os.environ["ROCM_PATH"]))
buffer = device.allocate(256)
kernel = device.load(Path(sys.argv[1]).read_bytes(), "kernel")
device.launch(kernel, Launch((1, 1, 1), (64, 1, 1), 0, (Argument("c", "pointer"),)), {"c": buffer})
device.synchronize()
print("went on")
"""


@dataclass
class Placed:
    """A tensor, as far as a prepared launch asks."""

    buffer: DeviceBuffer

    def data_ptr(self) -> int:
        return self.buffer.address


@pytest.fixture
def device(rocm_virtual: HipDevice) -> HipDevice:
    return rocm_virtual


@pytest.fixture
def hip() -> HipLibrary:
    return hip_library(Path(os.environ["ROCM_PATH"]))


def read(device: HipDevice, buffer: DeviceBuffer) -> np.ndarray:
    found = np.zeros(buffer.size_bytes // 4, np.uint32)
    device.read(buffer, found)
    return found


class TestIdentity:
    def test_it_is_what_the_topology_says(self, device: HipDevice, hip: HipLibrary) -> None:
        assert (device.identity.arch, device.identity.compute_units) == ("gfx950", 256)
        assert device.target == "gfx950:sramecc+:xnack-"
        assert hip.number("hipDeviceGetAttribute", 10002, 0) == 160 << 10
        assert int(hip.version.split(".")[0]) >= 7


@pytest.mark.parametrize("config", space().seeds[:SEEDS], ids=lambda config: config.id)
def test_the_templates_seeds_are_right_in_every_element(device: HipDevice, config: Config) -> None:
    code, template = built(config), space().template
    kernel = device.load(code.data, code.symbol)
    for proof in template.proof_problems(config)[:2]:
        launch = template.launch(config, proof.problem)
        outcome = verify(device, kernel, launch, proof.problem, 1, proof.padding, proof.exact_sums)
        assert isinstance(outcome, Proof), outcome


class TestLaunches:
    def test_streams_run_in_order_and_apart(self, device: HipDevice) -> None:
        """Each of four threads has a stream of its own, and what it launches there last is what it reads."""
        kernels = [device.load(assemble(STORE.replace("7", str(n)), pointers=1), "kernel") for n in (7, 8)]
        outputs: dict[int, np.ndarray] = {}

        def work(index: int) -> None:
            stream, buffer = device.create_stream(), device.allocate(256)
            for step in range(10):
                device.launch(kernels[(index + step) % 2], STORE_LAUNCH, {"c": buffer}, stream)
            outputs[index] = read(device, buffer)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {index: set(found) for index, found in outputs.items()} == {0: {8}, 1: {7}, 2: {8}, 3: {7}}

    def test_a_graph_keeps_the_arguments_of_its_launches(self, device: HipDevice) -> None:
        """`extra` is copied when it is captured, so that each launch of a graph has bytes of its own."""
        stream, kernel = device.create_stream(), device.load(assemble(STORE, pointers=1), "kernel")
        buffers = [device.allocate(256) for _ in range(3)]

        def enqueue() -> None:
            for buffer in buffers:
                device.launch(kernel, STORE_LAUNCH, {"c": buffer}, stream)

        graph = device.capture(enqueue, stream)
        for _ in range(2):
            for buffer in buffers:
                device.write(buffer, np.zeros(64, np.uint32))
            device.replay(graph, stream)
            assert all((read(device, buffer) == 7).all() for buffer in buffers)

    def test_a_prepared_launch_takes_what_it_is_called_with(self, device: HipDevice) -> None:
        kernel, stream = device.load(OBJECT, "naive_gemm"), device.create_stream()
        prepared = device.prepare(kernel, Launch((1, 1, 1), (64, 1, 1), 0, GEMM), {"n": 2, "k": 8})
        rng = np.random.default_rng(3)
        for _ in range(2):
            a, bt = (BF16.bits(rng.standard_normal((rows, 8)).astype(np.float32)) for rows in (1, 2))
            placed = [Placed(device.allocate(64)) for _ in range(3)]
            for tensor, data in zip(placed, (a, bt), strict=False):
                device.write(tensor.buffer, data)
            prepared(*placed, None, None, stream)
            out = np.zeros((1, 2), np.uint16)
            device.read(placed[2].buffer, out)
            np.testing.assert_allclose(BF16.values(out), BF16.values(a) @ BF16.values(bt).T, rtol=2**-7)

    def test_hidden_arguments_are_the_runtimes(self, device: HipDevice) -> None:
        """A kernel stores the block count, which is the first of them."""
        body = STORE.replace("v_mov_b32 v1, 7", "s_load_dword s6, s[0:1], 0x8").replace(
            "s_waitcnt lgkmcnt(0)", "s_waitcnt lgkmcnt(0)\n    v_mov_b32 v1, s6"
        )
        kernel = device.load(assemble(body, pointers=1, hidden=(("hidden_block_count_x", 4),)), "kernel")
        buffer = device.allocate(256)
        device.launch(kernel, Launch((3, 1, 1), (64, 1, 1), 0, (POINTER,)), {"c": buffer})
        assert (read(device, buffer) == 3).all()

    def test_what_is_not_written_stays(self, device: HipDevice) -> None:
        buffer = device.allocate(512)
        device.write(buffer, np.arange(128, dtype=np.uint32))
        device.launch(device.load(assemble(STORE, pointers=1), "kernel"), STORE_LAUNCH, {"c": buffer})
        assert read(device, buffer).tolist() == [7] * 64 + list(range(64, 128))


class TestRefusals:
    """Numbers that the stand-in answers, asked of the runtime itself."""

    @pytest.mark.parametrize(
        ("image", "status"),
        [(b"\0" * 4096, 200), (OBJECT[:48] + bytes([0x4C]) + OBJECT[49:], 209)],
        ids=["garbage", "another GPU's"],
    )
    def test_an_image(self, hip: HipLibrary, image: bytes, status: int) -> None:
        assert hip.status("hipModuleLoadData", byref(c_void_p()), image) == status

    def test_a_function_that_is_not_there(self, hip: HipLibrary) -> None:
        module = c_void_p()
        assert hip.status("hipModuleLoadData", byref(module), OBJECT) == 0
        assert hip.status("hipModuleGetFunction", byref(c_void_p()), module, b"none") == 500
        assert hip.status("hipModuleUnload", module) == 0

    def test_more_memory_than_there_is(self, hip: HipLibrary) -> None:
        assert hip.status("hipMalloc", byref(c_void_p()), 1 << 50) == 2

    @pytest.mark.parametrize(
        ("block", "lds_bytes", "status"), [(2000, 0, 1), (64, 200_000, 1), (64, 0, 0)], ids=["block", "LDS", "none"]
    )
    def test_a_launch(self, device: HipDevice, hip: HipLibrary, block: int, lds_bytes: int, status: int) -> None:
        kernel = device.load(assemble("s_endpgm", pointers=0), "kernel")
        shape = (1, 1, 1, block, 1, 1, lds_bytes)
        assert hip.status("hipModuleLaunchKernel", kernel.function, *shape, None, None, None) == status
        device.synchronize()


class TestFaults:
    """The process ends, as ROCm's does on a memory fault, and says in a line why."""

    @pytest.mark.parametrize(
        ("body", "line"),
        [
            (STRAY, r"virtual GPU: hazard: global_store_dword .* is in no allocation"),
            (STRAY_LOAD, "s_load_dword .* is in no allocation"),
            (ENDLESS, "virtual GPU: timeout: still running after 2.0 s"),
        ],
        ids=["stray store", "stray load", "endless"],
    )
    def test_one_ends_the_process(self, tmp_path: Path, body: str, line: str) -> None:
        (tmp_path / "code").write_bytes(assemble(body, pointers=1))
        done = subprocess.run(
            [sys.executable, "-c", LAUNCH_IN_A_PROCESS, tmp_path / "code"],
            capture_output=True, text=True, check=False, timeout=120,
            env={**os.environ, "HKTUNE_ROCM_VIRTUAL_DEADLINE_S": "2"},
        )  # fmt: skip
        assert done.returncode < 0, done
        assert "went on" not in done.stdout
        (said,) = [each for each in done.stderr.splitlines() if each.startswith("virtual GPU")]
        assert re.search(line, said), said


@pytest.mark.parametrize(
    "setting", ["DEBUG_HIP_KERNARG_COPY_OPT=0", "DEBUG_HIP_KERNARG_COPY_OPT=1", "HIP_FORCE_DEV_KERNARG=1"]
)
def test_arguments_arrive_however_the_runtime_copies_them(setting: str) -> None:
    name, value = setting.split("=")
    tests = [f"{__file__}::TestLaunches", "-k", "graph or prepared"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-m", "rocm_virtual", *tests],
        capture_output=True, text=True, check=False, env={**os.environ, name: value},
    )  # fmt: skip
    assert (done.returncode, "2 passed" in done.stdout) == (0, True), done.stdout


def test_a_thousand_launches_leave_nothing_behind(device: HipDevice) -> None:
    """Each with memory, an event and a module of its own: counted are allocations, descriptors, threads and pages."""
    from rocm_virtual.dispatch import emulator

    def counted() -> tuple[int, int, int]:
        gc.collect()
        descriptors = list(Path("/proc/self/fd").iterdir())
        return len(emulator.model.allocations()), len(descriptors), threading.active_count()

    def launch(number: int) -> None:
        buffer = device.allocate(4096)
        device.launch(device.load(code, "kernel"), STORE_LAUNCH, {"c": buffer}, stream)
        start = device.record(stream)
        assert device.elapsed_us(start, device.record(stream)) >= 0
        assert (read(device, buffer)[:64] == 7).all(), number

    code, stream = assemble(STORE, pointers=1), device.create_stream()
    for number in range(100):
        launch(number)
    before, pages = counted(), resident_bytes()
    for number in range(1000):
        launch(number)
    assert counted() == before
    assert resident_bytes() - pages < 16 << 20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
