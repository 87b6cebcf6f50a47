"""hktune as somebody else gets it: a wheel or a source archive, in a fresh environment, with no checkout about."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

import hktune
from hktune.core.shipped import KERNELS, SPACE_OF, SPACES, space_file, space_word

ROOT = Path(__file__).resolve().parents[2]
PACKED = ("hktune", "kernels", "search_spaces", "pyproject.toml", "setup.py", "README.md", "LICENSE")
SHAPES = "shapes:\n  - {name: square, m: 256, n: 256, k: 512}\n"


def copy_of_checkout(folder: Path) -> Path:
    """What a wheel is made of, without what this checkout's own use has left in it."""
    folder.mkdir()
    for name in PACKED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def expected_files() -> dict[str, bytes]:
    """Every file that must be in the wheel, by its path there."""
    folders = {ROOT / "hktune": "hktune", ROOT / "kernels": "hktune/kernels"}
    folders[ROOT / "search_spaces"] = "hktune/search_spaces"
    return {
        f"{name}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for folder, name in folders.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def files_in(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


def python(words: Iterable[str], folder: Path) -> None:
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def build_wheel(source: Path, folder: Path) -> Path:
    words = ("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder), str(source))
    python(words, folder.parent)
    [wheel] = folder.glob("*.whl")
    return wheel


def test_a_wheel_holds_what_hktune_needs_and_nothing_else(tmp_path: Path) -> None:
    source = copy_of_checkout(tmp_path / "source")
    # What an earlier build, an editor and a run leave behind.
    for stray in ("build/lib/hktune/gone.py", "kernels/gfx950/gemm_bf16/gemm.hip.orig", "search_spaces/notes.txt"):
        (source / stray).parent.mkdir(parents=True, exist_ok=True)
        (source / stray).write_text("")
    wheel = build_wheel(source, tmp_path / "wheel")
    assert wheel.name == f"hktune-{hktune.__version__}-py3-none-any.whl"
    files = files_in(wheel)
    assert files == expected_files()
    named = {file: named_files(data) for file, data in files.items() if file.endswith(".py")}
    absent = {file: [each for each in names if f"hktune/{each}" not in files] for file, names in named.items()}
    assert not {file: names for file, names in absent.items() if names}, "what is said to a user is there for one"


NAMED = re.compile(r"(?<![\w./-])(?:docs|kernels|search_spaces|examples|scripts|benchmarks|results|tests)/[\w/.-]*\w")


def named_files(source: bytes) -> list[str]:
    """The files of a checkout that a module's texts name, docstrings and comments aside; those that say that they are
    of a checkout too."""
    tree = ast.parse(source)
    own = [each.value for each in ast.walk(tree) if isinstance(each, ast.Expr)]
    texts = [each.value for each in ast.walk(tree) if isinstance(each, ast.Constant) and each not in own]
    said = [each for each in texts if isinstance(each, str) and "in a checkout" not in each]
    return [name for text in said for name in NAMED.findall(text)]


def test_texts_that_name_a_file_are_found() -> None:
    source = b'''"""docs/of/a/docstring.md"""
HELP = "see docs/a.md, and kernels/gfx950/b.yaml"
def f(x):
    "docs/c.md"
    raise ValueError(f"{x}: as in examples/d.py.")  # docs/e.md
'''
    assert named_files(source) == ["docs/a.md", "kernels/gfx950/b.yaml", "examples/d.py"]


def test_a_source_archive_makes_the_same_wheel(tmp_path: Path) -> None:
    source = copy_of_checkout(tmp_path / "source")
    python(("-c", f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"), source)
    [archive] = tmp_path.glob("*.tar.gz")
    assert files_in(build_wheel(archive, tmp_path / "wheel")) == expected_files()


class Installed:
    """A fresh environment with the wheel, whose dependencies are those of this test run, and a folder to work in."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "environment" / "bin"
        self.folder = folder / "somewhere else"
        self.folder.mkdir(parents=True)
        venv.create(folder / "environment")
        wheel = build_wheel(copy_of_checkout(folder / "source"), folder / "wheel")
        shutil.rmtree(folder / "source")
        interpreter = str(self.bin / "python")
        python(("-m", "pip", "--python", interpreter, "install", "--no-deps", "--no-index", str(wheel)), folder)
        [self.packages] = (folder / "environment").glob("lib/python*/site-packages")
        dependencies = [path for path in sys.path if path.endswith("-packages")]
        (self.packages / "dependencies.pth").write_text("\n".join(dependencies))

    def run(self, *words: str, code: int = 0) -> str:
        """What the command prints. No GPU is visible to it."""
        hidden = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | hidden
        command = [str(self.bin / "hktune"), *words]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (self.packages / "hktune").rglob("*") if path.is_file()}


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


def key_pair(folder: Path) -> tuple[str, str]:
    """Names of two files, a private key's and its public one's."""
    if importlib.util.find_spec("cryptography") is None:
        pytest.skip("pip install 'hktune[sign]'")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "private.pem").write_bytes(private)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "public.pem").write_bytes(public)
    return "private.pem", "public.pem"


def test_every_command_works_where_only_the_wheel_is(installed: Installed) -> None:
    run = installed.run
    (installed.folder / "shapes.yaml").write_text(SHAPES)
    private, public = key_pair(installed.folder)
    before = installed.files()

    assert run("--version") == f"hktune {hktune.__version__}\n"
    run("tune", "--shapes", "shapes.yaml", "--device", "emulated", "--trials", "1", "--out", "out")
    table = json.loads((installed.folder / "out" / "table.json").read_text())
    assert [(entry["m"], entry["n"], entry["k"]) for entry in table["entries"]] == [(256, 256, 512)]
    own_space = yaml.safe_load(SPACE_OF["gfx950"].read_text()) | {"seeds": []}
    (installed.folder / "own.yaml").write_text(yaml.safe_dump(own_space, sort_keys=False))
    assert "1 ok" in run("build", "--space", "own.yaml", "--random", "1", "-o", str(installed.folder / "built"))
    assert "proved on" in run("verify")
    assert "legal" in run("explain")
    assert "lds_fits" in run("explain", "--space", "gfx950_gemm_bf16", "k_step=128", "stages=3", code=1)
    assert "no GPU was found" in run("bench", code=2)
    assert "256x256x512" in run("table", "show", "out")
    run("table", "build", "out", "-o", "table")
    assert "modelled rows" in run("table", "doctor", "table", "--shapes", "shapes.yaml", code=1)
    run("table", "sign", "table", "--key", private)
    assert "0 not as signed" in run("table", "verify", "table", "--key", public)
    run("export", "out", "-o", "model_new.py")
    compile((installed.folder / "model_new.py").read_text(), "model_new.py", "exec")
    run("merge", "out", "-o", "merged")
    assert "256 x 256 x 512" in run("summary", "out")
    assert "opens in a browser" in run("report", "out", "-o", "report.html")
    assert "emulated GPU" in run("doctor")

    assert installed.files() == before


def test_what_is_shipped_is_found_by_name_and_a_file_of_that_name_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = sorted(SPACES.glob("*.yaml"))
    assert set(SPACE_OF.values()) < set(shipped)
    assert all((KERNELS / f"{arch}/gemm_bf16/template.yaml").is_file() for arch in SPACE_OF)
    for path in shipped:
        assert space_file(path.stem) == path == space_file(str(path))
        assert space_word(path) == path.stem
        (tmp_path / path.stem).touch()
        assert space_file(path.stem) == Path(path.stem)
    for other in ("nowhere", "../search_spaces/gfx950_gemm_bf16", "", "gfx950_gemm_bf16.yaml"):
        assert space_file(other) == Path(other)
        assert space_word(Path(other)) == str(Path(other))
