"""The code objects of a template whose kernels others have built: which a config names, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hktune.core.config import Value
from hktune.core.errors import TemplateError
from hktune.core.escaped import shown
from hktune.core.expression import Lookup
from hktune.core.variant import ObjectFile
from hktune.template.template_schema import ObjectDescription, ObjectsDescription


class Objects:
    """What `description` says of code objects; `folder` is that of its template.yaml."""

    def __init__(self, description: ObjectsDescription, folder: Path) -> None:
        self.parameter = description.parameter
        self._description, self._folder = description, folder

    @property
    def facts(self) -> dict[str, Lookup]:
        """What is known of each object, by name, as an expression of the parameter that names it."""
        files = self._description.files
        names = next(iter(files.values())).facts
        return {
            name: Lookup(self.parameter, {word: each.facts[name] for word, each in files.items()}, f"fact {name}")
            for name in names
        }

    def symbol(self, config: Mapping[str, Value]) -> str:
        """The kernel of the object that `config` names. Raises TemplateError where it names none."""
        return self._of(config).symbol

    def file(self, config: Mapping[str, Value]) -> ObjectFile:
        """The file of that object. Raises TemplateError where `config` names none."""
        one, all_ = self._of(config), self._description
        return ObjectFile(
            name=one.file,
            sha256=one.sha256,
            distribution=all_.distribution,
            extra=all_.extra,
            folder=all_.folder,
            checkout=all_.checkout,
            own_folder=str(self._folder),
        )

    def _of(self, config: Mapping[str, Value]) -> ObjectDescription:
        word, files = config.get(self.parameter), self._description.files
        if word not in files:
            raise TemplateError(f"{self.parameter} is {shown(str(word))}: it must be one of {', '.join(files)}")
        return files[str(word)]
