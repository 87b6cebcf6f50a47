"""Parameters that follow one another in memory, so that one kernel reads them as one: of linears with the same input.

They stay parameters of their own. Nothing is a copy that could be out of date: each call looks where they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hktune.runtime.calls.operands import ALIGNMENT_BYTES, PLAIN
from hktune.runtime.layers import Linear

_STRIDED = torch.strided
_FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


def joined(tensors: Sequence[Tensor]) -> Tensor | None:
    """All of them as one tensor of the same memory, by their first dimension; None where one does not begin where the
    one before ends."""
    first = tensors[0]
    if any(type(each) not in PLAIN or not each.is_contiguous() for each in tensors):
        return None
    kind = (first.shape[1:], first.dtype, first.device)
    if any((each.shape[1:], each.dtype, each.device) != kind for each in tensors):
        return None
    start = first.untyped_storage().data_ptr()
    end = first.storage_offset()
    for each in tensors:
        if each.untyped_storage().data_ptr() != start or each.storage_offset() != end or not start:
            return None
        end += each.numel()
    rows = sum(each.shape[0] for each in tensors)
    return first.detach().as_strided((rows, *first.shape[1:]), first.stride(), first.storage_offset())


def storages_of(model: nn.Module) -> Mapping[int, int]:
    """How many parameters and buffers of `model` are in each storage, by its address."""
    held = (*model.parameters(), *model.buffers())
    return Counter(
        each.untyped_storage().data_ptr() for each in held if type(each) in PLAIN and each.layout is _STRIDED
    )


def make_neighbours(tensors: Sequence[Tensor], storages: Mapping[int, int]) -> None:
    """Have parameters follow one another in memory, if each has a storage of its own: one that no other of the model's
    `storages` is, and no other process. Each is to begin where a kernel can read it."""
    kinds = {(each.shape[1:], each.dtype, each.device) for each in tensors}
    if len(kinds) != 1 or len({id(each) for each in tensors}) < len(tensors):
        return
    if any(each.nbytes % ALIGNMENT_BYTES for each in tensors[:-1]):
        return
    for each in tensors:
        if type(each) not in PLAIN or each.layout is not _STRIDED or each.is_meta or each.is_inference():
            return
        storage = each.untyped_storage()
        if storage.is_shared() and not storage.is_cuda:  # of a GPU's memory torch always says so
            return
        if storage.nbytes() != each.nbytes or storages[storage.data_ptr()] != 1:
            return
    with torch.inference_mode(False), torch.no_grad():  # what is made in that mode can never be trained
        whole = torch.cat([each.detach() for each in tensors])
        parts = torch.split(whole, [len(each) for each in tensors])
        for each, part in zip(tensors, parts, strict=True):
            each.data = part


def place_linears(module: nn.Module, storages: Mapping[int, int]) -> list[str]:
    """Have those children of `module` follow one another in memory that are linears of as many features, and number
    their places; the names of these, in order."""
    groups: dict[tuple[object, ...], list[tuple[str, Linear]]] = {}
    for name, child in module.named_children():
        if isinstance(child, Linear) and type(child).forward is Linear.forward:
            weight, bias = child._parameters.get("weight"), child._parameters.get("bias")
            if weight is not None:
                kind = (weight.shape[1], weight.dtype, weight.device, bias is None)
                groups.setdefault(kind, []).append((name, child))
    names = []
    for group in groups.values():
        linears = [linear for _, linear in group]
        if len(group) > 1 and not any("_place" in vars(each) for each in linears):
            found = ([each._parameters.get(name) for each in linears] for name in ("weight", "bias"))
            parameters = [known for each in found if (known := [one for one in each if one is not None])]
            for each in parameters:
                make_neighbours(each, storages)
            if any(joined(each) is None for each in parameters):
                continue
            for place, linear in enumerate(linears, 1):
                vars(linear)["_place"] = place
            names += [name for name, _ in group]
    return names


def has_float8(model: nn.Module) -> bool:
    """Whether `model` has matrices in float8."""
    return any(_is_float8_matrix(each) for each in (*model.parameters(), *model.buffers()))


def place_float8(module: nn.Module, storages: Mapping[int, int]) -> list[str]:
    """Have the matrices in float8 follow one another in memory that children of `module` of one class hold under one
    name, where they have as many features; and so their scales and biases. The names of these children, in order."""
    groups: dict[tuple[str, object], list[tuple[str, nn.Module]]] = {}
    for child_name, child in module.named_children():
        for name, each in _own(child).items():
            if _is_float8_matrix(each):
                kind = (type(child), each.shape[1], each.dtype, each.device)
                groups.setdefault((name, kind), []).append((child_name, child))
    names = []
    for (name, _), group in groups.items():
        owned = [_own(child) for _, child in group]
        matrices = [each[name] for each in owned]
        if len(group) < 2 or joined(matrices) is not None:
            continue
        make_neighbours(matrices, storages)
        if joined(matrices) is None:
            continue
        for other in owned[0].keys() - {name}:
            small = [each[other] for each in owned if other in each]
            if len(small) == len(group) and not any(_is_float8_matrix(each) for each in small):
                make_neighbours(small, storages)
        names += [child_name for child_name, _ in group]
    return names


def _own(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of `module` itself that are plain tensors."""
    own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return {name: each for name, each in own if type(each) in PLAIN}


def _is_float8_matrix(each: Tensor) -> bool:
    return each.dtype in _FLOAT8 and each.dim() == 2
