"""Layers of a model that is there: served by the current table, or given back to torch; and a report of each."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MethodType

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrize import ParametrizationList

from hktune.runtime.calls.given import check_bools
from hktune.runtime.calls.operands import PLAIN
from hktune.runtime.fusing import adjacent_weights, fused_modules, inductor_pass
from hktune.runtime.fusing.class_bases import rebased
from hktune.runtime.layers import Linear, PatchedLinear

_NOT_PRODUCTS = (nn.Embedding, nn.EmbeddingBag, _ConvNd, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, ParametrizationList)
"""Modules with matrices that they do not multiply by."""


@dataclass(frozen=True)
class PatchReport:
    """What `patch` or `unpatch` did to a model, by the names of its modules. Its length is how many layers it changed;
    printed, it is one block of text."""

    verb: str
    """`patched` or `unpatched`."""
    changed: tuple[str, ...]
    already: tuple[str, ...]
    """Layers that the table served before `patch` was called."""
    left: Mapping[str, str]
    """Modules that torch goes on computing after `patch`, or that may call hktune still after `unpatch`, and why."""
    fused: Mapping[str, str] = field(default_factory=dict)
    """Modules whose linears one kernel finishes, and how."""
    adjacent: Mapping[str, str] = field(default_factory=dict)
    """Modules with linears that follow one another in memory, and which: in a compiled graph those of one input are one
    product."""

    def __len__(self) -> int:
        return len(self.changed)

    def __str__(self) -> str:
        counts = [f"{_counted(len(self.changed), 'layer')} {self.verb}"]
        if self.fused:
            counts.append(f"{_counted(len(self.fused), 'module')} fused")
        if self.already:
            counts.append(f"{len(self.already)} served already")
        if self.verb == "patched":
            counts.append(f"{_counted(len(self.left), 'module')} left to torch")
        elif self.left:
            counts.append(f"{_counted(len(self.left), 'module')} out of reach")
        lines = ["hktune: " + ", ".join(counts)]
        lines += [f"  {self.verb}  {each}" for each in _grouped((name, "") for name in self.changed)]
        lines += [f"  fused  {each}" for each in _grouped(self.fused.items())]
        lines += [f"  adjacent  {each}" for each in _grouped(self.adjacent.items())]
        lines += [f"  left  {each}" for each in _grouped(self.left.items())]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<hktune {self.verb} {len(self.changed)}, already {len(self.already)}, left {len(self.left)}>"


def patch(model: nn.Module, *, fuse: bool = False, quiet: bool = False) -> PatchReport:
    """Have every nn.Linear in `model` served by the current table; prints, unless `quiet`, and returns which those are
    and what was left.

    The very module objects stay, with their parameters (tied ones too), hooks, buffers and state_dict; only their class
    changes, and what kept hold of their `forward` (accelerate's hooks). Layers that torch gave a class of its own
    (FSDP2, parametrizations) keep what it adds. Left are modules whose product this cannot see. These are subclasses of
    nn.Linear, layers whose `forward` somebody replaced, weights of another tensor type, and layers without a weight
    yet. So are modules that multiply by matrices of their own.

    With `fuse`, a module is changed too whose forward calls such layers and has an activation, gates or a sum behind
    one: `act(linear)`, `act(gate) * up`, `linear + residual`. One kernel does these where the table has one and no
    gradient is asked (`hktune.linear`, `hktune.gated_linear`). Its forward is read once, here; what it does must depend
    on its children alone. Weights of gate and up are moved, to follow one another in memory; the parameters stay. So
    are weights in float8 of modules of one class: what is behind their products is fused in compiled graphs alone.

    Raises TypeError when `model` is no module, or another argument no bool.
    """
    check_bools("patch", fuse=fuse, quiet=quiet)
    report = _Changes(model, "patched")
    for name, module in report.modules():
        if isinstance(module, Linear):
            report.already.append(name)
        elif why := _why_left(module):
            report.left[name] = why
        elif isinstance(module, nn.Linear):
            _change(module, nn.Linear, PatchedLinear, report.classes)
            report.changed.append(name)
    if fuse:
        storages = adjacent_weights.storages_of(model)
        for name, module in report.modules():
            plan = fused_modules.fuse(module, storages)
            if plan is not None:
                report.fused[name] = str(plan)
                continue
            names = adjacent_weights.place_linears(module, storages) + adjacent_weights.place_float8(module, storages)
            if names:
                report.adjacent[name] = ", ".join(names)
        inductor_pass.use(at_once=adjacent_weights.has_float8(model))
    return report.done(quiet)


def unpatch(model: nn.Module, *, quiet: bool = False) -> PatchReport:
    """Undo `patch`; prints, unless `quiet`, and returns which layers it had changed. Layers made as hktune.Linear stay.
    Raises TypeError when `model` is no module, or `quiet` no bool."""
    check_bools("unpatch", quiet=quiet)
    report = _Changes(model, "unpatched")
    for name, module in report.modules():
        fused_modules.unfuse(module)
        vars(module).pop("_place", None)
        if isinstance(module, PatchedLinear):
            _change(module, PatchedLinear, nn.Linear, report.classes)
            report.changed.append(name)
            if _has_foreign_forward(module):
                report.left[name] = "its forward was replaced on the object, and may call hktune still"
    return report.done(quiet)


class _Changes:
    """A report in the making."""

    def __init__(self, model: nn.Module, verb: str) -> None:
        if not isinstance(model, nn.Module):
            function = verb.removesuffix("ed")
            raise TypeError(f"{function}(): argument 'model' (position 1) must be Module, not {type(model).__name__}")
        self._model = model
        self._verb = verb
        self.changed: list[str] = []
        self.already: list[str] = []
        self.left: dict[str, str] = {}
        self.fused: dict[str, str] = {}
        self.adjacent: dict[str, str] = {}
        self.classes: dict[type, type] = {}

    def modules(self) -> list[tuple[str, nn.Module]]:
        """Every module once, but for the layer that nn.MultiheadAttention owns and never calls."""
        named = list(self._model.named_modules())
        uncalled = {id(module.out_proj) for _, module in named if isinstance(module, nn.MultiheadAttention)}
        return [(name, module) for name, module in named if id(module) not in uncalled]

    def done(self, quiet: bool) -> PatchReport:
        report = PatchReport(self._verb, tuple(self.changed), tuple(self.already), self.left, self.fused, self.adjacent)
        if not quiet:
            print(report)
        return report


def _why_left(module: nn.Module) -> str | None:
    """Why torch goes on computing `module`; None of a layer that can be patched, and of what multiplies nothing."""
    if isinstance(module, torch.jit.ScriptModule):
        return "TorchScript has compiled it" if module.original_name == "Linear" else None
    if isinstance(module, nn.Linear):
        return _why_linear_left(module)
    if isinstance(module, nn.MultiheadAttention):
        return "passes its weights to torch without calling a layer"
    if isinstance(module, nn.TransformerEncoderLayer):
        return "calls its layers in training only: in eval mode without gradients it passes their weights to torch"
    if isinstance(module, _NOT_PRODUCTS):
        return None
    if type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers."):
        return "calls torch's addmm itself: serve it by hktune.enable()"
    own = [name for name, each in module.named_parameters(recurse=False) if each.dim() > 1]
    return f"holds {', '.join(own)} itself, and what it computes with that is not seen" if own else None


def _why_linear_left(module: nn.Linear) -> str | None:
    kind = type(module)
    if isinstance(module, LazyModuleMixin):
        return "has no weight before its first call: call the model once, then patch it"
    if kind is not nn.Linear and not _is_wrapped_by_torch(kind):
        return f"{kind.__name__} is a subclass of nn.Linear, and what it adds is not known"
    weight = type(module._parameters.get("weight"))
    # FSDP2 makes a plain tensor of its DTensors before it calls a layer; others' are left to torch call by call.
    if weight not in (*PLAIN, type(None)) and weight.__name__ != "DTensor":
        return f"its weight is a {weight.__name__}, which has a product of its own"
    return "its forward was replaced on the object" if _has_foreign_forward(module) else None


def _is_wrapped_by_torch(kind: type[nn.Linear]) -> bool:
    """Whether torch made `kind` while running, around nn.Linear and with its forward, as FSDP2 and parametrizations
    do. No name leads to such a class, so that nobody can miss it when another takes its place."""
    holder = sys.modules.get(kind.__module__)
    named = getattr(holder, kind.__qualname__, None) is kind
    return kind.__module__.partition(".")[0] == "torch" and not named and kind.forward is nn.Linear.forward


def _has_foreign_forward(module: nn.Module) -> bool:
    """Whether `module` has a forward of its own that calls, as far as can be seen, no method of its class."""
    own = vars(module)
    return "forward" in own and not _bound_forwards(module, type(module).forward)


def _bound_forwards(module: nn.Module, forward: Callable[..., Tensor]) -> list[str]:
    """The attributes of `module` that hold `forward` bound to it, as accelerate's `_old_forward` does."""
    methods = ((name, value) for name, value in vars(module).items() if isinstance(value, MethodType))
    return [name for name, method in methods if method.__self__ is module and method.__func__ is forward]


def _change(module: nn.Linear, old: type[nn.Linear], new: type[nn.Linear], classes: dict[type, type]) -> None:
    """Put `new` in the place of `old` in the class of `module`, and in the methods that were taken from it."""
    bound = _bound_forwards(module, old.forward)
    module.__class__ = rebased(type(module), old, new, classes)
    for name in bound:
        vars(module)[name] = MethodType(new.forward, module)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _grouped(named: Iterable[tuple[str, str]]) -> list[str]:
    """One line for all names that differ in numbers only: `blocks.*.up (x12): why`."""
    groups = Counter((re.sub(r"(?<![^.])\d+(?![^.])", "*", name) or "(the model itself)", why) for name, why in named)
    return [
        f"{name}{f' (x{count})' if count > 1 else ''}{f': {why}' if why else ''}"
        for (name, why), count in groups.items()
    ]
