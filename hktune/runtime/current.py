"""The current table: loading one, and the functions that use it."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from hktune.core.board import DEFAULT_BOARD
from hktune.core.errors import TableError
from hktune.core.identity import Identity
from hktune.core.outcome import Source
from hktune.device.device import Device
from hktune.device.opening import open_device
from hktune.device.vendor_libraries import vendor_libraries
from hktune.dispatch import Entry, Reason, Skipped, Table, Trust, Validated, read_table, validate
from hktune.dispatch.sign import PublicKey
from hktune.runtime import activated_operator, finished, operators, watched
from hktune.runtime.callers_line import warn_caller
from hktune.runtime.calls.forms import LINEAR, LINEAR_BIAS, MATMUL, Form, activated, linear_form
from hktune.runtime.calls.given import check_bools, check_path
from hktune.runtime.calls.gradients import asks_gradient
from hktune.runtime.counts import Counts, Stats
from hktune.runtime.loaded import LoadedTable
from hktune.runtime.torch_state import compiling, is_plain


def load(
    directory: str | PathLike[str],
    allow_modelled: bool = False,
    device: Device | None = None,
    *,
    public_key: PublicKey | None = None,
    sha256: str | None = None,
    created_after: datetime | str | None = None,
    reproducible: bool = False,
    allow_sibling_board: bool = False,
    summary_at_exit: bool = False,
) -> LoadedTable:
    """Read the table of `directory`, check it against its device, and make it the current one.

    Entries whose time is modelled are used only when `allow_modelled` says so. `device` overrides the device that the
    table names; on a GPU it is torch's current one. An entry that cannot be used is left out, and one warning counts
    those. With `allow_sibling_board` entries of another board of the same architecture are used too, if it has as many
    compute units (H100 and H200, MI350X and MI355X). No warning says so: `stats` counts what such entries serve.

    With `public_key` the table must be signed by its owner. `sha256` pins one table by its content_sha256.
    `created_after` (a datetime, or text in ISO 8601) refuses older ones, however well signed. `reproducible` leaves out
    kernels whose sums have no fixed order, so that equal operands give equal bits on every run, and algorithms of the
    vendor's library. (Products that it makes by its own choice are what they are.) `summary_at_exit` prints the table's
    stats to stderr when the process ends.

    Raises TableError when the table is not readable, is of another architecture, or has no usable entry at all. Raises
    DeviceError when the table's device is not there, and TypeError for an argument of another type.
    """
    path = check_path("load", "directory", directory)
    flags = {"allow_modelled": allow_modelled, "reproducible": reproducible, "summary_at_exit": summary_at_exit}
    _check_types(device, public_key, sha256, {**flags, "allow_sibling_board": allow_sibling_board})
    table = read_table(path, Trust(public_key, sha256, created_after))
    _check_any(table, path, allow_modelled)
    device = device or _device_of(table)
    validated = _validated(table, path, device, allow_modelled, allow_sibling_board, reproducible)
    loaded = _on_device(validated, device, path)
    if summary_at_exit:
        _print_at_exit(loaded._counts)  # and not the table, which may go before
    operators.make_current(loaded)
    return loaded


def _print_at_exit(counts: Counts) -> None:
    atexit.register(lambda: print(counts.stats(), file=sys.stderr))


def _check_types(device: object, public_key: object, sha256: object, flags: Mapping[str, object]) -> None:
    if device is not None and not isinstance(getattr(device, "identity", None), Identity):
        step = "leave it out for torch's current GPU, which torch.cuda.set_device chooses"
        raise TypeError(f"load(): argument 'device' must be a device of hktune, not {type(device).__name__}: {step}")
    if public_key is not None and not isinstance(public_key, bytes):
        check_path("load", "public_key", public_key)
    if sha256 is not None and not isinstance(sha256, str):
        raise TypeError(f"load(): argument 'sha256' must be str, not {type(sha256).__name__}")
    check_bools("load", **flags)


def _validated(
    table: Table, path: Path, device: Device, allow_modelled: bool, allow_sibling_board: bool, reproducible: bool
) -> Validated:
    """The entries that can be used, of which at least one is; a warning counts the others."""
    libraries = _libraries_of(table)
    validated = validate(
        table, path, device.identity, allow_modelled, allow_sibling_board=allow_sibling_board, libraries=libraries
    )
    validated = _reproducible(validated) if reproducible else validated
    _report(validated, path)
    return validated


def _on_device(validated: Validated, device: Device, path: Path) -> LoadedTable:
    """The table on `device`, and on others of its kind as their tensors come."""
    kind = device.identity.kind
    index = -1 if kind == "emulated" else _current_gpu()
    return LoadedTable(validated, device, index, lambda other: open_device(kind, other), str(path))


def unload() -> None:
    """Make no table the current one; nothing happens where none is.

    A table that the program holds goes on serving by its own methods. hktune.linear, hktune.matmul, layers made as
    hktune.Linear and patched ones raise TableError until another is loaded. So `unpatch` a model that is to go on
    without."""
    operators.make_current(None)


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    out_dtype: torch.dtype | None = None,
    out_scale: Tensor | None = None,
) -> Tensor:
    """As torch.nn.functional.linear (weight [N, K]), by the current table.

    `activation` (relu, gelu, gelu_tanh, silu) is torch's function of that name, done by the same kernel where the table
    has one, in float32 before the one rounding. Else, and where a gradient is asked, it is torch's own of the product.
    So is `residual`, which is added last: a kernel adds one that has the output's shape and dtype and is contiguous.
    With factors it is activation(alpha * (x @ weight^T) + bias) + beta * residual; a `beta` of 0 leaves that out.

    With `out_dtype=torch.float8_e4m3fn` all of it is multiplied by `out_scale` (float32, one element; 1 without one)
    and rounded to that. What is beyond 448 becomes 448. The next layer's scale of this input is 1 / out_scale. Other
    `out_dtype`s are that of x, and autocast's where that is on: the result is cast to it where it is another.

    Raises TableError when no table is loaded. Raises InputError for an activation that is not known, another
    `out_dtype`, an `out_scale` that is none, and a `beta` without a residual.
    """
    if residual is not None or not alpha == beta == 1 or out_dtype is not None or out_scale is not None:
        ends = (alpha, beta, out_dtype, out_scale)
        return finished.linear(linear, operators.CURRENT, x, weight, bias, activation, residual, *ends)
    if compiling():
        return activated_operator.traced_linear(x, weight, bias, operators.CURRENT, activation)
    if activation is None:
        form = LINEAR if bias is None else LINEAR_BIAS
    elif asks_gradient(x, weight, bias):
        return activated(activation, linear(x, weight, bias))
    else:
        form = linear_form(bias, activation)
    table = operators._current
    out = None if table is None else table.again(form, x, weight, bias)
    return _asked(form, x, weight, bias) if out is None else out


def _asked(form: Form, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear that is like none before, or that something watches."""
    if not is_plain():
        return watched.linear(linear, operators.CURRENT, x, weight, bias, form.activation or None)
    return operators.table_numbered(operators.CURRENT).plain(form, x, weight, bias)


