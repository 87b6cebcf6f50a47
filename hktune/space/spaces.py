"""The search spaces of one run: the one that it searches, and those of other candidates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hktune.core.errors import SpaceError
from hktune.space.search_space import SearchSpace, load_space
from hktune.template import Templates


class Spaces:
    """Several spaces of one architecture, each of another template, whose sha256 names it. `own` is the first; what
    names no template is of it. Raises SpaceError where they do not go together."""

    def __init__(self, spaces: Sequence[SearchSpace]) -> None:
        self.own, *self.others = spaces
        self._of: dict[str, SearchSpace] = {}
        for space in spaces:
            if space.arch != self.own.arch:
                raise SpaceError(f"{space.name} is for {space.arch.name}, {self.own.name} for {self.own.arch.name}")
            if space.template.sha256 in self._of:
                raise SpaceError(f"{space.name} is of the template of another space, {space.template.name}: name one")
            self._of[space.template.sha256] = space

    def __iter__(self) -> Iterator[SearchSpace]:
        return iter(self._of.values())

    def __contains__(self, template_sha256: object) -> bool:
        return template_sha256 in self._of

    def on(self, compute_units: int) -> Spaces:
        """These, for a device with so many compute units."""
        return Spaces([space.on(compute_units) for space in self])

    @property
    def templates(self) -> Templates:
        """The template of each."""
        return Templates(self.own.template, [space.template for space in self.others])

    def of(self, template_sha256: str | None) -> SearchSpace:
        """The space of the template with that sha256, which must be one of these; of None, `own`."""
        return self.own if template_sha256 is None else self._of[template_sha256]

    @property
    def fixed_order(self) -> frozenset[str]:
        """The names of the templates no sum of which depends on the order in which workgroups finish."""
        return frozenset(space.template.name for space in self if space.template.fixed_order)


def load_spaces(paths: Sequence[Path]) -> Spaces:
    """The spaces in these files, the own first. Raises SpaceError and TemplateError."""
    return Spaces([load_space(path) for path in paths])
