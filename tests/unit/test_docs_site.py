"""The documentation builds as a site, without a warning, and every link of the other Markdown files leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def tracked_markdown() -> list[Path]:
    """Every Markdown file that git knows or would add; outside of a checkout, all but those of tools and outputs."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    names = [Path(name) for name in listed.stdout.splitlines()]
    if listed.returncode != 0:
        names = [path.relative_to(ROOT) for path in sorted(ROOT.rglob("*.md"))]
        names = [name for name in names if not name.parts[0].startswith((".", "build", "out"))]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """A page that the navigation leaves out, a dead link or a dead anchor fails it."""
    pytest.importorskip("material", reason="needs pip install 'hktune[docs]'")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    pages = {page.relative_to(tmp_path / "site").with_suffix(".md") for page in (tmp_path / "site").rglob("*.html")}
    missing = {page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")} - pages
    assert not missing


def test_every_relative_link_leads_to_a_file() -> None:
    dead = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in tracked_markdown()
        for target in LINK.findall(path.read_text())
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert not dead


def test_every_path_that_a_page_names_is_there() -> None:
    """A file in backquotes, by its folder in the checkout or by its room in the package: pages follow when it moves."""
    tops = ("hktune", "tests", "kernels", "scripts", "search_spaces", "benchmarks", "docs", "examples", "results")
    rooms = tuple(room.name for room in (ROOT / "hktune").iterdir() if (room / "__init__.py").exists())
    path = re.compile(rf"`((?:{'|'.join((*tops, *rooms))})/[\w./+-]+)`")
    named = {
        (str(page.relative_to(ROOT)), name)
        for page in tracked_markdown()
        for name in path.findall(page.read_text())
        if page.name != "CHANGELOG.md"
    }
    assert named
    assert not {
        (page, name) for page, name in named if not any((top / name).exists() for top in (ROOT, ROOT / "hktune"))
    }
