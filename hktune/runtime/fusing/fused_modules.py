"""Modules of a model whose linears are finished by the same kernel: activations, gates and residuals behind them.

`patch(model, fuse=True)` reads what a module's forward does with its children, by torch.fx. It changes a module where
that is nothing but calls of children, activations, products and sums, and a linear has one of these behind it. A call
that the plan does not hold for goes to the forward that was there: one with a gradient, one with hooks on a linear, one
of children that were replaced, or of a module whose numbers, words, flags or functions are others now.

Gate and up of a SwiGLU are two parameters. They are made neighbours in memory, as views of one storage, and each call
looks whether they still are. Nothing is a copy that could be out of date.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn import functional
from torch.nn.modules import module as torch_module

from hktune.runtime import current, operators
from hktune.runtime.calls.forms import finished_form
from hktune.runtime.calls.gradients import asks_gradient
from hktune.runtime.calls.operands import PLAIN
from hktune.runtime.counts import Fallback
from hktune.runtime.fusing import joined_operator
from hktune.runtime.fusing.adjacent_weights import joined, make_neighbours
from hktune.runtime.fusing.class_bases import rebased
from hktune.runtime.fusing.fused_class import FusedModule, fused_class
from hktune.runtime.fusing.read_forward import Settings, settings_of, traced
from hktune.runtime.layers import Linear
from hktune.runtime.torch_state import compiling, is_plain

_SUMS, _PRODUCTS = (operator.add, torch.add), (operator.mul, torch.mul)
_FUNCTIONS: Mapping[object, str] = {functional.silu: "silu", functional.relu: "relu", torch.relu: "relu"}
_MODULES: Mapping[type[nn.Module], str] = {nn.SiLU: "silu", nn.ReLU: "relu"}
_has_global_hooks: Callable[[], bool] = torch_module._has_any_global_hook
_GELU = {"none": "gelu", "tanh": "gelu_tanh"}
_OF_TRANSFORMERS = {
    "SiLUActivation": "silu",
    "GELUActivation": "gelu",
    "NewGELUActivation": "gelu_tanh",
    "PytorchGELUTanh": "gelu_tanh",
    "GELUTanh": "gelu_tanh",
}
"""What Hugging Face's classes of these names compute."""


@dataclass(frozen=True)
class Step:
    """One result of a plan, under its node's name. `linear` and `up` name children: with `up`, gates are applied. Where
    there is no `linear` it is the child `child`, or `function`, of the values `inputs`."""

    name: str
    inputs: tuple[str, ...]
    linear: str = ""
    up: str = ""
    activation: str | None = None
    residual: str = ""
    child: str = ""
    function: Callable[..., Tensor] | None = None

    def __str__(self) -> str:
        text = f"{self.activation}({self.linear})" if self.activation else self.linear
        return f"{text} * {self.up}" if self.up else f"{text} + {self.residual}" if self.residual else text


@dataclass(frozen=True)
class Plan:
    """A forward as steps. `absorbed` are the children whose own call is left out, by name, each with what activation it
    was. `settings` are those of the module when its forward was read."""

    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    output: str
    absorbed: Mapping[str, tuple[nn.Module, str | None]] = field(default_factory=dict)
    settings: Settings = ()

    def __str__(self) -> str:
        return ", ".join(str(step) for step in self.steps if step.linear)

    def holds(self, module: nn.Module, given: tuple[Any, ...]) -> bool:
        """Whether a call of `module` with these arguments may be done by these steps."""
        if len(given) != len(self.inputs) or any(type(each) not in PLAIN for each in given):
            return False
        own, found = module.__dict__, module._modules
        if any(name not in own or own[name] != value for name, value in self.settings):
            return False
        for name, (child, activation) in self.absorbed.items():
            if found.get(name) is not child or _is_watched(child):
                return False
            if activation is not None and _activation_of(child) != activation:  # nn.GELU has an attribute that says
                return False
        parameters = (each for child, _ in self.absorbed.values() for each in child.parameters())
        return not asks_gradient(*given, *parameters)

    def run(self, module: nn.Module, given: tuple[Tensor, ...]) -> Tensor:
        values = dict(zip(self.inputs, given, strict=True))
        for step in self.steps:
            values[step.name] = _done(step, module._modules, [values[name] for name in step.inputs], values)
        return values[self.output]


