"""Text that came from outside, made fit to be seen."""

from __future__ import annotations


def escaped(text: str) -> str:
    """`text` with every character that does not print as itself written as Python writes it in a string: control
    characters (so that no newline and no colour code is left), those that turn the direction of what follows, halves of
    surrogate pairs, and characters that Unicode does not know. What is escaped already stays as it is."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def escaped_lines(text: str) -> str:
    """As `escaped`, newlines apart."""
    return "\n".join(map(escaped, text.split("\n")))


def shown(value: object, characters_max: int = 60) -> str:
    """`value` as an error's line shows it: as Python writes it, on one line, cut to `characters_max`."""
    if isinstance(value, str | bytes) and len(value) > characters_max:
        value = value[:characters_max]
    text = escaped(repr(value))
    return text if len(text) <= characters_max else f"{text[: characters_max - 3]}..."


def shortened(line: str, characters_max: int = 1500) -> str:
    """`line` without its middle where it is longer than `characters_max`: what a message ends with is the next step."""
    half = characters_max // 2
    return line if len(line) <= characters_max else f"{line[:half]} ... {line[-half:]}"
