"""One algorithm of a vendor's library, as data: what a row and a table keep of it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from hktune.core.config import Config
from hktune.core.solution_index import index_of

LIBRARIES = ("cublasLt", "hipBLASLt", "rocBLAS")
"""The libraries whose algorithms may be in rows and tables."""

HANDLE_MAX = 256
NAME_MAX = 1024
VERSION_MAX = 64
WORKSPACE_BYTES_MAX = 1 << 30

_HANDLE = re.compile(r"[0-9a-f]{1,256}", re.ASCII).fullmatch
_VERSION = re.compile(r"[A-Za-z0-9_.+:-]{1,64}", re.ASCII).fullmatch
_NAME = re.compile(r"[\x20-\x7e]{0,1024}", re.ASCII).fullmatch
_INDEXED = ("hipBLASLt", "rocBLAS")
_TILE = re.compile(r"MT\d+x\d+x\d+").search
_FIELDS = frozenset({"library", "version", "handle", "name", "workspace_bytes"})


def is_algorithm(config: Config) -> bool:
    """Whether `config` has the fields of an algorithm: no template has such parameters."""
    return set(config) == _FIELDS


@dataclass(frozen=True)
class VendorAlgorithm:
    """How one library, at one version of it, computes a product.

    `handle` is what that version knows the algorithm by, in lower-case hexadecimal digits: of cuBLASLt the 64 bytes of
    a cublasLtMatmulAlgo_t, of the others an index. Another version may know another algorithm by the same one. `name`
    is what the library calls it, "" where it has no names. `workspace_bytes` is what a launch needs.
    Raises ValueError, one line, for values out of these bounds.
    """

    library: str
    version: str
    handle: str
    name: str = ""
    workspace_bytes: int = 0

    def __post_init__(self) -> None:
        if self.library not in LIBRARIES:
            raise ValueError(f"library {self.library!r:.80} is not known: known are {', '.join(LIBRARIES)}")
        if not _VERSION(self.version):
            raise ValueError(f"version {self.version!r:.80} is no word of 1 to {VERSION_MAX} characters")
        if not _HANDLE(self.handle):
            raise ValueError(f"handle {self.handle!r:.80} is not 1 to {HANDLE_MAX} lower-case hexadecimal digits")
        if not _NAME(self.name):
            raise ValueError(f"name {self.name!r:.80} is not up to {NAME_MAX} printable ASCII characters")
        size = self.workspace_bytes
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= WORKSPACE_BYTES_MAX:
            raise ValueError(f"workspace_bytes {size!r:.80} is no integer from 0 to {WORKSPACE_BYTES_MAX}")

    @property
    def config(self) -> Config:
        """Its fields as a config: what names it in a row, by its content."""
        return Config(asdict(self))

    @classmethod
    def of_config(cls, config: Config) -> VendorAlgorithm:
        """The algorithm that `config` names. Raises ValueError, one line, where it names none."""
        if not is_algorithm(config):
            raise ValueError(f"an algorithm has {', '.join(sorted(_FIELDS))}, not {', '.join(sorted(config))[:200]}")
        values = {name: config[name] for name in _FIELDS}
        texts = {name: value for name, value in values.items() if name != "workspace_bytes"}
        if not all(isinstance(value, str) for value in texts.values()):
            raise ValueError("library, version, handle and name of an algorithm are texts")
        return cls(**values)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """For people: the library, and what it calls the algorithm where that is short: AMD's solutions by their index,
        with the tile that is in a name of theirs; else the first digits of the handle."""
        index = index_of(self.handle) if self.library in _INDEXED else None
        if not index:
            return f"{self.library} {self.version} {self.name or self.handle[:16]}"
        tile = _TILE(self.name)
        return f"{self.library} {self.version} solution {index}" + (f" {tile[0]}" if tile else "")
