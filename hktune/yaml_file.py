"""Reading a YAML file into a typed struct, with every mistake as one line."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec
import yaml

from hktune.errors import InputError

_Struct = TypeVar("_Struct", bound=msgspec.Struct)


def read_yaml(path: Path, struct: type[_Struct], error: type[InputError]) -> _Struct:
    """The file at `path` as a `struct`. Raises `error` if it is absent, is not YAML, or breaks the struct's schema."""
    try:
        return msgspec.convert(yaml.safe_load(path.read_bytes()), struct)
    except OSError as absent:
        raise error(f"{path}: cannot be read ({absent.strerror}): check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as malformed:
        mark = getattr(malformed, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(malformed, "problem", None) or "undecodable bytes"
        raise error(f"{place}: not YAML ({problem}): fix that line") from None
    except msgspec.ValidationError as invalid:
        raise error(f"{path}: {invalid}: fix that key") from None
