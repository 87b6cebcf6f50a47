"""Reading a YAML file into a typed struct, with every mistake as one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from hktune.errors import InputError

_Struct = TypeVar("_Struct", bound=msgspec.Struct)


class _Loader(yaml.SafeLoader):
    """YAML forbids repeated keys; PyYAML keeps the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is repeated", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, struct: type[_Struct], error: type[InputError]) -> _Struct:
    """The file at `path` as a `struct`. Raises `error` if it is absent, is not YAML, or breaks the struct's schema."""
    try:
        return msgspec.convert(yaml.load(path.read_bytes(), _Loader), struct)
    except OSError as absent:
        raise error(f"{path}: cannot be read ({absent.strerror}): check the path") from None
    except (yaml.YAMLError, ValueError) as malformed:
        if isinstance(malformed, msgspec.ValidationError):
            raise error(f"{path}: {malformed}: fix that key") from None
        mark = getattr(malformed, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(malformed, "problem", None) or "undecodable bytes"
        raise error(f"{place}: not YAML ({problem}): fix that line") from None
