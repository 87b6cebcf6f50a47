"""What torch makes of a call of several products: its own functions, and product by product what it has none for."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hktune.core.errors import InputError
from hktune.core.group_sizes import row_ranges
from hktune.core.operation import ACTIVATIONS, GATES
from hktune.runtime.calls.forms import FLOAT8, activated, form_ending, gated
from hktune.runtime.calls.gradients import asks_gradient
from hktune.runtime.calls.several_call import SeveralCall

FORMATS = (FLOAT8, torch.int8)
"""Of factors with scales."""


def by_torch(call: SeveralCall) -> Tensor:
    """torch's own. Raises InputError for products with scales that torch has not here, and that are of nothing."""
    if call.is_finished:
        return finished(by_torch(call.products), call)
    if call.has_scales:
        return _scaled(call)
    if call.residual is not None:
        return torch.baddbmm(call.residual, call.a, call.b)
    if call.offsets is None and call.a.dim() == 3:
        return torch.bmm(call.a, call.b)
    return torch._grouped_mm(call.a, call.b, offs=call.offsets)


def steps_of(activation: str | None, gates: str = "") -> tuple[str, ...]:
    """In the words of an operation; `gates` is a step of GATES, or "". Raises InputError for an activation that is not
    known."""
    return tuple(form_ending(False, activation, gates).ending.split("+")[1:])


def finished(product: Tensor, call: SeveralCall) -> Tensor:
    """What torch makes of the products of a call whose end is more than them. Raises InputError where there are not as
    many gates as what they gate."""
    if call.add_to is not None:
        return call.add_to.add_(product)
    product = product if call.bias is None else product + _bias_of_rows(call.bias, call.offsets, len(product))
    if not call.steps:
        return product
    activation = call.steps[0] if call.steps[0] in ACTIVATIONS else None
    if call.steps[-1] in GATES:
        return gated(product, activation, GATES[call.steps[-1]] == "interleaved")
    assert activation is not None, "there are steps"
    return activated(activation, product)


def _bias_of_rows(bias: Tensor, offsets: Tensor | None, rows: int) -> Tensor:
    """[rows, N]: of each row the bias of its group, and 0 of those behind the last one. Nobody waits for a GPU."""
    assert offsets is not None, "a bias is of groups"
    groups = torch.bucketize(torch.arange(rows, device=offsets.device), offsets.contiguous(), right=True)
    of_groups = torch.cat([bias, bias.new_zeros(1, bias.shape[1])])
    if asks_gradient(bias):
        return of_groups.float()[groups].to(bias.dtype)  # the gradient is summed over rows in float32
    return of_groups[groups]


def checked(name: str, call: SeveralCall) -> SeveralCall:
    """`call`, of the function `name`. Raises InputError, one line, for a bias, or something to add to, that is none of
    these products. What else is wrong is torch's to say."""
    if not all(isinstance(each, Tensor) for each in (call.a, call.b)):
        return call
    if call.bias is not None:
        if call.offsets is None or call.divides_k:
            raise InputError(f"{name}: a bias is for groups of rows: pass b [G, K, N] and offs")
        _check_added(name, "bias", call.bias, (call.b.shape[0], call.b.shape[-1]), (call.c_dtype,))
    if call.add_to is not None:
        if call.steps or not call.divides_k:
            raise InputError(f"{name}: add_to is for groups of K, without an activation: pass b [K, N] and offs")
        _check_added(name, "add_to", call.add_to, call.out_shape, (call.a.dtype, torch.float32))
    return call


def _check_added(
    name: str, argument: str, added: object, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...]
) -> None:
    if isinstance(added, Tensor) and added.shape == shape and added.dtype in dtypes:
        return
    got = f"{list(added.shape)} {added.dtype}" if isinstance(added, Tensor) else type(added).__name__
    wanted = " or ".join(map(str, dict.fromkeys(dtypes)))
    raise InputError(f"{name}: {argument} must be {list(shape)} {wanted}, got {got}: pass such".replace("torch.", ""))


def _scaled(call: SeveralCall) -> Tensor:
    """torch's, which is for float8 on GPUs, and has something to compute; any other product by product. Raises
    InputError where operands or scales do not fit."""
    are_tensors = all(isinstance(each, Tensor) for each in (call.a, call.b, call.scale_a, call.scale_b))
    if not are_tensors or call.a.is_meta or _is_torchs(call):  # which says what is wrong, too
        return torch._scaled_grouped_mm(
            call.a,
            call.b,
            call.scale_a,  # type: ignore[arg-type]
            call.scale_b,  # type: ignore[arg-type]
            offs=call.offsets,
            out_dtype=call.c_dtype,
            use_fast_accum=call.use_fast_accum,
        )
    _check(call)
    out = call.a.new_empty(call.out_shape, dtype=call.c_dtype)
    if 0 in (call.sizes or ()):  # then nobody waits for a GPU, which may be capturing
        return out.zero_()
    for own, a, b, scale_a, scale_b in _products(call, out):
        # Sums of integers are exact, as those of kernels are.
        wide = torch.float64 if a.dtype is torch.int8 else torch.float32
        sums = (a.to(wide) @ b.to(wide)).float()
        own.copy_(sums * scale_a[:, None] * scale_b)
    return out


def _is_torchs(call: SeveralCall) -> bool:
    return call.a.is_cuda and call.a.dtype is not torch.int8 and 0 not in (call.sizes or ())


def _products(call: SeveralCall, out: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Of each product the rows of C that are its own, A, B, and their scales."""
    scale_a, scale_b = call.scale_a, call.scale_b
    assert scale_a is not None, "asked of calls with scales"
    assert scale_b is not None, "as well"
    if call.offsets is None:
        yield from zip(out, call.a, call.b, scale_a, scale_b, strict=True)
        return
    for group, (first, end) in enumerate(row_ranges(call.offsets.clamp(0, len(call.a)).tolist())):
        yield out[first:end], call.a[first:end], call.b[group], scale_a[first:end], scale_b[group]


def _check(call: SeveralCall) -> None:
    """Raises InputError, one line, where torch would not say what is wrong."""
    a, b, offsets, sizes = call.a, call.b, call.offsets, call.sizes
    name = "scaled_grouped_mm"
    if a.dtype not in FORMATS or b.dtype is not a.dtype:
        got = f"{a.dtype} and {b.dtype}".replace("torch.", "")
        raise InputError(f"{name}: a and b must both be float8_e4m3fn, or int8, got {got}: pass such")
    if sizes is None or call.divides_k or (offsets is not None and offsets.dtype is not torch.int32):
        shapes = " and ".join(str(list(each.shape)) for each in (a, b))
        ends = "no offs" if offsets is None else f"offs {list(offsets.shape)} {offsets.dtype}".replace("torch.", "")
        wanted = "a [M, K] and b [G, K, N] with offs int32 [G], or a [G, M, K] and b [G, K, N] without"
        raise InputError(f"{name}: must have {wanted}, got {shapes} with {ends}: pass such")
    if not call.scales_fit(sizes):
        m, n, _, groups = sizes
        scales = [each for each in (call.scale_a, call.scale_b) if each is not None]
        got = " and ".join(f"{list(each.shape)} {each.dtype}" for each in scales).replace("torch.", "")
        of_a = [m] if offsets is not None else [groups, m]
        raise InputError(f"{name}: scales must be float32, {of_a} and {[groups, n]}, got {got}: pass such")