def gated_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = "silu",
    *,
    interleaved: bool = False,
    out_dtype: torch.dtype | None = None,
    out_scale: Tensor | None = None,
) -> Tensor:
    """`activation` of a gate, times what it gates, by the current table: x [..., K], weight [2N, K] -> [..., N].

    The first N rows of `weight` make the gates, the others what these gate; with `interleaved` the rows of both take
    turns: gate 0, up 0, gate 1, up 1. `bias` has 2N elements in the same order. `out_dtype` and `out_scale` are those
    of `linear`. With silu this is SwiGLU, with gelu_tanh or gelu GeGLU; None leaves the gate as it is. One kernel does
    it where the table has one, in float32 before the one rounding. Else, and where a gradient is asked, the product is
    a call of `linear`, and the rest torch's own.

    Raises TableError when no table is loaded. Raises InputError for an activation that is not known, and for a weight
    with an odd number of rows.
    """
    ends = (interleaved, out_dtype, out_scale)
    return finished.gated_linear(gated_linear, linear, operators.CURRENT, x, weight, bias, activation, *ends)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """As torch.matmul (b [K, N]), by the current table. Raises TableError when none is loaded.

    Both operands are read as they are stored, where the table has a kernel that reads them so: `a` or `b` may be the
    transposed view of a matrix, as in `matmul(a, w.T)`.
    """
    if compiling():
        return operators.traced_matmul(a, b, operators.CURRENT)
    table = operators._current
    if table is not None:
        out = table.again(MATMUL, a, b, None)
        if out is not None:
            return out
    if not is_plain():
        return watched.matmul(matmul, operators.CURRENT, a, b)
    return operators.table_numbered(operators.CURRENT).plain(MATMUL, a, b, None)


