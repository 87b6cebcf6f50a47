"""What of a compiler's command line, as a Makefile has it, matters to a device compile: macros, folders and flags."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from hktune.core.errors import InputError
from hktune.core.escaped import shown

_WITH_WORD = ("-D", "-U", "-I", "-isystem", "-iquote", "-idirafter", "-include", "-mllvm", "-Xclang", "-std")
_HOST_WITH_WORD = ("-o", "-L", "-l", "-x", "-arch", "-Xlinker", "-MF", "-MT", "-MQ", "--offload-arch")
_KEPT = ("-f", "-m", "-O", "-std=", "-g", "-U", "-I")
_LEFT_OUT = ("-fPIC", "-fpic", "-fopenmp", "-fgpu-rdc", "-fuse-ld", "-fsanitize", "-march=", "-mtune=", "-mcpu=")
_LINE_CHARACTERS_MAX = 16384


@dataclass(frozen=True)
class DeviceFlags:
    """`defines` are macros by name, `flags` what else a device compile takes."""

    defines: dict[str, str]
    flags: tuple[str, ...] = ()


def device_flags(line: str, defines: Iterable[str] = (), folders: Iterable[str] = ()) -> DeviceFlags:
    """Of `line`, and of what -D and -I name in addition. The compiler's name, inputs, outputs, warnings, and what is
    for a linker or a host are left out. Raises InputError for a line that no shell reads."""
    found: dict[str, str] = {}
    flags: list[str] = []
    words = iter(_words(line))
    for word in words:
        if word in _HOST_WITH_WORD:
            next(words, None)
        elif word in _WITH_WORD:
            _take(word, next(words, ""), found, flags)
        elif word.startswith("-D"):
            _take("-D", word[2:], found, flags)
        elif word.startswith(_KEPT) and not word.startswith(_LEFT_OUT):
            flags.append(word)
    for definition in defines:
        _take("-D", definition, found, flags)
    for folder in folders:
        flags += ["-I", folder]
    return DeviceFlags(found, tuple(flags))


def _take(option: str, value: str, defines: dict[str, str], flags: list[str]) -> None:
    if option != "-D":
        flags += [option, value]
        return
    name, separator, text = value.partition("=")
    if not name.partition("(")[0].isidentifier():
        raise InputError(f"-D {shown(value)}: write -D NAME or -D NAME=VALUE")
    defines[name] = text if separator else "1"


def _words(line: str) -> list[str]:
    if len(line) > _LINE_CHARACTERS_MAX:
        raise InputError(f"--flags has {len(line)} characters: {_LINE_CHARACTERS_MAX} is the most")
    try:
        return shlex.split(line)
    except ValueError as error:
        raise InputError(f"--flags {shown(line)}: {error}: write it as a shell would read it") from None
