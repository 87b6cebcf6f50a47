"""origins.json: where the rows of a merged directory are from, by the ids that they carry."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from hktune.core.bounded_text import Text
from hktune.core.errors import StoreError
from hktune.core.json_file import decoded
from hktune.core.outside_file import FileKind
from hktune.core.publish import publish
from hktune.core.trial import Trial
from hktune.store.environment import Environment
from hktune.store.rows import NUMBER_AT, Encoder

FILE_NAME = "origins.json"
ORIGINS_MAX = 300  # ids of one row fit a cell
_FILE = FileKind("a list of origins", 4 << 20, StoreError, "merge the directories again into another DIR")
_ID_DIGITS = 12
_NAME_MAX = 200


class SignedBy(Struct, frozen=True, forbid_unknown_fields=True):
    """Whose key signed the table of an origin: the name of the key's file, and the sha256 of the key. Of the `kernels`
    of that table so many are `among_rows`, with the very time: these rows are what the signature vouches for."""

    key: Text
    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    kernels: Annotated[int, Meta(ge=0)]
    among_rows: Annotated[int, Meta(ge=0)]


class Origin(Struct, frozen=True, forbid_unknown_fields=True):
    """One directory that rows are from. `id` follows from its first row and its device, so it stays when rows are
    added. What was not known is null."""

    id: Annotated[str, Meta(pattern=r"\A[0-9a-f]{12}\Z")]
    name: Text
    device: Text | None = None
    driver: Text | None = None
    commit: Text | None = None
    hktune: Text | None = None
    compiler: Text | None = None
    started_at: Text | None = None
    signed_by: tuple[SignedBy, ...] = ()

    def __str__(self) -> str:
        known = [self.device, self.driver and f"driver {self.driver}", self.commit and f"commit {self.commit[:12]}"]
        known += [f"signed by {each.key} {each.sha256[:16]}" for each in self.signed_by]
        return f"{self.name} ({', '.join(filter(None, known)) or 'nothing is known of it'})"


class OriginsFile(Struct, frozen=True, forbid_unknown_fields=True):
    """All of them, by id."""

    origins: Annotated[tuple[Origin, ...], Meta(max_length=ORIGINS_MAX)]
    format: Literal["hktune-origins"] = "hktune-origins"
    version: Literal[1] = 1


def read_origins(directory: Path) -> dict[str, Origin]:
    """The origins of the rows in `directory`, by id; none where nothing was merged there. Raises StoreError for a
    malformed file."""
    data = _FILE.read_if_there(directory, FILE_NAME)
    try:
        return {} if data is None else {origin.id: origin for origin in decoded(data, OriginsFile).origins}
    except ValueError as wrong:
        raise _FILE.broken(directory / FILE_NAME, f"not origins of hktune ({wrong})") from None


def origin_texts(directories: Iterable[Path]) -> dict[str, str]:
    """What is known of the origins of the rows in `directories`, by id, in a line each. Raises as `read_origins`."""
    return {each.id: str(each) for directory in directories for each in read_origins(directory).values()}


def write_origins(origins: Mapping[str, Origin], directory: Path) -> None:
    """Publish origins.json. Raises StoreError where there are too many; OSError passes through."""
    if len(origins) > ORIGINS_MAX:
        raise StoreError(f"{directory}: rows of {len(origins)} directories, at most {ORIGINS_MAX}: merge fewer at once")
    file = OriginsFile(tuple(origins[each] for each in sorted(origins)))
    publish(directory / FILE_NAME, msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n")


def with_origin(
    trials: Sequence[Trial], folder: Path, environment: Environment | None, signed_by: Sequence[SignedBy] = ()
) -> tuple[list[Trial], Origin | None]:
    """The rows of one directory, those that had no origin with it; and that one, None where none needed it."""
    own = [trial for trial in trials if trial.origin is None]
    if not own:
        return list(trials), None
    origin = _origin(own, folder, environment, signed_by)
    return [replace(trial, origin=origin.id) if trial.origin is None else trial for trial in trials], origin


def origins_of(trials: Iterable[Trial]) -> set[str]:
    """The ids that rows carry."""
    return {one for said in {trial.origin for trial in trials if trial.origin} for one in said.split("+")}


def line_without_origin(encoder: Encoder, trial: Trial) -> bytes:
    """What makes a row the same as another: all but its number and its origin."""
    plain = trial if trial.origin is None else replace(trial, origin=None)
    return encoder.line(plain).split(b",", NUMBER_AT + 1)[-1]


def _origin(
    own: Sequence[Trial], folder: Path, environment: Environment | None, signed_by: Sequence[SignedBy]
) -> Origin:
    first = min(own, key=lambda trial: (trial.started_at or "", trial.trial))
    device = str(environment.identity.comparable) if environment else first.device
    said = line_without_origin(Encoder(), first) + str(device).encode()
    identity = hashlib.sha256(said).hexdigest()[:_ID_DIGITS]
    name = "".join(each if each.isprintable() else "?" for each in folder.resolve().name)[:_NAME_MAX] or "unnamed"
    if environment is None:
        return Origin(identity, name, device=device, compiler=first.compiler, signed_by=tuple(signed_by))
    return Origin(
        id=identity,
        name=name,
        device=device,
        driver=environment.versions.get("driver"),
        commit=environment.commit,
        hktune=environment.versions.get("hktune"),
        compiler=environment.compiler,
        started_at=environment.started_at,
        signed_by=tuple(signed_by),
    )
