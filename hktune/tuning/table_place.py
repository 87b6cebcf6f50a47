"""Where the table of a run goes, and how it is made there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hktune.compile import CachedCompiler, CompilerByLanguage
from hktune.core.errors import HktuneError, StoreError
from hktune.core.identity import Identity
from hktune.core.launch_rule import LaunchRule
from hktune.core.outcome import Status
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.trial import Trial
from hktune.core.version import __version__
from hktune.dispatch import check_table_place, saved_names, write_table
from hktune.emulator.clock.model_error import model_error
from hktune.space import Spaces
from hktune.store import origin_texts
from hktune.tables import BuildOptions, build_table, compilers_of
from hktune.tuning.trial_rows import candidate_of, now
from hktune.workers.prover import built_again


@dataclass(frozen=True)
class TablePlace:
    """Where the table of a run goes, and what it is made with. Shapes of earlier runs keep the names that they have
    there."""

    directory: Path
    names: Mapping[Problem, str]
    spaces: Spaces
    compiler: CachedCompiler | CompilerByLanguage
    identity: Identity
    settings: Settings

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noticed on the way."""
        noted = (self.settings.note, self.compiler.trouble, self._without_table)
        return tuple(note for note in noted if note)

    @property
    def _without_table(self) -> str | None:
        """Why no table is made: production does not launch what the space has."""
        return self.spaces.own.template.not_for_production

    def check(self) -> None:
        """Raise now, InputError or MachineError, what would keep the table from being made at the end."""
        check_table_place(self.directory)
        for problem in [] if self._without_table else list(self.names)[:1]:
            for config in self.spaces.own.domain(problem).seeds[:1]:
                self.spaces.own.launch_rule(config, problem)

    def publish(self, trials: Sequence[Trial], finished: bool) -> list[HktuneError]:
        """Write table and objects; what kept it from that. A search that ended early, with nothing found, leaves the
        table of an earlier one as it is."""
        if self._without_table:
            return []
        found = any(trial.status is Status.OK for trial in trials)
        try:
            if found or finished or not (self.directory / "table.json").exists():
                self._publish(trials)
        except HktuneError as error:
            return [error]
        return []

    def _publish(self, trials: Sequence[Trial]) -> None:
        """The objects come from the cache, or from the same compiler again."""
        objects: dict[str, bytes] = {}

        def launch_of(trial: Trial) -> tuple[str, LaunchRule]:
            space = self.spaces.of(trial.template_sha256)
            template = space.template
            candidate = candidate_of(template, trial)
            if trial.object_sha256 not in objects:
                code = built_again(template, self.compiler, candidate, trial.object_sha256)
                if isinstance(code, str):
                    raise StoreError(f"trial {trial.trial} cannot be built again to the same bytes: pass --fresh")
                objects[code.sha256] = code.data
            return template.symbol(candidate.config), space.launch_rule(candidate.config, trial.problem)

        names = {**saved_names(self.directory), **self.names}
        options = BuildOptions(
            self.spaces.fixed_order,
            names=names,
            origins=origin_texts([self.directory]),
            model_tie=model_error().tie_factor,
        )
        table = build_table(
            trials,
            launch_of,
            identity=self.identity,
            compiler=compilers_of(trials, self.compiler.identity),
            version=__version__,
            created_at=now(),
            options=options,
        )
        write_table(table, objects, self.directory)
