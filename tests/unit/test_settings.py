from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

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
