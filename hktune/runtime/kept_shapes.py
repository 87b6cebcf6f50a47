"""The shapes file of a recording that goes on: a program may be killed, and has its calls all the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from hktune.core.errors import ShapesError
from hktune.core.group_sizes import Tokens
from hktune.core.problem import Problem
from hktune.core.publish import publish
from hktune.core.shapes import Shape, ShapeList, merged_shapes, shapes_yaml
from hktune.runtime.now_and_then import NowAndThen
from hktune.runtime.token_counts import TokenCounts


def shapes_of(calls: Mapping[Problem, int], tokens: Callable[[Problem], Tokens | None]) -> ShapeList:
    """What was called, `weight` the number of calls, and the sizes that groups had."""
    return merged_shapes(Shape(each, str(each), count, tokens(each) or ()) for each, count in calls.items())


class KeptShapes:
    """Has `calls`, which others count meanwhile, at `path`: now and then, and where the process ends."""

    def __init__(self, path: Path, calls: Mapping[Problem, int], tokens: TokenCounts) -> None:
        self._path, self._calls, self._tokens = path, calls, tokens
        self._written: dict[Problem, int] = {}
        self._keeping = NowAndThen(self._keep)

    def begin(self) -> None:
        """Raises ShapesError where it cannot be."""
        if not self._path.parent.is_dir():
            raise ShapesError(f"{self._path}: there is no folder {self._path.parent}: make it")
        self._keeping.begin()

    def end(self, is_done: bool) -> None:
        """Of a recording that is done the caller has the file to write, and to say what is wrong with it."""
        self._keeping.end()
        if not is_done:
            self._keep()

    def _keep(self) -> None:
        """Write what there is by now, if it is more than before. What cannot be written now can perhaps be at the end,
        where that is said."""
        calls = dict(self._calls)
        if calls != self._written:
            with suppress(OSError):
                publish(self._path, shapes_yaml(shapes_of(calls, self._tokens.read.get)).encode())
                self._written = calls
