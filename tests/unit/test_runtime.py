"""The runtime: the table's kernel for its exact operands, torch for everything else, and a count of both.

Kernels run on the emulated gfx950; the truth is torch.nn.functional.linear in float32, rounded once.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from naive_gemm import EMULATED, MI355X, OBJECT, SHA256, published, reseal, trial
from torch import Tensor

import hktune
from hktune import runtime
from hktune.core.errors import DeviceError, TableError
from hktune.core.launch import Launch
from hktune.core.operation import BF16_NT_BIAS
from hktune.core.outcome import Source
from hktune.core.problem import Problem
from hktune.device.device import Binding, Kernel
from hktune.device.emulated import EmulatedDevice, EmulatedKernel
from hktune.dispatch import Entry, Table, write_table
from hktune.runtime import FallbackWarning, LoadedTable, Stats

SMALL = Problem(8, 128, 64)
BIASED = Problem(8, 128, 64, BF16_NT_BIAS)
VENDOR = Problem(4, 64, 32)


class CountingDevice(EmulatedDevice):
    """The emulated device, with a count of what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def load(self, data: bytes, symbol: str) -> EmulatedKernel:
        self.calls[f"load {symbol}"] += 1
        return super().load(data, symbol)

    def launch(self, kernel: Kernel, launch: Launch, binding: Binding, stream: int | None = None) -> None:
        self.calls[f"launch {kernel.symbol}"] += 1
        super().launch(kernel, launch, binding, stream)


@pytest.fixture
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def device() -> CountingDevice:
    return CountingDevice()


@pytest.fixture
def table(tmp_path: Path, device: CountingDevice) -> LoadedTable:
    published(tmp_path, trial(SMALL), trial(BIASED), trial(VENDOR, baseline="hipBLASLt", baseline_us=0.5))
    return hktune.load(tmp_path, allow_modelled=True, device=device)


