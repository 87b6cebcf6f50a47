"""A config: one point of a search space, named by its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping

Value = int | str | bool | float
"""Of a parameter. Only recordings of other tools have floats: a template's parameters are integers, words, truths."""


def compact_json(value: object) -> str:
    """Sorted, without spaces: the one spelling that hashes and diffs use."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


class Config(Mapping[str, Value]):
    """One point of a search space: parameter name -> value. Hashable; equal values mean equal ids."""

    __slots__ = ("_values", "id")

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = dict(sorted(values.items()))
        self.id = hashlib.sha256(self.json.encode()).hexdigest()[:16]

    @property
    def json(self) -> str:
        """Sorted compact JSON: what the id is the hash of, and what trials.csv holds."""
        return compact_json(self._values)

    @classmethod
    def from_json(cls, text: str) -> Config:
        return cls(json.loads(text))

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self.id == other.id

    def __reduce__(self) -> tuple[type[Config], tuple[dict[str, Value]]]:
        return (Config, (self._values,))

    def __repr__(self) -> str:
        return "Config(" + " ".join(f"{name}={value}" for name, value in self._values.items()) + ")"
