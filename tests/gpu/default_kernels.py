"""A table of the sm90a template's default config, or its first seed, compiled here, for any problems that it is legal
for.

Nothing was measured: the rows say modelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hktune.compile.nvrtc import NvrtcCompiler
from hktune.core.config import Config
from hktune.core.identity import Identity
from hktune.core.launch_rule import LaunchRule
from hktune.core.operation import Operation
from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.core.variant import CodeObject
from hktune.dispatch import write_table
from hktune.space import SearchSpace, load_space
from hktune.tables import build_table

_SPACE = load_space(Path(__file__).resolve().parents[2] / "search_spaces" / "sm90a_gemm_bf16.yaml")


def space_of(operation: Operation) -> SearchSpace:
    """Operations that share code share a space."""
    return _SPACE.for_operation(operation.code)


def config_of(space: SearchSpace) -> Config:
    """The default config, or the first seed where an operation leaves it too few registers."""
    default = space.config({})
    return default if space.is_legal(default) else space.seeds[0]


def is_served(problem: Problem) -> bool:
    """Whether that config is legal for a problem of an operation that the template has."""
    if not _SPACE.template.does(problem.operation):
        return False
    space = space_of(problem.operation)
    return space.is_legal(config_of(space), problem)


def published(directory: Path, identity: Identity, problems: Sequence[Problem]) -> None:
    """Writes the table of `problems` for a GPU; one object for all operations of equal code."""
    codes: dict[Operation, CodeObject] = {}
    for operation in dict.fromkeys(problem.operation.code for problem in problems):
        space = space_of(operation)
        built = NvrtcCompiler().compile(space.template.render(config_of(space)), 120.0)
        assert isinstance(built, CodeObject), built
        codes[operation] = built

    def row(problem: Problem) -> Trial:
        space = space_of(problem.operation)
        config = config_of(space)
        return Trial(
            trial=0, m=problem.m, n=problem.n, k=problem.k, operation=problem.operation, config_id=config.id,
            config=config.json, status=Status.OK, source=Source.MODELLED, time_us=1.0,
            object_sha256=codes[problem.operation.code].sha256, template=space.template.name,
            template_sha256=space.template.sha256, target=identity.arch, device=identity.name,
        )  # fmt: skip

    def launch_of(row: Trial) -> tuple[str, LaunchRule]:
        space = space_of(row.operation)
        return codes[row.operation.code].symbol, space.template.launch_rule(
            config_of(space), row.n, row.k, row.operation.count or 1
        )

    table = build_table([*map(row, problems)], launch_of, identity, "nvrtc", "0", "now")
    write_table(table, {code.sha256: code.data for code in codes.values()}, directory)
