"""A gfx950 table as one self-contained Python file: kernels as HIP source, and the choice among them in C++."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template as Text

from hktune.core.config import Config
from hktune.core.errors import TableError
from hktune.core.escaped import escaped
from hktune.core.launch import WORKSPACE_COUNTER_BYTES
from hktune.core.operation import Operation
from hktune.dispatch import Entry, Table, read_table
from hktune.export.lint import forbidden_habits, forbidden_python
from hktune.space import load_space
from hktune.template import Template

ELEMENTS = {"bf16": ("kittens::bf16", "kBFloat16"), "f16": ("kittens::half", "kHalf")}
"""The formats of kernels that can be exported: HipKittens' type and torch's scalar type in C++."""
PRODUCTS = tuple(Operation(name) for name in ELEMENTS)
"""What can be exported, with a bias or without."""
FORMS = {"matmul": "MatmulModel", "matmul-bt": "TransposedMatmulModel", "linear": "LinearModel"}
_INCLUDE = re.compile(r"^#include .*\n|^using namespace kittens;\n", re.MULTILINE)
_OPERANDS = """\
#include <torch/extension.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAGuard.h>
#include <hip/hip_runtime.h>
#include <cmath>
#include <limits>
#include <utility>
#include "kittens.cuh"
using namespace kittens;

constexpr int64_t WORKSPACE_COUNTER_BYTES = {counter_bytes};

using element = {element};

// One product, as a kernel is handed it. `bias` and `workspace` may be null.
struct operands {{
    const element *a, *bt;
    element *c;
    const element *bias;
    float *workspace;
    int64_t m, n, k;
}};
"""


def export_inline(directory: Path, space_file: Path, form: str, product: Operation | None = None) -> str:
    """The table in `directory` as a Python module whose ModelNew has the given form, a key of `FORMS`.

    `space_file` is the search space whose template the kernels are of. Of a table of several products `product` is the
    one to export, its epilogues included. Raises TableError for a table of another architecture, without a kernel, of
    several dtypes, or of another template. Raises SpaceError for a config that is not of the space. Of the table's own
    words none but a device's name is in the module, as text.
    """
    table = read_table(directory)
    entries = [entry for entry in table.entries if entry.kernel is not None]
    if table.arch != "gfx950" or not entries:
        rule = f"{directory}: only gfx950 tables with a kernel have an inline form"
        raise TableError(f"{rule}, this is {table.arch} with {len(entries)}: pass another directory")
    entries, operation = _of_one_product(entries, product, directory)
    template = load_space(space_file).for_operation(operation).template
    for entry in entries:
        _check_template(entry, template, directory)
    text = _module(table, entries, _hip_text(entries, template), directory, FORMS[form])
    habits = forbidden_python(text)
    if habits:
        raise TableError(f"{directory}: the exported module has a forbidden habit ({habits[0]}): correct hktune/export")
    return text


@dataclass(frozen=True)
class _HipText:
    """The parts of the HIP source: what comes before the kernels, one kernel with ${fields}, what they are for each
    kernel, and what comes after: the choice among them."""

    head: str
    kernel: str
    fields: tuple[str, ...]
    values: dict[str, tuple[str, ...]]
    tail: str

    def whole(self) -> str:
        """As the module puts it together."""
        kernels = (
            Text(self.kernel).substitute(dict(zip(self.fields, values, strict=True)), name=name)
            for name, values in self.values.items()
        )
        return "".join((self.head, *kernels, self.tail))


def _hip_text(entries: Sequence[Entry], template: Template) -> _HipText:
    """Every kernel of `entries` in a namespace of its own, what launches it, and the choice among them."""
    configs = {entry.kernel.config_id: Config(entry.kernel.config) for entry in entries if entry.kernel}
    texts = {f"gemm_{config_id}": template.field_texts(configs[config_id]) for config_id in sorted(configs)}
    rows = "\n".join(_row(entry, sorted(configs)) for entry in entries)
    dtype = template.operation.a_dtype
    element, scalar_type = ELEMENTS[dtype.name]
    forward = _text("inline_forward.hip").substitute(scalar_type=scalar_type, dtype=dtype.torch_name)
    host = (_text("inline_host.hip").substitute(rows=rows), forward)
    text = _HipText(
        head=_OPERANDS.format(counter_bytes=WORKSPACE_COUNTER_BYTES, element=element),
        kernel=f"\n{_kernel(template)}\n{_text('inline_kernel.hip').template}",
        fields=tuple(next(iter(texts.values()))),
        values={name: tuple(fields.values()) for name, fields in texts.items()},
        tail="\n".join(("", _switches(list(texts)), *host)),
    )
    source = text.whole()
    found = [str(habit) for habit in forbidden_habits(source)] + ["three quotes: leave them out"] * ("'''" in source)
    if found:
        raise TableError(f"the exported source has a forbidden habit ({found[0]}): correct the template")
    return text


def _of_one_product(
    entries: Sequence[Entry], product: Operation | None, directory: Path
) -> tuple[list[Entry], Operation]:
    """The entries to export, and what all of them compute but for a bias."""
    by_product: dict[Operation, list[Entry]] = {}
    for entry in entries:
        by_product.setdefault(entry.problem.operation.code, []).append(entry)
    asked = [product.code] if product else sorted(by_product)
    if len(asked) > 1 or asked[0] not in by_product or asked[0] not in PRODUCTS:
        has = f"this table has {', '.join(map(str, sorted(by_product)))}"
        rule = f"one file holds kernels of one operation, {' or '.join(map(str, PRODUCTS))}"
        if product:
            is_there = product.code in by_product
            rule, has = (rule, f"not {product}") if is_there else (f"{product} is not in this table", has)
        ones = " or ".join(str(each) for each in PRODUCTS if each in by_product)
        next_step = f"choose {ones} with --operation" if ones else "serve it by hktune.load"
        raise TableError(f"{directory}: {rule}: {has}: {next_step}")
    return by_product[asked[0]], asked[0]


def _check_template(entry: Entry, template: Template, directory: Path) -> None:
    assert entry.kernel is not None
    if entry.kernel.template != template.name:
        rule = f"{directory}: {entry.problem} has a kernel of {entry.kernel.template}"
        raise TableError(f"{rule}: export writes kernels of {template.name} alone: build the table without others")
    saved, current = (entry.kernel.template, entry.kernel.template_sha256), (template.name, template.sha256)
    if saved != current:
        rule = (
            f"{directory}: {entry.problem} is of another template: saved={' '.join(saved)} current={' '.join(current)}"
        )
        raise TableError(f"{rule}: tune it again, or export from the checkout that made it")


def _kernel(template: Template) -> str:
    """The template's source within a namespace, without its includes, the kernel under a name of its own."""
    body = _INCLUDE.sub("", template.source).replace(template.symbol({}), "${name}_kernel")
    return f"namespace ${{name}} {{\n{body}}}  // namespace ${{name}}\n"


