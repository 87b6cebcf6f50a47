"""A template: its description, its source, and what a config makes of them."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from hktune.core.arch import arch_named
from hktune.core.config import Config, Value
from hktune.core.errors import InputError, SpaceError, TemplateError
from hktune.core.escaped import shown
from hktune.core.expression import RECORDS, Derived, Expression, Scope
from hktune.core.launch import Argument, Launch, Tile, WorkgroupOrder, arguments_of
from hktune.core.launch_rule import LaunchRule, specialised
from hktune.core.operand import operands_of
from hktune.core.operation import COUNTED, SWITCHED, Operation, facts_of
from hktune.core.outside_file import FileKind
from hktune.core.problem import Problem, ProofProblem, Rounding
from hktune.core.shipped import TEMPLATE_NAME
from hktune.core.storage import STORAGES
from hktune.core.sums import Sums, sums_of
from hktune.core.variant import Variant
from hktune.core.yaml_file import struct_of
from hktune.template.known_operations import nearest, operations_in
from hktune.template.launch_expressions import LaunchExpressions, order_of
from hktune.template.objects import Objects
from hktune.template.passed import arguments_in_order, check_only, is_taken, only_of_some, passed_values
from hktune.template.proof_rule import ProofRule, extent_of
from hktune.template.source import filled, placed_fields, read_source
from hktune.template.template_schema import TemplateDescription, Text

TEMPLATE_FILE = FileKind("a template", 1 << 20, TemplateError, "name a folder like those of kernels/")

PROBLEM_NAMES = frozenset({"m", "n", "k", "groups"})
_FILLED = re.compile(r"(-?[0-9]+|[A-Za-z_][A-Za-z0-9_]{0,63})\Z")


def load_template(path: Path) -> Template:
    """The template in the folder `path` (kernels/<arch>/<name>/). Raises TemplateError for any mistake in it."""
    described = path / TEMPLATE_NAME
    data = TEMPLATE_FILE.read(described)
    description = struct_of(data, described, TEMPLATE_FILE, TemplateDescription)
    source = read_source(path, description.sources)
    try:
        return Template(description, data, source.encode(), path)
    except InputError as mistake:
        raise TemplateError(f"{described}: {mistake}") from None


class Template:
    """Renders configs to variants of one `operation`, and says how a variant is launched and proved.

    `operations` are all that it can do; one read from a file is of the first, `for_operation` has the others.

    `parameter_names` are the config's names it needs; `derived` names are computed from them, in order. `source` is one
    text, its includes followed and its ${fields} in it still; `sha256` covers it and the description's bytes.
    `fixed_order`: equal operands give equal bits on every launch. `objects` is there instead of a source where others
    have built the kernels; `folder` is where they may be. Every method raises TemplateError if `config` cannot be
    evaluated.
    """

    def __init__(
        self, description: TemplateDescription, description_bytes: bytes, source_bytes: bytes, folder: Path = Path()
    ) -> None:
        self.name = f"{description.arch}/{description.name}"
        self.arch = description.arch
        self.language = description.language
        self._symbol = description.symbol
        self.fixed_order = description.fixed_order
        self.strict_hazards = description.strict_hazards
        self.contiguous = description.contiguous
        self._rounding, self._storage = description.rounding, tuple(description.storage.items())
        self.objects = Objects(description.objects, folder) if description.objects else None
        self._passed = passed_values(description)
        self.arguments = arguments_in_order(description, self._passed)
        self.operations = operations_in(description, self.arguments)
        self._only = only_of_some(description)
        self.operation = self.operations[0]
        # Found once: every modelled time and every launch asks for it.
        first: dict[Operation, Operation] = {}
        self._code_of = {each: first.setdefault(each.code, each) for each in self.operations}
        self._of_operation: dict[Operation, Template] = {}
        self.derived = _derived(description, self.objects)
        digests = (hashlib.sha256(part).digest() for part in (description_bytes, source_bytes))
        self.sha256 = hashlib.sha256(b"".join(digests)).hexdigest()
        self._arch_record = arch_named(description.arch)
        self.source = source_bytes.decode()
        self._fields = _expressions("fields", description.fields)
        self._tile = extent_of("tile", description.tile)
        self._proofs = [ProofRule.of(proof) for proof in description.proof]
        self._order = order_of(description.order)
        self._launch = LaunchExpressions.of(description.launch)
        self._check_fields()
        check_only(self._only, self._code_of)
        self.parameter_names = self._free_names()
        self._check_proofs()
        self._check_storage()
        self._check: Callable[[Config, Operation], None] = _any_config
        self._board_record = self._arch_record

    def derived_values(self, config: Mapping[str, Value]) -> dict[str, Value]:
        """The geometry that `derived` computes from `config`."""
        try:
            return self.derived.values({**config, **self.records})
        except SpaceError as error:
            raise TemplateError(f"{self.name}: {error}") from None

    def within(self, check: Callable[[Config, Operation], None]) -> Template:
        """This template for configs that `check` does not refuse for the operation that is rendered, as a search space
        does by raising: no other reaches its source, from whichever file it came."""
        checked = copy.copy(self)
        checked._check, checked._of_operation = check, {}
        return checked

    def on(self, compute_units: int) -> Template:
        """This template for a device with so many compute units: boards of one architecture differ, and so do parts of
        a board. Kernels are the same, and so is what is proved; launches count with them."""
        placed = copy.copy(self)
        placed._board_record, placed._of_operation = replace(self._arch_record, compute_units=compute_units), {}
        return placed

    @property
    def records(self) -> dict[str, object]:
        """What expressions read by field: the architecture and the operation."""
        return {"arch": self._arch_record, "operation": facts_of(self.operation)}

    @property
    def launch_records(self) -> dict[str, object]:
        """The same for those of a launch: of the architecture as the device has it."""
        return {**self.records, "arch": self._board_record}

    def code_operation(self, operation: Operation) -> Operation:
        """The first of `operations` whose code is that of `operation`: they differ in what a launch passes, such as a
        bias, and in nothing else. Raises InputError for an operation that the template cannot do."""
        if not self.does(operation):
            raise InputError(f"{self.name} cannot do {operation}: it does {nearest(operation, self.operations)}")
        return self._code_of[operation.of_any_count]

    def does(self, operation: Operation) -> bool:
        """Whether it is one of `operations`, which are of any count."""
        return operation.of_any_count in self._code_of

    def for_operation(self, operation: Operation) -> Template:
        """This template, rendering the code of `operation`. Raises InputError as `code_operation` does."""
        code = self.code_operation(operation)
        if code == self.operation:
            return self
        if code not in self._of_operation:
            bound = self._of_operation[code] = copy.copy(self)
            bound.operation, bound._of_operation = code, {}
        return self._of_operation[code]

    def render(self, config: Config) -> Variant:
        """The source with every ${field} filled in; booleans become true and false. Raises InputError for a config that
        is not of the template's search space."""
        texts = self.field_texts(config)
        source, file = filled(self.source, texts), self.objects.file(config) if self.objects else None
        symbol = self.symbol(config)
        return Variant(self.name, self.sha256, self.arch, self.language, symbol, source, config, file)

    def symbol(self, config: Mapping[str, Value]) -> str:
        """The name of the kernel that `config` is rendered to."""
        if self.objects:
            return self.objects.symbol(config)
        assert self._symbol is not None, "the schema wants one where there are no objects"
        return self._symbol

    def field_texts(self, config: Config) -> dict[str, str]:
        """What `render` fills in for each field of `source`: an integer or a word. Raises as `render` does."""
        self._check(config, self.operation)
        scope = self._scope(config)
        return {name: self._text(name, expression, scope) for name, expression in self._fields.items()}

    def launch(self, config: Mapping[str, Value], problem: Problem) -> Launch:
        """Grid (workgroups), block (work-items), dynamic LDS and workspace (bytes) and arguments for `problem`, whose
        operation may be any of `operations`."""
        scope = {**self.for_operation(problem.operation)._launch_scope(config), **problem.sizes}
        scope["groups"] = problem.groups
        asked = self._launch
        grid_x, grid_y, grid_z = self._positive(asked.grid, scope)
        block_x, block_y, block_z = self._positive(asked.block, scope)
        dynamic_lds_bytes = self._bytes(asked.dynamic_lds_bytes, scope)
        workspace_bytes = self._bytes(asked.workspace_bytes, scope)
        grid, block = (grid_x, grid_y, grid_z), (block_x, block_y, block_z)
        most = self._arch_record.work_items_max
        for axis, count, size in zip("xyz", grid, block, strict=True):
            if count * size > most:
                rule = f"launch grid {axis} is {count} workgroups of {size}"
                raise TemplateError(f"{self.name}: {rule}: at most {most} work-items are along an axis")
        operation, adds_to_c = problem.operation, bool(self._value(asked.adds_to_c, scope))
        arguments = arguments_of(self._arguments_at(scope, operation), operation)
        sizes = (grid, block, dynamic_lds_bytes)
        return Launch(*sizes, arguments, workspace_bytes, operation, adds_to_c, self.contiguous, self._storage)

    @property
    def not_for_production(self) -> str:
        """Why no table can have its kernels; "" where one can."""
        for name, word in self._storage:
            return f"{self.name} takes {name} as {word}: production has it row by row, so no table has it"
        return ""

    def launch_rule(self, config: Mapping[str, Value], n: int, k: int, groups: int = 1) -> LaunchRule:
        """`launch` for any number of rows, of so many products. Raises TemplateError where block or dynamic LDS depend
        on m: their kernel would be another one; where the kernel adds to C, which production does not clear; and where
        it takes operands in another storage, which production does not have."""
        scope = {**self._launch_scope(config), "n": n, "k": k, "groups": groups}
        if self._value(self._launch.adds_to_c, scope):
            raise TemplateError(f"{self.name}: {self.symbol(config)} adds to C: production launches what writes it")
        if self.not_for_production:
            raise TemplateError(self.not_for_production)
        asked = self._launch
        parts = [*asked.grid, asked.workspace_bytes, *asked.block, asked.dynamic_lds_bytes]
        try:
            x, y, z, workspace_bytes, *fixed = (specialised(expression, scope, {}) for expression in parts)
        except SpaceError as error:
            raise TemplateError(f"{self.name}: {error}") from None
        if not all(isinstance(value, int) for value in fixed):
            raise TemplateError(f"{self.name}: launch block and dynamic_lds_bytes must not need m: use config and n, k")
        block_x, block_y, block_z, dynamic_lds_bytes = (int(value) for value in fixed)
        block = (block_x, block_y, block_z)
        arguments = self._arguments_at(scope, self.operation)
        rule = LaunchRule((x, y, z), block, dynamic_lds_bytes, arguments, workspace_bytes)
        return replace(rule, contiguous=self.contiguous)

    def tile(self, config: Mapping[str, Value]) -> Tile:
        """What one workgroup computes with `config`."""
        return Tile(*self._positive(self._tile, self._scope(config)))

    def proof_problems(self, config: Mapping[str, Value]) -> tuple[ProofProblem, ...]:
        """The problems a variant is proved on: small, yet with every phase of the kernel in them. The first, of whole
        tiles, is the one that is profiled; all others have exact sums. The first comes once more, with exact sums, if
        no other has its epilogue."""
        scope = self._scope(config)
        first, *others = [
            ProofProblem(
                Problem(m, n, k, replace(operation, count=groups) if operation.kind in COUNTED else operation),
                int(self._value(rule.padding, scope)),
                False,
                *self._exactness(operation),
            )
            for rule in self._proofs
            for m, n, k, groups in [self._positive((*rule.extent, rule.groups), scope)]
            if (operation := rule.of_operation(self.operation)) and self.does(operation)
        ]
        proved_first = first.problem.operation.of_any_count
        if all(other.problem.operation.of_any_count != proved_first for other in others):
            others.insert(0, first)
        return (first, *(replace(other, exact_sums=True) for other in others))

    def own_proof(self, problem: Problem) -> ProofProblem:
        """What a config is proved on besides these."""
        return ProofProblem(problem, 0, True, *self._exactness(problem.operation))

    def _exactness(self, operation: Operation) -> tuple[Rounding, Sums]:
        """How its kernels round and add."""
        return self._rounding, sums_of(operation, self._arch_record)

    def order(self, config: Mapping[str, Value]) -> WorkgroupOrder:
        """In which order workgroups take tiles with `config`. Raises TemplateError for one that is none."""
        scope, (*by_rows, by_columns) = self._scope(config), self._order
        xcd_chunk, group_rows = self._positive(tuple(by_rows), scope)
        group_columns = self._value(by_columns, scope)
        if group_columns == 0:
            return WorkgroupOrder(xcd_chunk, group_rows)
        if group_rows != 1:
            raise TemplateError(f"{self.name}: order has group_rows and group_columns: keep one of them")
        return WorkgroupOrder(xcd_chunk, 1, *self._positive((by_columns,), scope))

    def arguments_for(self, operation: Operation) -> tuple[Argument, ...]:
        """The arguments of kernels of `operation`, in order."""
        return tuple(each for each in self.arguments if is_taken(each, self._only, operation))

    def _arguments_at(self, scope: Scope, operation: Operation) -> tuple[Argument, ...]:
        """The arguments with what each is passed in `scope`."""
        arguments = self.arguments_for(operation)
        if not self._passed:
            return arguments
        return tuple(
            self._passed[each.name].of(each, partial(self._value, scope=scope)) if each.name in self._passed else each
            for each in arguments
        )

    def _scope(self, config: Mapping[str, Value]) -> dict[str, object]:
        return {**config, **self.derived_values(config), **self.records}

    def _launch_scope(self, config: Mapping[str, Value]) -> dict[str, object]:
        return {**self._scope(config), **self.launch_records}

    def _value(self, expression: Expression, scope: Scope) -> Value:
        try:
            return expression.value(scope)
        except SpaceError as error:
            raise TemplateError(f"{self.name}: {error}") from None

    def _text(self, name: str, expression: Expression, scope: Scope) -> str:
        value = self._value(expression, scope)
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if not _FILLED.match(text):
            raise TemplateError(f"{self.name}: field {name} is {shown(value)}: it must be an integer or a word")
        return text

    def _positive(self, expressions: tuple[Expression, ...], scope: Scope) -> tuple[int, ...]:
        values = [self._value(expression, scope) for expression in expressions]
        for expression, value in zip(expressions, values, strict=True):
            if not isinstance(value, int) or value < 1:
                raise TemplateError(f"{self.name}: {expression.where} is {value!r}: it must be a positive integer")
        return tuple(int(value) for value in values)

    def _bytes(self, expression: Expression, scope: Scope) -> int:
        value = self._value(expression, scope)
        if not isinstance(value, int) or value < 0:
            raise TemplateError(f"{self.name}: {expression.where} is {value!r}: it must be an integer from 0 on")
        return int(value)

    def _check_fields(self) -> None:
        placed = placed_fields(self.source)
        if placed - self._fields.keys():
            raise TemplateError(f"source has ${{{min(placed - self._fields.keys())}}}: add it under `fields`")
        if self._fields.keys() - placed:
            raise TemplateError(
                f"field {min(self._fields.keys() - placed)!r} is not in the source: place it or drop it"
            )

    def _check_proofs(self) -> None:
        """Each proof is of an operation of the template, and each operation has a proof, whose launch passes it all."""
        for rule in self._proofs:
            if not any((proved := rule.of_operation(each)) and self.does(proved) for each in self.operations):
                epilogue = "+".join(rule.steps)
                raise TemplateError(f"proof epilogue {epilogue!r}: it is not among the operations: add it there")
        for operation in self.operations:
            taken = {argument.name for argument in self.arguments_for(operation)}
            read = [name for name in operands_of(operation) if name not in ("a", "b", "c")]
            counts = ["groups"] if operation.kind in COUNTED else []
            needed = [*(step for step in operation.epilogue if step in SWITCHED), *read, *counts]
            lacking = [name for name in needed if name not in taken]
            if lacking:
                raise TemplateError(f"operation {operation} needs an argument {lacking[0]}: add one, or drop it")
            if not any(rule.of_operation(operation) == operation for rule in self._proofs):
                raise TemplateError(f"operation {operation} has no proof: add one with its epilogue, or drop it")

    def _check_storage(self) -> None:
        """Each operand of another storage is a matrix of some operation, of a format that is stored so."""
        for name, word in self._storage:
            found = [operands_of(each)[name] for each in self.operations if name in operands_of(each)]
            if not any(operand.row_stride for operand in found):
                raise TemplateError(f"storage of {name}: it is a matrix of none of the operations: drop it")
            only = STORAGES[word].only
            other = next((operand.dtype for operand in found if only not in (None, operand.dtype)), None)
            if other:
                raise TemplateError(f"storage of {name} is {word}: that is for {only}, and {name} is {other}")

    def _shared(self) -> list[Expression]:
        """The expressions that know no problem."""
        passed = [expression for each in self._passed.values() for expression in each.expressions]
        proofs = [expression for rule in self._proofs for expression in rule.expressions]
        known = [*self._fields.values(), *self._tile, *proofs, *self._order, *self.derived.expressions.values()]
        return [*known, *passed, self._launch.adds_to_c]

    def _expressions(self) -> list[Expression]:
        return [*self._shared(), *self._launch.of_problems]

    def _free_names(self) -> frozenset[str]:
        for expression in self._shared():
            if expression.names & PROBLEM_NAMES:
                raise TemplateError(f"{expression.where} needs the problem: only `launch` may name m, n, k and groups")
        named = {self.objects.parameter} if self.objects else set()
        needed = frozenset(named).union(*(expression.names for expression in self._expressions()))
        return needed - self.derived.expressions.keys() - PROBLEM_NAMES - RECORDS


def _derived(description: TemplateDescription, objects: Objects | None) -> Derived:
    """What is computed from a config: the facts of its object, then what the description derives."""
    facts = objects.facts if objects else {}
    if facts.keys() & description.derived.keys():
        raise TemplateError(f"derived {min(facts.keys() & description.derived.keys())} is a fact too: rename one")
    return Derived({**facts, **description.derived})


def _any_config(_config: Config, _operation: Operation) -> None:
    """Nothing is refused: a template alone knows no domain."""


def _expressions(where: str, texts: Mapping[str, Text]) -> dict[str, Expression]:
    return {name: Expression(text, f"{where} {name}") for name, text in texts.items()}
