"""The shipped kernels' sources as an editor sees them: plain files, and one of constants that a test holds true."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest
from gemm_bf16_variants import compiled, space

from hktune.compile.hipkittens import find_hipkittens
from hktune.compile.toolchain import find_hip_toolchain
from hktune.core.settings import Settings
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


GFX950 = ROOT / "kernels" / "gfx950" / "gemm_bf16"
GFX950_FILES = sorted(GFX950.glob("*.hip"), key=lambda path: path.name)


def test_the_folder_alone_compiles_to_what_hktune_compiles() -> None:
    variant = space().template.render(space().seeds[0])
    plain = dataclasses.replace(variant, source=f'#include "{GFX950 / "gemm.hip"}"\n')
    assert compiled(plain).sha256 == compiled(variant).sha256


def test_every_file_parses_by_itself() -> None:
    settings = Settings.from_environment(os.environ)
    toolchain, headers = find_hip_toolchain(settings), find_hipkittens(settings)
    argv = [*toolchain.driver, *toolchain.flags, "--offload-arch=gfx950", *toolchain.includes, "-I", headers.include]
    done = subprocess.run([*argv, "-fsyntax-only", *GFX950_FILES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