def stats() -> Stats:
    """What the current table has served. Raises TableError when none is loaded."""
    return operators.table_numbered(operators.CURRENT).stats()


def _device_of(table: Table) -> Device:
    """What the table names: the emulated board that it is of, or torch's current GPU."""
    if table.device.kind != "emulated":
        return open_device(table.device.kind, _current_gpu())
    from hktune.device.emulated import EmulatedDevice

    return EmulatedDevice(board=table.identity.known_board or DEFAULT_BOARD)


def _libraries_of(table: Table) -> dict[str, str]:
    """Of the vendor's libraries that entries are of algorithms of, those that are here, and their versions. Others are
    not opened: that loads hundreds of megabytes, and may open the GPU."""
    algorithms = (entry.vendor_algorithm for entry in table.entries)
    names = {algorithm.library for algorithm in algorithms if algorithm is not None}
    return {library.name: library.version for library in vendor_libraries(table.device.kind, names=names)}


def _current_gpu() -> int:
    return torch.cuda.current_device() if torch.cuda.is_available() else 0


def _check_any(table: Table, path: Path, allow_modelled: bool) -> None:
    if not table.entries:
        raise TableError(f"{path}: the table has no entries: tune some shapes into it")
    if not allow_modelled and all(entry.source is Source.MODELLED for entry in table.entries):
        rule = f"{path}: all {len(table.entries)} entries have modelled times, which are no proof of speed"
        raise TableError(f"{rule}: pass allow_modelled=True to use them all the same")


def _reproducible(validated: Validated) -> Validated:
    fixed: list[Entry] = []
    others: list[Entry] = []
    for entry in validated.usable:
        is_fixed = entry.choice == "vendor" or (entry.kernel is not None and entry.kernel.reproducible)
        (fixed if is_fixed else others).append(entry)
    detail = "its sums have no fixed order, and reproducible is True"
    skipped = (Skipped(entry, Reason.NOT_REPRODUCIBLE, detail) for entry in others)
    return replace(validated, usable=tuple(fixed), skipped=(*validated.skipped, *skipped))


def _report(validated: Validated, path: Path) -> None:
    """Say in one line which entries are not used. Raises TableError where none is used."""
    total = len(validated.skipped) + len(validated.usable)
    if validated.skipped:
        said = _said(validated.skipped, validated.skipped_by_reason)
        if not validated.usable:
            raise TableError(f"{path}: none of {total} entries can be used ({said}): build the table again here")
        warn_caller(f"{path}: {len(validated.skipped)} of {total} entries are not used ({said})")


def _said(rows: Sequence[Skipped], by_reason: Mapping[str, int]) -> str:
    counts = ", ".join(f"{reason}: {count}" for reason, count in by_reason.items())
    return f"{counts}; first: {rows[0].entry.problem}, {rows[0].detail}"
