"""How an outcome becomes a row of trials.csv."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import Any

from hktune.core.arch import arch_named
from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.identity import Identity
from hktune.core.launch import Launch
from hktune.core.outcome import Failure, Stage, Status, Timing
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.core.variant import Resources
from hktune.measure.stopwatch import Attempt
from hktune.template import Template, Templates


@dataclass(frozen=True)
class RowContext:
    """What all rows of one run share: they are of one of `templates`."""

    templates: Templates
    identity: Identity
    strategy: str
    seed: int

    def row(self, attempt: Attempt, problem: Problem, outcome: Timing | Failure, stage: Stage) -> Trial:
        """The row of one attempt on one problem, still without a number."""
        if attempt.algorithm:
            return self._row(attempt, problem, outcome, stage, library=attempt.algorithm.library)
        template = self.templates.of(attempt.template)
        resources = attempt.resources
        made_from = {
            **(_resources(template, resources, attempt.config, problem) if resources else {}),
            "compile_s": attempt.compile_s,
            "object_sha256": attempt.object_sha256,
            "template": template.name,
            "template_sha256": template.sha256,
            "compiler": attempt.compiler,
        }
        return self._row(attempt, problem, outcome, stage, **made_from)

    def _row(
        self, attempt: Attempt, problem: Problem, outcome: Timing | Failure, stage: Stage, **made_from: Any
    ) -> Trial:
        return Trial(
            trial=0,
            m=problem.m,
            n=problem.n,
            k=problem.k,
            operation=problem.operation,
            config_id=attempt.config.id,
            config=attempt.config.json,
            stage=stage,
            **outcome_fields(outcome, problem),
            **made_from,
            relative_error=attempt.relative_error,
            target=self.templates.own.arch,
            device=self.identity.name,
            strategy=self.strategy,
            seed=self.seed,
            started_at=now(),
        )

    def candidate(self, row: Trial) -> Candidate:
        """What a row of one of these templates, or of a vendor's algorithm, was made from."""
        if not row.is_kernel:
            return Candidate(Config.from_json(row.config), row.operation)
        return candidate_of(self.templates.of(row.template_sha256), row)


def candidate_of(template: Template, row: Trial) -> Candidate:
    """The candidate of `template` that `row` is about."""
    return Candidate(Config.from_json(row.config), template.code_operation(row.problem.operation), template.sha256)


def now() -> str:
    """This moment in UTC, ISO 8601 to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def outcome_fields(outcome: Timing | Failure, problem: Problem) -> dict[str, Any]:
    """The cells of a row that say how it came out: with a time, or with why there is none. All that a time fills are
    named in either case."""
    if isinstance(outcome, Failure):
        empty = {**dict.fromkeys([*_TIMED, "tflops"]), "left_early": False}
        return {**empty, "status": outcome.status, "quarantined": outcome.quarantined, "detail": outcome.detail}
    timed = {name: getattr(outcome, name) for name in _TIMED}
    detail = outcome.note or (f"bound by {outcome.bound}" if outcome.bound else None)
    tflops = problem.flops / outcome.time_us * 1e-6
    return {**timed, "status": Status.OK, "quarantined": False, "detail": detail, "tflops": tflops}


_TIMED = sorted({field.name for field in fields(Timing)} & {field.name for field in fields(Trial)})


def _resources(template: Template, needs: Resources, config: Config, problem: Problem) -> dict[str, Any]:
    launch = template.launch(config, problem)
    return {
        "vgprs": needs.vgprs,
        "agprs": needs.agprs,
        "sgprs": needs.sgprs,
        "spills": needs.spills,
        "lds_bytes": needs.lds_bytes + launch.dynamic_lds_bytes,
        "scratch_bytes": needs.scratch_bytes,
        "waves_per_simd": _waves_per_simd(template.arch, needs, launch),
    }


def _waves_per_simd(arch: str, needs: Resources, launch: Launch) -> int:
    record = arch_named(arch)
    waves = -(-launch.block[0] * launch.block[1] * launch.block[2] // record.wave_size)
    lds_bytes = needs.lds_bytes + launch.dynamic_lds_bytes
    return record.waves_that_fit(needs.vgprs, needs.agprs, lds_bytes, waves)
