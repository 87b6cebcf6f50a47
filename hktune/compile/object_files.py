"""Code objects that others have built, from a package or a folder of the user's: found, and checked by their sha256."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from hktune.compile.described import described
from hktune.core.errors import InputError, ToolchainError
from hktune.core.outcome import Failure
from hktune.core.outside_file import FileKind
from hktune.core.settings import Settings
from hktune.core.variant import CodeObject, ObjectFile, Variant
from hktune.objects.code_object import read_code_object

OBJECT_FILE = FileKind("a code object", 64 << 20, InputError, "install it anew")


class ObjectFiles:
    """The Compiler of templates of the language `object`: it builds nothing. A file is looked for in the template's own
    folder, in the user's, and in the package; the first of the described sha256 is taken."""

    identity = "code objects as their makers built them"
    """Nothing of this machine is in it: a variant names its bytes."""

    def __init__(self, settings: Settings) -> None:
        self._folders = {"aiter": settings.aiter_dir}

    def compile(self, variant: Variant, deadline_s: float) -> CodeObject | Failure:
        """See Compiler. Raises ToolchainError where the file is not there, or is of another version."""
        del deadline_s
        assert variant.file is not None, "variants of the language object have a file"
        return described(variant, self._read(variant.file), read_code_object, self.identity, 0.0)

    def has(self, file: ObjectFile) -> bool:
        """Whether the file is there, of the described version."""
        with contextlib.suppress(ToolchainError):
            self._read(file)
            return True
        return False

    def _read(self, file: ObjectFile) -> bytes:
        others = []
        for path in self._places(file):
            try:
                if not path.is_file():
                    continue
                data = OBJECT_FILE.read(path)
            except (InputError, OSError) as unreadable:  # a later place may have a good copy
                others.append(str(unreadable))
                continue
            sha256 = hashlib.sha256(data).hexdigest()
            if sha256 == file.sha256:
                return data
            others.append(f"{path} has sha256 {sha256[:12]}, described is {file.sha256[:12]}")
        raise ToolchainError("; ".join([*others, self._lacking(file)]))

    def _places(self, file: ObjectFile) -> Iterator[Path]:
        yield Path(file.own_folder) / file.name
        given = self._folders.get(file.extra)
        if given:
            yield from (given / folder / file.name for folder in dict.fromkeys((file.checkout, file.folder, "")))
        if file.distribution:
            with contextlib.suppress(metadata.PackageNotFoundError):
                yield Path(str(metadata.distribution(file.distribution).locate_file(f"{file.folder}/{file.name}")))

    def _lacking(self, file: ObjectFile) -> str:
        ways = [f"pip install 'hktune[{file.extra}]'"] if file.extra and file.distribution else []
        ways += [f"pass --{file.extra} DIR"] if file.extra in self._folders else []
        return f"code object {file.name} is not here: {' or '.join(ways) or f'put it into {file.own_folder}'}"
