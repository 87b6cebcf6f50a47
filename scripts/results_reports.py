"""Makes the report of every directory of results/ again: report.md, and gains.svg, which Chromium draws.

python scripts/results_reports.py            # all of them
python scripts/results_reports.py --no-pictures results/gfx950-emulated
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHAPES = {
    "results/gfx950-emulated": "shapes.yaml",
    "results/gfx950-emulated-mi350x": "shapes.yaml",
    "results/sm90a-nvidia-h100-80gb-hbm3": "shapes-llm.yaml",
}
"""The shapes files of those directories whose shapes have names and weights in one."""

REPORT, PICTURE = "report.md", "gains.svg"
WIDTH_PX = 1000
# The first picture as it is drawn for a page, on white: a reader's own colours may be dark.
DRAWN = """async (width) => {
  const { data, layout } = structuredClone(JSON.parse(document.getElementById("figures").textContent)["figure-1"]);
  const words = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
  const title = document.querySelector("figcaption").textContent.replace(/[&<>]/g, (each) => words[each]);
  const at = { x: 0, xref: "paper", y: 1, yref: "container", yanchor: "top", pad: { t: 12 } };
  const heading = { ...at, text: title, font: { size: 15 } };
  Object.assign(layout, { paper_bgcolor: "#fff", plot_bgcolor: "#fff", width, title: heading });
  Object.assign(layout, { height: layout.height + 50, margin: { ...layout.margin, t: 90 } });
  const picture = await Plotly.toImage({ data, layout }, { format: "svg", width, height: layout.height });
  return [decodeURIComponent(picture.slice(picture.indexOf(",") + 1)), document.querySelector(".plot").ariaLabel];
}"""


def directories() -> list[Path]:
    """Every directory of results/ that has trials, those of rivals apart: they are part of the run that raced them."""
    found = sorted(path.parent.relative_to(ROOT) for path in (ROOT / "results").rglob("trials.csv"))
    return [path for path in found if path.name != "rivals"]


def report(directory: Path) -> str:
    """The text of a directory's report; its picture is named where there is one. In the root of the checkout."""
    from hktune.report.pages.markdown_summary import summary_of
    from hktune.report.results.of_directory import read_results

    shapes = SHAPES.get(str(directory))
    text = summary_of(read_results(directory, Path(shapes) if shapes else None))
    again = f"hktune report {directory}{f' --shapes {shapes}' if shapes else ''} -o report.html"
    heading, _, rest = text.partition("\n\n")
    picture = f"![Every shape by its m and its n and k, and its gain]({PICTURE})"
    parts = [heading, *([picture] if (directory / PICTURE).exists() else []), rest.rstrip("\n")]
    return "\n\n".join([*parts, f"With every picture: `{again}`", ""])


def draw(chosen: list[Path]) -> None:
    """Writes the picture of each directory. Raises SystemExit where there is no Chromium."""
    from playwright.sync_api import sync_playwright

    from hktune.core.publish import publish
    from hktune.report.pages.report_page import report_page
    from hktune.report.results.of_directory import read_results

    chromium = os.environ.get("HKTUNE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("results_reports: no Chromium here: apt-get install chromium, or pass --no-pictures")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for directory in chosen:
            shapes = SHAPES.get(str(directory))
            page = browser.new_page()
            page.set_content(report_page(read_results(directory, Path(shapes) if shapes else None)).decode())
            while not page.evaluate("Boolean(window.Plotly)"):
                page.wait_for_timeout(50)
            svg, what = page.evaluate(DRAWN, WIDTH_PX)
            publish(directory / PICTURE, svg.encode())
            print(f"{directory / PICTURE}: {len(svg) // 1024} KB, {what}")
        browser.close()


def main() -> None:
    """Makes what is asked for again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directories", nargs="*", type=Path, metavar="DIR", help="of results/ (default: all)")
    parser.add_argument("--no-pictures", action="store_true", help="leave the pictures as they are")
    options = parser.parse_args()
    os.chdir(ROOT)
    chosen = options.directories or directories()
    if not options.no_pictures:
        draw(chosen)
    for directory in chosen:
        text = report(directory)
        (directory / REPORT).write_text(text, encoding="utf-8")
        print(f"{directory / REPORT}: {len(text.splitlines())} lines")


if __name__ == "__main__":
    main()
