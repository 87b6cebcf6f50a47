"""Made-up results for reports: many shapes, two sources, failures, and words that mean to break out of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hktune.core.config import Config, Value
from hktune.core.operation import BF16_NT
from hktune.core.outcome import Source, Stage, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.report.results.results import Results
from hktune.store import TrialStore

HOSTILE = (
    "</script><script>window.broken = 1</script>",
    '<img src=x onerror="window.broken = 2">',
    "\"' onmouseover='window.broken = 3' x=\"",
    "<!--<script>",
    "{{ 7 * 7 }}{% raw %}",
    '%{x} %{customdata} <b>bold</b> <a href="javascript:window.broken = 4">go</a>',
    '=HYPERLINK("http://example.com")',
    "| a | b |\n\n# heading `code` **bold** [link](http://example.com) @somebody #12 <br>",
    "\u202eright to left\u2066 \u2028 \x1b[31m \x07",
    "$\\alpha$ &lt;i&gt; &#60;i&#62;",
    "\\| \\` \\\\",
    "``` ~~~ ----",
)


def made_trial(
    number: int, problem: Problem, config: dict[str, Value], time_us: float | None, **fields: object
) -> Trial:
    """A modelled row, or a wrong one where there is no time."""
    made = Config(config)
    status, source = (Status.OK, Source.MODELLED) if time_us else (Status.WRONG, None)
    row = Trial(number, problem.m, problem.n, problem.k, problem.operation, made.id, made.json, status)
    row = replace(
        row, source=source, time_us=time_us, template="made/up", template_sha256="0" * 64, object_sha256="1" * 64
    )
    return replace(row, **fields)  # type: ignore[arg-type]


def measured(row: Trial, vendor_us: float) -> Trial:
    """The same as a measurement next to the vendor's library."""
    assert row.time_us is not None
    ends = {"time_us_low": row.time_us * 0.99, "time_us_high": row.time_us * 1.01}
    clock = {"clock_mhz": 1900 + row.trial % 80, "power_w": 500.0 + row.trial % 100, "baseline": "the library"}
    return replace(row, source=Source.MEASURED, baseline_us=vendor_us, **ends, **clock)  # type: ignore[arg-type]


def many_shapes(number: int, trials_each: int = 12) -> Results:
    """So many measured shapes, each with that many trials, some of which failed."""
    rows, names = [], {}
    for i in range(number):
        problem = Problem(2 ** (i % 14), 512 * (1 + i % 20), 256 * (1 + i // 20), BF16_NT)
        names[problem] = f"layer-{i}"
        for j in range(trials_each):
            config: dict[str, Value] = {"block": 16 << (j % 4), "stages": 2 + j % 3, "late": bool(j % 2)}
            time_us = None if j % 5 == 3 else 10.0 + i + abs(j - 7)
            row = made_trial(len(rows), problem, config | {"order": j}, time_us, detail=f"element {j} is wrong")
            rows.append(measured(row, 12.0 + i) if time_us else row)
    return Results("many", rows, names)


def hostile_results(words: Sequence[str] = HOSTILE) -> Results:
    """Results in which every text that a file may hold is one of `words`."""
    rows, names = [], {}
    for i, word in enumerate(words):
        problem = Problem(16 << (i % 6), 256 * (i + 1), 512)
        names[problem] = word
        for j in range(8):
            named: dict[str, Value] = {each[:40]: (j + at) % 3 for at, each in enumerate(words[:3])}
            config: dict[str, Value] = {"block": j % 4, **named, "word": word}
            row = made_trial(len(rows), problem, config, 10.0 + (j - 5) ** 2, detail=word, strategy="tpe")
            row = replace(row, template=words[0], device=word, compiler=word, baseline=word)
            rows.append(replace(measured(row, 11.0), baseline=word, throttled=word if j % 2 else None))
        rows.append(made_trial(len(rows), problem, {"block": 9}, None, detail=word))
    return Results(words[0] if words else "none", rows, names)


def stored(results: Results, directory: Path) -> Path:
    """A results directory with these trials."""
    TrialStore(directory).extend(results.trials)
    return directory


def confirmed(row: Trial) -> Trial:
    """The same row, measured again after the search."""
    return replace(row, stage=Stage.CONFIRMED)
