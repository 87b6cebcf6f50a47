"""Classes of modules with another class among their bases."""

from __future__ import annotations


def rebased(kind: type, old: type, new: type, classes: dict[type, type]) -> type:
    """`kind` with `new` among its bases where `old` was; made once for each, into `classes`."""
    if kind is old:
        return new
    if not issubclass(kind, old):
        return kind
    if kind not in classes:
        bases = tuple(rebased(base, old, new, classes) for base in kind.__bases__)
        body = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
        classes[kind] = type(kind.__name__, bases, body)
    return classes[kind]
