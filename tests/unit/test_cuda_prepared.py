"""What a prepared CUDA launch hands to the driver, read back from the addresses that it hands over."""

from __future__ import annotations

import ctypes
import struct
import threading
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
import torch

from hktune.core.errors import DeviceError
from hktune.core.launch import Argument, Launch
from hktune.core.operation import BF16_NT, Operation, operation_of
from hktune.core.variant import Resources
from hktune.device import tensor_map
from hktune.device.cuda import CudaDevice
from hktune.device.cuda_launch import Launcher, LoadedKernel
from hktune.device.device_buffer import DeviceBuffer
from hktune.device.tensor_map import Extents
from hktune.objects.cubin import TENSOR_MAP_BYTES, Box, CudaKernel, Parameter

RESOURCES = Resources(32, 0, 0, 0, 0, 0, 0, 128)
POINTERS = [Argument(name, "pointer") for name in ("a", "b", "c", "bias")]
ARGUMENTS = (*POINTERS, Argument("m", "i32"), Argument("k", "u64"))
NUMBERS = {"m": 3, "n": 8, "k": 16, "lda": 16, "ldb": 16, "ldc": 8}


class Driver:
    """Notes what is launched: grid, block, stream, and the bytes of every parameter."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.launches: list[tuple[tuple[int, ...], int, list[bytes]]] = []
        self.entered: list[int] = []

    def CUstream(self, handle: int) -> int:  # noqa: N802 - the driver's name
        return handle + 1000

    def cuCtxSetCurrent(self, context: Any) -> tuple[int]:  # noqa: N802
        self.entered.append(threading.get_ident())
        return (0,)

    def cuLaunchKernel(self, function: Any, *words: Any) -> tuple[int]:  # noqa: N802
        *shape, stream, addresses, extra = words
        assert (function, extra) == ("function", 0)
        values = [ctypes.string_at(address, size) for address, size in zip(addresses, self.sizes, strict=True)]
        self.launches.append((tuple(shape), stream, values))
        return (0,)


class CapturingDriver(Driver):
    """Stream 77 is being captured: each launch is a node, behind `tail`. Notes whether the edge is programmatic."""

    CUlaunchConfig = SimpleNamespace
    CUlaunchAttributeID = SimpleNamespace(CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION=6)

    def __init__(self, sizes: list[int]) -> None:
        super().__init__(sizes)
        self.capture, self.tail = 1, [100]
        self.programmatic: list[bool] = []

    def CUlaunchAttribute(self) -> Any:  # noqa: N802
        return SimpleNamespace(value=SimpleNamespace())

    def cuStreamIsCapturing(self, stream: int) -> tuple[int, bool]:  # noqa: N802
        return 0, stream == 1077

    def cuStreamGetCaptureInfo(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        return 0, 1, self.capture, "graph", self.tail, [], len(self.tail)

    def cuLaunchKernelEx(self, config: Any, function: Any, addresses: Any, extra: int) -> tuple[int]:  # noqa: N802
        grid, block = ([getattr(config, f"{word}Dim{axis}") for axis in "XYZ"] for word in ("grid", "block"))
        attributes = getattr(config, "attrs", [])
        assert getattr(config, "numAttrs", 0) == len(attributes)
        assert all((each.id, each.value.programmaticStreamSerializationAllowed) == (6, 1) for each in attributes)
        self.programmatic.append(bool(attributes))
        self.tail = [self.tail[-1] + 1]
        return self.cuLaunchKernel(function, *grid, *block, config.sharedMemBytes, config.hStream, addresses, extra)


def made_up_map(address: int, extents: Extents, box: Box) -> bytes:
    return struct.pack("<Q", address) * 15 + struct.pack("<II", extents.rows, extents.columns)


def prepared(
    monkeypatch: pytest.MonkeyPatch,
    map_of_a: bool,
    columns: int = 16,
    rows: int = 3,
    operation: Operation = BF16_NT,
    arguments: tuple[Argument, ...] = ARGUMENTS,
    programmatic: bool = False,
) -> tuple[CapturingDriver, Any]:
    first = TENSOR_MAP_BYTES if map_of_a else 8
    sizes = [first, 8, 8, 8, 4, 8]
    offsets = [0, first, first + 8, first + 16, first + 24, first + 32]
    parameters = tuple(Parameter(offset, size) for offset, size in zip(offsets, sizes, strict=True))
    image = CudaKernel("k", parameters, RESOURCES, (1, 1, 1), programmatic)
    kernel = LoadedKernel("k", image, {"a": Box(8, 64), "bias": Box(8, 64)}, "function")
    driver = CapturingDriver(sizes)
    device = CudaDevice.__new__(CudaDevice)
    launcher = Launcher(cast("ModuleType", driver))
    vars(device).update(_driver=driver, _launcher=launcher, _lds_bytes=1 << 16, _context="context")
    monkeypatch.setattr(tensor_map, "encoded", made_up_map)
    launch = Launch((2, 3, 4), (128, 1, 1), 64, arguments, operation=operation)
    row = columns if operation.layout[0] == "n" else rows
    return driver, device.prepare(kernel, launch, {**NUMBERS, "m": rows, "k": columns, "lda": row})


@pytest.mark.parametrize("map_of_a", [False, True])
def test_every_parameter_arrives(monkeypatch: pytest.MonkeyPatch, map_of_a: bool) -> None:
    driver, launch = prepared(monkeypatch, map_of_a)
    a, bt, c, bias = (torch.zeros(8) for _ in range(4))
    launch(a, bt, c, bias, None, 77)
    launch(bt, a, c, None, None, None)
    (shape, stream, values), (_, default_stream, others) = driver.launches
    assert (shape, stream, default_stream) == ((2, 3, 4, 128, 1, 1, 64), 1077, 1000)
    pointers = [struct.unpack("<Q", value[:8])[0] for value in values[:4]]
    assert pointers == [tensor.data_ptr() for tensor in (a, bt, c, bias)]
    assert [struct.unpack("<Q", value[:8])[0] for value in others[:4]] == [bt.data_ptr(), a.data_ptr(), c.data_ptr(), 0]
    assert (values[4], values[5]) == (struct.pack("<i", 3), struct.pack("<Q", 16))
    if map_of_a:
        assert values[0][-8:] == struct.pack("<II", 3, 16)


TENSORS = [torch.zeros(8) for _ in range(4)]


def test_in_a_graph_a_kernel_starts_beside_the_end_of_another_like_it(monkeypatch: pytest.MonkeyPatch) -> None:
    driver, launch = prepared(monkeypatch, map_of_a=False, programmatic=True)
    for _ in range(3):
        launch(*TENSORS, None, 77)
    assert driver.programmatic == [False, True, True], "nobody knows what is before the first"
    assert [(shape, stream) for shape, stream, _ in driver.launches] == [((2, 3, 4, 128, 1, 1, 64), 1077)] * 3


@pytest.mark.parametrize(
    "between",
    [
        lambda driver: driver.tail.append(100),  # a join of two streams
        lambda driver: driver.tail.__setitem__(0, 100),  # another kernel
        lambda driver: setattr(driver, "capture", 2),  # another graph
    ],
)
def test_behind_anything_else_it_waits_as_any_kernel(monkeypatch: pytest.MonkeyPatch, between: Any) -> None:
    driver, launch = prepared(monkeypatch, map_of_a=False, programmatic=True)
    launch(*TENSORS, None, 77)
    between(driver)
    launch(*TENSORS, None, 77)
    assert driver.programmatic == [False, False]


@pytest.mark.parametrize(("programmatic", "stream"), [(True, 78), (True, None), (False, 77)])
def test_outside_a_graph_and_of_other_kernels_launches_are_plain(
    monkeypatch: pytest.MonkeyPatch, programmatic: bool, stream: int | None
) -> None:
    driver, launch = prepared(monkeypatch, map_of_a=False, programmatic=programmatic)
    for _ in range(2):
        launch(*TENSORS, None, stream)
    assert (driver.programmatic, len(driver.launches)) == ([], 2)


@pytest.mark.parametrize(("text", "sides"), [("bf16.nt", (24, 16)), ("f16.nn", (24, 16)), ("bf16.tn", (16, 24))])
def test_a_map_has_the_rows_and_columns_in_which_a_is_stored(
    monkeypatch: pytest.MonkeyPatch, text: str, sides: tuple[int, int]
) -> None:
    """Of m = 24 and k = 16."""
    driver, launch = prepared(monkeypatch, map_of_a=True, rows=24, operation=operation_of(text))
    launch(*(torch.zeros(8) for _ in range(4)), None, None)
    assert driver.launches[0][2][0][-8:] == struct.pack("<II", *sides)


@pytest.mark.parametrize(
    ("text", "name", "sides"),
    [
        ("bf16.nt+silu+gated", "b", (16, 24)),
        ("bf16.nn+bias+gated", "b", (24, 16)),
        ("bf16.nt+residual", "residual", (3, 8)),
    ],
)
def test_a_map_of_gates_has_them_and_what_they_gate(
    monkeypatch: pytest.MonkeyPatch, text: str, name: str, sides: tuple[int, int]
) -> None:
    """Of m = 3, n = 8 and k = 24: B has 16 columns."""
    monkeypatch.setattr(tensor_map, "encoded", made_up_map)
    launch = Launch((1, 1, 1), (128, 1, 1), 0, ARGUMENTS, operation=operation_of(text))
    mapped = tensor_map.mapped_matrix("k", {name: Box(8, 64)}, launch, name)
    sizes = {"m": 3, "n": 8, "k": 24}
    expected = made_up_map(4096, Extents(*sides, sides[1]), Box(8, 64))
    assert mapped.encoder(sizes)(4096) == expected
    bound = {name: DeviceBuffer(4096, 2 * sides[0] * sides[1]), **sizes}
    assert mapped.bound(bound) == expected


def test_gates_in_turn_are_two_matrices_with_rows_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_map, "encoded", lambda address, extents, box: extents)
    launch = Launch((1, 1, 1), (128, 1, 1), 0, ARGUMENTS, operation=operation_of("bf16.nt+silu+gated_interleaved"))
    mapped = tensor_map.mapped_matrix("k", {"b": Box(8, 64, dimensions=3)}, launch, "b")
    found: Any = mapped.encoder({"m": 3, "n": 8, "k": 24})(4096)
    assert found == Extents(8, 24, 48, 2, 24, in_turn=True)
    assert found.elements == 16 * 24
    weights = torch.arange(16 * 24).view(16, 24)
    gates, up = weights.as_strided((2, 8, 24), (found.matrix_stride, found.row_stride, 1))
    assert torch.equal(gates, weights[::2])
    assert torch.equal(up, weights[1::2])


def test_a_map_of_a_stack_has_its_matrices_and_all_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_map, "encoded", lambda address, extents, box: (address, extents, box))
    launch = Launch((1, 1, 1), (128, 1, 1), 0, ARGUMENTS, operation=operation_of("batched5.bf16.nt"))
    box = Box(8, 64, dimensions=3)
    mapped = tensor_map.mapped_matrix("k", {"b": box}, launch, "b")
    sizes = {"m": 3, "n": 8, "k": 24}
    assert mapped.encoder(sizes)(4096) == (4096, Extents(8, 24, 24, 5, 192), box)
    strided = {**sizes, "ldb": 40, "stride_b": 56}
    assert mapped.encoder(strided)(4096) == (4096, Extents(8, 24, 40, 5, 56), box)
    one_for_all: Any = mapped.encoder({**strided, "stride_b": 0})(4096)
    assert one_for_all == (4096, Extents(8, 24, 40), box)
    assert Extents(8, 24, 40, 5, 56).elements == 4 * 56 + 7 * 40 + 24
    with pytest.raises(DeviceError, match="b has rows of 24 elements, 40 apart: tensor copies need"):
        mapped.encoder({**strided, "stride_b": 60})
    with pytest.raises(DeviceError, match="b is 8 x 24 elements, its buffer 1919 bytes"):
        mapped.bound({"b": DeviceBuffer(4096, 1919), **sizes})
    flat = Launch((1, 1, 1), (128, 1, 1), 0, ARGUMENTS)
    with pytest.raises(DeviceError, match=r"takes b as a stack of matrices: bf16\.nt has but one"):
        tensor_map.mapped_matrix("k", {"b": box}, flat, "b")


def test_a_vector_has_no_map(monkeypatch: pytest.MonkeyPatch) -> None:
    swapped = (*reversed(POINTERS), *ARGUMENTS[4:])
    with pytest.raises(DeviceError, match="takes bias as a tensor map"):
        prepared(monkeypatch, map_of_a=True, operation=operation_of("bf16.nt+bias"), arguments=swapped)


def test_threads_fill_buffers_of_their_own_and_enter_the_context_once(monkeypatch: pytest.MonkeyPatch) -> None:
    driver, launch = prepared(monkeypatch, map_of_a=False)
    tensors = [torch.zeros(8) for _ in range(4)]

    def work(tensor: torch.Tensor) -> None:
        for _ in range(200):
            launch(tensor, tensor, tensor, tensor, None, tensor.data_ptr())

    threads = [threading.Thread(target=work, args=(tensor,)) for tensor in tensors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(driver.launches) == 800
    for _, stream, values in driver.launches:
        assert {struct.unpack("<Q", value)[0] for value in values[:4]} == {stream - 1000}
    assert len(driver.entered) == len(tensors) + 1


def test_what_cannot_be_launched_is_refused_when_it_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="a has rows of 12 elements, 12 apart: tensor copies need"):
        prepared(monkeypatch, map_of_a=True, columns=12)
    device = CudaDevice.__new__(CudaDevice)
    with pytest.raises(DeviceError, match="loaded by another device"):
        device.prepare(SimpleNamespace(symbol="k"), Launch((1, 1, 1), (1, 1, 1), 0, ()), {})


SIZES = {"m": 3, "k": 16}


@pytest.mark.parametrize(
    ("binding", "said"),
    [
        ({"a": DeviceBuffer(4096, 95), **SIZES}, "a is 3 x 16 elements, its buffer 95 bytes: allocate it"),
        ({"a": DeviceBuffer(4096, 96), "m": 0, "k": 16}, "a is 0 x 16 elements"),
        ({"a": DeviceBuffer(4104, 96), **SIZES}, "a is at 0x1008: tensor copies need"),
        ({"a": DeviceBuffer(4096, 96), "m": 3, "k": 12}, "a has rows of 12 elements, 12 apart"),
        ({"a": None, **SIZES}, r"k takes a as a tensor map: bind its buffer and \('m', 'k'\)"),
        ({"a": DeviceBuffer(4096, 96), "m": 3}, "k takes a as a tensor map: bind its buffer"),
    ],
)
def test_a_binding_that_no_map_can_be_made_of_is_refused(binding: dict[str, Any], said: str) -> None:
    matrix = tensor_map.mapped_matrix("k", {"a": Box(8, 64)}, Launch((1, 1, 1), (1, 1, 1), 0, ARGUMENTS), "a")
    with pytest.raises(DeviceError, match=f"^{said}"):
        matrix.bound(binding)


def test_a_launch_maps_what_it_binds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_map, "encoded", made_up_map)
    matrix = tensor_map.mapped_matrix("k", {"a": Box(8, 64)}, Launch((1, 1, 1), (1, 1, 1), 0, ARGUMENTS), "a")
    assert matrix.bound({"a": DeviceBuffer(4096, 96), **SIZES}) == made_up_map(4096, Extents(3, 16, 16), Box(8, 64))
    with pytest.raises(DeviceError, match=r"^k takes c as a tensor map: declare hktune_box_c in its source$"):
        tensor_map.mapped_matrix("k", {"a": Box(8, 64)}, Launch((1, 1, 1), (1, 1, 1), 0, ARGUMENTS), "c")
