"""HTML pages that need nothing else: style, script, plotly and data are in the file."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hktune import __version__
from hktune.core.errors import InputError
from hktune.core.escaped import escaped
from hktune.report.figures.figure import Figure
from hktune.report.pages.grid import MARKS, Heading
from hktune.report.pages.headlines import VERDICT_WORDS

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = Path(__file__).parent
NOT_INSTALLED = "a report needs plotly and jinja2: pip install 'hktune[report]'; hktune summary needs neither"


class Drawing:
    """The figures of one page: each gets a name, under which the page finds its data."""

    def __init__(self) -> None:
        self.specs: dict[str, Mapping[str, Any]] = {}

    def add(self, figure: Figure) -> dict[str, object]:
        """What a template needs to leave room for the figure."""
        name = f"figure-{len(self.specs) + 1}"
        self.specs[name] = figure.spec
        return {"id": name, "title": figure.title, "alt": figure.alt, "height_px": figure.height_px}


def page(template: str, drawing: Drawing, **values: object) -> bytes:
    """The page of `template`. Raises InputError where a package that it needs is not here."""
    from markupsafe import Markup

    own = {"style": "style.css", "draw": "draw.js"}
    files = {name: Markup((_FOLDER / file).read_text(encoding="utf-8")) for name, file in own.items()}
    plotly = Markup(_plotly_js())
    figures = Markup(script_json(drawing.specs))
    text = _environment().get_template(template).render(**files, plotly=plotly, figures=figures, **values)
    return text.encode()


def check_installed() -> None:
    """Raises InputError where a package that reports need is not here."""
    from importlib.util import find_spec

    if find_spec("plotly") is None or find_spec("jinja2") is None:
        raise InputError(NOT_INSTALLED)


def script_json(value: object) -> str:
    """JSON that can stand in a script element: nothing in it ends the element or begins a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    return text


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"marks": MARKS, "words": VERDICT_WORDS, "class_of": _class_of, "version": __version__}
    return environment


def _printable(value: object) -> object:
    """Text from a file without what would not print; the page's own parts as they are."""
    return escaped(value) if type(value) is str else value


def _class_of(heading: Heading) -> object:
    from markupsafe import Markup

    names = [name for name, has in (("right", heading.right), ("foreign", heading.foreign)) if has]
    return Markup(' class="{}"').format(" ".join(names)) if names else ""
