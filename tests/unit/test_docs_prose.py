"""Every Markdown file can be read with ordinary English: short lines, short sentences, the words of the field."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_docs_site import ROOT, tracked_markdown

LONGEST_LINE = 120  # characters
LONGEST_SENTENCE = 27  # words; 25 is what to aim at
LONGEST_MEAN = 17  # words, over the sentences of a file that are in neither tables nor headings
GENERATED = {"docs/reference/instructions.md"}  # its lists; its prose is judged in scripts/instruction_table.py's text
REPORT = "report.md"  # of results/: scripts/results_reports.py makes them
HOUSE_IDIOMS = re.compile(
    r"\b(told|beside|lies|whoever|mends?|mended|sends? for|sent for|sending for)\b", re.IGNORECASE
)

FENCE = re.compile(r"^ *```")
LIST_ITEM = re.compile(r"^\s*([*+-]|\d+\.|:)\s+")
RULE = re.compile(r"^\s*\|?[\s:|-]+\|?\s*$")
CODE = re.compile(r"``.+?``|`[^`]+`")
LINK_TARGETS = re.compile(r"\[[^\]]+\]: \S+")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
END = re.compile(r"(?<=[.!?])[)\"'*]*\s+(?=[\"'*(`A-Z0-9\[]|hktune\b)")


def paragraphs(text: str, tables: bool = True) -> Iterator[str]:
    """The prose of a Markdown file without code: paragraphs, list items and, with `tables`, headings and cells too."""
    inside, lines = False, []
    for line in [*COMMENT.sub("", text).splitlines(), ""]:
        if FENCE.match(line):
            inside = not inside
        indented = line.startswith("    ") and not lines
        starts = not line.strip() or line.startswith(("#", "|", "!!!")) or LIST_ITEM.match(line) or FENCE.match(line)
        if (starts or inside) and lines:
            yield " ".join(lines)
            lines = []
        if inside or FENCE.match(line) or RULE.match(line) or (indented and not LIST_ITEM.match(line)):
            continue
        if line.startswith(("|", "#")):
            if tables:
                yield from (cell.strip("# ") for cell in CODE.sub("X", line).strip("|").split("|"))
        elif line.strip():
            lines.append(LIST_ITEM.sub("", line).strip())


def sentences(text: str, tables: bool = True) -> Iterator[list[str]]:
    """Each sentence of the prose as its words. A piece of code is one word; a sign without letter or digit is none."""
    for paragraph in paragraphs(text, tables):
        plain = LINK.sub(r"\1", CODE.sub("X", LINK_TARGETS.sub("", paragraph)))
        for sentence in END.split(plain):
            words = [word for word in sentence.split() if re.search(r"\w", word)]
            if words:
                yield words


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [path for path in tracked_markdown() if path.name != REPORT], ids=named)
def test_lines_are_short(path: Path) -> None:
    long = [
        f"{named(path)}:{number}: {len(line)} characters"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > LONGEST_LINE
    ]
    assert not long


@pytest.mark.parametrize("path", [path for path in tracked_markdown() if named(path) not in GENERATED], ids=named)
def test_sentences_are_short(path: Path) -> None:
    text = path.read_text()
    long = [f"{len(words)} words: {' '.join(words)}" for words in sentences(text) if len(words) > LONGEST_SENTENCE]
    assert not long, "\n".join(long)
    assert statistics.fmean(map(len, sentences(text, tables=False))) <= LONGEST_MEAN


@pytest.mark.parametrize("path", tracked_markdown(), ids=named)
def test_words_are_those_of_the_field(path: Path) -> None:
    found = [match[0] for paragraph in paragraphs(path.read_text()) for match in HOUSE_IDIOMS.finditer(paragraph)]
    assert not found


def test_what_counts_as_a_sentence() -> None:
    text = """# A title

One two three. Four `five six`, seven: [eight nine](x.md)!
    Ten (eleven).

```text
not prose. at all.
```

    indented code. not prose.

| a b | c d. E f |
|---|---|

* item one
  goes on
"""
    assert [len(words) for words in sentences(text)] == [2, 3, 5, 2, 2, 2, 2, 4]


def test_the_generated_list_s_prose_is_short_too() -> None:
    text = (ROOT / "docs" / "reference" / "instructions.md").read_text().split("\n## ")[0]
    assert max(map(len, sentences(text))) <= LONGEST_SENTENCE
