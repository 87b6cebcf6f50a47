from __future__ import annotations

import os
import tempfile
from dataclasses import fields
from pathlib import Path

import pytest

from hktune.core.errors import InputError
from hktune.core.settings import Settings


def test_every_variable_fills_its_field() -> None:
    environment = {"HKTUNE_CACHE": "/cache", "HIPKITTENS_ROOT": "/kittens", "ROCM_PATH": "/rocm", "UNRELATED": "x"}
    environment |= {"HKTUNE_AITER": "/aiter", "HKTUNE_RIVALS": "aiter,triton"}
    settings = Settings.from_environment(environment)
    paths = Path("/cache"), Path("/kittens"), Path("/rocm"), Path("/aiter")
    assert settings == Settings(*paths, ("aiter", "triton"))
    assert len(fields(Settings)) == 5
    assert Settings.from_environment(environment | {"HKTUNE_RIVALS": "none"}).rivals == ()


@pytest.mark.parametrize(
    ("environment", "cache_dir"),
    [
        ({}, Path.home() / ".cache" / "hktune"),
        ({"HKTUNE_CACHE": ""}, Path.home() / ".cache" / "hktune"),
        ({"XDG_CACHE_HOME": "/xdg"}, Path("/xdg/hktune")),
        ({"XDG_CACHE_HOME": "/xdg", "HKTUNE_CACHE": "~/mine"}, Path.home() / "mine"),
    ],
)
def test_the_cache_has_a_place_of_its_own(environment: dict[str, str], cache_dir: Path) -> None:
    settings = Settings.from_environment(environment)
    assert settings == Settings(cache_dir, None, None)


def test_paths_are_from_the_root_whatever_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"HKTUNE_CACHE": "cache", "HIPKITTENS_ROOT": "../kittens", "ROCM_PATH": "./rocm", "HKTUNE_AITER": "aiter"}
    found = Settings.from_environment(given)
    assert found == Settings(tmp_path / "cache", tmp_path.parent / "kittens", tmp_path / "rocm", tmp_path / "aiter")


@pytest.mark.parametrize("name", ["HKTUNE_CACHE", "XDG_CACHE_HOME", "HIPKITTENS_ROOT", "ROCM_PATH", "HKTUNE_AITER"])
def test_the_home_of_a_user_that_there_is_not_is_one_line(name: str) -> None:
    with pytest.raises(
        InputError, match=rf"^{name}=~nosuchuser/x: there is no such home: give the path from the root$"
    ):
        Settings.from_environment({name: "~nosuchuser/x"})


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where such a user's cache is."""

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"hktune-of-{os.getuid()}"


def test_a_user_without_a_home_has_a_cache_of_their_own(homeless: Path) -> None:
    for _ in range(2):
        settings = Settings.from_environment({})
        assert settings.cache_dir == homeless / "hktune"
        assert settings.note is not None
        assert "set HKTUNE_CACHE" in settings.note
    assert homeless.stat().st_mode & 0o777 == 0o700
    assert Settings.from_environment({"HKTUNE_CACHE": "/cache"}).note is None


@pytest.mark.parametrize("trap", ["a file", "a link", "writable by others"])
def test_a_folder_that_others_may_have_filled_is_refused(homeless: Path, tmp_path: Path, trap: str) -> None:
    if trap == "a file":
        homeless.touch()
    elif trap == "a link":
        (tmp_path / "theirs").mkdir()
        homeless.symlink_to(tmp_path / "theirs")
    else:
        homeless.mkdir()
        homeless.chmod(0o777)
    with pytest.raises(InputError, match=r"^no home, and .* is not this user's own: set HKTUNE_CACHE$"):
        Settings.from_environment({})
