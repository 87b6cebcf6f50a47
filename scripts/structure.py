"""Prints what can be counted about the structure of checkouts, a column each, as a Markdown table.

    python scripts/structure.py [DIR ...]      # this checkout by default

Only text is read: nothing of a checkout is imported, and an older one needs nothing installed. A checkout of an
earlier commit: `git worktree add /tmp/earlier COMMIT`.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

FUNCTION_LINES = 40
FILE_LINES = 400
DOC_CHARACTERS = 120
Imports = Mapping[str, set[str]]


@dataclass(frozen=True)
class Module:
    """One Python file of the package, by its dotted name."""

    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def room(self) -> str:
        """The folder or file directly under the package; empty for the package's own __init__."""
        return self.name.partition(".")[2].partition(".")[0]

    def imported(self, files: Set[str]) -> set[str]:
        """Which of `files`, by dotted name, it imports, anywhere in it and for type checking too."""
        named: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                named.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                of_files = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= of_files if of_files <= files else {node.module, *of_files}
        return named & files - {self.name}

    def functions(self) -> Iterator[tuple[str, int]]:
        """Name and lines of each, from `def` to its last line."""
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{self.name}.{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1

    def anys(self) -> int:
        """How often `Any` is used; its import is no use."""
        return sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(self.tree))


class Checkout:
    """The package hktune, and its documents, of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = folder / "hktune"

    @cached_property
    def modules(self) -> list[Module]:
        return [self._module(path) for path in sorted(self.package.rglob("*.py"))]

    @cached_property
    def arrows(self) -> Imports:
        """What each room imports. What the package's __init__ imports is for its users, and no arrow."""
        found: dict[str, set[str]] = {room: set() for room in self._room_of.values()}
        for module in self.modules:
            if module.room:
                found[module.room] |= self.rooms_imported_by(module)
        return found

    def rooms_imported_by(self, module: Module) -> set[str]:
        """The rooms other than its own that `module` imports anything of."""
        return {self._room_of[name] for name in module.imported(self._room_of.keys())} - {module.room}

    @cached_property
    def _room_of(self) -> dict[str, str]:
        return {module.name: module.room for module in self.modules if module.room}

    @cached_property
    def file_imports(self) -> Imports:
        """What each file imports of the package's files; a folder's __init__ is a file of its own."""
        names = {module.name for module in self.modules}
        return {module.name: module.imported(names) for module in self.modules}

    def documents(self) -> list[Path]:
        return [*sorted((self.folder / "docs").rglob("*.md")), *sorted(self.folder.glob("*.md"))]

    def _module(self, path: Path) -> Module:
        parts = path.relative_to(self.folder).with_suffix("").parts
        text = path.read_text(encoding="utf-8")
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        return Module(name, path, ast.parse(text), len(text.splitlines()))


def in_cycles(imports: Imports) -> set[str]:
    """Who imports itself by way of others."""
    left = {name: set(others) for name, others in imports.items()}
    found: set[str] = set()
    while cycle := a_cycle(left):
        found.update(cycle)
        left[cycle[1]].discard(cycle[0])
    return found


def a_cycle(imports: Imports) -> list[str]:
    """Names, each imported by the next, the last of which is the first; empty where there is no cycle."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def top_files(checkout: Checkout) -> str:
    return str(len(list(checkout.package.glob("*.py"))))


def rooms(checkout: Checkout) -> str:
    return str(sum(path.is_dir() and any(path.rglob("*.py")) for path in checkout.package.iterdir()))


def arrows(checkout: Checkout) -> str:
    return str(sum(map(len, checkout.arrows.values())))


def rooms_in_cycles(checkout: Checkout) -> str:
    return str(len(in_cycles(checkout.arrows)))


def files_in_cycles(checkout: Checkout) -> str:
    return str(len(in_cycles(checkout.file_imports)))


def python_files(checkout: Checkout) -> str:
    return f"{len(checkout.modules)} ({sum(module.lines for module in checkout.modules):,} lines)"


def long_functions(checkout: Checkout) -> str:
    return counted({name: lines for module in checkout.modules for name, lines in module.functions()}, FUNCTION_LINES)


def long_files(checkout: Checkout) -> str:
    return counted({module.name: module.lines for module in checkout.modules}, FILE_LINES)


def counted(lines: Mapping[str, int], limit: int) -> str:
    longest = max(lines.values())
    return f"{sum(count > limit for count in lines.values())} (the longest: {longest})"


def any_per_thousand(checkout: Checkout) -> str:
    total = sum(module.lines for module in checkout.modules)
    return f"{1000 * sum(module.anys() for module in checkout.modules) / total:.1f}"


def long_doc_lines(checkout: Checkout) -> str:
    lines = (line for path in checkout.documents() for line in path.read_text(encoding="utf-8").splitlines())
    return str(sum(len(line) > DOC_CHARACTERS for line in lines))


def twice(checkout: Checkout) -> str:
    """Basenames that more than one file has."""
    names = Counter(module.path.name for module in checkout.modules if module.path.name != "__init__.py")
    return str(sum(count > 1 for count in names.values()))


ROWS: dict[str, Callable[[Checkout], str]] = {
    "Python files of the package": python_files,
    "files at its top": top_files,
    "rooms (folders at its top)": rooms,
    "arrows (a room, or file at the top, imports another)": arrows,
    "rooms in a cycle of imports": rooms_in_cycles,
    "Python files in a cycle of imports": files_in_cycles,
    f"functions over {FUNCTION_LINES} lines": long_functions,
    f"files over {FILE_LINES} lines": long_files,
    "`Any` per 1,000 lines": any_per_thousand,
    "file names that occur twice": twice,
    f"lines of documents over {DOC_CHARACTERS} characters": long_doc_lines,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Print what can be counted about the structure of checkouts.")
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("folders", nargs="*", type=Path, default=[here], metavar="DIR")
    folders: list[Path] = parser.parse_args().folders
    checkouts = [Checkout(folder.resolve()) for folder in folders]
    print("|", *(f"| {checkout.folder.name} " for checkout in checkouts), "|", sep="")
    print("|---" * (len(checkouts) + 1), "|", sep="")
    for title, count in ROWS.items():
        print(f"| {title} |", *(f" {count(checkout)} |" for checkout in checkouts), sep="")


if __name__ == "__main__":
    main()
