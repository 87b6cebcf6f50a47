from __future__ import annotations

import os
import tempfile
from dataclasses import fields
from pathlib import Path

import pytest

from hktune.errors import InputError
from hktune.settings import Settings


def test_every_variable_fills_its_field() -> None:
    environment = {"HKTUNE_CACHE": "/cache", "HIPKITTENS_ROOT": "/kittens", "ROCM_PATH": "/rocm", "UNRELATED": "x"}
    settings = Settings.from_environment(environment)
    assert settings == Settings(Path("/cache"), Path("/kittens"), Path("/rocm"))
    assert len(fields(Settings)) == 3


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
    given = {"HKTUNE_CACHE": "cache", "HIPKITTENS_ROOT": "../kittens", "ROCM_PATH": "./rocm"}
    found = Settings.from_environment(given)
    assert found == Settings(tmp_path / "cache", tmp_path.parent / "kittens", tmp_path / "rocm")


@pytest.mark.parametrize("name", ["HKTUNE_CACHE", "XDG_CACHE_HOME", "HIPKITTENS_ROOT", "ROCM_PATH"])
def test_the_home_of_a_user_that_there_is_not_is_one_line(name: str) -> None:
    with pytest.raises(
        InputError, match=rf"^{name}=~nosuchuser/x: there is no such home: give the path from the root$"
    ):
        Settings.from_environment({name: "~nosuchuser/x"})


def test_a_user_without_a_home_has_a_cache_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    folder = Settings.from_environment({}).cache_dir
    assert folder.is_relative_to(tempfile.gettempdir())
    assert str(os.getuid()) in str(folder)