def _done(step: Step, children: Mapping[str, Any], inputs: list[Tensor], values: Mapping[str, Tensor]) -> Tensor:
    if step.child:
        out: Tensor = children[step.child](*inputs)
        return out
    if step.function is not None:
        return step.function(*inputs)
    linear = children[step.linear]
    if not step.up:
        residual = values[step.residual] if step.residual else None
        return current.linear(inputs[0], linear.weight, linear.bias, activation=step.activation, residual=residual)
    up = children[step.up]
    found = _gated(inputs[0], linear, up, step.activation)
    if found is not None:
        return found
    gate = current.linear(inputs[0], linear.weight, linear.bias, activation=step.activation)
    return gate * current.linear(inputs[0], up.weight, up.bias)


def _gated(x: Tensor, gate: Any, up: Any, activation: str | None) -> Tensor | None:
    """By one kernel; None where weights or biases are not as one takes them, or the table has none. Halves of one
    product are not contiguous, and what torch does with them takes longer than with two products."""
    if (gate.bias is None) != (up.bias is None):
        return None
    weights, biases = (gate.weight, up.weight), () if gate.bias is None else (gate.bias, up.bias)
    if compiling():
        return joined_operator.traced_gated(x, weights, biases, activation or "", operators.CURRENT)
    if gate.weight.shape != up.weight.shape:
        return None
    weight, bias = joined(weights), joined(biases) if biases else None
    if weight is None or (biases and bias is None):
        return None
    table = operators.found_table(operators.CURRENT)
    if table is None or not is_plain():
        return current.gated_linear(x, weight, bias, activation)
    out = table.finished(finished_form(bias, activation, is_gated=True), x, weight, bias, None)
    return None if isinstance(out, Fallback) else out


def fuse(module: nn.Module, storages: Mapping[int, int]) -> Plan | None:
    """Change `module` where its forward finishes a linear, and say how; None where it is left as it is. `storages` are
    those of the whole model, see `storages_of`."""
    plan = plan_of(module)
    if plan is None:
        return None
    for step in plan.steps:
        if step.up:
            gate, up = module.get_submodule(step.linear), module.get_submodule(step.up)
            for name, parameter in gate.named_parameters(recurse=False):
                make_neighbours((parameter, up.get_parameter(name)), storages)
    module.__class__ = fused_class(type(module))
    module.__dict__["_plan"] = plan
    return plan


def unfuse(module: nn.Module) -> None:
    """Undo `fuse`, but for where parameters are in memory."""
    fused = next((kind for kind in type(module).__mro__ if "_fused_from" in vars(kind)), None)
    if fused is not None:
        vars(module).pop("_plan", None)
        module.__class__ = rebased(type(module), fused, vars(fused)["_fused_from"], {})  # torch may have made one of it


def plan_of(module: nn.Module) -> Plan | None:
    """The forward of `module` in steps, one of which finishes a linear; None where there is none, or more to it."""
    has_linears = any(isinstance(child, Linear) for child in module.children())
    if not has_linears or isinstance(module, FusedModule | torch.jit.ScriptModule) or "forward" in vars(module):
        return None
    graphs = [traced(module, training) for training in (False, True)]
    graph, other = graphs
    if graph is None or other is None or str(graph) != str(other):
        return None
    return _Planner(module, graph).plan()


