"""Findings as SARIF 2.1.0 (OASIS), which code hosts and editors show next to the lines."""

from __future__ import annotations

from pathlib import Path

from hktune.core.json_file import Json
from hktune.core.version import __version__
from hktune.verify.diagnosis import Diagnosis, Witness
from hktune.verify.finding_rules import ERROR, RULES, Rule
from hktune.verify.kernel_file import Verdict

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_FAILURE = "failure"


def sarif_log(verdict: Verdict, kernel: Path) -> dict[str, Json]:
    """One run. A finding in the file that was compiled is in `kernel`; other files have the names that debug lines
    give them."""
    results: list[Json] = [_result(each, kernel) for each in verdict.findings]
    rules: list[Json] = [_rule(rule) for rule in RULES.values()]
    if verdict.failure:
        text = f"{verdict.failure.status}: {verdict.failure.detail}"
        results.insert(0, {"ruleId": _FAILURE, "level": ERROR, "message": {"text": text}, "locations": [_file(kernel)]})
        rules.append({"id": _FAILURE, "shortDescription": {"text": "the kernel failed, or its values are wrong"}})
    driver: Json = {"name": "hktune", "version": __version__, "rules": rules}
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _rule(rule: Rule) -> Json:
    return {
        "id": rule.name,
        "shortDescription": {"text": rule.meaning},
        "help": {"text": f"{rule.cure}. Source: {rule.source}."},
        "defaultConfiguration": {"level": rule.level},
    }


def _result(each: Diagnosis, kernel: Path) -> Json:
    text = f"{each.what}. Fix: {each.fix}" if each.fix else each.what
    result: dict[str, Json] = {
        "ruleId": each.rule.name,
        "level": each.level,
        "message": {"text": text},
        "locations": [_location(each.here, kernel)],
    }
    if each.other is not None:
        result["relatedLocations"] = [_location(each.other, kernel)]
    if each.waived:
        result["suppressions"] = [{"kind": "external", "justification": "--allow"}]
    return result


def _location(witness: Witness | None, kernel: Path) -> Json:
    if witness is None:
        return _file(kernel)
    name: Json = {"fullyQualifiedName": witness.code_place, "kind": "function"}
    own = witness.source.own if witness.source else None
    if own is None:
        return {"physicalLocation": _artifact(str(kernel)), "logicalLocations": [name]}
    file = str(kernel) if own.file == kernel.name else own.file
    place: Json = {**_artifact(file), "region": {"startLine": own.line}}
    return {"physicalLocation": place, "logicalLocations": [name], "message": {"text": str(witness)}}


def _file(kernel: Path) -> Json:
    return {"physicalLocation": _artifact(str(kernel))}


def _artifact(file: str) -> dict[str, Json]:
    return {"artifactLocation": {"uri": Path(file).as_posix()}}
