"""What names a config on the command line: PARAMETER=VALUE words, or DIR:ID, one that a run or a build left in DIR."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, takewhile
from pathlib import Path

from hktune.core.command_words import words_of
from hktune.core.config import Config
from hktune.core.errors import InputError, SpaceError
from hktune.core.escaped import shown
from hktune.core.outside_file import may_be_there
from hktune.core.shipped import DEFAULT_SPACE, SPACE_OF, shipped_spaces
from hktune.space import SearchSpace, template_of

CANDIDATES_SHOWN = 6
_ID = re.compile(r"[0-9a-f]{0,16}\Z")


@dataclass(frozen=True)
class Named:
    """A config that a directory holds, and the template that it was made for."""

    config: Config
    template: str | None
    template_sha256: str | None


class ConfigWords:
    """The words that name a config. Raises InputError where two of them are DIR:ID."""

    def __init__(self, words: Sequence[str]) -> None:
        references = [split for split in map(_split, words) if split is not None]
        if len(references) > 1:
            names = " and ".join(f"{directory}:{prefix}" for directory, prefix in references)
            raise InputError(f"two configs are named, {names}: name one")
        self._reference = references[0] if references else None
        self._assignments = [word for word in words if _split(word) is None]

    @cached_property
    def named(self) -> Named | None:
        """What DIR:ID names. Raises InputError as `find_config` does."""
        return find_config(*self._reference) if self._reference else None

    def space_file(self) -> Path:
        """The search space that comes with hktune for the template of DIR:ID, else for its architecture; gfx950's
        without one."""
        template = (self.named.template if self.named else None) or ""
        usual = SPACE_OF.get(template.partition("/")[0], DEFAULT_SPACE)
        return next((path for path in (usual, *shipped_spaces()) if template_of(path) == template), usual)

    def config(self, space: SearchSpace) -> Config:
        """The config: what differs from the space's defaults, or from the config of DIR:ID. Raises InputError where it
        is none of `space`."""
        named = self.named
        if named is None:
            return space.parse(self._assignments)
        if named.template not in (None, space.template.name):
            rule = f"config {named.config.id} is of another template: saved={named.template}"
            raise InputError(f"{rule} current={space.template.name}: pass the --space that it was drawn from")
        try:
            whole = space.config(named.config) == space.completed(named.config)
        except SpaceError:
            whole = False
        if not whole:
            raise InputError(f"config {named.config.id} is of another version of {space.name}: pass that as --space")
        return space.parse(self._assignments, named.config)

    def note(self, space: SearchSpace) -> str | None:
        """A line that says so, where the config of DIR:ID was tried with another version of the template."""
        saved = self.named.template_sha256 if self.named else None
        if saved is None or saved == space.template.sha256:
            return None
        versions = f"saved={saved[:12]} current={space.template.sha256[:12]}"
        return f"note: {space.template.name} has changed since it was tried: {versions}"


def find_config(directory: Path, prefix: str) -> Named:
    """The config whose id begins with `prefix` in `directory`: of its trials, its table or its list of what was built.
    Raises InputError, naming candidates, where there is none or more than one; StoreError and TableError for files that
    are no good."""
    if not _ID.match(prefix):
        raise InputError(f"{shown(prefix)} is no config id: ids are up to 16 hex digits, such as 5357f7f5")
    known: dict[str, dict[str | None, Named]] = {}
    for named in _configs(directory):
        known.setdefault(named.config.id, {})[named.template] = named
    found = sorted(config_id for config_id in known if config_id.startswith(prefix))
    if len(found) == 1:
        return _of_one_template(directory, known[found[0]])
    if found:
        what = f"{len(found)} configs of {directory} begin with {prefix!r}"
        raise InputError(f"{what}: {_some(found)}: give more digits")
    if not known:
        raise InputError(f"{directory} holds no config yet: let hktune tune or hktune build go on there")
    near = sorted(known, key=lambda config_id: (-_equal_digits(config_id, prefix), config_id))
    raise InputError(f"no config of {directory} begins with {prefix!r}: it has {_some(near)}")


def _of_one_template(directory: Path, named: Mapping[str | None, Named]) -> Named:
    """A config by the template that it was made for. Raises InputError where there are several."""
    if len(named) > 1:
        names = " and ".join(sorted(str(template) for template in named))
        config = next(iter(named.values())).config
        words = " ".join(words_of(config))
        raise InputError(f"config {config.id} of {directory} is of {names}: write {words} and the --space of one")
    return next(iter(named.values()))


def _equal_digits(one: str, other: str) -> int:
    """How many digits two ids have alike before they differ."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - CANDIDATES_SHOWN} more" if len(ids) > CANDIDATES_SHOWN else ""
    return ", ".join(ids[:CANDIDATES_SHOWN]) + more


def _split(word: str) -> tuple[Path, str] | None:
    """The parts of DIR:ID; None for any other word. A directory's name may hold = and :, a value never holds a colon
    that is the last before hex digits."""
    directory, colon, prefix = word.rpartition(":")
    if not colon or ("=" in word and not os.path.lexists(directory)):
        return None
    return Path(directory or "."), prefix.lower()


def _configs(directory: Path) -> Iterator[Named]:
    """Every config of `directory`, which may also be one of the files in it, trials.csv by any name."""
    readers = {"trials.csv": _tried, "table.json": _tabled, "built.json": _built}
    present = [(read, directory / name) for name, read in readers.items() if may_be_there(directory / name)]
    there = may_be_there(directory)
    if there and not directory.is_dir():
        present = [(readers.get(directory.name, _tried), directory)]
    if not present:
        what = "holds no trials.csv, table.json or built.json" if there else "no such directory"
        raise InputError(f"{shown(str(directory))}: {what}: name one that hktune tune or hktune build made")
    for read, path in present:
        yield from read(path)


def _tried(path: Path) -> Iterator[Named]:
    from hktune.store import read_trials

    for trial in (row for row in read_trials(path) if row.is_kernel):
        yield Named(Config.from_json(trial.config), trial.template, trial.template_sha256)


def _tabled(path: Path) -> Iterator[Named]:
    from hktune.dispatch import read_table

    for entry in read_table(path.parent).entries:
        if kernel := entry.kernel:
            yield Named(Config(kernel.config), kernel.template, kernel.template_sha256)


def _built(path: Path) -> Iterator[Named]:
    from hktune.tuning.benches.prebuilt import built_record

    record = built_record(path.parent)
    for values in chain(record.configs, *record.others.values()):
        yield Named(Config(values), record.template, record.template_sha256)
