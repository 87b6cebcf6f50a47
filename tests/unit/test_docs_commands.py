"""The commands that the documentation shows run as they stand, in page order, and print what the page says."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest
from docs_commands import fences, matches, run_page, written

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
REASONS = ("needs a GPU", "needs the network", "takes minutes", "changes this checkout", "shows a form")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def runs_something(page: Path) -> bool:
    return any(fence.commands and not fence.not_run for fence in fences(page.read_text()))


@pytest.mark.parametrize("page", [page for page in PAGES if runs_something(page)], ids=name)
def test_a_page_s_commands_print_what_it_says(page: Path, tmp_path: Path) -> None:
    pytest.importorskip("ziglang")
    pytest.importorskip("cryptography")
    if "gfx950_aiter" in page.read_text():
        pytest.importorskip("aiter_meta", reason="pip install 'hktune[aiter]'")
    if "$ openssl" in page.read_text() and shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    differences = run_page(page.read_text(), tmp_path)
    said = [*map(str, differences), f"python scripts/docs_commands.py --write {name(page)}"]
    assert not differences, "\n\n".join(said)


def test_the_tutorial_is_among_them() -> None:
    assert runs_something(ROOT / "docs" / "tutorial" / "first-table.md")


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=name)
def test_blocks_are_marked_as_what_they_are(page: Path) -> None:
    """A shell prompt stands in console blocks alone; what is not run says why; Python parses."""
    for fence in fences(page.read_text()):
        if fence.language == "python":
            ast.parse(fence.text)
        assert fence.language == "console" or not any(line.startswith("$ ") for line in fence.text.splitlines())
        assert not fence.not_run or fence.not_run.startswith(REASONS), f"{name(page)}: {fence.not_run}"


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        (["a"], ["a"], True),
        (["a"], ["b"], False),
        (["a"], ["a", "b"], False),
        ([], ["a"], False),
        (["a", "...", "z"], ["a", "-", "z"], True),
        (["a long", "    line"], ["a long line"], True),
        (["a long line"], ["a longline"], False),
        (["a", "...", "z"], ["a", "b", "c", "z"], True),
        (["a", "...", "z"], ["a", "b"], False),
        (["made ..., by it"], ["made 2026-11-29, by it"], True),
        (["made ..., by it"], ["made 2026, by me"], False),
        (["done in 12 s"], ["done in 3.5 s"], True),
        (["done in 12 s"], ["done in 12 ms"], False),
        (["1.5 us (x)"], ["145 us (x)"], False),
    ],
)
def test_what_counts_as_the_same(expected: list[str], printed: list[str], same: bool) -> None:
    assert matches(expected, printed) is same


def test_a_page_that_says_something_else_fails(tmp_path: Path) -> None:
    page = '```text title="a.txt"\nhello\n```\n\n```console\n$ cat a.txt\nhello\n$ echo two; exit 3\none\n```\n'
    (difference,) = run_page(page, tmp_path)
    assert (difference.command.text, difference.printed, difference.exit_code) == ("echo two; exit 3", ["two"], 3)
    right = page.replace("one\n", "two\n").replace("```console", "<!-- exit code 3 -->\n```console")
    assert run_page(right, tmp_path) == []
    assert run_page(page.replace("```console", "<!-- not run: takes minutes -->\n```console"), tmp_path) == []


def test_refreshing_a_page_keeps_what_it_leaves_out(tmp_path: Path) -> None:
    page = "```console\n$ printf 'a 1\\nb\\nc\\nd\\n'\na ...\n...\nc\ne\n$ echo f\nf\n```\n"
    refreshed = written(page, run_page(page, tmp_path))
    assert refreshed == page.replace("\ne\n", "\nd\n")
    assert run_page(refreshed, tmp_path) == []
