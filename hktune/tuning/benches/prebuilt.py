"""Compile on one machine what another will measure: a folder of code objects, and the list of configs in it."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from hktune.compile import AbsentCompiler, CachedCompiler, compile_many
from hktune.compile.object_cache import OBJECTS_NAME
from hktune.core.bounded_text import OperationText
from hktune.core.config import Config, Value
from hktune.core.errors import InputError, MachineError, SpaceError, StoreError
from hktune.core.json_file import decoded
from hktune.core.operation import Operation
from hktune.core.outcome import Failure, Status
from hktune.core.outside_file import FileKind, own_folder
from hktune.core.problem import Problem
from hktune.core.publish import publish, sweep, sweep_below, temporary_folder
from hktune.core.remedy import with_remedy
from hktune.space import SearchSpace
from hktune.template import Template

FILE_NAME = "built.json"
CONFIGS_MAX = 50_000  # of a folder, and of a list; days of compiling
BUILT_FILE = FileKind("a list of built configs", 16 << 20, StoreError, "make it with hktune build")
CONFIGS_FILE = FileKind("a list of configs", 4 << 20, InputError, "give a file with a config a line")
COMPILE_DEADLINE_S = 120.0


BuiltConfigs = Annotated[tuple[Annotated[dict[str, Value], Meta(max_length=256)], ...], Meta(max_length=CONFIGS_MAX)]


class Built(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a folder made by `build` holds. Configs that failed to compile are listed too: their failures are kept.

    `configs` are built for the template's usual operation; `others` has those of other operations, by their texts.
    """

    space: str
    template: str
    template_sha256: str
    compiler: str
    configs: BuiltConfigs
    others: dict[OperationText, BuiltConfigs] = {}

    def of(self, template: Template) -> BuiltConfigs:
        """What was built for the operation that `template` renders."""
        usual = template.operation == template.operations[0]
        return self.configs if usual else self.others.get(str(template.operation), ())


@dataclass(frozen=True)
class BuildSummary:
    """Configs by what became of them (`ok`: there is an object), the first that failed in each way and its detail, and
    the wall-clock seconds it took."""

    statuses: Counter[Status]
    examples: dict[Status, tuple[Config, str]]
    elapsed_s: float

    @staticmethod
    def of(done: int, failed: Sequence[tuple[Config, Failure]], elapsed_s: float) -> BuildSummary:
        """Of so many configs that are `done`, with those that `failed` in their order."""
        statuses = Counter(failure.status for _, failure in failed)
        statuses[Status.OK] = done - len(failed)
        examples = {failure.status: (config, failure.detail) for config, failure in reversed(failed)}
        return BuildSummary(+statuses, examples, elapsed_s)


@dataclass(frozen=True)
class Wanted:
    """Which configs to build, apart from the seeds: those of `listed`, the seeds' neighbours, `random` others, or all.
    With `problems`, only those that are legal for one of them, and what the space's estimate favours for each."""

    listed: Sequence[Config] = ()
    near_seeds: bool = False
    random: int = 0
    everything: bool = False
    problems: Sequence[Problem] = ()
    seed: int = 0

    def configs(self, space: SearchSpace) -> list[Config]:
        """Each once; seeds first."""
        chosen = {config.id: config for config in self._candidates(space) if self._wanted(space, config)}
        left = self.random
        rng = random.Random(self.seed)
        for _ in range(self.random * 20):  # of a space with few others, fewer are found
            config = space.sample(rng, rng.choice(self.problems) if self.problems else None)
            if left and config.id not in chosen:
                chosen[config.id] = config
                left -= 1
        return list(chosen.values())

    def of_each_operation(
        self, space: SearchSpace, operation: Operation | None = None
    ) -> list[tuple[SearchSpace, list[Config]]]:
        """`configs` of each operation that needs code of its own, with `space` for it: of `operation`, else of those of
        the problems, else of the template's first. Raises InputError for one that the template cannot do."""
        asked = [operation] if operation else [each.operation for each in self.problems] or [space.template.operation]
        parts = {}
        for own in {space.for_operation(each).template.operation for each in dict.fromkeys(asked)}:
            same = [each for each in self.problems if space.template.code_operation(each.operation) == own]
            parts[own] = (space.for_operation(own), replace(self, problems=same))
        return [(bound, wanted.configs(bound)) for _, (bound, wanted) in sorted(parts.items())]

    def _candidates(self, space: SearchSpace) -> Iterator[Config]:
        yield from space.seeds
        yield from chain.from_iterable(space.domain(problem).seeds for problem in self.problems)
        yield from self.listed
        if self.near_seeds:
            yield from chain.from_iterable(space.neighbours(seed) for seed in space.seeds)
        if self.everything:
            yield from space.enumerate()

    def _wanted(self, space: SearchSpace, config: Config) -> bool:
        if not self.problems:
            return space.is_legal(config)
        return any(space.is_legal(config, problem) for problem in self.problems)


def build(
    space: SearchSpace,
    compiler: CachedCompiler,
    configs: Sequence[Config],
    directory: Path,
    workers: int,
    built: Callable[[int], None],
) -> BuildSummary:
    """Compile `configs` into `directory`, which `compiler` keeps its objects in; `built` hears how many are done.

    What is there already is not compiled again; configs of an earlier build of the same template stay on the list. So
    do those that were compiled before the build was ended: by an interrupt, or by what this machine lacks
    (MachineError).
    """
    started = time.monotonic()
    _require_room(directory, [*_earlier(directory, space, compiler.identity), *configs])
    failures: dict[str, Failure] = {}
    _prepare(directory)
    variants = (space.template.render(config) for config in configs)
    done: set[str] = set()
    try:
        for variant, outcome in compile_many(compiler, variants, COMPILE_DEADLINE_S, workers):
            if compiler.trouble is not None:
                raise MachineError(
                    f"{directory}: {compiler.trouble.rpartition(':')[0]}: free the disk, or pass another DIR"
                )
            if isinstance(outcome, Failure):
                failures[variant.config.id] = outcome
            done.add(variant.config.id)
            built(len(done))
    finally:
        if done or not os.path.lexists(directory / FILE_NAME):  # where nothing was built, an earlier list stays
            _list_built(directory, space, compiler.identity, [config for config in configs if config.id in done])
    failed = [(config, failures[config.id]) for config in configs if config.id in failures]
    return BuildSummary.of(len(done), failed, time.monotonic() - started)


