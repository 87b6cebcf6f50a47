"""Leaves out of a HIP source what only a host runs, so that its kernels compile where no host library is installed.

What no kernel can call has its body emptied: `main`, bindings to Python, and functions that launch kernels or use the
host's API or library. Lines keep their numbers. Nothing else is touched, so a body that is emptied by mistake is one
that would not have compiled for a GPU either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

_TOKEN = re.compile(
    r"""(?P<skip>//(?:[^\n\\]|\\.|\\\n)*|/\*.*?\*/|R"(?P<mark>[^\s()\\"]{0,16})\(.*?\)(?P=mark)"|"(?:[^"\\\n]|\\.)*"|"""
    r"""(?<![0-9A-Za-z_])'(?:[^'\\\n]|\\.)+')|(?P<line>^[ \t]*\#(?:[^\n\\]|\\.|\\\n)*)|(?P<mark_of>[{};])""",
    re.DOTALL | re.MULTILINE,
)
_BINDING = re.compile(r"\s*(PYBIND11_MODULE|TORCH_LIBRARY\w*|NB_MODULE)\s*\(")
_MAIN = re.compile(r"\b(int|auto|void)\s+main\s*\(")
_SCOPE = re.compile(r"\b(namespace\b[^()=]*|extern\s*\"C(\+\+)?\"\s*)\Z")
_TYPE = re.compile(r"\s*(template\s*<.*>\s*)?(typedef\s+)?(struct|class|union|enum)\b[^()]*\Z", re.DOTALL)
_FOR_DEVICES = re.compile(r"\b(__device__|__global__|constexpr|consteval)\b")
_MACRO = r"^([ \t]*#[ \t]*define[ \t]+NAME)(?![\w(])(?:[^\n\\]|\\.|\\\n)*"
_CONSTANT = r"\b(constexpr\s+(?:static\s+)?(?:const\s+)?[\w:]+(?:\s+(?:int|long|char|short))*\s+NAME\s*=)[^;,{]*;"
_HOST_ONLY = re.compile(
    r"<<<|\bhip(?:Malloc|Free|Memcpy|Memset|Event|Stream|Device|Func|Host|Module|Launch|Get|Set|Occupancy)\w*\s*\(|"
    r"\bstd::(?:vector|cout|cerr|string|chrono|random_device|mt19937\w*|thread|map|ofstream|ifstream|stringstream)\b|"
    r"\b(?:torch|at|c10|py|pybind11)::"
)


@dataclass(frozen=True)
class _Body:
    """One outermost body: what stands before its brace, and where that, the brace and its end are in the source."""

    head: str
    head_begin: int
    begin: int
    end: int


def without_host_code(source: str) -> str:
    """`source` with what only hosts run left out."""
    parts, at = [], 0
    for body in _bodies(source):
        if _BINDING.match(body.head):
            begin, end = body.head_begin, body.end
        elif _is_host_code(body, source):
            begin, end = body.begin + 1, body.end - 1
        else:
            continue
        parts += [source[at:begin], _blank(source[begin:end])]
        at = end
    return "".join([*parts, source[at:]])


def with_values(source: str, values: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """`source` with the macros and the constexpr variables that `values` names set to those, and the values that it
    does not define itself: a compiler's -D."""
    left: dict[str, str] = {}
    for name, value in values.items():
        changed = source
        for pattern, end in ((_MACRO, ""), (_CONSTANT, ";")):
            ours = re.compile(pattern.replace("NAME", re.escape(name)), re.MULTILINE)
            changed = ours.sub(partial(_set, value + end), changed)
        if changed == source:
            left[name] = value
        source = changed
    return source, left


def _set(value: str, found: re.Match[str]) -> str:
    """A definition with another value, of as many lines."""
    lines = found[0].count("\n")
    return f"{found[1]} {value}" + "\n" * lines


def _is_host_code(body: _Body, source: str) -> bool:
    head = body.head
    if "(" not in head or _TYPE.match(head) or _FOR_DEVICES.search(head):
        return False
    return bool(_MAIN.search(head) or _HOST_ONLY.search(source, body.begin, body.end))


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def _bodies(source: str) -> Iterator[_Body]:
    """The bodies at namespace scope, in order. Text in comments, strings and preprocessor lines counts for nothing."""
    head: list[str] = []
    head_begin, at, depth, begin = 0, 0, 0, 0
    for found in _TOKEN.finditer(source):
        if not depth:
            head.append(source[at : found.start()])
            if found["skip"] and found["skip"].startswith('"'):
                head.append(found["skip"])
        at = found.end()
        mark = found["mark_of"]
        if mark == "{" and (depth or not _SCOPE.search("".join(head))):
            begin = begin if depth else found.start()
            depth += 1
        elif mark == "}" and depth:
            depth -= 1
            if not depth:
                yield _Body("".join(head), head_begin, begin, found.end())
                head, head_begin = [], at
        elif not depth and (mark or (found["line"] and not "".join(head).strip())):
            head, head_begin = [], at
