"""Files harmed by a seed: bit by bit, and value by value so that what comes out is still of its format."""

from __future__ import annotations

import copy
import functools
import json
import random
from collections.abc import Iterator
from typing import Any

import yaml
from hostile import harmed

_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
LONG = 100_000  # characters of the longest text that is put anywhere
TEXTS = [
    "", " ", "a", "m", "0", "-1", "1_6", "0x10", "1e3", "1e999", "nan", ".inf", "true", "null", "~", "\xe9\u6f22",
    "\u0661", "../../../../etc/passwd", "/etc/passwd", "/dev/zero", "$(touch ran)", "`touch ran`", "; touch ran",
    "${head}", "{0.x}", "__import__('os').system('touch ran')", "m ** m ** m", "1 << 99", "m // 0", "(" * 300,
    "m" + " + m" * 120, "[/]", "[red]", '"""; open("ran", "w"); """', "'''", "\\", "\\N{BULLET}", "\x1b[2J", "\x9b",
    "\r\n", "\t", "\x00", "\u202e", "\u2028", "\ud800", "=1+1", "@SUM(A1)", "-2", "NaN", "Infinity", "*a", "&a b",
    "!!python/object:os.system x", "<<", "? x", "- ", "#",
]  # fmt: skip
NUMBERS = [
    0,
    1,
    -1,
    2,
    7,
    16,
    2**24,
    2**24 + 1,
    2**31 - 1,
    2**31,
    2**53,
    2**63,
    2**64,
    -(2**63),
    10**40,
    0.5,
    -0.0,
    1e308,
]
OTHERS: list[Any] = [None, True, False, [], {}, [[]], {"": {}}, [1] * 50, {"a": 1, "b": [{}]}]


def value(rng: random.Random) -> Any:
    """Anything that a place in a document may be given."""
    kind = rng.randrange(20)
    if kind < 9:
        return rng.choice(TEXTS)
    if kind < 14:
        return rng.choice(NUMBERS)
    if kind < 18:
        return copy.deepcopy(rng.choice(OTHERS))
    if kind == 18:
        return "".join(chr(rng.choice([rng.randrange(128), rng.randrange(0x3000)])) for _ in range(rng.randrange(9)))
    return rng.choice([rng.choice("am0[{\\\"'") * LONG, [0] * 20_000, _deep(rng.choice([40, 150])), _wide(5000)])


def _deep(levels: int) -> Any:
    nested: Any = 1
    for level in range(levels):
        nested = [nested] if level % 2 else {"a": nested}
    return nested


def _wide(keys: int) -> dict[str, int]:
    return {f"k{key}": key for key in range(keys)}


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    keys: Any = (
        document.keys() if isinstance(document, dict) else range(len(document) if isinstance(document, list) else 0)
    )
    for key in list(keys):
        yield document, key
        yield from places(document[key])


def changed(document: Any, rng: random.Random) -> Any:
    """`document` with one to three values replaced, moved, removed or doubled, or keys renamed."""
    document = copy.deepcopy(document)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at = list(places(document))
        if not at:
            return value(rng)
        holder, key = rng.choice(at)
        action = rng.randrange(10)
        if action < 5:
            holder[key] = value(rng)
        elif action == 5:
            del holder[key]
        elif action == 6:
            other, other_key = rng.choice(at)
            holder[key] = copy.deepcopy(other[other_key]) if _holds(other, other_key) else 0
        elif action == 7 and isinstance(holder, list):
            holder.extend([copy.deepcopy(holder[key])] * rng.choice([1, 30, 300, 20_000]))
        elif isinstance(holder, dict):
            holder[str(value(rng))[:LONG] if rng.random() < 0.3 else rng.choice(TEXTS)] = holder.pop(key)
    return document


def _holds(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)


def json_mutant(good: bytes, rng: random.Random) -> bytes:
    """A JSON file harmed."""
    if rng.random() < 0.4:
        return harmed(good, rng)
    text = json.dumps(changed(json.loads(good), rng), indent=rng.choice([None, None, 1, 40]))
    return _spelled(
        text,
        rng,
        [
            '"m": 1, ',
            '"a": {}, ',
            "[",
            "{",
            "[" * 100_000,
            '{"a":' * 50_000,
            '{"":',
            "NaN",
            "1e9999",
            "9" * 5000,
            "//",
            "\\ud800",
        ],
    )


