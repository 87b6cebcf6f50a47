"""A space's parameters, and a legal config with all that follows from it, printed."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from hktune.core.command_words import typed, words_of
from hktune.core.config import Config
from hktune.core.problem import Problem
from hktune.report.columns import Column, print_columns, print_line, print_prose
from hktune.space import SearchSpace


def print_parameters(console: Console, space: SearchSpace, file: Path) -> None:
    """What `space` can be tuned for, and every parameter: its values, its default and what it means."""
    print_prose(console, f"{space.name}: {len(space.parameters)} parameters of {space.template.name}, from {file}")
    print_prose(console, f"operations: {', '.join(map(str, space.template.operations))}", indent="  ")
    parameters = space.parameters
    columns = [
        Column("parameter", [parameter.name for parameter in parameters]),
        Column("default", [typed(parameter.default) for parameter in parameters]),
        Column("values", [" ".join(map(typed, parameter.values)) for parameter in parameters], folds=True),
        Column("meaning", [parameter.help for parameter in parameters], folds=True),
    ]
    print_columns(console, columns)
    count = len(space.constraints)
    rules = f"{count} rule says" if count == 1 else f"{count} rules say"
    print_prose(console, f"{rules} what is legal: hktune explain PARAMETER=VALUE ...")


def print_config(console: Console, space: SearchSpace, file: Path, config: Config, problem: Problem | None) -> None:
    """`config`, which is legal: every parameter, what is derived from it, how it is launched on `problem`, of whose
    operation `space` is."""
    where = f" for {problem}" if problem else ""
    print_line(console, f"legal{where}: {config.id} of {space.name}")
    parameters = space.parameters
    differs = [config[parameter.name] != parameter.default for parameter in parameters]
    defaults = [typed(each.default) if other else "" for each, other in zip(parameters, differs, strict=True)]
    columns = [
        Column("parameter", [parameter.name for parameter in parameters]),
        Column("value", [typed(config[parameter.name]) for parameter in parameters]),
        Column("default", defaults),
        Column("meaning", [parameter.help for parameter in parameters], rank=1, folds=True),
    ]
    print_columns(console, columns)
    print_prose(console, f"defaults are those of {file}")
    derived = space.domain(problem).derived_values(config)
    print_prose(console, f"derived: {' '.join(words_of(derived))}", indent="  ")
    print_prose(console, f"LDS: {_lds(space, config)}; {_launched(space, config, problem)}", indent="  ")
    proofs = "; ".join(map(str, space.template.proof_problems(config)))
    print_prose(console, f"proved on {proofs}", indent="  ")


def _lds(space: SearchSpace, config: Config) -> str:
    launch = space.template.launch(config, space.template.proof_problems(config)[0].problem)
    return f"{launch.dynamic_lds_bytes} of {space.arch.lds_bytes} bytes, asked for at launch"


def _launched(space: SearchSpace, config: Config, problem: Problem | None) -> str:
    if problem is None:
        return "--problem MxNxK tells the grid"
    launch = space.template.launch(config, problem)
    grid, block = ("x".join(map(str, sizes)) for sizes in (launch.grid, launch.block))
    return f"grid of {grid} workgroups, {block} work-items each; {launch.workspace_bytes} bytes of workspace"
