"""Parsers of the command line: complaints in one line with the near word, help that fits 80 columns."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from hktune.core.errors import InputError
from hktune.core.interruption import INTERRUPTED
from hktune.core.near import meant

DONE, FAILED, BAD_INPUT, WARNED = 0, 1, 2, 3

HELP_COLUMNS_MAX = 100  # lines of help that are longer read badly, however wide the terminal
_INVALID_CHOICE = re.compile(r"argument (?P<name>.+): invalid choice: (?P<value>.+) \(choose from (?P<known>.+)\)")
_UNKNOWN = re.compile(r"unrecognized arguments: (?P<words>.+)")
_OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


class _Help(argparse.HelpFormatter):
    """Help whose description and epilog keep lines that begin with a space, as examples do; the rest is wrapped."""

    def __init__(self, prog: str) -> None:
        columns = min(shutil.get_terminal_size().columns - 2, HELP_COLUMNS_MAX)
        super().__init__(prog, max_help_position=26, width=columns)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        for line in text.splitlines():
            wrapped = [line] if line.startswith(" ") or not line else textwrap.wrap(line, width)
            lines += [indent + piece for piece in wrapped]
        return "\n".join(lines)


class _Once(argparse.Action):
    """argparse's own way to store a value, of options that are given once: a second one would win in silence."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        del parser
        given = namespace.__dict__.setdefault("given", set())
        if option_string is not None and self.dest in given:
            raise argparse.ArgumentError(self, "is given twice: give it once")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line, like every other, and name the word that was meant."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_Help, **options)
        for name in (None, "store"):
            self.register("action", name, _Once)

    def parse_known_args(  # type: ignore[override]  # of its overloads, what a command line needs
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's; what a command does not know is refused here, where the command's options are known."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self._plain(message)}; see {self.prog} --help")

    def _plain(self, message: str) -> str:
        """argparse's `message` with the word that was meant, where one is near."""
        if found := _INVALID_CHOICE.fullmatch(message):
            known = re.findall(r"[\w.-]+", found["known"])
            value = found["value"].strip("'\"")
            return f"{found['name']}: {value!r} is not known{meant(value, known)}: known are {', '.join(known)}"
        if found := _UNKNOWN.fullmatch(message):
            word = next(iter(found["words"].split()), "")
            near = meant(word.partition("=")[0], _OPTION.findall(self.format_help())) if word.startswith("-") else ""
            return f"unrecognized: {found['words']}{near}"
        return message


@dataclass(frozen=True)
class Command:
    """One command: its options, what runs it, and what its help says after them. `failed` is when it ends with 1, and
    `warned` when with 3 (None: it never does)."""

    name: str
    summary: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    examples: tuple[str, ...]
    failed: str | None = None
    warned: str | None = None
    about: str = ""

    def add_to(self, commands: argparse._SubParsersAction[Parser]) -> None:
        """Add the command's parser to `commands`."""
        title = f"{self.summary[0].upper()}{self.summary[1:]}."
        description = f"{title}\n\n{self.about}" if self.about else title
        parser = commands.add_parser(self.name, help=self.summary, description=description, epilog=self._epilog())
        self.add_options(parser)
        parser.set_defaults(run=self.run)

    def _epilog(self) -> str:
        examples = "\n".join(f"  {example}" for example in self.examples)
        codes = [f"{DONE} done", *([f"{FAILED} {self.failed}"] if self.failed else [])]
        codes += [f"{BAD_INPUT} bad input, said in one line"]
        codes += [*([f"{WARNED} {self.warned}"] if self.warned else []), f"{INTERRUPTED} interrupted"]
        return f"examples:\n{examples}\n\nexit codes: {'; '.join(codes)}"
