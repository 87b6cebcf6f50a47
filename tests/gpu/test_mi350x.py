"""The HIP device on a real MI350X or MI355X: what no stand-in can show. See docs/explanation/hip-device.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hktune.compile import hip_compiler
from hktune.core.dtype import BF16
from hktune.core.launch import Argument, Launch
from hktune.core.settings import Settings
from hktune.core.variant import CodeObject
from hktune.device.device_buffer import DeviceBuffer
from hktune.device.hip import HipDevice
from hktune.space.search_space import load_space
from hktune.verify import Proof, verify

ROOT = Path(__file__).resolve().parents[2]
OBJECT = (ROOT / "tests" / "recorded" / "naive_gemm" / "naive_gemm.hsaco").read_bytes()
ARGUMENTS = (*(Argument(name, "pointer") for name in ("a", "b", "c")), Argument("n", "u32"), Argument("k", "u32"))
M, N, K = 512, 512, 512
LAUNCH = Launch((N // 64, M, 1), (64, 1, 1), 0, ARGUMENTS)


def operands() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    a, bt = (BF16.bits(rng.standard_normal(shape).astype(np.float32)) for shape in ((M, K), (N, K)))
    return a, bt


def bound(device: HipDevice) -> dict[str, DeviceBuffer | int]:
    a, bt = operands()
    buffers = {
        name: device.allocate(2 * rows * columns) for name, rows, columns in (("a", M, K), ("b", N, K), ("c", M, N))
    }
    device.write(buffers["a"], a)
    device.write(buffers["b"], bt)
    return {**buffers, "n": N, "k": K}


def test_the_identity_names_the_very_model(amd: HipDevice) -> None:
    identity = amd.identity
    assert re.fullmatch(r"1002:75a[03]:[0-9a-f]{4}", str(identity.pci_id)), identity
    assert identity.board == {"75a0": "mi350x", "75a3": "mi355x"}[str(identity.pci_id).split(":")[1]]
    assert re.fullmatch(r"gfx950:sramecc[+-]:xnack[+-]", amd.target)
    assert identity.compute_units in (256, 128, 64, 32), identity  # by compute partition
    assert re.fullmatch(r"[SDQC]PX/NPS[124]", str(identity.partition)), identity


def test_a_kernel_computes_on_the_default_stream(amd: HipDevice) -> None:
    binding = bound(amd)
    amd.launch(amd.load(OBJECT, "naive_gemm"), LAUNCH, binding)
    out = np.zeros((M, N), np.uint16)
    c = binding["c"]
    assert isinstance(c, DeviceBuffer)
    amd.read(c, out)
    a, bt = operands()
    np.testing.assert_allclose(BF16.values(out), BF16.values(a) @ BF16.values(bt).T, rtol=2**-7, atol=2**-5)


def test_torchs_memory_and_stream_are_shared(amd: HipDevice) -> None:
    torch = pytest.importorskip("torch")
    if not torch.version.hip:
        pytest.skip(f"torch {torch.__version__} is not built for ROCm")
    a, bt = (torch.randn(rows, K, device="cuda").bfloat16() for rows in (M, N))
    c = torch.zeros(M, N, device="cuda", dtype=torch.bfloat16)
    binding = {name: amd.borrow(tensor) for name, tensor in (("a", a), ("b", bt), ("c", c))}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        amd.launch(
            amd.load(OBJECT, "naive_gemm"), LAUNCH, {**binding, "n": N, "k": K}, torch.cuda.current_stream().cuda_stream
        )
        doubled = 2 * c
    stream.synchronize()
    torch.testing.assert_close(doubled.float(), 2 * (a.float() @ bt.float().T), rtol=2**-6, atol=2**-4)


def test_a_graph_takes_as_long_as_its_launches(amd: HipDevice) -> None:
    kernel, binding, stream = amd.load(OBJECT, "naive_gemm"), bound(amd), amd.create_stream()

    def enqueue() -> None:
        for _ in range(20):
            amd.launch(kernel, LAUNCH, binding, stream)

    graph = amd.capture(enqueue, stream)
    amd.replay(graph, stream)
    events = [amd.record(stream)]
    for _ in range(2):
        amd.replay(graph, stream)
        events.append(amd.record(stream))
    assert amd.elapsed_us(events[0], events[2]) > amd.elapsed_us(events[0], events[1]) > 0


def test_the_sensors_tell_clocks_and_power(amd: HipDevice) -> None:
    clocks = amd.clocks()
    assert clocks.sm_mhz is not None
    assert clocks.power_w is not None
    assert 0 < clocks.sm_mhz < 4000
    assert 0 < clocks.power_w < 3000


def test_the_templates_seeds_are_right_in_every_element(amd: HipDevice) -> None:
    space = load_space(ROOT / "search_spaces" / "gfx950_gemm_bf16.yaml")
    compiler = hip_compiler(Settings.from_environment(os.environ))
    for config in space.seeds:
        code = compiler.compile(space.template.render(config), 300.0)
        assert isinstance(code, CodeObject), code
        problem = space.template.proof_problems(config)[0].problem
        kernel = amd.load(code.data, code.symbol)
        outcome = verify(amd, kernel, space.template.launch(config, problem), problem, seed=1)
        assert isinstance(outcome, Proof), (config, outcome)


FAULT = """
import sys
sys.path.insert(0, {folder!r})
from test_mi350x import LAUNCH, OBJECT, bound
from hktune.device.device_buffer import DeviceBuffer
from hktune.device.hip import HipDevice
device = HipDevice()
stray = DeviceBuffer(1 << 46, 1 << 20)
device.launch(device.load(OBJECT, "naive_gemm"), LAUNCH, {{**bound(device), "c": stray}})
try:
    device.synchronize()
except KernelFault as fault:
    print(fault.status)
"""


def test_a_stray_store_is_a_fault_or_ends_the_process(amd: HipDevice) -> None:
    """Runtimes differ: some end the process with a "Memory access fault by GPU", some report hipErrorIllegalAddress."""
    script = FAULT.format(folder=str(Path(__file__).parent))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode < 0 or ended.stdout.split() == ["crashed"], (ended.stdout, ended.stderr)
