"""What a report says first: what was gained in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hktune.core.outcome import Source
from hktune.report.results.gains import Totals, Verdict
from hktune.report.results.results import Reference, Results

VERDICT_WORDS = {Verdict.WIN: "faster", Verdict.TIE: "no difference beyond doubt", Verdict.LOSS: "slower"}


@dataclass(frozen=True)
class Headline:
    """The gains over one reference. `weighted`: calls were given."""

    reference: Reference
    totals: Totals
    weighted: bool

    @property
    def ratio(self) -> str:
        return f"{self.totals.geometric_mean:.3f}"

    @property
    def meaning(self) -> str:
        return f"times as fast as {self.reference.meaning}, geometric mean of {shapes(self.totals.shapes)}"

    @property
    def range(self) -> str:
        more = self.totals.at_least
        early = f", or more: {more} of the others {'was' if more == 1 else 'were'} left early" if more else ""
        return f"{self.totals.worst:.3f} at worst, {self.totals.best:.3f} at best{early}"

    @property
    def all_calls(self) -> str:
        what = "all calls of one step together" if self.weighted else "one call of each together"
        return f"{self.totals.all_calls:.3f} for {what}"

    @property
    def counts(self) -> list[tuple[Verdict, str, int, float]]:
        """Of each verdict its words, how many shapes, and their part of all weight."""
        if not self.reference.shared_rounds:
            return []
        whole = sum(self.totals.weights.values())
        return [
            (verdict, VERDICT_WORDS[verdict], self.totals.counts[verdict], self.totals.weights[verdict] / whole)
            for verdict in Verdict
        ]


@dataclass(frozen=True)
class Part:
    """The shapes whose times are of one source: never one figure of both."""

    source: Source
    title: str
    headlines: Sequence[Headline]
    table: str


def parts(results: Results) -> list[Part]:
    """Of each source that a best time has, measured first."""
    return [_part(results, source) for source in results.sources]


def _part(results: Results, source: Source) -> Part:
    headlines = [
        Headline(reference, found, bool(results.weights))
        for reference in results.references(source)
        if (found := results.totals(reference, source))
    ]
    title = f"{shapes(len(results.solved_by(source)))} whose times are {source}"
    return Part(source, title, headlines, _table(results, source))


def _table(results: Results, source: Source) -> str:
    """What a table gains, which leaves to the vendor's library what that does better."""
    found = results.table_totals(source)
    kept = sum(shape.vendor_keeps_it for shape in results.solved_by(source))
    if found is None or not kept:
        return ""
    return (
        f"A table leaves {shapes(kept)} to the vendor's library, and is {found.geometric_mean:.3f} times as fast in "
        f"the geometric mean, {found.worst:.3f} at worst."
    )


def shapes(number: int) -> str:
    """So many shapes, in words."""
    return f"{number} shape{'' if number == 1 else 's'}"


def device_line(results: Results) -> str:
    """Whose times they are, and of which kind."""
    return f"{device_of(results)}; {kinds_line(results)}"


def device_of(results: Results) -> str:
    """What the environment calls the device, or else the rows."""
    device = results.environment.identity.name if results.environment else ", ".join(results.devices)
    return device or "an unknown device"


def kinds_line(results: Results) -> str:
    """Whether times are measured or modelled."""
    words = " and ".join(results.sources)
    return f"every time is {words}" if len(results.sources) == 1 else f"times are {words}" if words else "no time"


def counts_line(results: Results) -> str:
    """How much was tried."""
    configs = len({row.made_from for row in results.trials})
    failed = sum(shape.failed for shape in results.shapes)
    without = sum(1 for shape in results.shapes if not shape.best)
    none = f"; {shapes(without)} without a proved kernel" if without else ""
    return f"{len(results.trials)} trials of {configs} configs on {shapes(len(results.shapes))}; {failed} failed{none}"


def calls_line(results: Results) -> str:
    """Whether shapes count by how often they are called."""
    if results.weights:
        return "Shapes count by their calls for each step of the model, where that is said."
    return "Every shape counts alike: --shapes FILE says how often each is called."
