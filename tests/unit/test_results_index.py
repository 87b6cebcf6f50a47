"""results/README.md is what is in results/, and its figures are those that the pages of the directories state."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from results_index import page

RESULTS = Path(__file__).resolve().parents[2] / "results"
INDEX = (RESULTS / "README.md").read_text()
ROWS = {cells[1].strip(" []"): cells for line in INDEX.splitlines() if len(cells := line.split("|")) > 8}


def test_the_page_is_what_the_script_writes() -> None:
    assert page() == INDEX, "python scripts/results_index.py --write"


@pytest.mark.parametrize("name", sorted(path.parent.name for path in RESULTS.glob("*/table.json")))
def test_its_figures_are_those_of_the_directorys_own_page(name: str) -> None:
    own = (RESULTS / name / "README.md").read_text()
    table, kernels = (cell.split() for cell in ROWS[name][6:8])
    measured = INDEX.index("## Measured") < INDEX.index(f"|[{name}]") < INDEX.index("## Modelled")
    assert measured == name.startswith("sm90a")
    if measured:
        of_the_table = re.findall(r"geometric mean of the \d+: \*\*([\d.]+)\*\*", own)
        of_the_best = re.findall(r"all ways to ask the vendor: \*\*([\d.]+)\*\*, the worst (\d\.\d+)", own)
        assert table[:1] == of_the_table
        assert [(kernels[0], kernels[1].strip("()"))] == of_the_best
    else:
        [said] = re.findall(r"the kernels(?: here)? are ([\d.]+) times as fast as AITER's", own)
        assert table == ["-"]
        assert abs(float(kernels[0]) - float(said)) < 0.0051


def test_every_link_leads_to_a_file_and_every_name_in_the_tables_is_one() -> None:
    links = dict(re.findall(r"^\[([^]]+)\]: (\S+)$", INDEX, re.MULTILINE))
    assert all((RESULTS / target).is_file() for target in links.values())
    named = {name or said for said, name in re.findall(r"\[([^]]+)\](?:\[([^]]+)\])?(?!:)", INDEX)}
    assert named == set(links)
    assert {path.parent.name for path in RESULTS.glob("*/table.json")} <= set(links)