def replaced_build(directory: Path, template: Template, compiler: str) -> str:
    """A line that says what a build of `template` by `compiler` takes off the list of `directory`; "" for nothing.
    Raises StoreError where what is there is no list."""
    if not os.path.lexists(directory / FILE_NAME):
        return ""
    record = built_record(directory)
    count = len(record.configs) + sum(map(len, record.others.values()))
    if record.template_sha256 != template.sha256:
        saved, current = record.template_sha256[:12], template.sha256[:12]
        why = f"they are of another template: saved={record.template} {saved} current={template.name} {current}"
    elif record.compiler != compiler:
        why = f"they are of another compiler: saved={record.compiler} current={compiler}"
    else:
        return ""
    return f"{directory}: {count} configs on its list will be replaced, {why}"


def _require_room(directory: Path, configs: Sequence[Config]) -> None:
    """Raises StoreError where these are more than a build may hold."""
    count = len({config.id for config in configs})
    if count > CONFIGS_MAX:
        rule = f"{directory}: would hold {count} configs, a build has at most {CONFIGS_MAX}"
        raise StoreError(f"{rule}: name fewer, or pass another DIR")


def _prepare(directory: Path) -> None:
    """Make the folder, and remove what a build that was killed left in it."""
    try:
        objects = own_folder(directory, OBJECTS_NAME, StoreError)
    except OSError as error:
        raise StoreError(with_remedy(f"{directory}: cannot be written", error, "pass another DIR")) from None
    sweep(directory.resolve(), temporary_folder())
    sweep_below(objects)


def _list_built(directory: Path, space: SearchSpace, compiler: str, configs: Sequence[Config]) -> None:
    """Add `configs` to the list of what `directory` holds."""
    earlier = _earlier(directory, space, compiler)
    everything = {config.id: config for config in [*earlier, *configs]}
    listed = tuple(dict(config) for config in everything.values())
    template = space.template
    before = _record_of(directory, space, compiler)
    kept = (before.configs, before.others) if before else ((), {})
    usual = template.operation == template.operations[0]
    record = Built(
        space=space.name,
        template=template.name,
        template_sha256=template.sha256,
        compiler=compiler,
        configs=listed if usual else kept[0],
        others=kept[1] if usual else {**kept[1], str(template.operation): listed},
    )
    try:
        publish(directory / FILE_NAME, msgspec.json.encode(record))
    except OSError as error:
        raise MachineError(
            with_remedy(f"{directory / FILE_NAME}: cannot be written", error, "pass another DIR")
        ) from None


def read_built(directory: Path, space: SearchSpace) -> list[Config]:
    """The configs that `directory` holds for the operation of `space`. Raises StoreError when it is of
    another template, or no build."""
    record = built_record(directory)
    if record.template_sha256 != space.template.sha256:
        raise StoreError(
            f"{directory} was built from another {record.template}: saved={record.template_sha256[:12]} "
            f"current={space.template.sha256[:12]}: run hktune build again"
        )
    try:
        configs = [space.config(values) for values in record.of(space.template)]
    except SpaceError as foreign:
        raise BUILT_FILE.broken(directory / FILE_NAME, f"lists a config of another space ({foreign})") from None
    twice = next((config for config, count in Counter(configs).items() if count > 1), None)
    if twice:
        raise BUILT_FILE.broken(directory / FILE_NAME, f"lists config {twice.id} twice")
    return configs


def built_compiler(directory: Path) -> CachedCompiler:
    """A compiler that has what `directory` holds, and nothing else."""
    absent = AbsentCompiler(built_record(directory).compiler, "only --prebuilt objects are used")
    return CachedCompiler(absent, directory)


def read_configs(path: Path, space: SearchSpace) -> list[Config]:
    """Configs of a text file, one a line as PARAMETER=VALUE words, each once; # begins a comment. Raises InputError."""
    lines = (tuple(line.partition("#")[0].split()) for line in CONFIGS_FILE.read_text(path).splitlines())
    distinct = dict.fromkeys(words for words in lines if words)
    if len(distinct) > CONFIGS_MAX:
        raise CONFIGS_FILE.broken(path, f"has {len(distinct)} configs, at most {CONFIGS_MAX} are built")
    return list(dict.fromkeys(map(space.parse, distinct)))


def _record_of(directory: Path, space: SearchSpace, compiler: str) -> Built | None:
    """What `directory` lists, if it is of this template and compiler."""
    if not os.path.lexists(directory / FILE_NAME):
        return None
    record = built_record(directory)
    ours = (record.template_sha256, record.compiler) == (space.template.sha256, compiler)
    return record if ours else None


def _earlier(directory: Path, space: SearchSpace, compiler: str) -> list[Config]:
    return read_built(directory, space) if _record_of(directory, space, compiler) else []


def built_record(directory: Path) -> Built:
    """What `directory` was built from. Raises StoreError where it holds no build."""
    try:
        return decoded(BUILT_FILE.read_inside(directory, FILE_NAME), Built)
    except ValueError as wrong:
        raise BUILT_FILE.broken(directory / FILE_NAME, f"not what hktune build writes ({wrong})") from None
