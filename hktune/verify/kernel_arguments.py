"""The short language in which the arguments of a kernel are described, in the order in which the kernel takes them.

    a:bf16[m,k] c:out:bf16[m,n] m n k alpha:f32=1.5 stream:null g:{x:f32[n] count:i64=n} pad:bytes[8] t:gl:bf16[m,k]

A buffer has a type and sizes, `out` if the kernel must write all of it, `inout` if it may; `=` says what it holds. What
has no brackets is a number: an i32 unless it has a type, its value given by `=` or by name elsewhere. Braces are a
struct by value, `gl` a HipKittens global layout, and NAME@OFFSET a place in the argument struct.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from hktune.core.dtype import DTYPES, E8M0, MXFP4, Dtype
from hktune.core.errors import InputError
from hktune.core.escaped import shown
from hktune.core.expression import Expression

FLOATS: dict[str, Dtype] = {
    name: dtype
    for name, dtype in {**DTYPES, "e8m0": E8M0}.items()
    if not (dtype.is_integer or (dtype.block and dtype is not MXFP4))
}
INTEGER_BYTES = {f"{sign}{8 * size}": size for size in (1, 2, 4, 8) for sign in "iu"}
ELEMENT_BYTES = {**{name: dtype.bytes for name, dtype in FLOATS.items()}, **INTEGER_BYTES, "f64": 8}
"""Types of elements, with their bytes; two neighbours of mxfp4 share one. In memory mxfp8 is e4m3 and scales."""

_PARAMETERS_MAX, _DIMENSIONS_MAX, _DEPTH_MAX = 64, 8, 8
_BYTES_MAX = 4096  # of one argument by value: more than a kernel's whole argument struct may have
_HEAD = re.compile(r"(?P<name>[A-Za-z_]\w*)(@(?P<offset>[0-9]{1,5}))?(:|(?==)|\Z)", re.ASCII)
_BODY = re.compile(
    r"((?P<way>out|inout)(:|\Z))?(?P<gl>gl:)?(?P<type>\w+)?(\[(?P<sizes>[^\]]*)\])?(=(?P<value>.+))?\Z", re.ASCII
)
_NAME = re.compile(r"[A-Za-z_]\w*\Z", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,3})?\Z")
_HOW = "write name, name:type, name:type[sizes], name:out:type[sizes], name:{...}, name:null or name:bytes=HEX"
_NOT_FINITE = ("inf", "-inf", "nan")
_FLOAT_MAX = {"f32": 3.4e38, "f64": 1.7e308}


@dataclass(frozen=True)
class Parameter:
    """One argument of the kernel. `kind`: number, buffer (`dimensions` elements), null, bytes, struct (`fields`), or gl
    (a buffer and its four sizes; those that are `compiled` are template arguments and have no room).

    `value` is the text after `=`: of a number an expression, of a buffer its content, of bytes hex digits.
    """

    name: str
    type: str = ""
    kind: str = "number"
    dimensions: tuple[Expression, ...] = ()
    way: str = "in"
    value: str = ""
    offset_bytes: int | None = None
    fields: tuple[Parameter, ...] = ()
    compiled: tuple[bool, ...] = ()

    @property
    def where(self) -> str:
        return f"argument {self.name}"

    def leaves(self) -> Iterator[Parameter]:
        """This argument, or what its struct holds, in order."""
        if self.kind != "struct":
            yield self
        for each in self.fields:
            yield from each.leaves()


def buffers_of(parameters: Iterable[Parameter]) -> dict[str, Parameter]:
    """The buffers among `parameters` and in their structs, by name."""
    leaves = (leaf for parameter in parameters for leaf in parameter.leaves())
    return {leaf.name: leaf for leaf in leaves if leaf.kind in ("buffer", "gl")}


def parse_parameters(text: str) -> tuple[Parameter, ...]:
    """Raises InputError for text that describes no arguments."""
    parameters = tuple(_parameter(item, 1) for item in _items(text))
    names = [leaf.name for parameter in parameters for leaf in _all(parameter)]
    if len(set(names)) < len(names) or len(names) > _PARAMETERS_MAX:
        repeated = next((name for name in names if names.count(name) > 1), names[-1])
        rule = f"at most {_PARAMETERS_MAX} arguments of {_DIMENSIONS_MAX} sizes, each of another name"
        raise InputError(f"argument {shown(repeated)}: a kernel has {rule}: correct --args")
    return parameters


def parse_numbers(words: Iterable[str]) -> dict[str, int | float]:
    """The numbers of NAME=NUMBER words: integers in decimal digits, floats as 2.5 or 1e-3. Raises InputError."""
    numbers: dict[str, int | float] = {}
    for word in words:
        name, _, text = word.partition("=")
        value = number_of(text)
        if not _NAME.match(name) or value is None:
            raise InputError(f"{shown(word)}: write NAME=NUMBER, such as m=128 or alpha=2.5e-3")
        if name in numbers:
            raise InputError(f"{shown(name)} is given twice: leave one out")
        numbers[name] = value
    return numbers


def number_of(text: str) -> int | float | None:
    """The number that `text` is in decimal digits, if it is one."""
    found = _NUMBER.match(text)
    if not found:
        return None
    return float(text) if found[1] or found[2] else int(text)


def integer(expression: Expression, numbers: Mapping[str, int | float], least: int, most: int) -> int:
    """The value of an expression that must be an integer in bounds. Raises InputError."""
    value = expression.value(numbers)
    if not isinstance(value, int) or not least <= value <= most:
        where = f"{expression.where} {shown(expression.text)} is {shown(value)}"
        raise InputError(f"{where}: it must be an integer from {least} to {most}")
    return int(value)


def number_bytes(parameter: Parameter, numbers: Mapping[str, int | float]) -> bytes:
    """The number of an argument as the kernel sees it. Raises InputError where it has none, or none of its type."""
    value = float(parameter.value) if parameter.value in _NOT_FINITE else number_of(parameter.value)
    if value is None and parameter.value:
        found = Expression(parameter.value, parameter.where).value(numbers)
        value = found if isinstance(found, (int, float)) else None
    elif value is None:
        value = numbers.get(parameter.name)
    if value is None:
        raise InputError(f"{parameter.where} has no value: add {parameter.name}=VALUE")
    return packed_number(parameter.where + f"={value}", parameter.type, value)


def packed_number(where: str, kind: str, value: int | float) -> bytes:
    """`value` as a number of the type `kind`. Raises InputError where it is none."""
    import numpy as np

    if kind not in INTEGER_BYTES:
        most = _FLOAT_MAX.get(kind)
        if most is not None and math.isfinite(value) and not -most <= value <= most:
            raise InputError(f"{where} is {kind}: give {-most} to {most}")
        if kind == "f64":
            return struct.pack("<d", value)
        return FLOATS[kind].bits(np.array([value], np.float32)).tobytes()
    size, signed = INTEGER_BYTES[kind], kind[0] == "i"
    least, most = (-(2 ** (8 * size - 1)), 2 ** (8 * size - 1) - 1) if signed else (0, 2 ** (8 * size) - 1)
    if not isinstance(value, int):
        raise InputError(f"{where} is {kind}: give an integer")
    if not least <= value <= most:
        raise InputError(f"{where} is {kind}: give {least} to {most}")
    return int(value).to_bytes(size, "little", signed=signed)


def _all(parameter: Parameter) -> Iterator[Parameter]:
    yield parameter
    for each in parameter.fields:
        yield from _all(each)


def _items(text: str) -> list[str]:
    """The words of `text`; what is in braces is one word. Raises InputError."""
    items, depth = [""], 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth < 0 or depth > _DEPTH_MAX:
            raise InputError(f"argument {shown(items[-1])}: braces must match, and {_DEPTH_MAX} is the deepest")
        if character.isspace() and not depth:
            items.append("")
        else:
            items[-1] += character
    if depth:
        raise InputError(f"argument {shown(items[-1])}: a brace is open: {_HOW}")
    return [item for item in items if item]


def _parameter(item: str, depth: int) -> Parameter:
    head = _HEAD.match(item)
    if head is None:
        raise InputError(f"argument {shown(item)}: {_HOW}")
    name, offset, rest = head["name"], head["offset"], item[head.end() :]
    if offset is not None and depth > 1:
        raise InputError(f"argument {shown(item)}: only a whole argument has an offset: leave @{offset} out")
    at = int(offset) if offset else None
    if rest.startswith("{") and rest.endswith("}"):
        fields = tuple(_parameter(each, depth + 1) for each in _items(rest[1:-1]))
        if not fields:
            raise InputError(f"argument {shown(item)}: a struct has at least one field")
        return Parameter(name, kind="struct", fields=fields, offset_bytes=at)
    body = _BODY.match(rest)
    if body is None or (item.endswith(":") and not rest):
        raise InputError(f"argument {shown(item)}: {_HOW}")
    return _leaf(item, name, at, body)


def _leaf(item: str, name: str, at: int | None, body: re.Match[str]) -> Parameter:
    """An argument that is no struct."""
    kind, sizes, value = body["type"] or "i32", body["sizes"], body["value"] or ""
    if kind == "null" and sizes is None and not value:
        return Parameter(name, kind="null", offset_bytes=at)
    if kind == "bytes":
        return Parameter(name, kind="bytes", value=_hex_digits(item, sizes, value), offset_bytes=at)
    known = [each for each in ELEMENT_BYTES if sizes is not None or each != "mxfp4"]
    if kind not in known:
        raise InputError(f"argument {shown(item)}: type {shown(kind)} is not one of {', '.join(known)}")
    if sizes is None:
        if body["way"] or body["gl"]:
            raise InputError(f"argument {shown(item)}: a buffer has sizes: {_HOW}")
        return Parameter(name, kind, value=value, offset_bytes=at)
    texts = sizes.split(",") if sizes or not value.startswith("@") else []
    if len(texts) > (4 if body["gl"] else _DIMENSIONS_MAX):
        rule = f"at most {_PARAMETERS_MAX} arguments of {_DIMENSIONS_MAX} sizes, a gl of 4"
        raise InputError(f"argument {shown(item)}: a kernel has {rule}: correct --args")
    compiled = tuple(text.endswith("!") for text in texts)
    if any(compiled) and not body["gl"]:
        raise InputError(f"argument {shown(item)}: a size that ends with ! is one of a gl: leave the mark out")
    expressions = tuple(Expression(text.removesuffix("!"), f"argument {name}") for text in texts)
    where = "gl" if body["gl"] else "buffer"
    return Parameter(name, kind, where, expressions, body["way"] or "in", value, at, (), compiled)


def _hex_digits(item: str, sizes: str | None, value: str) -> str:
    """The bytes of `bytes[N]`, which are zero, or of `bytes=HEX`, as hex digits. Raises InputError."""
    if sizes is not None and sizes.isascii() and sizes.isdigit() and not value and 0 < int(sizes[:9]) <= _BYTES_MAX:
        return "00" * int(sizes)
    try:
        found = bytes.fromhex(value) if sizes is None else b""
    except ValueError:
        found = b""
    if not 0 < len(found) <= _BYTES_MAX:
        rule = f"bytes[N] are N zeros, bytes=HEX what the digits say, at most {_BYTES_MAX}"
        raise InputError(f"argument {shown(item)}: {rule}")
    return found.hex()
