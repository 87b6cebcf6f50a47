from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hktune.compile import HipCompiler, hipkittens
from hktune.compile.hipkittens import (
    HEADERS_SHA256,
    WHEEL_SHA256,
    HipKittens,
    fetch_hipkittens,
    find_hipkittens,
    open_hipkittens,
    unpack_headers,
)
from hktune.compile.toolchain import find_zig, tree_sha256
from hktune.core.errors import ToolchainError
from hktune.core.settings import Settings
from hktune.core.variant import CodeObject
from hktune.space import load_space

SPACE = Path(__file__).resolve().parents[2] / "search_spaces" / "gfx950_gemm_bf16.yaml"
FILES = {"kittens.cuh": "entry", "cdna4/includes.cuh": "parts", "cdna4/ops/mma.cuh": "mma"}


@pytest.fixture(scope="session")
def pinned() -> HipKittens:
    return fetch_hipkittens(Settings.from_environment(os.environ).cache_dir)


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def flattened(pinned: HipKittens, root: Path) -> Path:
    """The pinned CDNA4 headers, rearranged as a checkout with no folder per architecture."""
    include = root / "include"
    shutil.copytree(pinned.include / "cdna4", include)
    shutil.copytree(pinned.include / "pyutils", include / "pyutils")
    entry = (include / "includes.cuh").read_text() + '\n#include "pyutils/util.cuh"\n'
    (include / "includes.cuh").unlink()
    (include / "kittens.cuh").write_text(entry)
    return root


def test_the_shipped_kernel_is_the_same_with_either_layout(pinned: HipKittens, tmp_path: Path) -> None:
    flat = open_hipkittens(flattened(pinned, tmp_path), "checkout")
    assert (pinned.layout, flat.layout) == ("per-architecture", "flat")
    assert flat.sha256 != pinned.sha256
    toolchain, space = find_zig(), load_space(SPACE)
    assert toolchain is not None
    variant = space.template.render(space.seeds[0])
    built = [HipCompiler(toolchain, headers).compile(variant, 300) for headers in (flat, pinned)]
    assert isinstance(built[0], CodeObject), built[0]
    assert isinstance(built[1], CodeObject), built[1]
    assert built[0].data == built[1].data


@pytest.mark.parametrize("below", ["", "include", "hk/include"])
def test_a_root_may_be_a_checkout_an_include_folder_or_an_unpacked_wheel(tmp_path: Path, below: str) -> None:
    include = write_tree(tmp_path / below, FILES)
    found = open_hipkittens(tmp_path, "HIPKITTENS_ROOT")
    assert (found.include, found.layout, found.sha256) == (include, "per-architecture", tree_sha256(include))


def test_the_flag_wins_over_the_environment(tmp_path: Path) -> None:
    flag, environment = write_tree(tmp_path / "flag", FILES), write_tree(tmp_path / "environment", FILES)
    settings = Settings(tmp_path / "cache", hipkittens_root=environment)
    assert find_hipkittens(settings, flag).include == flag
    assert find_hipkittens(settings).include == environment


def test_a_folder_that_is_neither_layout_is_one_line(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "cache", hipkittens_root=tmp_path)
    with pytest.raises(ToolchainError, match=r"^HIPKITTENS_ROOT=.*: no kittens.cuh in it, .* give a checkout of"):
        find_hipkittens(settings)
    write_tree(tmp_path / "include", {"kittens.cuh": "", "cdna3/includes.cuh": ""})
    with pytest.raises(ToolchainError, match=r"has kittens.cuh but no CDNA4 headers \(cdna4/includes.cuh or common/"):
        find_hipkittens(settings)


def test_the_pinned_headers_are_the_pinned_ones(pinned: HipKittens) -> None:
    assert tree_sha256(pinned.include) == pinned.sha256 == HEADERS_SHA256
    assert {path.suffix for path in pinned.include.rglob("*") if path.is_file()} == {".cuh"}


class FakeIndex:
    """Stands in for pip: hands out one wheel made here, and counts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.downloads = 0
        self.wheel = folder / "hk_dsl-0.8.0-py3-none-any.whl"
        with zipfile.ZipFile(self.wheel, "w") as archive:
            for name, text in FILES.items():
                archive.writestr(f"hk/include/{name}", text)
            archive.writestr("hk/__init__.py", "raise SystemExit")
        self.sha256 = hashlib.sha256(self.wheel.read_bytes()).hexdigest()
        tree = write_tree(folder / "expected", FILES)
        monkeypatch.setattr(hipkittens, "WHEEL_SHA256", self.sha256)
        monkeypatch.setattr(hipkittens, "HEADERS_SHA256", tree_sha256(tree))
        monkeypatch.setattr(hipkittens, "download_wheel", self.download)

    def download(self, into: Path) -> Path:
        self.downloads += 1
        return Path(shutil.copy(self.wheel, into))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeIndex:
    return FakeIndex(tmp_path, monkeypatch)


def test_many_at_once_fetch_once_and_see_whole_headers(index: FakeIndex, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: fetch_hipkittens(tmp_path / "cache"), range(8)))
    assert index.downloads == 1
    assert len({headers.include for headers in found}) == 1
    files = {path.relative_to(found[0].include).as_posix() for path in found[0].include.rglob("*") if path.is_file()}
    assert files == set(FILES)
    assert [path.name for path in found[0].include.parent.iterdir() if path.name.startswith(".")] == []


def test_damaged_headers_are_fetched_again(index: FakeIndex, tmp_path: Path) -> None:
    headers = fetch_hipkittens(tmp_path)
    (headers.include / "cdna4" / "ops" / "mma.cuh").write_text("changed by hand")
    again = fetch_hipkittens(tmp_path)
    assert index.downloads == 2
    assert tree_sha256(again.include) == again.sha256


def test_another_wheel_of_the_same_name_is_refused(index: FakeIndex, tmp_path: Path) -> None:
    with zipfile.ZipFile(index.wheel, "a") as archive:
        archive.writestr("hk/include/extra.cuh", "tampered")
    with pytest.raises(ToolchainError, match=rf"sha256 is [0-9a-f]{{64}}, pinned is {index.sha256}: .* do not use it"):
        fetch_hipkittens(tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.cuh"))


def test_the_shipped_pin_refuses_a_made_up_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "hk_dsl-0.8.0.whl"
    wheel.write_bytes(b"PK")
    with pytest.raises(ToolchainError, match=WHEEL_SHA256):
        unpack_headers(wheel, tmp_path / "include")
    assert not (tmp_path / "include").exists()


def test_pip_without_the_wheel_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ToolchainError, match=r"^pip download hk-dsl==0\.8\.0 failed \(No matching .*HIPKITTENS_ROOT"):
        fetch_hipkittens(tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ToolchainError, match=r"cannot write .*: set HKTUNE_CACHE$"):
        fetch_hipkittens(tmp_path / "file")