def random_bf16(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


def truth(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.nn.functional.linear(x.float(), weight.float(), None if bias is None else bias.float())


def assert_close(out: Tensor, expected: Tensor) -> None:
    """Within one rounding to bf16 (8 bits of significand) of a float32 sum of 64 products."""
    assert out.dtype is torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=2**-8, atol=1e-5)


def test_an_exact_shape_runs_its_kernel_and_matches_torch(table: LoadedTable, device: CountingDevice) -> None:
    a, bt = random_bf16(8, 64), random_bf16(128, 64)
    assert_close(hktune.linear(a, bt), truth(a, bt))
    assert device.calls == {"load naive_gemm": 1, "launch naive_gemm": 1}
    assert hktune.stats() == table.stats() == Stats(hits=1, near_hits=0, fallbacks={}, skipped={})


def test_leading_dimensions_count_as_one_m_and_come_back(table: LoadedTable, device: CountingDevice) -> None:
    x, weight = random_bf16(2, 4, 64), random_bf16(128, 64)
    out = table.linear(x, weight)
    assert out.shape == (2, 4, 128)
    assert_close(out, truth(x, weight))
    assert device.calls["launch naive_gemm"] == 1


def test_a_bias_is_another_problem_with_its_own_kernel(table: LoadedTable, device: CountingDevice) -> None:
    x, weight, bias = random_bf16(8, 64), random_bf16(128, 64), random_bf16(128)
    assert_close(table.linear(x, weight, bias), truth(x, weight, bias))
    assert device.calls == {"load naive_gemm_bias": 1, "launch naive_gemm_bias": 1}


def test_kernels_are_loaded_once_at_first_use_or_by_warm(table: LoadedTable, device: CountingDevice) -> None:
    assert not device.calls
    table.warm()
    assert device.calls == {"load naive_gemm": 1, "load naive_gemm_bias": 1}
    for _ in range(3):
        table.linear(random_bf16(8, 64), random_bf16(128, 64))
    assert device.calls["load naive_gemm"] == 1


def test_entries_of_one_kernel_share_it_and_threads_do_not_load_it_twice(
    tmp_path: Path, device: CountingDevice
) -> None:
    published(tmp_path, *(trial(Problem(m, 64, 32)) for m in (1, 2, 3, 4)))
    table = runtime.load(tmp_path, allow_modelled=True, device=device)
    weight = random_bf16(64, 32)
    threads = [threading.Thread(target=table.linear, args=(random_bf16(m, 32), weight)) for m in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert device.calls == {"load naive_gemm": 1, "launch naive_gemm": 4}


Operands = Callable[[], tuple[Tensor, ...]]


@pytest.mark.usefixtures("no_grad")
@pytest.mark.parametrize(
    ("operands", "why"),
    [
        (lambda: (random_bf16(9, 64), random_bf16(128, 64)), "no entry for the shape"),
        (lambda: (random_bf16(4, 32), random_bf16(64, 32)), "vendor chosen by the table"),
        (lambda: (random_bf16(8, 64).float(), random_bf16(128, 64).float()), "dtype"),
        (lambda: (random_bf16(8, 64).half(), random_bf16(128, 64).half()), "dtype"),
        (lambda: (random_bf16(64, 8).t(), random_bf16(128, 64)), "no entry for the shape"),
        (lambda: (random_bf16(4, 2, 64).transpose(0, 1), random_bf16(128, 64)), "strides"),
        (lambda: (random_bf16(8, 64), random_bf16(128, 128)[:, :64]), "strides"),
        (lambda: (random_bf16(513)[1:].view(8, 64), random_bf16(128, 64)), "alignment"),
        (lambda: (random_bf16(8, 64), random_bf16(128, 64), random_bf16(129)[1:]), "alignment"),
        (lambda: (random_bf16(8, 64), random_bf16(128, 64), torch.randn(1).bfloat16()), "operand shapes"),
        (lambda: (random_bf16(64), random_bf16(128, 64)), "no entry for the shape"),
        (lambda: (random_bf16(8, 64), random_bf16(64)), "operand shapes"),
    ],
)
def test_anything_else_goes_to_torch_unchanged_and_is_counted_by_reason(
    table: LoadedTable, device: CountingDevice, operands: Operands, why: str
) -> None:
    tensors = operands()
    expected = torch.nn.functional.linear(*tensors)
    if why == "vendor chosen by the table":
        out = table.linear(*tensors)
    else:
        with pytest.warns(FallbackWarning, match=f"because of: {why} .said once, counted in hktune.stats.*: [a-z]"):
            out = table.linear(*tensors)
    assert out.dtype is expected.dtype
    assert torch.equal(out, expected)
    assert table.stats().fallbacks == {why: 1}
    assert not device.calls


def test_other_devices_and_tensor_types_go_to_torch(table: LoadedTable, device: CountingDevice) -> None:
    with pytest.warns(FallbackWarning, match="because of: device"):
        meta = table.linear(random_bf16(8, 64).to("meta"), random_bf16(128, 64).to("meta"))
    assert (meta.device.type, meta.shape) == ("meta", (8, 128))

    class Tagged(Tensor):
        pass

    with pytest.warns(FallbackWarning, match="because of: tensor type"):
        table.linear(random_bf16(8, 64).as_subclass(Tagged), random_bf16(128, 64))
    sparse, weight = random_bf16(8, 64).to_sparse(), random_bf16(128, 64)
    assert torch.equal(table.linear(sparse, weight), torch.nn.functional.linear(sparse, weight))
    assert table.stats().fallbacks == {"device": 1, "tensor type": 2}
    assert not device.calls


def test_each_cause_warns_once(table: LoadedTable) -> None:
    weight = random_bf16(128, 64)
    with pytest.warns(FallbackWarning, match="no entry"):
        table.linear(random_bf16(1, 64), weight)
    for m in (2, 3):
        table.linear(random_bf16(m, 64), weight)
    with pytest.warns(FallbackWarning, match="dtype"):
        table.linear(random_bf16(8, 64).half(), weight.half())
    assert table.stats().fallbacks == {"no entry for the shape": 3, "dtype": 1}
    assert str(table.stats()) == (
        "hktune: 4 calls, 0 hits, 0 near hits; fallbacks: dtype: 1, no entry for the shape: 3; rows not used: none"
    )


def test_empty_batches_are_torchs(table: LoadedTable, device: CountingDevice) -> None:
    weight = torch.nn.Parameter(random_bf16(128, 64))
    for shape in ((0, 64), (3, 0, 64)):
        out = table.linear(torch.empty(shape, dtype=torch.bfloat16), weight)
        assert out.shape == (*shape[:-1], 128)
        out.sum().backward()
    assert table.stats().fallbacks == {"empty operand": 2}
    assert not device.calls


def test_operands_that_do_not_fit_raise_torchs_own_error(table: LoadedTable) -> None:
    with (
        pytest.warns(FallbackWarning, match="operand shapes"),
        pytest.raises(RuntimeError, match="shapes cannot be multiplied"),
    ):
        table.linear(random_bf16(16, 32), random_bf16(128, 64))


def test_without_a_table_and_without_permission_the_line_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"no dispatch table is loaded: call hktune\.load"):
        hktune.linear(random_bf16(8, 64), random_bf16(128, 64))
    with pytest.raises(TableError, match="no dispatch table is loaded"):
        hktune.stats()
    published(tmp_path, trial(SMALL))
    with pytest.raises(TableError, match=r"all 1 entries have modelled times.*: pass allow_modelled=True"):
        hktune.load(tmp_path)
    published(tmp_path)
    with pytest.raises(TableError, match="the table has no entries"):
        hktune.load(tmp_path)


def test_the_emulated_device_is_picked_for_an_emulated_table_and_others_are_named(tmp_path: Path) -> None:
    published(tmp_path, trial(SMALL))
    a, bt = random_bf16(8, 64), random_bf16(128, 64)
    hktune.load(str(tmp_path), allow_modelled=True)
    assert_close(hktune.linear(a, bt), truth(a, bt))
    published(tmp_path, trial(SMALL, source=Source.MEASURED), identity=MI355X)
    with pytest.raises(DeviceError, match=r"(?i)hip|rocm"):
        hktune.load(tmp_path)


def test_a_table_of_another_architecture_is_refused(tmp_path: Path) -> None:
    published(tmp_path, trial(SMALL, target="gfx942"), identity=replace(EMULATED, arch="gfx942"))
    with pytest.raises(TableError, match="another architecture: saved=gfx942 current=gfx950"):
        hktune.load(tmp_path, allow_modelled=True)


def test_a_row_that_cannot_be_used_is_warned_of_once_counted_and_served_by_torch(
    tmp_path: Path, device: CountingDevice
) -> None:
    published(tmp_path, trial(SMALL), trial(BIASED))
    reseal(tmp_path, lambda text: text.replace('"naive_gemm_bias"', '"gone"'))
    with pytest.warns(UserWarning, match=r"1 of 2 entries are not used \(symbol missing: 1; first: 8x128x64") as caught:
        table = hktune.load(tmp_path, allow_modelled=True, device=device)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    x, weight, bias = random_bf16(8, 64), random_bf16(128, 64), random_bf16(128)
    with pytest.warns(FallbackWarning, match="no entry for the shape"):
        served = table.linear(x, weight, bias)
    assert torch.equal(served, torch.nn.functional.linear(x, weight, bias))
    assert table.stats().skipped == {"symbol missing": 1}
    assert table.stats().fallbacks == {"no entry for the shape": 1}


def republished(directory: Path, table: Table, change: Callable[[Entry], Entry]) -> None:
    entries = tuple(change(entry) for entry in table.entries)
    write_table(msgspec.structs.replace(table, entries=entries), {SHA256: OBJECT}, directory)


def test_other_row_counts_of_a_tuned_layer_run_its_kernel_and_are_counted_as_near(tmp_path: Path) -> None:
    open_to_more = {"m_from": 1, "m_to": 20}
    made = published(tmp_path, trial(SMALL))
    republished(tmp_path, made, lambda entry: msgspec.structs.replace(entry, **open_to_more))
    table, weight = hktune.load(tmp_path, allow_modelled=True), random_bf16(128, 64)
    for m in (8, 1, 20):
        assert_close(table.linear(random_bf16(m, 64), weight), truth(random_bf16(m, 64), weight))
    with pytest.warns(FallbackWarning, match="no entry"):
        table.linear(random_bf16(21, 64), weight)
    assert table.stats() == Stats(hits=1, near_hits=2, fallbacks={"no entry for the shape": 1}, skipped={})


def test_reproducible_leaves_out_kernels_whose_sums_have_no_fixed_order(tmp_path: Path) -> None:
    def only_plain(entry: Entry) -> Entry:
        kernel = msgspec.structs.replace(entry.kernel, reproducible=not entry.problem.operation.has_bias)
        return msgspec.structs.replace(entry, kernel=kernel)

    republished(tmp_path, published(tmp_path, trial(SMALL), trial(BIASED)), only_plain)
    with pytest.warns(UserWarning, match=r"1 of 2 entries are not used \(not reproducible: 1; first: .*no fixed order"):
        table = hktune.load(tmp_path, allow_modelled=True, reproducible=True)
    assert table.stats().skipped == {"not reproducible": 1}
    assert hktune.load(tmp_path, allow_modelled=True).stats().skipped == {}


def test_a_summary_is_printed_at_exit_on_request(tmp_path: Path) -> None:
    published(tmp_path, trial(SMALL))
    code = f"import hktune; hktune.load({str(tmp_path)!r}, allow_modelled=True, summary_at_exit=True)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "hktune: 0 calls, 0 hits, 0 near hits; fallbacks: none; rows not used: none\n"


def test_a_summary_to_be_printed_keeps_no_table(tmp_path: Path) -> None:
    published(tmp_path, trial(SMALL))
    m, n, k = SMALL.m, SMALL.n, SMALL.k
    code = f"""
import gc, weakref, torch, hktune
table = hktune.load({str(tmp_path)!r}, allow_modelled=True, summary_at_exit=True)
table.linear(torch.ones({m}, {k}).bfloat16(), torch.ones({n}, {k}).bfloat16())
gone = weakref.ref(table)
hktune.unload()
del table
gc.collect()
print(gone() is None)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert done.stderr == "hktune: 1 calls, 1 hits, 0 near hits; fallbacks: none; rows not used: none\n"


def test_an_object_whose_sha256_is_off_leaves_nothing_to_load(tmp_path: Path) -> None:
    published(tmp_path, trial(SMALL))
    path = tmp_path / "objects" / f"{SHA256}.hsaco"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(TableError, match=r"none of 1 entries can be used \(object changed: 1; .*saved=.*current="):
        hktune.load(tmp_path, allow_modelled=True)


def test_importing_hktune_loads_neither_torch_nor_numpy_and_names_the_runtime() -> None:
    code = """
import sys, hktune
heavy = {"torch", "numpy", "msgspec", "yaml", "elftools", "pandas", "optuna"} & set(sys.modules)
assert not heavy, heavy
assert {"Linear", "linear", "load", "matmul", "patch", "record", "stats", "unpatch"} <= set(dir(hktune))
try:
    hktune.absent
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "module 'hktune' has no attribute 'absent'\n"
