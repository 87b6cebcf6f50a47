"""Where hktune's own files are: its package, and the kernels and search spaces that come with it, which are inside the
package where it is installed and next to it in a checkout. Nothing else in the code knows."""

from __future__ import annotations

from pathlib import Path

from hktune.core.errors import SpaceError

PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / ".git").exists() else None
"""The folder of hktune's own repository; None where it is installed elsewhere, even inside another repository."""


def _folder(name: str) -> Path:
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


KERNELS = _folder("kernels")
"""The templates, <arch>/<name>/."""

SPACES = _folder("search_spaces")

TEMPLATE_NAME = "template.yaml"

SPACE_OF = {"gfx950": SPACES / "gfx950_gemm_bf16.yaml", "sm90a": SPACES / "sm90a_gemm_bf16.yaml"}
"""The search space of an architecture, where none is asked for."""

DEFAULT_SPACE = SPACE_OF["gfx950"]


def shipped_spaces() -> list[Path]:
    """The search spaces that come with hktune."""
    return sorted(SPACES.glob("*.yaml"))


def space_file(text: str) -> Path:
    """The search space that a user means by `text`: a file, a folder with a template and its space, or one that comes
    with hktune, by its plain name. A file of that name wins; one that does not exist is refused where it is read.
    Raises SpaceError for a folder that does not say which file is its space."""
    path, shipped = Path(text), SPACES / f"{text}.yaml"
    if path.is_dir() and (path / TEMPLATE_NAME).is_file():
        return _beside_template(path)
    return shipped if is_shipped(shipped) and not path.exists() else path


def _beside_template(folder: Path) -> Path:
    """The one search space in the folder of a template: the YAML file that names one."""
    files = [path for path in sorted(folder.glob("*.yaml")) if path.name != TEMPLATE_NAME and path.is_file()]
    spaces = [path for path in files if b"\ntemplate:" in b"\n" + _begin(path)]
    if len(spaces) != 1:
        names = ", ".join(path.name for path in spaces[:4]) or "none"
        raise SpaceError(f"{folder}: one search space must be beside its {TEMPLATE_NAME}, got {names}: name the file")
    return spaces[0]


def _begin(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1 << 16)
    except OSError:
        return b""


def space_word(path: Path) -> str:
    """What a user types for the space at `path` on any machine: the name of one that comes with hktune, else the path
    itself."""
    return path.stem if is_shipped(path) else str(path)


def is_shipped(path: Path) -> bool:
    """Whether the space at `path` comes with hktune."""
    return path.parent == SPACES and path.is_file()