@functools.cache
def _yaml(good: bytes) -> Any:
    return yaml.safe_load(good)


def yaml_mutant(good: bytes, rng: random.Random) -> bytes:
    """A YAML file harmed."""
    if rng.random() < 0.4:
        return harmed(good, rng)
    document = changed(_yaml(good), rng)
    try:
        flow = rng.choice([True, False, None])
        text = yaml.dump(document, None, _DUMPER, default_flow_style=flow, allow_unicode=rng.random() < 0.5)
    except (yaml.YAMLError, RecursionError, UnicodeEncodeError):
        text = good.decode()
    if rng.random() < 0.02:
        text = "".join(f"%TAG !{number:x}! b\n" for number in range(20_000)) + f"---\n{text}"
    junk = [
        "*a",
        "&a ",
        "!!python/object:os.system ",
        "<<: {a: 1}\n",
        "? {a: [b]}\n: c\n",
        "---\n",
        "...\n",
        "%YAML 9.9\n",
    ]
    return _spelled(
        text, rng, [*junk, "- " * 500, "[" * 5000, "{a: " * 500, "|\n", "\t", "'", '"', ": ", "a: &a [*a, *a]\n"]
    )


def _spelled(text: str, rng: random.Random, junk: list[str]) -> bytes:
    """`text` in one of the ways in which files come, now and then with something put into it, or very long."""
    kind = rng.randrange(12)
    if kind == 0:
        text = "\ufeff" + text
    elif kind == 1:
        text = text.replace("\n", "\r\n")
    elif kind in (2, 3) and text:
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(junk) + text[at:]
    elif kind == 4 and len(text) < 5000 and rng.random() < 0.3:
        at = rng.randrange(len(text) + 1)
        part = text[at : at + rng.choice([1, 3, 10, 100])]
        text = text[:at] + part * (300_000 // (len(part) or 1)) + text[at:]
    elif kind == 5:
        return text.encode("utf-16" if rng.random() < 0.5 else "latin-1", "replace")
    return text.encode(errors="surrogatepass" if rng.random() < 0.5 else "replace")


def csv_mutant(good: bytes, rng: random.Random) -> bytes:
    """A file of comma-separated cells harmed."""
    if rng.random() < 0.4:
        return harmed(good, rng)
    lines = [line.split(",") for line in good.decode().splitlines()]
    for _ in range(rng.choice([1, 1, 2, 5])):
        cells = rng.choice(lines)
        at = rng.randrange(len(cells))
        action = rng.randrange(6)
        if action < 3:
            cells[at] = _cell(rng)
        elif action == 3:
            cells[at], cells[-1] = cells[-1], cells[at]
        elif action == 4:
            del cells[at:]
            cells.append(_cell(rng))
        else:
            lines.extend([list(cells)] * rng.choice([1, 50]))
    return _spelled(
        "\n".join(",".join(cells) for cells in lines) + "\n", rng, ['"', '""', ",", "\n", "," * 5000, "{" * 9000]
    )


def _cell(rng: random.Random) -> str:
    text = str(value(rng))
    quoted = '"' + text.replace('"', '""') + '"'
    return quoted if rng.random() < 0.6 else text


def text_mutant(good: bytes, rng: random.Random) -> bytes:
    """Lines of words harmed."""
    if rng.random() < 0.3:
        return harmed(good, rng)
    words = good.decode().split(" ")
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(len(words))
        put = [
            str(value(rng)),
            words[at] + rng.choice(TEXTS),
            words[at] * rng.choice([2, 3000 if len(words[at]) < 100 else 2]),
            rng.choice(words),
            "",
            "=",
        ]
        words[at] = rng.choice(put)
    return _spelled(" ".join(words), rng, ["=", "[", "]", ":", ",", "\n", "#", "(", "__global__ " * 9000])


def words_mutant(good: list[str], rng: random.Random) -> list[str]:
    """The words of a command line harmed, as many and as long as a kernel lets a process have."""
    words = list(good)
    for _ in range(rng.choice([1, 1, 2, 3])):
        at = rng.randrange(len(words) + 1)
        nasty = str(value(rng))[:LONG].replace("\x00", "")
        put = [nasty, f"--{nasty}", f"{rng.choice(good)}={nasty}", nasty + rng.choice(good), rng.choice(good), "--help"]
        words[at : at + rng.randrange(2)] = [rng.choice(put)]
    return words
