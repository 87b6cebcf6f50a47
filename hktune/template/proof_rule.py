"""What a template's description says of one proof: the sizes of its problem, and of which operations it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hktune.core.errors import InputError
from hktune.core.expression import Expression
from hktune.core.operation import Operation
from hktune.template.template_schema import Extent, ProofDescription


@dataclass(frozen=True)
class ProofRule:
    """Expressions for the problem's m, n and k, for the padding of rows, and for how many products it has where the
    operation is of several; the steps of its epilogue, and the kinds that it is for."""

    extent: tuple[Expression, ...]
    padding: Expression
    steps: tuple[str, ...]
    groups: Expression
    kinds: tuple[str, ...]

    @classmethod
    def of(cls, described: ProofDescription) -> ProofRule:
        """Raises InputError for an expression outside the language."""
        padding, groups = (Expression(getattr(described, name), f"proof {name}") for name in ("padding", "groups"))
        extent, steps = extent_of("proof", described), steps_of(described.epilogue)
        return cls(extent, padding, steps, groups, tuple(described.kinds))

    @property
    def expressions(self) -> Iterator[Expression]:
        yield from (*self.extent, self.padding, self.groups)

    def of_operation(self, operation: Operation) -> Operation | None:
        """What this proves of `operation`'s code: first these steps, then what the code always does. None where there
        is no such operation, or it is not of these kinds."""
        if operation.kind not in self.kinds:
            return None
        try:
            return operation.switched_on(*self.steps)
        except InputError:
            return None


def extent_of(where: str, extent: Extent) -> tuple[Expression, ...]:
    """Its m, n and k, which an error calls `where`."""
    return tuple(Expression(getattr(extent, axis), f"{where} {axis}") for axis in ("m", "n", "k"))


def steps_of(epilogue: str) -> tuple[str, ...]:
    return () if epilogue == "none" else tuple(epilogue.split("+"))
