"""`hktune table build`: one table of trials, and the code objects that it names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hktune.commands.arguments import (
    COUNT_MAX,
    add_aiter,
    add_candidates,
    add_hipkittens,
    add_out,
    add_shapes,
    add_space,
    add_trials,
    number,
    settings_of,
)
from hktune.commands.parser import DONE, Command
from hktune.core.errors import StoreError, TableError
from hktune.core.escaped import escaped
from hktune.core.shipped import DEFAULT_SPACE
from hktune.core.version import __version__

if TYPE_CHECKING:
    from hktune.core.candidate import Candidate
    from hktune.core.identity import Identity
    from hktune.core.launch_rule import LaunchRule
    from hktune.core.problem import Problem
    from hktune.core.trial import Trial
    from hktune.dispatch import Table
    from hktune.space import Spaces
    from hktune.template import Template

REGRETS_SHOWN = 3  # the largest


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune table build`."""
    add_trials(parser)
    add_out(parser, "where the table goes")
    add_space(parser, "the search space of the trials (default: gfx950's)", default=DEFAULT_SPACE)
    parser.add_argument("--reproducible", action="store_true", help="only kernels that give equal bits on every launch")
    parser.add_argument(
        "--reach",
        type=number(0, COUNT_MAX),
        default=1.0,
        metavar="X",
        help="factor beyond the outermost tuned m to serve (default: %(default)s)",
    )
    add_shapes(parser, "gives shapes names (default: the tables in the folders of the trials)")
    add_hipkittens(parser)
    add_candidates(parser)
    add_aiter(parser)


def _run(options: argparse.Namespace) -> int:
    from hktune.core.command_words import command_line
    from hktune.core.outcome import Status
    from hktune.dispatch import write_table
    from hktune.emulator.clock.model_error import model_error
    from hktune.report.heartbeat import working
    from hktune.space import load_spaces
    from hktune.store import folder_of, merged_trials, origin_texts
    from hktune.tables import BuildOptions, build_table, compilers_of, cross_trials, regrets
    from hktune.tuning.candidates import candidate_spaces
    from hktune.tuning.confirming.confirmation import deciding
    from hktune.tuning.own_trials import own_trials
    from hktune.tuning.trial_rows import now

    spaces = load_spaces((options.space, *candidate_spaces(options.candidates)))
    with working(lambda: "reading trials"):
        merged = merged_trials(options.trials)
    of_templates = [trial for trial in merged if trial.template_sha256 is None or trial.template_sha256 in spaces]
    trials, foreign = own_trials(spaces, of_templates)
    if not any(trial.status is Status.OK for trial in trials):
        raise StoreError(f"{foreign}: tune again" if foreign else _why_none(spaces.own.template, merged))
    identity = _one_identity(options.trials)
    shelf = _Shelf(options, spaces.on(identity.compute_units))
    tie = model_error().tie_factor
    origins = origin_texts(map(folder_of, options.trials))
    chosen = BuildOptions(spaces.fixed_order, options.reproducible, options.reach, _names(options), origins, tie)
    compilers, trials = compilers_of(trials), deciding(trials)
    with working(lambda: f"building the table, {len(shelf.objects)} objects so far"):
        table = build_table(trials, shelf.launch_of, identity, compilers, __version__, now(), chosen)
        write_table(table, shelf.objects, options.out)
    _print_built(table, len(merged) - len(of_templates), foreign)
    for regret in sorted(regrets(trials), key=lambda each: -each.regret)[:REGRETS_SHOWN]:
        print(f"regret: {regret}")
    wanted = len(cross_trials(trials))
    if wanted:
        print(f"{wanted} trials of neighbours are missing, so gaps between their m stay with the vendor library")
    print(f"next: {command_line('hktune', 'table', 'doctor', options.out)}")
    return DONE


def _why_none(template: Template, trials: Sequence[Trial]) -> str:
    """The line that says why none of `trials` makes a table of `template`."""
    named = {trial.template for trial in trials if trial.template_sha256 != template.sha256}
    saved = ", ".join(sorted({str(trial.template_sha256) for trial in trials})) or "none"
    rule = f"no ok trial is of {template.name}: saved={saved} current={template.sha256}"
    if any(trial.template_sha256 in (None, template.sha256) for trial in trials):
        return f"{rule}: none of its trials is ok: tune again"
    if template.name in named:
        return f"{rule}: the template has changed since: tune again, or build with the hktune that made them"
    return f"{rule}: pass the --space that they were drawn from, or tune again"


