"""A search space: parameters, named constraints with reasons, and seeds, read from YAML, with its template."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from msgspec import structs

from hktune.core.arch import arch_named
from hktune.core.config import Config, Value
from hktune.core.errors import InputError, SpaceError
from hktune.core.escaped import shown
from hktune.core.expression import RECORDS, Derived, Expression, Message
from hktune.core.launch_rule import LaunchRule, specialised
from hktune.core.near import meant
from hktune.core.operation import Operation, facts_of
from hktune.core.outside_file import FileKind
from hktune.core.problem import Problem
from hktune.core.shipped import KERNELS, TEMPLATE_NAME
from hktune.core.yaml_file import read_yaml
from hktune.space.domain import Domain
from hktune.space.fixed import fixed_choice
from hktune.space.foremost import ForemostRule, Group
from hktune.space.rules import Bound, Constraint, Parameter, Step, Violation, roots, schedule
from hktune.space.space_schema import ConstraintDescription, ForemostDescription, Scalar, SpaceDescription
from hktune.template import Template, load_template
from hktune.template.template import PROBLEM_NAMES

SPACE_FILE = FileKind("a search space", 1 << 20, SpaceError, "pass a file like those of search_spaces/")
VALUES_MAX = 1024  # of all parameters together; the shipped spaces have some seventy


def load_space(path: Path, templates_root: Path | None = None) -> SearchSpace:
    """The search space in the file `path`, with its template from `templates_root`/<arch>/<name>/.

    By default the template is the one in the file's own folder, where there is one. Else it is in the folder kernels/
    next to that folder, else in that of hktune itself. Raises SpaceError or TemplateError.
    """
    description = read_yaml(path, SPACE_FILE, SpaceDescription)
    template = load_template(_template_folder(path, description.template, templates_root))
    if template.name != description.template:
        raise SpaceError(f"{path}: template {description.template!r} calls itself {template.name!r}: name that one")
    try:
        return SearchSpace(description, template)
    except InputError as mistake:
        raise SpaceError(f"{path}: {mistake}") from None


def template_of(path: Path) -> str:
    """The name of the template of the search space in the file `path`. Raises SpaceError."""
    return read_yaml(path, SPACE_FILE, SpaceDescription).template


def template_folder(path: Path) -> Path:
    """The folder of the template of the search space in the file `path`. Raises SpaceError."""
    return _template_folder(path, template_of(path), None)


def _template_folder(path: Path, template: str, root: Path | None) -> Path:
    if root:
        return root / template
    own = path.resolve().parent
    folders = (own, own.parent / "kernels" / template, KERNELS / template)
    for folder in folders:
        if (folder / TEMPLATE_NAME).exists():
            return folder
    places = " nor ".join(str(folder) for folder in dict.fromkeys(folders[1:]))
    raise SpaceError(f"{path}: template {template!r}: no template.yaml in {places}: put it there, or name another")


class SearchSpace:
    """What can be tried for a template. Configs are made and judged here; `domain` narrows it to one problem.

    Its template renders the code of one operation, the template's first; `for_operation` has the others.
    """

    def __init__(self, description: SpaceDescription, template: Template) -> None:
        self.name = description.name
        self._description, self._any_template = description, template
        self._of_operation: dict[Operation, SearchSpace] = {template.operation: self}
        self.template = template.within(self._require_own_of)
        self.arch = arch_named(template.arch)
        self.parameters = tuple(
            Parameter(name, tuple(parameter.values), parameter.default, parameter.help)
            for name, parameter in description.parameters.items()
        )
        count = sum(len(parameter.values) for parameter in self.parameters)
        if count > VALUES_MAX:
            raise SpaceError(f"its parameters have {count} values, at most {VALUES_MAX} are searched: leave some out")
        self._parameter = {parameter.name: parameter for parameter in self.parameters}
        self.derived = self._all_derived(description.derived)
        self.estimate = self._estimate(description.estimate)
        self.constraints = tuple(self._constraint(constraint) for constraint in description.constraints)
        self._check_use()
        self._scheduled: dict[bool, tuple[list[list[Step]], list[Step]]] = {}
        self._domains: dict[Problem | None, Domain] = {}
        self._launch_rules: dict[tuple[Config, int, int, Operation], LaunchRule] = {}
        usual = template.operation == template.operations[0]
        legal = self._legal_seed if usual else self.config  # rules may allow a seed for the usual operation alone
        seeds = [legal(seed) for seed in [{}, *description.seeds_of(template.operation.a_dtype.width_bits)]][1:]
        self.seeds = tuple(seed for seed in dict.fromkeys(seeds) if usual or self.is_legal(seed))
        self.foremost = tuple(map(self._foremost_rule, description.foremost))
        self._foremost_groups: dict[tuple[tuple[str, ...], tuple[Config, ...]], Sequence[Group]] = {}
        fixed = description.fixed_choice
        chosen = partial(self._legal_seed, what="fixed choice") if usual else self.config
        self.fixed_choice = fixed_choice(fixed, chosen) if fixed else None

    def for_operation(self, operation: Operation) -> SearchSpace:
        """This space with its template for `operation`. Raises InputError for one that the template cannot do."""
        code = self.template.code_operation(operation)
        if code not in self._of_operation:
            other = SearchSpace(self._description, self._any_template.for_operation(code))
            other._of_operation = self._of_operation
            self._of_operation[code] = other
        return self._of_operation[code]

    def foremost_groups(self, rule: ForemostRule) -> Sequence[Group]:
        """What one of the rules `foremost` goes through: configs that are legal without a problem."""
        key = (rule.varied, rule.bases)
        if key not in self._foremost_groups:
            of_bases = (self.domain(None).restricted(rule.among(base)) for base in rule.bases)
            self._foremost_groups[key] = rule.groups(chain.from_iterable(of_bases))
        return self._foremost_groups[key]

    @property
    def estimate_constants(self) -> dict[str, int]:
        """The plain numbers of its estimate, by name: the machine's, which measured times may be fitted to."""
        return {name: value for name, value in self._description.estimate.items() if type(value) is int}

    def with_estimate(self, constants: Mapping[str, int]) -> SearchSpace:
        """This space with other `constants` in its estimate. Raises SpaceError for one that it does not have."""
        estimate = self._estimate_of(constants)
        description = structs.replace(self._description, estimate=estimate)
        return SearchSpace(description, self._any_template)

    def on(self, compute_units: int) -> SearchSpace:
        """This space for a device with so many compute units: boards of one architecture differ, and so do parts of a
        board. Kernels are the same; its expressions count with them, so the estimate, what is foremost and launches
        do."""
        return SearchSpace(self._description, self._any_template.on(compute_units))

    def estimate_with(self, constants: Mapping[str, int]) -> Derived:
        """The estimate alone of `with_estimate`, over a scope of config, a problem's facts, and what the space derives
        from them: its last value counts."""
        return Derived(self._estimate_of(constants), "estimate")

    def _estimate_of(self, constants: Mapping[str, int]) -> dict[str, Scalar]:
        unknown = sorted(constants.keys() - self.estimate_constants.keys())
        if unknown:
            known = ", ".join(self.estimate_constants) or "none"
            raise SpaceError(f"the estimate of {self.name} has no constant {unknown[0]}: known are {known}")
        return {**self._description.estimate, **constants}

    @property
    def raw_count(self) -> int:
        """How many configs there would be without constraints."""
        return math.prod(len(parameter.values) for parameter in self.parameters)

    def config(self, values: Mapping[str, object]) -> Config:
        """A config from `values`, defaults filled in. Raises SpaceError for an unknown parameter or illegal value."""
        unknown = [name for name in values if name not in self._parameter]
        if unknown:
            near = meant(unknown[0], self._parameter)
            raise SpaceError(f"unknown parameter {shown(unknown[0])}{near}: known are {', '.join(self._parameter)}")
        chosen = {name: values.get(name, parameter.default) for name, parameter in self._parameter.items()}
        positions = {name: parameter.index(chosen[name]) for name, parameter in self._parameter.items()}
        return Config({name: self._parameter[name].values[position] for name, position in positions.items()})

    def completed(self, config: Mapping[str, Value]) -> Config:
        """`config` with the defaults of the parameters that it lacks: it may be older than these."""
        return Config({**{name: parameter.default for name, parameter in self._parameter.items()}, **config})

    def parse(self, assignments: Iterable[str], base: Mapping[str, object] | None = None) -> Config:
        """A config from words like `block_m=256`, the rest from `base` or, without one, the defaults. Raises SpaceError
        as `config` does, and where one parameter is given twice."""
        values: dict[str, object] = {}
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            if not equals:
                raise SpaceError(
                    f"{shown(assignment)} is no assignment: write PARAMETER=VALUE, or DIR:ID of what was tried"
                )
            if name in values:
                raise SpaceError(f"{name} is given twice: {name}={values[name]} and {assignment}: keep one")
            legal = self._parameter[name].by_text if name in self._parameter else {}
            values[name] = legal.get(text.lower(), text)
        return self.config({**(base or {}), **values})

    def domain(self, problem: Problem | None) -> Domain:
        """The legal configs of `problem`; with None, by the constraints that need no problem. Raises InputError for an
        operation that the template cannot do."""
        if problem not in self._domains:
            own = self.for_operation(problem.operation) if problem else self
            self._domains[problem] = Domain(self, problem) if own is self else own.domain(problem)
        return self._domains[problem]

    def facts(self, problem: Problem | None) -> Bound:
        """What rules may name that no choice changes: the architecture, the operation, and the problem's sizes."""
        operation = problem.operation if problem else self.template.operation
        sizes = {**problem.sizes, "groups": problem.groups} if problem else {}
        return {**self.template.launch_records, "operation": facts_of(operation), **sizes}

    def scheduled(self, with_problem: bool) -> tuple[list[list[Step]], list[Step]]:
        """What its domains judge at each level (`rules.schedule`), and all of it in order: one for all problems."""
        if with_problem not in self._scheduled:
            levels = schedule(self.parameters, self.derived, self.constraints, with_problem)
            self._scheduled[with_problem] = (levels, [step for level in levels for step in level])
        return self._scheduled[with_problem]

    def violations(self, config: Mapping[str, Value], problem: Problem | None = None) -> tuple[Violation, ...]:
        """See `Domain.violations`; without a problem, constraints that need one are not judged."""
        return self.domain(problem).violations(config)

    def is_legal(self, config: Mapping[str, Value], problem: Problem | None = None) -> bool:
        """See `Domain.is_legal`."""
        return self.domain(problem).is_legal(config)

    def launch_rule(self, config: Mapping[str, Value], problem: Problem) -> LaunchRule:
        """How `config` is launched for any number of rows of `problem`'s n and k, and which rows the constraints allow.
        Raises TemplateError as `Template.launch_rule` does, SpaceError as `require_own` does."""
        own = Config(config)
        key = (own, problem.n, problem.k, problem.operation)
        if key not in self._launch_rules:
            self._launch_rules[key] = self.for_operation(problem.operation)._launch_rule(own, *key[1:3], problem.groups)
        return self._launch_rules[key]

    def _launch_rule(self, config: Config, n: int, k: int, groups: int) -> LaunchRule:
        self.require_own(config)
        known = {**config, "n": n, "k": k, "groups": groups, **self.template.launch_records}
        formulas = [
            specialised(constraint.require, known, self.derived.expressions)
            for constraint in self.constraints
            if constraint.per_problem
        ]
        requires = tuple(str(formula) for formula in formulas if formula != 1)
        return replace(self.template.launch_rule(config, n, k, groups), requires=requires)

    def enumerate(self, problem: Problem | None = None) -> Iterator[Config]:
        """See `Domain.enumerate`."""
        return self.domain(problem).enumerate()

    def count(self, problem: Problem | None = None) -> int:
        """See `Domain.count`."""
        return self.domain(problem).count

    def sample(self, rng: random.Random, problem: Problem | None = None) -> Config:
        """See `Domain.sample`."""
        return self.domain(problem).sample(rng)

    def neighbours(self, config: Mapping[str, Value], problem: Problem | None = None) -> list[Config]:
        """See `Domain.neighbours`."""
        return self.domain(problem).neighbours(config)

    def require_own(self, config: Mapping[str, Value]) -> None:
        """Raises SpaceError unless `config` is a point of this space that keeps every rule that needs no problem."""
        for name in config.keys() ^ self._parameter.keys():
            how = "lacks" if name in self._parameter else "has an unknown"
            raise SpaceError(f"config {Config(config).id} {how} {shown(name)}: it is of another space")
        for name, parameter in self._parameter.items():
            parameter.index(config[name])
        if not self.is_legal(config):
            raise SpaceError(f"config {Config(config).id} is illegal: {'; '.join(explain(self, config))}")

    def _require_own_of(self, config: Config, operation: Operation) -> None:
        self.for_operation(operation).require_own(config)

    def _all_derived(self, own: Mapping[str, Scalar]) -> Derived:
        shared = self.template.derived.expressions
        taken = own.keys() & (shared.keys() | self._parameter.keys() | PROBLEM_NAMES | RECORDS)
        if taken:
            raise SpaceError(f"derived {min(taken)}: a parameter, the template or the problem has that name: rename it")
        derived = Derived({**shared, **own})
        for expression in derived.expressions.values():
            expression.check_names(self._parameter.keys() | derived.expressions.keys() | PROBLEM_NAMES)
        return derived

    def _estimate(self, own: Mapping[str, Scalar]) -> Derived:
        known = self._parameter.keys() | self.derived.expressions.keys() | PROBLEM_NAMES | RECORDS
        if own.keys() & known:
            raise SpaceError(f"estimate {min(own.keys() & known)}: something else has that name: rename it")
        for expression in Derived(own, "estimate").expressions.values():
            expression.check_names(known | own.keys())
        estimate = Derived({**self.derived.expressions, **own}, "estimate")
        return estimate.reduced_to(list(own)[-1]) if own else Derived({})

    def _foremost_rule(self, description: ForemostDescription) -> ForemostRule:
        for name in (*description.varied, *description.held, *description.most):
            if name not in self._parameter:
                raise SpaceError(f"foremost names no parameter {name!r}: known are {', '.join(self._parameter)}")
        when = Expression(description.when, "foremost, when")
        when.check_names(PROBLEM_NAMES)
        known = {**self.derived.expressions, **self.estimate.expressions}
        names = tuple(f"least {place}" for place in range(1, len(description.least) + 1))
        least = dict(zip(names, description.least, strict=True))
        require = Derived({**known, "require": description.require}, "foremost").reduced_to("require")
        ordered = Derived({**known, **least}, "foremost")
        for expression in (*require.expressions.values(), *ordered.expressions.values()):
            expression.check_names(self._parameter.keys() | ordered.expressions.keys() | PROBLEM_NAMES | RECORDS)
        bases = tuple(map(self.config, description.bases))
        by = (require, ordered.reduced_to(*names), names)
        held = (*description.varied, *description.held)
        most = tuple(description.most)
        return ForemostRule(tuple(description.varied), bases, when, *by, held, most, description.first)

    def _constraint(self, description: ConstraintDescription) -> Constraint:
        where = f"constraint {description.name}"
        require = Expression(description.require, f"{where}, require")
        reason = Message(description.reason, f"{where}, reason")
        require.check_names(self._parameter.keys() | self.derived.expressions.keys() | PROBLEM_NAMES)
        sources = roots(require.names, self.derived)
        per_problem = bool(sources & PROBLEM_NAMES)
        reason.check_names(self._sayable(per_problem))
        return Constraint(description.name, require, reason, sources & self._parameter.keys(), per_problem)

    def _sayable(self, per_problem: bool) -> set[str]:
        """The names a reason may use: those that have a value whenever its constraint is judged."""
        names = {*self._parameter, *self.derived.expressions, *PROBLEM_NAMES}
        return names if per_problem else {name for name in names if not roots({name}, self.derived) & PROBLEM_NAMES}

    def _check_use(self) -> None:
        names = [constraint.name for constraint in self.constraints]
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise SpaceError(f"constraint {repeated[0]!r} appears twice: rename one")
        absent = self.template.parameter_names - self._parameter.keys()
        if absent:
            raise SpaceError(f"template {self.template.name} needs {min(absent)!r}: add it under `parameters`")
        idle = self._parameter.keys() - self.template.parameter_names
        if idle:
            raise SpaceError(f"parameter {min(idle)!r} changes nothing in template {self.template.name}: drop it")

    def _legal_seed(self, seed: Mapping[str, Value], what: str = "seed") -> Config:
        config = self.config(seed)
        for violation in self.violations(config):
            raise SpaceError(f"{what} {dict(seed) or 'of defaults alone'} breaks {violation}: change it")
        return config


def require_legal(space: SearchSpace, config: Config, problems: Iterable[Problem | None]) -> None:
    """Raises InputError, with every rule that `config` breaks, unless it is legal for each of `problems`."""
    reasons = [str(violation) for problem in problems for violation in space.violations(config, problem)]
    if reasons:
        raise InputError(f"{'; '.join(reasons)}: change it, or see hktune explain")


def explain(space: SearchSpace, config: Mapping[str, Value], problem: Problem | None = None) -> list[str]:
    """One line for each constraint that `config` breaks, as in `lds_fits: needs lds_bytes=196608, but ...`."""
    return [str(violation) for violation in space.violations(config, problem)]
