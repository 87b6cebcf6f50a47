"""The shipped kernels' sources as an editor sees them: plain files, and one of constants that a test holds true."""

from __future__ import annotations

from pathlib import Path

import pytest

from hktune.space import SearchSpace, load_space
from hktune.template.source import FIELDS_ENDING, filled, placed_fields

ROOT = Path(__file__).resolve().parents[2]
WITH_FIELDS = sorted((ROOT / "kernels").glob(f"*/*/constants.*{FIELDS_ENDING}"))


def space_of(folder: Path) -> SearchSpace:
    """The shipped space of the kernel in `folder`."""
    return load_space(ROOT / "search_spaces" / f"{folder.parent.name}_{folder.name}.yaml")


@pytest.mark.parametrize("with_fields", WITH_FIELDS, ids=lambda path: path.parts[-3])
def test_the_constants_are_those_of_the_first_seed(with_fields: Path, update_golden: bool) -> None:
    space = space_of(with_fields.parent)
    rendered = filled(with_fields.read_text(), space.template.field_texts(space.seeds[0]))
    constants = with_fields.with_name(with_fields.name.removesuffix(FIELDS_ENDING))
    if update_golden:
        constants.write_text(rendered)
    assert constants.read_text() == rendered, "run this test with --update-golden"


@pytest.mark.parametrize("with_fields", WITH_FIELDS, ids=lambda path: path.parts[-3])
def test_only_the_constants_have_fields(with_fields: Path) -> None:
    for file in with_fields.parent.iterdir():
        if file != with_fields and file.name not in ("template.yaml", "README.md"):
            assert not placed_fields(file.read_text()), file
