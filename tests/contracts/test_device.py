"""The contract of `Device`, run on every implementation that works on this machine."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hktune.core.dtype import BF16
from hktune.core.errors import DeviceError
from hktune.core.launch import Argument, Launch
from hktune.device.device import Device
from hktune.device.emulated import EmulatedDevice
from hktune.device.hip import HipDevice

CODE = (Path(__file__).parents[1] / "recorded" / "naive_gemm" / "naive_gemm.hsaco").read_bytes()
POINTERS = tuple(Argument(name, "pointer") for name in ("a", "b", "c"))
SIZES = (Argument("n", "u32"), Argument("k", "u32"))
M, N, K = 3, 70, 33
LAUNCH = Launch((2, M, 1), (64, 1, 1), 0, POINTERS + SIZES)


@pytest.fixture(params=["emulated", "hip", pytest.param("rocm", marks=pytest.mark.rocm_virtual)])
def device(request: pytest.FixtureRequest) -> Device:
    """The emulated device; the HIP device, over a runtime that stands in for AMD's, and over AMD's own."""
    if request.param == "emulated":
        return EmulatedDevice()
    if request.param == "rocm":
        rocm: HipDevice = request.getfixturevalue("rocm_virtual")
        return rocm
    return HipDevice(rocm_path=request.getfixturevalue("stand_in").rocm_path)


@pytest.fixture
def place(device: Device, request: pytest.FixtureRequest) -> Callable[[torch.Tensor], torch.Tensor]:
    """Puts a tensor where the device can borrow it."""
    if device.identity.kind == "emulated":
        return lambda tensor: tensor
    if request.node.get_closest_marker("rocm_virtual"):
        pytest.skip("needs a torch that is built for ROCm")
    placed: Callable[[torch.Tensor], torch.Tensor] = request.getfixturevalue("stand_in").tensor
    return placed


def operands() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """bf16 bits of A and Bt, and their product in float32."""
    rng = np.random.default_rng(7)
    a, bt = (BF16.bits(rng.standard_normal(shape).astype(np.float32)) for shape in ((M, K), (N, K)))
    return a, bt, BF16.values(a) @ BF16.values(bt).T


def bound(device: Device, a: np.ndarray, bt: np.ndarray) -> dict[str, object]:
    """A binding of fresh buffers; C starts as NaN."""
    binding: dict[str, object] = {"n": N, "k": K}
    for name, data in (("a", a), ("b", bt), ("c", np.full((M, N), 0x7FC0, np.uint16))):
        buffer = device.allocate(data.nbytes)
        device.write(buffer, data)
        binding[name] = buffer
    return binding


class TestDevice:
    def test_identity_names_the_device(self, device: Device) -> None:
        identity = device.identity
        assert identity == device.identity
        assert identity.kind in ("emulated", "hip", "cuda")
        assert identity.arch
        assert identity.name
        assert identity.compute_units > 0

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int64])
    def test_what_is_written_is_read(self, device: Device, dtype: type) -> None:
        data = np.arange(60).astype(dtype).reshape(4, 15)
        buffer = device.allocate(data.nbytes + 8)
        assert buffer.size_bytes == data.nbytes + 8
        device.write(buffer, data)
        found = np.zeros_like(data)
        device.read(buffer, found)
        assert (found == data).all()

    def test_writing_leaves_the_argument_and_the_rest_alone(self, device: Device) -> None:
        buffer, start = device.allocate(16), np.full(4, 7, np.uint32)
        device.write(buffer, start)
        device.write(buffer, np.array([1, 2], np.uint32))
        found = np.zeros(4, np.uint32)
        device.read(buffer, found)
        assert found.tolist() == [1, 2, 7, 7]
        assert start.tolist() == [7] * 4

    def test_buffers_do_not_overlap(self, device: Device) -> None:
        buffers = [device.allocate(size) for size in (1, 4097, 16, 100_000)]
        spans = sorted((buffer.address, buffer.address + buffer.size_bytes) for buffer in buffers)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))

    def test_accesses_past_a_buffer_are_refused(self, device: Device) -> None:
        buffer = device.allocate(8)
        for refused in (
            lambda: device.write(buffer, np.zeros(9, np.uint8)),
            lambda: device.read(buffer, np.zeros(9, np.uint8)),
            lambda: device.allocate(0),
        ):
            with pytest.raises(DeviceError) as caught:
                refused()
            assert "\n" not in str(caught.value)

    def test_a_kernel_computes(self, device: Device) -> None:
        a, bt, exact = operands()
        binding = bound(device, a, bt)
        kernel = device.load(CODE, "naive_gemm")
        assert kernel.symbol == "naive_gemm"
        device.launch(kernel, LAUNCH, binding)  # type: ignore[arg-type]
        device.synchronize()
        found = np.zeros((M, N), np.uint16)
        device.read(binding["c"], found)  # type: ignore[arg-type]
        np.testing.assert_allclose(BF16.values(found), exact, rtol=2**-7, atol=2**-7)

    def test_a_kernel_stays_loaded_and_launches_repeat(self, device: Device) -> None:
        a, bt, _ = operands()
        kernel = device.load(CODE, "naive_gemm")
        other = device.load(CODE, "naive_gemm_bias")
        del other
        gc.collect()
        results = []
        for _ in range(2):
            binding = bound(device, a, bt)
            device.launch(kernel, LAUNCH, binding)  # type: ignore[arg-type]
            found = np.zeros((M, N), np.uint16)
            device.read(binding["c"], found)  # type: ignore[arg-type]
            results.append(found)
        assert (results[0] == results[1]).all()

    def test_a_borrowed_tensor_is_the_memory_the_kernel_sees(
        self, device: Device, place: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        a, bt = (torch.randn(rows, K).to(torch.bfloat16) for rows in (M, N))
        c = torch.full((M, N), float("nan"), dtype=torch.bfloat16)
        binding = {name: device.borrow(place(tensor)) for name, tensor in (("a", a), ("b", bt), ("c", c))}
        assert binding["a"].size_bytes == 2 * M * K
        device.launch(device.load(CODE, "naive_gemm"), LAUNCH, {**binding, "n": N, "k": K})
        device.synchronize()
        torch.testing.assert_close(c.float(), a.float() @ bt.float().T, rtol=2**-7, atol=2**-7)

    def test_a_prepared_launch_lacks_tensors_only(
        self, device: Device, place: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        numbers = {"m": M, "n": N, "k": K, "lda": K, "ldb": K, "ldc": N}  # more than it takes
        prepared = device.prepare(device.load(CODE, "naive_gemm"), LAUNCH, numbers)
        for _ in range(2):
            a, bt = (torch.randn(rows, K).to(torch.bfloat16) for rows in (M, N))
            c = torch.full((M, N), float("nan"), dtype=torch.bfloat16)
            prepared(*(place(tensor) for tensor in (a, bt, c)), None, None, None)
            device.synchronize()
            torch.testing.assert_close(c.float(), a.float() @ bt.float().T, rtol=2**-7, atol=2**-7)

    def test_tensors_are_told_apart_by_name_and_not_by_place(
        self, device: Device, place: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        order, kernel = ("residual", "c", "b", "a"), device.load(CODE, "naive_gemm")
        prepared = device.prepare(kernel, LAUNCH, {"n": N, "k": K}, order)
        tensors = {name: place(torch.randn(rows, K).to(torch.bfloat16)) for name, rows in (("a", M), ("b", N))}
        tensors["c"] = place(torch.full((M, N), float("nan"), dtype=torch.bfloat16))
        prepared(*(tensors.get(name) for name in order), None)
        device.synchronize()
        a, b, c = (tensors[name].as_subclass(torch.Tensor).float() for name in ("a", "b", "c"))
        torch.testing.assert_close(c, a @ b.T, rtol=2**-7, atol=2**-7)
        with pytest.raises(DeviceError, match="argument b is no operand of a prepared launch"):
            device.prepare(kernel, LAUNCH, {"n": N, "k": K}, ("a", "c"))

    def test_a_tensor_with_strides_is_borrowed_from_its_first_element_to_its_last(
        self, device: Device, place: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        wide = torch.zeros(4, 5, dtype=torch.bfloat16)
        for view, elements in (
            (wide[1:, :3], 2 * 5 + 3),
            (wide.t(), 4 * 5),
            (wide[::2, 1:], 2 * 5 + 4),
            (wide[2, 3].expand(7, 7), 1),
            (wide[:, 4], 3 * 5 + 1),
        ):
            assert device.borrow(place(view)).size_bytes == 2 * elements

    def test_tensors_of_other_devices_and_empty_ones_are_not_borrowed(
        self, device: Device, place: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        for refused in (place(torch.zeros(4, 5)[:0]), torch.zeros(4, device="meta")):
            with pytest.raises(DeviceError, match=r"cannot borrow .* not empty") as caught:
                device.borrow(refused)
            assert "\n" not in str(caught.value)

    def test_unknown_symbols_and_broken_objects_are_refused(self, device: Device) -> None:
        for data, symbol, part in (
            (CODE, "gemm", "no kernel"),
            (CODE[:600], "naive_gemm", "rebuild"),
            (b"no", "x", "rebuild"),
        ):
            with pytest.raises(DeviceError, match=part) as caught:
                device.load(data, symbol)
            assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("launch", "binding"),
        [
            (LAUNCH, {"b": None}),
            (LAUNCH, {"more": 1}),
            (LAUNCH, {"n": "buffer"}),
            (LAUNCH, {"a": 4096}),
            (LAUNCH, {"n": -1}),
            (Launch(LAUNCH.grid, LAUNCH.block, 0, POINTERS), {"n": None, "k": None}),
            (Launch(LAUNCH.grid, LAUNCH.block, 0, (*POINTERS, Argument("n", "u64"), SIZES[1])), {}),
            (Launch((0, 1, 1), LAUNCH.block, 0, LAUNCH.arguments), {}),
            (Launch(LAUNCH.grid, (257, 1, 1), 0, LAUNCH.arguments), {}),
            (Launch(LAUNCH.grid, (64, 0, 1), 0, LAUNCH.arguments), {}),
            (Launch(LAUNCH.grid, LAUNCH.block, 1 << 20, LAUNCH.arguments), {}),
        ],
        ids=[
            "missing", "unused", "buffer for size", "size for buffer", "negative", "too few", "wider", "empty grid",
            "block too large", "empty block", "too much LDS",
        ],
    )  # fmt: skip
    def test_misfit_launches_are_refused_in_one_line(
        self, device: Device, launch: Launch, binding: dict[str, object]
    ) -> None:
        a, bt, _ = operands()
        whole = bound(device, a, bt)
        changed = {name: whole["a"] if value == "buffer" else value for name, value in binding.items()}
        whole = {name: value for name, value in {**whole, **changed}.items() if value is not None}
        with pytest.raises(DeviceError) as caught:
            device.launch(device.load(CODE, "naive_gemm"), launch, whole)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
