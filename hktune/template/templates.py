"""The templates that the candidates of one run are of."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from hktune.template.template import Template


class Templates:
    """Several templates, which candidates, attempts and rows name by sha256. `own` is that of the space which a run
    searches; what names no template is of it."""

    def __init__(self, own: Template, others: Sequence[Template] = ()) -> None:
        self.own = own
        self._others = others

    def __contains__(self, sha256: object) -> bool:
        return sha256 in self._by_sha256

    def of(self, sha256: str | None) -> Template:
        """The template of that sha256, which must be one of these; of None, `own`."""
        return self.own if sha256 is None else self._by_sha256[sha256]

    def on(self, compute_units: int) -> Templates:
        """These, for a device with so many compute units."""
        return Templates(self.own.on(compute_units), [each.on(compute_units) for each in self._others])

    @cached_property
    def _by_sha256(self) -> dict[str, Template]:
        return {template.sha256: template for template in (self.own, *self._others)}
