"""Names of C++ kernels as their authors wrote them."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable
from functools import lru_cache

from hktune.core.errors import InputError
from hktune.core.escaped import shown

_LIBRARIES = ("libstdc++.so.6", "libc++abi.so.1")  # the demangler of the Itanium C++ ABI (__cxa_demangle)
_LONGEST = 4096
_NAMES_SHOWN = 12


def demangled(symbol: str) -> str:
    """The C++ name and parameters of `symbol`; the symbol itself where it is no mangled name, or nothing here can
    read it."""
    if not symbol.startswith("_Z") or len(symbol) > _LONGEST or not symbol.isascii() or "\0" in symbol:
        return symbol
    library = _library()
    if library is None:
        return symbol
    status = ctypes.c_int(-1)
    pointer = library.__cxa_demangle(symbol.encode(), None, None, ctypes.byref(status))
    if status.value != 0 or not pointer:
        return symbol
    try:
        return ctypes.string_at(pointer).decode(errors="replace")
    finally:
        ctypes.CDLL(None).free(ctypes.c_void_p(pointer))


def kernel_name(symbol: str) -> str:
    """`space::kernel<256>`: the name of a kernel, without the types of what it returns and takes."""
    text, depth = demangled(symbol), 0
    if text == symbol:
        return symbol
    begin = 0
    text = text.replace("(anonymous namespace)", "{anonymous}")
    for at, character in enumerate(text):
        if character in "<{[":
            depth += 1
        elif character in ">}]" and text[at - 1] != "-":
            depth -= 1
        elif character == " " and not depth:
            begin = at + 1
        elif character == "(" and not depth:
            return text[begin:at]
    return text[begin:]


def chosen_symbol(symbols: Iterable[str], asked: str | None, path: object) -> str:
    """The one of `symbols` that `asked` names: mangled, or as C++ writes it, with or without namespaces and template
    arguments; without `asked` the only one. Raises InputError where that is none, or several."""
    known = sorted(symbols)
    if asked is None:
        found = known
    else:
        plain = _plain(asked)
        found = [each for each in known if asked == each] or [each for each in known if plain in _spellings(each)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(kernel_name(each) for each in (found or known)[:_NAMES_SHOWN])
    more = f" and {len(found or known) - _NAMES_SHOWN} more" if len(found or known) > _NAMES_SHOWN else ""
    if asked is not None and not found:
        raise InputError(f"{path} has no kernel {shown(asked)}: it has {names or 'none'}{more}")
    if not known:
        rule = "it defines no kernel, or a template of which nothing is an instance"
        raise InputError(f"{path}: {rule}: name one with --symbol, such as 'kernel<256>'")
    raise InputError(f"{path} has the kernels {names}{more}: name one with --symbol")


def _spellings(symbol: str) -> set[str]:
    name = kernel_name(symbol)
    last = _last_part(name)
    return {_plain(each) for each in (demangled(symbol), name, last, _untemplated(name), _untemplated(last))}


def _last_part(name: str) -> str:
    """`name` without its namespaces."""
    depth, begin = 0, 0
    for at, character in enumerate(name):
        depth += (character == "<") - (character == ">")
        if character == ":" and not depth:
            begin = at + 1
    return name[begin:]


def _untemplated(name: str) -> str:
    return name.partition("<")[0]


def _plain(name: str) -> str:
    return re.sub(r"\s+", "", name)


@lru_cache
def _library() -> ctypes.CDLL | None:
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
            library.__cxa_demangle.restype = ctypes.c_void_p
        except (OSError, AttributeError):
            continue
        return library
    return None
