"""A warning reaches the program that called, whatever kind of program that is."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from naive_gemm import published, trial

from hktune.core.problem import Problem
from hktune.runtime import callers_line

CALL = "import alone; from hktune.runtime.callers_line import warn_caller; warn_caller('seen')"
# The package of callers_line would import torch first, which takes seconds and has no part in this.
ALONE = f"""
import sys, types
sys.modules["hktune.runtime"] = types.ModuleType("hktune.runtime")
sys.modules["hktune.runtime"].__path__ = [{str(Path(callers_line.__file__).parent)!r}]
"""
# What a notebook's cell is to Python: code that is compiled under a name of its own and run in __main__.
CELL = f"exec(compile({CALL!r}, '/tmp/ipykernel_1/2.py', 'exec'), globals())"
LOADER = """
import importlib.machinery, types
class Loader(importlib.machinery.FrozenImporter):
    pass
names = {"__name__": "frozen_program", "__loader__": Loader, "__spec__": None}
"""
FROZEN = f"{LOADER}exec(compile({CALL!r}, '<frozen frozen_program>', 'exec'), names)"
LOST = f"exec(compile({CALL!r}, '<string>', 'exec'), {{'__name__': 5, '__loader__': 5, '__spec__': 5}})"


@pytest.fixture(scope="module", autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Programs can import it."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "alone.py").write_text(ALONE)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(folder))
        yield


def ran(words: Sequence[str], script: str = "") -> str:
    """What a program of its own prints on stderr."""
    done = subprocess.run([sys.executable, *words], input=script, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_fallback_of_a_program_without_a_file_is_served_and_warned_of(tmp_path: Path) -> None:
    published(tmp_path, trial(Problem(4, 64, 32)))
    script = f"""
import torch, hktune
hktune.load({str(tmp_path)!r}, allow_modelled=True)
x, weight = torch.randn(3, 32), torch.randn(64, 32)
assert torch.equal(hktune.linear(x, weight), torch.nn.functional.linear(x, weight))
"""
    for words, given in ((["-c", script], ""), (["-"], script), (["-W", "ignore", "-"], script)):
        warned = "FallbackWarning: torch serves" in ran(words, given)
        assert warned == ("ignore" not in words)


@pytest.mark.parametrize(
    ("words", "script", "where"),
    [
        (["-c", CALL], "", "<string>:1"),
        (["-"], CALL, "<stdin>:1"),
        (["-c", f"exec({CALL!r})"], "", "<string>:1"),
        (["-c", f"exec({CALL!r}, {{}})"], "", "<string>:1"),
        (["-c", CELL], "", "/tmp/ipykernel_1/2.py:1"),
        (["-c", FROZEN], "", "<frozen frozen_program>:1"),
        (["-c", LOST], "", "<string>:1"),
    ],
    ids=["-c", "stdin", "exec", "exec without names", "a cell", "frozen", "names that are no text"],
)
def test_a_program_of_any_kind_is_warned(words: list[str], script: str, where: str) -> None:
    assert f"{where}: UserWarning: seen" in ran(words, script)


def test_a_program_in_a_zip_file_is_warned(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "program.pyz", "w") as archive:
        archive.writestr("__main__.py", "import inside\n")
        archive.writestr("inside.py", f"\n{CALL}\n")
    assert "program.pyz/inside.py:2: UserWarning: seen" in ran([str(tmp_path / "program.pyz")])