class _Planner:
    def __init__(self, module: nn.Module, graph: torch.fx.Graph) -> None:
        self._children = dict(module.named_children())
        self._settings = settings_of(module)
        self._nodes = list(graph.nodes)
        self._steps: dict[Node, Step] = {}
        self._absorbed: set[Node] = set()

    def plan(self) -> Plan | None:
        """None where something in the graph is none of what a plan does, or nothing is finished."""
        inputs = [node for node in self._nodes if node.op == "placeholder"]
        *_, last = self._nodes
        (output,) = last.args
        if any(node.args or str(node.target).startswith("*") for node in inputs) or not isinstance(output, Node):
            return None
        for node in reversed(self._nodes[len(inputs) : -1]):
            if node not in self._absorbed:
                step = self._finished(node) or self._plain(node)
                if step is None:
                    return None
                self._steps[node] = step
        steps = [self._steps[node] for node in self._nodes if node in self._steps]
        left_out = {str(node.target) for node in self._absorbed if node.op == "call_module"}
        left_out |= {step.linear for step in steps if step.linear}
        names = tuple(node.name for node in inputs)
        absorbed = {name: (self._children[name], _activation_of(self._children[name])) for name in sorted(left_out)}
        return Plan(names, tuple(steps), output.name, absorbed, self._settings) if absorbed else None

    def _plain(self, node: Node) -> Step | None:
        if node.kwargs or not all(isinstance(each, Node) for each in node.args):
            return None
        inputs = tuple(each.name for each in node.all_input_nodes) if len(set(node.args)) == len(node.args) else ()
        if not inputs:
            return None
        if node.op == "call_module" and node.target in self._children:
            return Step(node.name, inputs, child=str(node.target))
        known = (*_SUMS, *_PRODUCTS, *_FUNCTIONS, functional.gelu)
        return Step(node.name, inputs, function=node.target) if node.target in known else None  # type: ignore[arg-type]

    def _finished(self, node: Node) -> Step | None:
        """A linear with something behind it that ends in `node`."""
        if node.op == "call_function" and not node.kwargs and len(node.args) == 2:
            one, two = node.args
            if isinstance(one, Node) and isinstance(two, Node) and one is not two:
                if node.target in _PRODUCTS:
                    return self._gated(node, one, two) or self._gated(node, two, one)
                if node.target in _SUMS:
                    return self._sum(node, two, one) or self._sum(node, one, two)
        found = self._activated(node)
        if found is None or found[1] is None:
            return None
        linear, activation = found
        if not self._absorbs(node, linear):
            return None
        return Step(node.name, (linear.all_input_nodes[0].name,), str(linear.target), activation=activation)

    def _gated(self, node: Node, gate: Node, up: Node) -> Step | None:
        found, other = self._activated(gate), self._activated(up)
        if found is None or found[1] is None or other is None or other[1] is not None:
            return None
        linear, activation = found
        if len(gate.users) > 1 or len(up.users) > 1 or linear.args != up.args or linear.target == up.target:
            return None
        one, two = (self._children[str(each.target)] for each in (linear, up))
        if one.weight.shape != two.weight.shape or (one.bias is None) != (two.bias is None):
            return None
        if not self._absorbs(node, gate, linear, up):
            return None
        inputs = (linear.all_input_nodes[0].name,)
        return Step(node.name, inputs, str(linear.target), str(up.target), activation)

    def _sum(self, node: Node, product: Node, residual: Node) -> Step | None:
        found = self._activated(product)
        if found is None or len(product.users) > 1:
            return None
        linear, activation = found
        if not self._absorbs(node, product, linear):
            return None
        inputs = (linear.all_input_nodes[0].name,)
        return Step(node.name, inputs, str(linear.target), activation=activation, residual=residual.name)

    def _absorbs(self, node: Node, *parts: Node) -> bool:
        """Whether `parts` may be done where `node` is, and noted as such: no child between them may write to what they
        read, as an activation in place does."""
        at = [self._nodes.index(each) for each in (*parts, node)]
        if not all(each in parts or self._only_reads(each) for each in self._nodes[min(at) : max(at)]):
            return False
        self._absorbed.update(parts)
        return True

    def _only_reads(self, node: Node) -> bool:
        """Of nodes that a plan may have. What is absorbed writes to the result of its own linear at most."""
        if node.op != "call_module" or node in self._absorbed or self._is_linear(node):
            return True
        child = self._children.get(str(node.target))
        return _activation_of(child) is not None and not getattr(child, "inplace", False)

    def _activated(self, node: Node) -> tuple[Node, str | None] | None:
        """The linear that ends in `node`, or in the activation that `node` is; None of anything else."""
        if self._is_linear(node):
            return node, None
        activation = self._activation(node)
        if activation is None or not isinstance(node.args[0], Node):
            return None
        linear = node.args[0]
        return (linear, activation) if self._is_linear(linear) and len(linear.users) == 1 else None

    def _is_linear(self, node: Node) -> bool:
        child = self._children.get(str(node.target)) if node.op == "call_module" else None
        is_one = isinstance(child, Linear) and type(child).forward is Linear.forward and "forward" not in vars(child)
        return is_one and not node.kwargs and len(node.args) == 1 and isinstance(node.args[0], Node)

    def _activation(self, node: Node) -> str | None:
        if len(node.args) != 1:
            return None
        if node.op == "call_function":
            if node.target is functional.gelu and node.kwargs.keys() <= {"approximate"}:
                return _GELU.get(str(node.kwargs.get("approximate", "none")))
            return _FUNCTIONS.get(node.target) if node.kwargs.keys() <= {"inplace"} else None
        if node.op != "call_module" or node.kwargs:
            return None
        return _activation_of(self._children.get(str(node.target)))


def _activation_of(module: nn.Module | None) -> str | None:
    if module is None:
        return None
    kind = type(module)
    if isinstance(module, nn.GELU) and kind is nn.GELU:
        return _GELU.get(module.approximate)
    if kind.__module__.startswith("transformers."):
        return _OF_TRANSFORMERS.get(kind.__name__)
    return _MODULES.get(kind)


def _is_watched(module: nn.Module) -> bool:
    """Whether somebody would miss a call of `module`."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or "forward" in vars(module) or _has_global_hooks()
