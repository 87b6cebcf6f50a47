"""What was found as one JSON object."""

from __future__ import annotations

from hktune.core.json_file import Json
from hktune.objects.source_lines import SourcePlace
from hktune.verify.diagnosis import Diagnosis, Witness
from hktune.verify.kernel_file import Verdict


def verdict_record(verdict: Verdict) -> dict[str, Json]:
    """Docs: docs/reference/findings.md says what each key means."""
    failure = verdict.failure
    return {
        "kernel": verdict.symbol,
        "level": verdict.level,
        "failure": {"status": str(failure.status), "detail": failure.detail} if failure else None,
        "findings": [_finding(each) for each in verdict.findings],
        "fix": verdict.fix or None,
        "notes": list(verdict.notes),
        "resources": str(verdict.resources),
    }


def _finding(each: Diagnosis) -> Json:
    return {
        "rule": each.rule.name,
        "level": each.level,
        "waived": each.waived,
        "what": each.what,
        "here": _witness(each.here),
        "other": _witness(each.other),
        "memory": each.memory or None,
        "counters": each.counters or None,
        "listing": list(each.listing),
        "fix": each.fix or None,
    }


def _witness(witness: Witness | None) -> Json:
    if witness is None:
        return None
    side = witness.side
    return {
        "instruction": witness.text,
        "place": witness.code_place,
        "line": str(witness.source.own) if witness.source else None,
        "calls": _calls(witness.source),
        "workgroup": list(side.workgroup),
        "wave": side.wave,
        "lane": side.lane,
        "execution": side.iteration or None,
    }


def _calls(source: SourcePlace | None) -> Json:
    frames = source.frames if source else ()
    return [{"function": each.function, "file": each.file, "line": each.line} for each in frames]
