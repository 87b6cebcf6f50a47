"""Reports as a browser shows them: Chromium, wide and narrow, light and dark, without a network."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hktune.core.escaped import escaped
from hktune.report.pages.comparison_page import comparison_page
from hktune.report.pages.report_page import report_page
from hktune.report.results import importance
from hktune.report.results.directory_comparison import compare
from hktune.report.results.of_directory import read_results
from tests.made_results import HOSTILE, hostile_results, many_shapes

pytest.importorskip("plotly", reason="pip install 'hktune[report]'")
playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = os.environ.get("HKTUNE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")

ROOT = Path(__file__).resolve().parents[2]
ALONE = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
SECTIONS = ("gains", "searches", "parameters", "roofline", "ties", "failures", "clocks", "environment")

# The least contrast of a text against what is behind it (WCAG 2.2: 4.5 to 1), with the text that has it.
CONTRAST = """() => {
  const number = (text) => text.match(/[\\d.]+/g).map(Number);
  const part = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = number(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  let least = [99, ""];
  for (const element of document.querySelectorAll("body *:not(script)")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const ink = light(number(element.closest("svg") ? style.fill : style.color)), page = light(behind(element));
    const ratio = (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05);
    if (ratio < least[0]) least = [ratio, element.textContent.slice(0, 60)];
  }
  return least;
}"""
OVERFLOW = "() => [document.documentElement.scrollWidth, innerWidth]"
NEXT = """() => {
  const box = document.querySelector(".plot:not([data-drawn])");
  box?.scrollIntoView();
  return box !== null;
}"""
UNDRAWN = """() => [...document.querySelectorAll(".plot")].filter((box) => {
  const drawn = box.querySelector(".main-svg")?.getBoundingClientRect();
  return !drawn || drawn.width < 100 || drawn.height < 100 || !box.querySelector(".point, .hm, .js-line");
}).map((box) => box.ariaLabel)"""


@dataclass
class Opened:
    """A page in a browser, and what it complained of or asked for."""

    page: Any
    load_s: float
    complaints: list[str] = field(default_factory=list)

    def until(self, condition: str) -> None:
        """Waits, by asking again and again: a function to be called there is what the page's own rules forbid."""
        for _ in range(1500):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        pytest.fail(f"never: {condition}: {self.page.evaluate(UNDRAWN)}")

    def scroll_through(self) -> None:
        """As a reader would, from one figure to the next, until every one was seen."""
        self.until("Boolean(window.Plotly)")
        for _ in range(1500):
            if not self.page.evaluate(NEXT):
                break
            self.page.wait_for_timeout(20)
        self.until(f"({UNDRAWN})().length === 0")


Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=list(ALONE))
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Open]:
    contexts = []

    def open_page(data: bytes, width: int, scheme: str = "light") -> Opened:
        path = tmp_path / f"{width}-{scheme}.html"
        path.write_bytes(data)
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        contexts.append(context)
        found = Opened(context.new_page(), 0.0)
        found.page.on("console", lambda message: found.complaints.append(message.text))
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.on("request", lambda sent: sent.url.startswith("file:") or found.complaints.append(sent.url))
        started = time.monotonic()
        found.page.goto(path.as_uri())
        found.load_s = time.monotonic() - started
        return found

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def pages() -> dict[str, bytes]:
    h200 = read_results(ROOT / "results" / "sm90a-nvidia-h200")
    other = read_results(ROOT / "results" / "sm90a-nvidia-h200" / "sixteen-shapes-auto-96")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(importance, "TRIALS_MAX", 100)  # what matters here is that there is a picture
        return {
            "measured": report_page(h200),
            "modelled": report_page(read_results(ROOT / "results" / "gfx950-emulated")),
            "two": comparison_page(compare(other, other)),
            "hostile": report_page(hostile_results()),
        }


@pytest.mark.parametrize(
    ("name", "scheme", "widths"),
    [("measured", "light", (400, 1400)), ("modelled", "dark", (1400,)), ("two", "light", (1400, 400))],
)
def test_a_page_is_whole(
    opened: Open, pages: dict[str, bytes], name: str, scheme: str, widths: tuple[int, ...]
) -> None:
    found = opened(pages[name], widths[0], scheme)
    print(f"{name} at {widths[0]}: loaded in {found.load_s:.2f} s")
    sections = ("changes", "gains", "environment") if name == "two" else SECTIONS
    assert [found.page.locator(f"h2#{section}").is_visible() for section in sections] == [True] * len(sections)
    assert_whole(found, widths)


def assert_whole(found: Opened, widths: tuple[int, ...]) -> None:
    """Every figure is drawn; nothing is wider than the window, hard to read, or asked of another place. The window is
    made wider, or narrower, while the page is open."""
    for width in widths:
        found.page.set_viewport_size({"width": width, "height": 900})
        found.scroll_through()
        assert found.page.evaluate(OVERFLOW) == [width, width]
    contrast, text = found.page.evaluate(CONTRAST)
    assert contrast >= 4.5, text
    assert found.complaints == []


def test_hostile_names_are_shown_as_they_are(opened: Open, pages: dict[str, bytes]) -> None:
    """In the figures too, where plotly would take some markup."""
    found = opened(pages["hostile"], 1400, "dark")
    assert_whole(found, (1400, 400))
    shown = found.page.evaluate("[...document.querySelectorAll('svg text')].map((text) => text.textContent)")
    assert {escaped(word[:40]) for word in HOSTILE[:3]} <= {text.replace("\xa0", " ") for text in shown}
    found.page.evaluate("Plotly.Fx.hover(document.querySelector('.plot'), [{curveNumber: 0, pointNumber: 0}])")
    found.until("document.querySelector('.hoverlayer').textContent !== ''")
    hovered = found.page.evaluate("document.querySelector('.hoverlayer').textContent")
    assert any(escaped(word)[:20] in hovered for word in HOSTILE)
    assert found.page.evaluate("document.querySelectorAll('svg a').length") == 0
    assert found.page.evaluate("window.broken") is None
    assert found.complaints == []


def test_keys_reach_what_scrolls(opened: Open, pages: dict[str, bytes]) -> None:
    """The first key leads past the sections to the content; every table that scrolls can have the keyboard."""
    found = opened(pages["measured"], 400)
    found.page.keyboard.press("Tab")
    assert found.page.evaluate("document.activeElement.textContent") == "To the content"
    assert found.page.evaluate(
        "[...document.querySelectorAll('.box')].every((box) => box.tabIndex === 0 && box.ariaLabel)"
    )
    levels = found.page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3')].map((heading) => Number(heading.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_four_hundred_shapes_open(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is seen is drawn. How long it took is printed: machines differ."""
    monkeypatch.setattr(importance, "TRIALS_MAX", 100)
    found = opened(report_page(many_shapes(400, trials_each=8)), 1400)
    print(f"400 shapes: loaded in {found.load_s:.2f} s")
    found.page.wait_for_selector(".plot[data-drawn]")
    assert found.page.evaluate("document.querySelectorAll('.plot').length") > 400
    assert found.page.evaluate("document.querySelectorAll('.plot[data-drawn]').length") < 40
    found.page.evaluate("document.querySelectorAll('.curves .plot')[399].scrollIntoView()")
    found.until("'drawn' in document.querySelectorAll('.curves .plot')[399].dataset")
    assert found.complaints == []