def _names(options: argparse.Namespace) -> dict[Problem, str]:
    """What shapes are called: by --shapes, else by the table in the folder of the trials."""
    from hktune.dispatch import saved_names
    from hktune.exchange import read_shapes
    from hktune.store import folder_of

    names: dict[Problem, str] = {}
    for folder in map(folder_of, options.trials):
        names |= saved_names(folder)
    shapes = read_shapes(options.shapes).shapes if options.shapes else ()
    return names | {shape.problem: shape.name for shape in shapes}


def _print_built(table: Table, others: int, foreign: str) -> None:
    from hktune.report.operations import operation_names

    near = sum(entry.rows != (entry.m, entry.m) for entry in table.entries)
    vendor = sum(entry.choice == "vendor" for entry in table.entries)
    kernels = len(table.object_sha256s)
    algorithms = sum(entry.choice == "algorithm" for entry in table.entries)
    by = f"{kernels} kernels, {f'{algorithms} by its algorithms, ' if algorithms else ''}{vendor} by the vendor library"
    print(f"{len(table.entries)} shapes by {by}; {near} serve other m too")
    print(f"operations: {operation_names(entry.problem.operation for entry in table.entries)}")
    if others:
        print(f"{others} trials of other templates were left out: see --candidates")
    if foreign:
        print(escaped(foreign))


class _Shelf:
    """The code objects that a table asks for: from the trials' folder, else from the compiler's cache, else built."""

    def __init__(self, options: argparse.Namespace, spaces: Spaces) -> None:
        from hktune.store import folder_of

        self.objects: dict[str, bytes] = {}
        self._folders = [folder_of(path) / "objects" for path in options.trials]
        self._hipkittens: Path | None = options.hipkittens
        self._settings = settings_of(options)
        self._spaces = spaces

    def launch_of(self, trial: Trial) -> tuple[str, LaunchRule]:
        """See `dispatch.build.LaunchOf`. Raises StoreError when the trial's bytes cannot be had any more."""
        from hktune.tuning.trial_rows import candidate_of

        space = self._spaces.of(trial.template_sha256)
        candidate = candidate_of(space.template, trial)
        sha256 = str(trial.object_sha256)
        if sha256 not in self.objects:
            self.objects[sha256] = self._beside(sha256) or self._built(space.template, trial, candidate)
        return space.template.symbol(candidate.config), space.launch_rule(candidate.config, trial.problem)

    def _beside(self, sha256: str) -> bytes | None:
        import hashlib

        from hktune.dispatch.layout import OBJECT_FILE

        for path in (folder / f"{sha256}{suffix}" for folder in self._folders for suffix in (".hsaco", ".cubin")):
            data = OBJECT_FILE.read_if_there(path.parent.parent, f"{path.parent.name}/{path.name}")
            if data is not None and hashlib.sha256(data).hexdigest() == sha256:
                return data
        return None

    def _built(self, template: Template, trial: Trial, candidate: Candidate) -> bytes:
        from hktune.compile import compiler_for
        from hktune.workers.prover import built_again

        compiler = compiler_for(template.language, self._settings, self._hipkittens)
        code = built_again(template, compiler, candidate, trial.object_sha256)
        if isinstance(code, str):
            rule = f"trial {trial.trial} cannot be built again: saved={trial.object_sha256} current={code}"
            raise StoreError(f"{rule}: keep objects/ next to trials.csv, or tune that shape again")
        return code.data


def _one_identity(trials: Sequence[Path]) -> Identity:
    """The device of all trials, from the environment.json of each."""
    from hktune.store import folder_of, read_environment

    identities: dict[str, Identity] = {}
    for folder in map(folder_of, trials):
        environment = read_environment(folder)
        if environment is None:
            raise StoreError(f"{folder}: no environment.json says which device its trials are of: keep it with them")
        identities[str(environment.identity.comparable)] = environment.identity
    if len(identities) > 1:
        raise TableError(f"trials are of several devices: {'; '.join(sorted(identities))}: build one table per device")
    return next(iter(identities.values()))


COMMAND = Command(
    "build",
    "make one table of trials: the fewest kernels that serve every shape",
    _add_options,
    _run,
    examples=("hktune table build out/gfx950-emulated -o table",),
)