def _switches(names: Sequence[str]) -> str:
    """Functions that pass a call on to the kernel of a number."""
    lines = []
    for result, function, parameters, passed in (
        ("bool", "can_run", "int64_t m, int64_t n, int64_t k", "m, n, k"),
        ("int64_t", "workspace_bytes", "int64_t m, int64_t n", "m, n"),
        ("void", "launch", "const operands &at, hipStream_t stream", "at, stream"),
    ):
        lines.append(f"inline {result} {function}(int kernel, {parameters}) {{\n    switch (kernel) {{")
        lines += [f"        case {at}: return {name}::{function}({passed});" for at, name in enumerate(names)]
        lines.append("    }\n    " + ("return {};" if result != "void" else "") + "\n}")
    return "\n".join(lines) + "\n"


def _row(entry: Entry, order: Sequence[str]) -> str:
    assert entry.kernel is not None
    least, most = entry.rows
    biased = "true" if entry.problem.operation.has_bias else "false"
    return f"    {{{least}, {most}, {entry.n}, {entry.k}, {biased}, {order.index(entry.kernel.config_id)}}},"


def _module(table: Table, entries: Sequence[Entry], hip: _HipText, directory: Path, form: str) -> str:
    operations = sorted({entry.problem.operation for entry in entries})
    sources = " and ".join(sorted({str(entry.source) for entry in entries}))
    text = _text("inline_module.txt").substitute(
        dtype=operations[0].a_dtype.torch_name,
        arch=table.arch,
        version=table.hktune,
        count=len(entries),
        device=_in_docstring(table.device.name),
        source=f"The shapes are of {' and '.join(map(str, operations))}; their times are {sources}",
        head=hip.head,
        kernel=hip.kernel,
        tail=hip.tail,
        form=form,
        fields=textwrap.fill(" ".join(hip.fields), 110, initial_indent=4 * " ", subsequent_indent=4 * " "),
        values="\n".join(f'    "{name}": "{" ".join(values)}",' for name, values in hip.values.items()),
    )
    ast.parse(text, str(directory))
    return text


def _in_docstring(text: str) -> str:
    """`text` so that it ends no docstring of three double quotes, and reads there as it is."""
    return escaped(text).replace("\\", "\\\\").replace('"', '\\"')


def _text(name: str) -> Text:
    return Text(resources.files("hktune.export").joinpath(name).read_text(encoding="utf-8"))
