"""Runs the commands that the documentation shows, and compares what they print.

    python scripts/docs_commands.py [--write] PAGE...

Of each page it runs, in order and in one temporary folder:

* a fence with a title, such as ```yaml title="shapes.yaml"`: its text is written to that file;
* a ```console fence: each line that begins with `$ ` is a command for the shell, and the lines under it are its output.

In an expected output `...` stands for any text. Not compared are seconds, lines of progress, which a slow machine
prints, and white space: a long line may be wrapped.
A comment right before a fence changes this: `<!-- not run: REASON -->`, `<!-- exit code N -->` of its last command.
`--write` puts the real output in the place of one that differs.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\s*$")
NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
EXIT_CODE = re.compile(r"<!-- exit code (\d+) -->")
SECONDS = re.compile(r"\b\d+(\.\d+)? s\b")
COLUMNS = 80
LONGEST = 110  # characters of a line on a page
DEADLINE_S = 300
PROGRESS = re.compile(r".*(: \d+/\d+ trials, \d+ s\b|, \d+ s so far)")  # a slow machine prints more of them


@dataclass
class Command:
    """A shell command and the lines that it should print."""

    text: str
    expected: list[str] = field(default_factory=list)
    exit_code: int = 0


@dataclass
class Fence:
    """One fenced block: `first` and `last` are the line numbers of its content, counted from 0, `last` excluded."""

    language: str
    title: str
    first: int
    last: int
    text: str
    not_run: str
    commands: list[Command]


@dataclass
class Difference:
    """A command whose output or exit code is not what the page says."""

    command: Command
    exit_code: int
    printed: list[str]

    def __str__(self) -> str:
        printed, expected = "\n".join(self.printed), "\n".join(self.command.expected)
        return f"$ {self.command.text}\nexit code {self.exit_code}, printed:\n{printed}\nthe page says:\n{expected}"


def fences(page: str) -> list[Fence]:
    """The fenced blocks of a page, in order."""
    lines, found, number = page.splitlines(), [], 0
    while number < len(lines):
        opening = FENCE.match(lines[number])
        if opening is None:
            number += 1
            continue
        first = number + 1
        last = next(end for end in range(first, len(lines)) if lines[end].strip() == "```")
        indent = len(opening["indent"])
        content = [line[indent:] for line in lines[first:last]]
        comment = next((line for line in reversed(lines[: first - 1]) if line.strip()), "")
        not_run, exit_code = NOT_RUN.search(comment), EXIT_CODE.search(comment)
        commands = _commands(content) if opening["language"] == "console" else []
        if exit_code and commands:
            commands[-1].exit_code = int(exit_code[1])
        text = "\n".join(content) + "\n"
        reason = not_run[1] if not_run else ""
        found.append(Fence(opening["language"], opening["title"] or "", first, last, text, reason, commands))
        number = last + 1
    return found


def _commands(lines: list[str]) -> list[Command]:
    commands: list[Command] = []
    goes_on = False
    for line in lines:
        if goes_on:
            commands[-1].text += f"\n{line}"
        elif line.startswith("$ "):
            commands.append(Command(line[2:]))
        elif commands:
            commands[-1].expected.append(line)
        else:
            raise ValueError(f"output before the first command of a console block: {line!r}")
        goes_on = commands[-1].text.endswith("\\") and not commands[-1].expected
    return commands


def matches(expected: list[str], printed: list[str]) -> bool:
    """Whether the text is the one that was expected, where `...` stands for anything."""
    pattern = re.escape(_comparable(expected)).replace(re.escape("..."), ".*")
    return re.fullmatch(pattern, _comparable(printed)) is not None


def _comparable(lines: list[str]) -> str:
    return SECONDS.sub("N s", " ".join(" ".join(lines).split()))


def run_page(page: str, folder: Path) -> list[Difference]:
    """Run a page's blocks in `folder` and return what differs. The tests' Python comes first in PATH."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    environment |= {"COLUMNS": str(COLUMNS), "NO_COLOR": "1", "PYTHONHASHSEED": "0", "HKTUNE_RIVALS": "none"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    differences = []
    for fence in fences(page):
        if fence.not_run:
            continue
        if fence.title:
            path = folder / fence.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(fence.text, encoding="utf-8")
        for command in fence.commands:
            done = subprocess.run(
                ["bash", "-c", command.text],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=DEADLINE_S,
                check=False,
            )
            printed = [line.rstrip() for line in done.stdout.splitlines() if not PROGRESS.match(line)]
            if done.returncode != command.exit_code or not matches(command.expected, printed):
                differences.append(Difference(command, done.returncode, printed))
    return differences


def written(page: str, differences: list[Difference]) -> str:
    """The page with what was really printed in the place of what differs."""
    lines = page.splitlines()
    for fence in reversed(fences(page)):
        content = []
        for command in fence.commands:
            real = next((d.printed for d in differences if d.command == command), None)
            content += f"$ {command.text}".splitlines()
            content += command.expected if real is None else _refreshed(command.expected, real)
        if fence.commands and not fence.not_run:
            lines[fence.first : fence.last] = content
    return "\n".join(lines) + "\n"


def _refreshed(expected: list[str], printed: list[str]) -> list[str]:
    """What was printed, with `...` where the page has it between or in lines that did not change."""
    refreshed: list[str] = []
    place, skipping = 0, False
    for line in expected:
        if line.strip() == "...":
            skipping = True
            continue
        found = next((i for i in range(place, len(printed)) if matches([line], [printed[i]])), None)
        if found is not None:
            between = ["..."] if skipping else [part for new in printed[place:found] for part in _wrapped(new)]
            refreshed += [*between, line]
            place, skipping = found + 1, False
    return refreshed + (["..."] if skipping else [part for new in printed[place:] for part in _wrapped(new)])


def _wrapped(line: str) -> list[str]:
    return (
        textwrap.wrap(line, LONGEST, subsequent_indent="    ", break_long_words=False)
        if len(line) > LONGEST
        else [line]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the commands that documentation pages show.")
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--write", action="store_true", help="put the real output in the place of what differs")
    arguments = parser.parse_args()
    failed = 0
    for path in arguments.pages:
        page = path.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            differences = run_page(page, Path(folder))
        for difference in differences:
            print(f"{path}: {difference}\n")
        if differences and arguments.write:
            path.write_text(written(page, differences), encoding="utf-8")
        failed += bool(differences)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
