"""Habits that kernels for this hardware must not have, each found by its text, in templates and in exports."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Habit:
    """A forbidden habit: its name, and what to write instead."""

    name: str
    instead: str

    def __str__(self) -> str:
        return f"{self.name}: {self.instead}"


_DEVICE: tuple[tuple[str, Habit], ...] = (
    (r"\b(torch|at)::(mm|matmul|bmm|addmm|linear)\b", Habit("torch computes the product", "launch a kernel")),
    (r"\bPYBIND11_MODULE\b", Habit("PYBIND11_MODULE in the source", "load_inline binds `functions`")),
    (r"\b(?!torch\b)\w+\.(zero|load|store|mma_\w+)\(", Habit("tile.zero()", "zero(tile)")),
    (r"\bNUM_WARPS\s*\*\s*32\b", Habit("waves of 32", "NUM_WARPS * kittens::WARP_THREADS")),
    (r"\bkittens\.hpp\b", Habit("kittens.hpp", "kittens.cuh")),
    (r"(?<!extern )__shared__\s", Habit("static shared memory", "extern __shared__ with shared_allocator")),
    (r"\bgroup<\s*NUM_THREADS\s*>", Habit("group<NUM_THREADS>", "group<NUM_WARPS>")),
    (r"\bhipFuncSetAttribute\(\s*(?!\(\s*void\s*\*\s*\))", Habit("hipFuncSetAttribute(kernel)", "(void*)kernel")),
    (r"\bkittens::warp_id\b", Habit("kittens::warp_id", "kittens::warpid()")),
    (r"<<<[^,>]*,[^,>]*(,[^,>]*)?>>>", Habit("launch on the default stream", "pass torch's current stream")),
    (r"\btorch::zeros\(", Habit("zeroing an output that is written whole", "torch::empty")),
)
_PRODUCTS = {"mm", "matmul", "bmm", "addmm", "linear"}


def forbidden_habits(source: str) -> list[Habit]:
    """The habits of HIP source; comments do not count."""
    code = re.sub(r"//[^\n]*|/\*.*?\*/", "", source, flags=re.DOTALL)
    return [habit for pattern, habit in _DEVICE if re.search(pattern, code)]


def forbidden_python(source: str) -> list[Habit]:
    """The habits of a Python module. Raises SyntaxError when it is none, as with `torch::Tensor` in it."""
    found: list[Habit] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _PRODUCTS:
            found.append(Habit(f"a call of {ast.unparse(node.func)}", "call a kernel"))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            found.append(Habit("the operator @", "call a kernel"))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "id":
            found.append(Habit("id() as a tensor's identity", "a weak reference and the tensor's _version"))
    return found
