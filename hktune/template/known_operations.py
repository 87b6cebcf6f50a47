"""Which operations a template does."""

from __future__ import annotations

from collections.abc import Sequence

from hktune.core.errors import TemplateError
from hktune.core.launch import Argument
from hktune.core.operation import BF16_NT, BF16_NT_BIAS, Operation, operation_of
from hktune.template.alternatives import spelled_out
from hktune.template.proof_rule import steps_of
from hktune.template.template_schema import TemplateDescription

NAMED_AT_MOST = 6  # operations of a template in an error: a template may do a hundred


def operations_in(description: TemplateDescription, arguments: Sequence[Argument]) -> tuple[Operation, ...]:
    """What the template can do, the usual first. Raises InputError for a text that is none."""
    if not description.operations:
        takes_bias = any(argument.name == "bias" for argument in arguments)
        proves_bias = any(steps_of(proof.epilogue) == ("bias",) for proof in description.proof)
        return (BF16_NT, BF16_NT_BIAS) if takes_bias and proves_bias else (BF16_NT,)
    operations = tuple(map(operation_of, spelled_out(description.operations)))
    if len(set(operations)) != len(operations):
        raise TemplateError("operations has one of them twice: keep one")
    return operations


def nearest(asked: Operation, known: Sequence[Operation]) -> str:
    """Of `known` operations those that are most like the one `asked` for, and how many more there are."""

    def differences(each: Operation) -> int:
        fields = ("kind", "a", "b", "c", "layout", "scales", "accumulation")
        others = [field for field in fields if getattr(each, field) != getattr(asked, field)]
        return 2 * len(others) + len(set(each.epilogue) ^ set(asked.epilogue))

    named = sorted(known, key=differences)[:NAMED_AT_MOST]
    more = len(known) - len(named)
    return ", ".join(map(str, named)) + (f" and {more} more" if more else "")
