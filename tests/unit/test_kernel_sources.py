"""The shipped kernels' sources as an editor sees them: plain files, and one of constants that a test holds true."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from gemm_bf16_variants import compiled, space

from hktune.compile.hipkittens import find_hipkittens
from hktune.compile.nvrtc import NVRTC_CHILD, OPTIONS, NvrtcCompiler
from hktune.compile.precompiled import PrecompiledHeader
from hktune.compile.toolchain import find_hip_toolchain
from hktune.core.settings import Settings
from hktune.core.variant import CodeObject
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
        if file != with_fields and file.suffix not in (".yaml", ".md"):
            assert not placed_fields(file.read_text()), file


GFX950 = ROOT / "kernels" / "gfx950" / "gemm_bf16"
GFX950_FILES = sorted(GFX950.glob("*.hip"), key=lambda path: path.name)


def test_the_folder_alone_compiles_to_what_hktune_compiles() -> None:
    variant = space().template.render(space().seeds[0])
    plain = dataclasses.replace(variant, source=f'#include "{GFX950 / "gemm.hip"}"\n')
    assert compiled(plain).sha256 == compiled(variant).sha256


def test_every_file_parses_by_itself(tmp_path: Path) -> None:
    """HipKittens, which takes longer than all of them, is parsed once; and each includes it."""
    settings = Settings.from_environment(os.environ)
    toolchain, headers = find_hip_toolchain(settings), find_hipkittens(settings)
    argv = [*toolchain.driver, *toolchain.flags, "--offload-arch=gfx950", *toolchain.includes]
    argv += ["-I", str(headers.include)]
    precompiled = PrecompiledHeader(argv, toolchain.precompile, headers.sha256, tmp_path).flags(120.0)
    assert precompiled
    files = [*precompiled, "-fsyntax-only", *map(str, GFX950_FILES)]
    done = subprocess.run([*argv, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in GFX950_FILES if "kittens.cuh" not in included(path)} == {"constants.hip"}


def included(path: Path) -> set[str]:
    """What a file includes, and what that includes."""
    own = re.findall(r'^#include ["<](.+)[">]$', path.read_text(), re.MULTILINE)
    beside = [path.parent / name for name in own if (path.parent / name).is_file()]
    return set(own).union(*map(included, beside))


SM90A = ROOT / "kernels" / "sm90a" / "gemm_bf16"


def nvrtc(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Compiles `source`, which finds what it includes in SM90A."""
    options = ["--gpu-architecture=sm_90a", *OPTIONS, f"--include-path={SM90A}"]
    argv = [sys.executable, NVRTC_CHILD, source.name, target, *options]
    return subprocess.run(argv, cwd=source.parent, capture_output=True, text=True, check=False)


def test_the_cuda_folder_alone_compiles_to_what_hktune_compiles(tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="pip install 'hktune[cuda]'")
    own = space_of(SM90A)
    code = NvrtcCompiler().compile(own.template.render(own.seeds[0]), 120.0)
    assert isinstance(code, CodeObject), code
    source, target = tmp_path / "gemm_bf16.cu", tmp_path / "gemm.cubin"
    source.write_text('#include "gemm.cu"\n')
    done = nvrtc(source, target)
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(target.read_bytes()).hexdigest() == code.sha256


@pytest.mark.parametrize("name", sorted(path.name for path in SM90A.glob("*.cu")))
def test_every_cuda_file_parses_by_itself(name: str, tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="pip install 'hktune[cuda]'")
    done = nvrtc(SM90A / name, tmp_path / "part.cubin")
    assert done.returncode == 0, done.stderr
