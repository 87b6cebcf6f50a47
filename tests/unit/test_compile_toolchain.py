from __future__ import annotations

from pathlib import Path

import pytest

from hktune.compile import toolchain
from hktune.compile.toolchain import find_hip_toolchain, find_rocm, find_zig, tree_sha256
from hktune.core.errors import ToolchainError
from hktune.core.settings import Settings

HIP_7 = "HIP version: 7.0.51831-a3e329ad8\nAMD clang version 20.0.0git (roc-7.0.0 25314 cf9d2d)"


def install(root: Path, version: str, name: str = "hipcc") -> Path:
    """A ROCm at `root` whose driver can say what version it is."""
    driver, linker = root / "bin" / name, root / "lib" / "llvm" / "bin" / "ld.lld"
    for tool in (driver, linker):
        tool.parent.mkdir(parents=True, exist_ok=True)
        tool.write_text(f"#!/bin/sh\necho '{version}'\necho 'InstalledDir: {root}/lib/llvm/bin'\n")
        tool.chmod(0o755)
    (root / "include" / "hip").mkdir(parents=True, exist_ok=True)
    return driver


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A machine with no ROCm but what the test installs."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr(toolchain, "ROCM_HOME", tmp_path / "nothing")
    return Settings(tmp_path / "cache", rocm_path=tmp_path / "rocm")


def test_rocm_path_is_found_with_its_headers(settings: Settings, tmp_path: Path) -> None:
    driver = install(tmp_path / "rocm", HIP_7)
    found = find_hip_toolchain(settings)
    assert found.driver == (str(driver),)
    assert found.includes == ("-I", str(tmp_path / "rocm" / "include" / "hip"))
    assert found.identity.startswith("hipcc 20.0.0git ")
    assert found.linker == (str(tmp_path / "rocm" / "lib" / "llvm" / "bin" / "ld.lld"), "-shared")
    assert found.precompile == ()


def test_hipcc_on_the_path_is_found(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = install(tmp_path / "opt", HIP_7)
    monkeypatch.setenv("PATH", str(driver.parent))
    found = find_rocm(settings)
    assert found is not None
    assert found.driver == (str(driver),)


def test_amdclang_serves_where_there_is_no_hipcc(settings: Settings, tmp_path: Path) -> None:
    driver = install(tmp_path / "rocm", "AMD clang version 20.0.0git (roc-7.0.2 25385)", "amdclang++")
    found = find_rocm(settings)
    assert found is not None
    assert found.driver == (str(driver),)


@pytest.mark.parametrize(
    ("name", "version"),
    [("hipcc", "HIP version: 6.2.41134\nclang version 18.0.0"), ("amdclang++", "AMD clang version 18 (roc-6.2.4 24)")],
)
def test_a_rocm_older_than_gfx950_gives_way_to_zig(settings: Settings, tmp_path: Path, name: str, version: str) -> None:
    install(tmp_path / "rocm", version, name)
    assert find_rocm(settings) is None
    assert find_hip_toolchain(settings).name == "zig clang"


def test_a_rocm_without_its_linker_gives_way_to_zig(settings: Settings, tmp_path: Path) -> None:
    install(tmp_path / "rocm", HIP_7)
    (tmp_path / "rocm" / "lib" / "llvm" / "bin" / "ld.lld").unlink()
    assert find_hip_toolchain(settings).name == "zig clang"


def test_a_hipcc_that_finds_no_clang_gives_way_to_zig(settings: Settings, tmp_path: Path) -> None:
    install(tmp_path / "rocm", HIP_7).write_text("#!/bin/sh\necho 'HIP version: 7.2.53211'\nexit 1\n")
    assert find_rocm(settings) is None
    assert find_hip_toolchain(settings).name == "zig clang"


def test_equal_compilers_in_different_folders_have_one_identity(settings: Settings, tmp_path: Path) -> None:
    found = []
    for place in ("rocm", "elsewhere"):
        install(tmp_path / place, HIP_7)
        found.append(find_rocm(Settings(settings.cache_dir, rocm_path=tmp_path / place)))
    install(tmp_path / "newer", HIP_7.replace("51831", "51832"))
    newer = find_rocm(Settings(settings.cache_dir, rocm_path=tmp_path / "newer"))
    assert found[0] is not None
    assert found[1] is not None
    assert newer is not None
    assert found[0].driver != found[1].driver
    assert found[0].identity == found[1].identity != newer.identity


def test_zig_says_its_versions() -> None:
    found = find_zig()
    assert found is not None
    assert found.identity.startswith("zig-clang 22.1.8 ziglang=0.17.1 hip=")


def test_no_compiler_at_all_is_one_line_to_type(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolchainError, match=r"^no compiler for gfx950: pip install 'hktune\[gfx950\]'$"):
        find_hip_toolchain(settings)


def test_a_tree_is_known_by_its_headers_alone(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for tree in (one, two):
        (tree / "ops").mkdir(parents=True)
        (tree / "ops" / "mma.cuh").write_text("mma")
    (two / "README.md").write_text("read me")
    assert tree_sha256(one) == tree_sha256(two)
    (two / "ops" / "mma.cuh").rename(two / "ops" / "mfma.cuh")
    assert tree_sha256(one) != tree_sha256(two)
    (two / "ops" / "mfma.cuh").rename(two / "ops" / "mma.cuh")
    (two / "ops" / "mma.cuh").write_text("mmb")
    assert tree_sha256(one) != tree_sha256(two)
