"""The HIP device over a runtime that stands in for AMD's: what is asked of it, in which words, and every refusal."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gemm_bf16_variants import built, space
from gfx950_code import assemble
from hip_stand_in import StandIn
from naive_gemm import OBJECT, SEVERAL_OBJECT, launch_of, trial

from hktune.core.config import Config
from hktune.core.dtype import BF16
from hktune.core.errors import DeviceError, KernelFault
from hktune.core.identity import Identity
from hktune.core.launch import Argument, Launch
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.device.device_buffer import DeviceBuffer
from hktune.device.hip import HipDevice
from hktune.runtime.serving.route import KernelRoute
from hktune.verify import Proof, verify

POINTER = Argument("c", "pointer")
GEMM = (*(Argument(name, "pointer") for name in ("a", "b", "c")), Argument("n", "u32"), Argument("k", "u32"))
STORE = """
    s_load_dwordx2 s[4:5], s[0:1], 0x0
    v_mov_b32 v1, 7
    v_lshlrev_b32 v0, 2, v0
    s_waitcnt lgkmcnt(0)
    global_store_dword v0, v1, s[4:5]
    s_endpgm
"""
STRAY = STORE.replace("global_store", "s_add_u32 s5, s5, 0x100000\n    global_store")


@pytest.fixture
def device(stand_in: StandIn) -> HipDevice:
    return HipDevice(rocm_path=stand_in.rocm_path)


def refused(call: object, *arguments: object, **named: object) -> str:
    assert callable(call)
    with pytest.raises(DeviceError) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestIdentity:
    def test_it_is_exact_to_the_sku_and_the_partition(self, device: HipDevice) -> None:
        said = ("AMD Instinct MI350X", 256, "1002:75a0:0ee9", "SPX/NPS1", "mi350x")
        assert device.identity == Identity("hip", "gfx950", *said)
        assert device.target == "gfx950:sramecc+:xnack-"
        assert device.identity.slug == "gfx950-amd-instinct-mi350x"

    def test_what_the_kernel_driver_does_not_tell_is_not_made_up(self, stand_in: StandIn, tmp_path: Path) -> None:
        for name in ("subsystem_device", "current_memory_partition"):
            (tmp_path / "pci" / "0000:e5:00.0" / name).unlink()
        identity = HipDevice(rocm_path=stand_in.rocm_path).identity
        assert (identity.pci_id, identity.partition) == (None, "SPX")
        (tmp_path / "pci" / "0000:e5:00.0" / "current_compute_partition").unlink()
        assert HipDevice(rocm_path=stand_in.rocm_path).identity.partition is None

    def test_a_gpu_that_the_runtime_has_no_name_for_has_its_targets(self, stand_in: StandIn) -> None:
        stand_in.name = ""
        assert HipDevice(rocm_path=stand_in.rocm_path).identity.name == "AMD gfx950"

    def test_a_device_that_is_not_there_is_refused(self, stand_in: StandIn) -> None:
        for ordinal in (-1, 2):
            assert refused(HipDevice, ordinal, stand_in.rocm_path) == f"no HIP device {ordinal}: this process sees 2"
        stand_in.targets = ()
        assert "hipErrorNoDevice (100)" in refused(HipDevice, 0, stand_in.rocm_path)


class TestMemory:
    def test_it_goes_back_with_the_last_reference(self, device: HipDevice, stand_in: StandIn) -> None:
        buffer = device.allocate(16)
        assert list(stand_in.memory) == [buffer.address]
        del buffer
        gc.collect()
        assert stand_in.memory == {}

    def test_too_much_is_refused_by_its_name(self, device: HipDevice, stand_in: StandIn) -> None:
        assert "hipMalloc: the HIP runtime says hipErrorOutOfMemory (2)" in refused(device.allocate, 1 << 40)
        assert stand_in.last_error == 0
        device.allocate(16)

    def test_what_queued_work_wrote_is_read(self, device: HipDevice, stand_in: StandIn) -> None:
        buffer = device.allocate(16)
        del stand_in.calls[:]
        device.read(buffer, np.zeros(4, np.uint32))
        assert [call for call in stand_in.calls if call != "hipGetDevice"] == ["hipDeviceSynchronize", "hipMemcpyDtoH"]

    def test_tensors_of_another_device_or_another_torch_are_refused(
        self, device: HipDevice, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tensor = torch.zeros(2, 3)
        assert "of shape (2, 3) on cpu: it must be on cuda:0" in refused(device.borrow, tensor)
        assert "it must be on cuda:1" in refused(HipDevice(1, stand_in.rocm_path).borrow, stand_in.tensor(tensor))
        monkeypatch.setattr(torch.version, "hip", None)
        assert "not built for ROCm: install one that is" in refused(device.borrow, stand_in.tensor(tensor))


class TestLoading:
    def test_a_module_is_unloaded_with_the_last_reference(self, device: HipDevice, stand_in: StandIn) -> None:
        kernel = device.load(OBJECT, "naive_gemm")
        assert list(stand_in.modules.values()) == [OBJECT]
        del kernel
        gc.collect()
        assert stand_in.modules == {}

    def test_the_image_outlives_its_module(self, device: HipDevice, stand_in: StandIn) -> None:
        image = bytes(bytearray(OBJECT))
        before = sys.getrefcount(image)
        kernel = device.load(image, "naive_gemm")
        assert sys.getrefcount(image) > before
        address = stand_in.words["hipModuleLoadData"][1]
        assert ctypes.string_at(address, len(image)) == image
        del kernel
        gc.collect()
        assert sys.getrefcount(image) == before

    def test_a_code_object_for_another_architecture_is_refused(self, stand_in: StandIn) -> None:
        stand_in.targets = ("gfx942:sramecc+:xnack-",)
        older = HipDevice(rocm_path=stand_in.rocm_path)
        assert refused(older.load, OBJECT, "naive_gemm") == (
            "the code object is for gfx950, this device is gfx942: rebuild it"
        )

    @pytest.mark.parametrize(("status", "name"), [(200, "hipErrorInvalidImage"), (209, "hipErrorNoBinaryForGpu")])
    def test_an_image_that_the_runtime_refuses_is_refused(
        self, device: HipDevice, stand_in: StandIn, status: int, name: str
    ) -> None:
        stand_in.refuse("hipModuleLoadData", status)
        assert f"hipModuleLoadData: the HIP runtime says {name} ({status})" in refused(
            device.load, OBJECT, "naive_gemm"
        )

    def test_a_module_without_its_function_is_unloaded(self, device: HipDevice, stand_in: StandIn) -> None:
        stand_in.refuse("hipModuleGetFunction", 500)
        assert "hipErrorNotFound (500)" in refused(device.load, OBJECT, "naive_gemm")
        assert stand_in.modules == {}


class TestLaunching:
    def test_grid_block_lds_and_stream_arrive_in_the_runtimes_order(self, device: HipDevice, stand_in: StandIn) -> None:
        code, stream = assemble(STORE, pointers=1), device.create_stream()
        buffer = device.allocate(256)
        device.launch(device.load(code, "kernel"), Launch((3, 5, 7), (4, 2, 1), 96, (POINTER,)), {"c": buffer}, stream)
        _, *sizes, parameters, extra = stand_in.words["hipModuleLaunchKernel"]
        assert sizes == [3, 5, 7, 4, 2, 1, 96, stream]
        assert (parameters, extra > 0) == (0, True)

    def test_arguments_arrive_at_their_offsets(self, device: HipDevice, stand_in: StandIn) -> None:
        rng = np.random.default_rng(3)
        a, bt = (BF16.bits(rng.standard_normal((rows, 8)).astype(np.float32)) for rows in (1, 2))
        buffers = {name: device.allocate(64) for name in ("a", "b", "c")}
        device.write(buffers["a"], a)
        device.write(buffers["b"], bt)
        launch = Launch((1, 1, 1), (64, 1, 1), 0, GEMM)
        device.launch(device.load(OBJECT, "naive_gemm"), launch, {**buffers, "n": 2, "k": 8})
        words = np.frombuffer(stand_in.launched[0].arguments[:32], np.uint64)
        assert words.tolist() == [*(buffer.address for buffer in buffers.values()), 2 | 8 << 32]
        out = np.zeros((1, 2), np.uint16)
        device.read(buffers["c"], out)
        np.testing.assert_allclose(BF16.values(out), BF16.values(a) @ BF16.values(bt).T, rtol=2**-7)

    def test_hidden_arguments_are_left_to_the_runtime(self, device: HipDevice, stand_in: StandIn) -> None:
        hidden = (("hidden_block_count_x", 4), ("hidden_none", 8))
        buffer = device.allocate(256)
        kernel = device.load(assemble(STORE, pointers=1, hidden=hidden), "kernel")
        device.launch(kernel, Launch((1, 1, 1), (64, 1, 1), 0, (POINTER,)), {"c": buffer})
        assert stand_in.launched[0].size_bytes == 8
        out = np.zeros(64, np.uint32)
        device.read(buffer, out)
        assert (out == 7).all()

    def test_a_kernel_without_arguments_gets_none(self, device: HipDevice) -> None:
        kernel = device.load(assemble("s_endpgm", pointers=0), "kernel")
        device.launch(kernel, Launch((1, 1, 1), (64, 1, 1), 0, ()), {})
        device.synchronize()

    def test_a_configuration_that_the_runtime_refuses_costs_that_launch_only(
        self, device: HipDevice, stand_in: StandIn
    ) -> None:
        kernel, buffer = device.load(assemble(STORE, pointers=1), "kernel"), device.allocate(256)
        launch = Launch((1, 1, 1), (64, 1, 1), 0, (POINTER,))
        stand_in.refuse("hipModuleLaunchKernel", 9)
        detail = refused(device.launch, kernel, launch, {"c": buffer})
        assert detail.startswith("hipModuleLaunchKernel: the HIP runtime says hipErrorInvalidConfiguration (9): see ")
        device.launch(kernel, launch, {"c": buffer})

    def test_a_kernel_of_another_device_is_refused(self, device: HipDevice, stand_in: StandIn) -> None:
        kernel = HipDevice(1, stand_in.rocm_path).load(OBJECT, "naive_gemm")
        assert refused(device.launch, kernel, Launch((1, 1, 1), (64, 1, 1), 0, GEMM), {}) == (
            "naive_gemm was loaded by another device: load it here"
        )

    @pytest.mark.parametrize("config", space().seeds[:2], ids=lambda config: config.id)
    def test_the_templates_variants_are_right_in_every_element(self, device: HipDevice, config: Config) -> None:
        code = built(config)
        problem: Problem = space().template.proof_problems(config)[0].problem
        kernel = device.load(code.data, code.symbol)
        outcome = verify(device, kernel, space().template.launch(config, problem), problem, seed=1)
        assert isinstance(outcome, Proof), outcome


class TestPrepared:
    """A launch that is packed once, as production's calls use it."""

    LAUNCH = Launch((1, 1, 1), (64, 1, 1), 0, GEMM)

    def test_a_call_fills_in_its_tensors(self, device: HipDevice, stand_in: StandIn) -> None:
        kernel, stream = device.load(OBJECT, "naive_gemm"), device.create_stream()
        prepared = device.prepare(kernel, self.LAUNCH, {"m": 1, "n": 2, "k": 8, "lda": 8})
        for seed in range(2):
            torch.manual_seed(seed)
            a, bt, c = (torch.randn(*shape).bfloat16() for shape in ((1, 8), (2, 8), (1, 2)))
            prepared(*(stand_in.tensor(tensor) for tensor in (a, bt, c)), None, None, stream)
            torch.testing.assert_close(c.float(), a.float() @ bt.float().T, rtol=2**-7, atol=2**-7)
        assert stand_in.words["hipModuleLaunchKernel"][8] == stream
        assert stand_in.calls[-2:] == ["hipModuleLaunchKernel"] * 2  # and nothing beside it

    def test_experts_with_scales_get_each_operand_in_its_place(self, device: HipDevice, stand_in: StandIn) -> None:
        """As the runtime calls it: where groups end comes behind the scales."""
        problem = Problem(6, 8, 16, operation_of("grouped2.e4m3.nt.rows->f32"))
        symbol, rule = launch_of(trial(problem))
        route = KernelRoute(problem.key, Launch((1, 6, 1), (64, 1, 1), 0, rule.arguments), ("", symbol), near=False)
        kernel, stream = device.load(SEVERAL_OBJECT, symbol), device.create_stream()
        prepared = device.prepare(kernel, route.launch, route.numbers, route.operands)
        a, b = (torch.randn(*shape).to(torch.float8_e4m3fn) for shape in ((6, 16), (2, 8, 16)))
        scale_a, scale_b, c = torch.rand(6), torch.rand(2, 8), torch.zeros(6, 8)
        ends = torch.tensor([2, 6], dtype=torch.int32)
        given = {"a": a, "b": b, "c": c, "scale_a": scale_a, "scale_b": scale_b, "offsets": ends}
        tensors = {name: stand_in.tensor(tensor) for name, tensor in given.items()}
        prepared(*map(tensors.get, route.operands), stream)
        parts = [a[:2].double() @ b[0].double().T * scale_b[0], a[2:].double() @ b[1].double().T * scale_b[1]]
        torch.testing.assert_close(c.double(), torch.cat(parts) * scale_a[:, None], rtol=1e-5, atol=1e-5)

    def test_an_operand_that_is_not_there_is_null(self, device: HipDevice, stand_in: StandIn) -> None:
        arguments = (POINTER, Argument("bias", "pointer"))
        kernel = device.load(assemble(STORE, pointers=2), "kernel")
        prepared = device.prepare(kernel, Launch((1, 1, 1), (64, 1, 1), 0, arguments), {})
        c = stand_in.tensor(torch.zeros(64, dtype=torch.int32))
        for bias in (c, None):
            prepared(None, None, c, bias, None, None)
        filled = [np.frombuffer(work.arguments, np.uint64)[1] for work in stand_in.launched]
        assert (filled[0] > 0, filled[1]) == (True, 0)

    def test_every_thread_packs_its_own(self, device: HipDevice, stand_in: StandIn) -> None:
        """Both have packed c before either launches."""
        meeting = threading.Barrier(2, timeout=30)

        class Awaited:
            def data_ptr(self) -> int:
                meeting.wait()
                return 0

        kernel = device.load(assemble(STORE, pointers=2), "kernel")
        arguments = (POINTER, Argument("bias", "pointer"))
        prepared = device.prepare(kernel, Launch((1, 1, 1), (64, 1, 1), 0, arguments), {})
        outputs = [stand_in.tensor(torch.zeros(64, dtype=torch.int32)) for _ in range(2)]
        threads = [threading.Thread(target=prepared, args=(None, None, c, Awaited(), None, None)) for c in outputs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(bool((c.as_subclass(torch.Tensor) == 7).all()) for c in outputs)

    def test_what_does_not_fit_is_refused_when_it_is_prepared(self, device: HipDevice, stand_in: StandIn) -> None:
        kernel = device.load(OBJECT, "naive_gemm")
        assert "u32: NoneType does not fit" in refused(device.prepare, kernel, self.LAUNCH, {"n": 2})
        assert "allows 1 to 256" in refused(device.prepare, kernel, replace(self.LAUNCH, block=(257, 1, 1)), {})
        other = tuple(Argument("x", "pointer") if name.name == "b" else name for name in GEMM)
        unknown = replace(self.LAUNCH, arguments=other)
        assert "argument x is no operand" in refused(device.prepare, kernel, unknown, {"n": 2, "k": 8})
        elsewhere = HipDevice(1, stand_in.rocm_path)
        assert "another device" in refused(elsewhere.prepare, kernel, self.LAUNCH, {"n": 2, "k": 8})

    def test_a_fault_ends_its_calls_too(self, device: HipDevice, stand_in: StandIn) -> None:
        kernel = device.load(assemble(STORE, pointers=1), "kernel")
        prepared = device.prepare(kernel, Launch((1, 1, 1), (64, 1, 1), 0, (POINTER,)), {})
        stand_in.refuse("hipModuleLaunchKernel", 700)
        for _ in range(2):
            with pytest.raises(KernelFault, match="hipErrorIllegalAddress"):
                prepared(None, None, None, None, None, None)


class TestFaults:
    def test_one_is_sticky(self, device: HipDevice, stand_in: StandIn) -> None:
        kernel, buffer = device.load(assemble(STRAY, pointers=1), "kernel"), device.allocate(256)
        launch = Launch((1, 1, 1), (64, 1, 1), 0, (POINTER,))
        device.launch(kernel, launch, {"c": buffer})
        for call in (device.synchronize, lambda: device.allocate(16), lambda: device.read(buffer, np.zeros(1))):
            with pytest.raises(KernelFault, match=r"hipDeviceSynchronize: .* hipErrorLaunchFailure \(719\)") as caught:
                call()
            assert caught.value.status == "crashed"

    def test_what_cannot_be_given_back_is_let_go(self, device: HipDevice, stand_in: StandIn) -> None:
        kernel, buffer = device.load(OBJECT, "naive_gemm"), device.allocate(256)
        stand_in.refuse("hipFree", 719)
        stand_in.refuse("hipModuleUnload", 719)
        del kernel, buffer
        gc.collect()
        assert {"hipFree", "hipModuleUnload"} <= set(stand_in.calls)
        assert stand_in.last_error == 0

    def test_one_that_a_copy_finds_is_a_fault_too(self, device: HipDevice, stand_in: StandIn) -> None:
        buffer = device.allocate(16)
        stand_in.refuse("hipMemcpyDtoH", 700)
        with pytest.raises(KernelFault, match="hipErrorIllegalAddress"):
            device.read(buffer, np.zeros(4, np.uint32))
        with pytest.raises(KernelFault, match="hipErrorIllegalAddress"):
            device.write(buffer, np.zeros(4, np.uint32))


class TestSeveralDevices:
    def test_calls_go_to_the_device_and_leave_the_threads_own_current(self, stand_in: StandIn) -> None:
        device, store = HipDevice(1, stand_in.rocm_path), assemble(STORE, pointers=1)
        assert device.identity.kind == "hip"
        kernel, buffer, stream = device.load(store, "kernel"), device.allocate(256), device.create_stream()
        device.launch(kernel, Launch((1, 1, 1), (64, 1, 1), 0, (POINTER,)), {"c": buffer}, stream)
        assert stand_in.streams[stream].device == 1
        assert stand_in.current == 0
        stand_in.refuse("hipMalloc", 2)
        refused(device.allocate, 16)
        assert stand_in.current == 0

    def test_a_thread_that_never_chose_a_device_is_served(self, stand_in: StandIn) -> None:
        device = HipDevice(1, stand_in.rocm_path)
        made: list[DeviceBuffer] = []
        thread = threading.Thread(target=lambda: made.append(device.allocate(64)))
        thread.start()
        thread.join()
        assert made[0].size_bytes == 64
