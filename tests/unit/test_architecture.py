"""The folder list is the pipeline: nothing imports what comes after it, and production needs no tuning room."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hktune

ROOT = Path(hktune.__file__).parent
MACHINERY = {"compile", "emulator", "device", "verify", "measure", "search", "store"}
FOUND_OUT = {"core", "objects", "template", "space"}
OFFLINE = FOUND_OUT | MACHINERY | {"workers", "dispatch", "tables"}

MAY_IMPORT = {
    "core": set(),
    "objects": {"core"},
    "template": {"core"},
    "space": {"core", "template"},
    **dict.fromkeys(MACHINERY, FOUND_OUT | MACHINERY),
    "search": {"core", "space"},
    "device": {"core", "objects", "emulator"},
    "emulator": {"core", "objects"},
    "dispatch": {"core", "objects", "device"},
    "runtime": {"core", "objects", "device", "dispatch"},
    "tables": {"core", "dispatch"},
    "workers": FOUND_OUT | MACHINERY,
    "tuning": OFFLINE,
    "export": OFFLINE,
    "report": OFFLINE | {"tuning"},
    "commands": OFFLINE | {"tuning", "export", "report"},
    "cli": {"core", "commands"},
    "entry": {"core", "cli"},
    "__main__": {"entry"},
}

EMULATOR_MAY_IMPORT: dict[str, set[str]] = {
    "machine": set(),
    "instructions": {"machine"},
    "hazards": {"machine", "instructions"},
    "clock": {"machine", "instructions"},
    "execution": {"machine", "instructions", "hazards", "clock"},
}


def modules_imported_by(file: Path) -> set[str]:
    """Dotted names that `file` imports, anywhere in it, and of what it imports from each."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    return modules


def rooms_imported_by(file: Path) -> set[str]:
    """The rooms (files and folders directly under hktune) that `file` imports."""
    parts = [module.split(".") for module in modules_imported_by(file)]
    known = {path.stem for path in ROOT.iterdir()}
    return {part[1] for part in parts if part[0] == "hktune" and len(part) > 1 and part[1] in known}


def room_of(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_one_way(file: Path) -> None:
    room = room_of(file)
    if room == "__init__":
        return
    assert room in MAY_IMPORT, f"{room} is a new room: say in this test what it may import"
    assert rooms_imported_by(file) - {room} <= MAY_IMPORT[room] - {room}


def test_no_room_imports_itself_by_way_of_others() -> None:
    """Imports for type checking count, as below; `__init__` names the runtime for whoever imports hktune."""
    imports: dict[str, set[str]] = {}
    for file in ROOT.rglob("*.py"):
        imports.setdefault(room_of(file), set()).update(rooms_imported_by(file) - {room_of(file), "__init__"})
    del imports["__init__"]
    TopologicalSorter(imports).prepare()


EMULATOR = ROOT / "emulator"


@pytest.mark.parametrize("file", sorted(EMULATOR.rglob("*.py")), ids=lambda file: str(file.relative_to(EMULATOR)))
def test_the_emulators_rooms_import_one_way(file: Path) -> None:
    room = file.relative_to(EMULATOR).parts[0].removesuffix(".py")
    parts = [module.split(".") for module in modules_imported_by(file) if module.startswith("hktune.emulator.")]
    imported = {part[2] for part in parts}
    assert imported <= EMULATOR_MAY_IMPORT.get(room, set()) | {room}


def test_no_file_of_the_emulator_imports_itself_by_way_of_others() -> None:
    """Imports for type checking count: a cycle of those is a cycle of what must be understood together."""
    names = {
        "hktune." + str(file.relative_to(ROOT).with_suffix("")).replace("/", "."): file
        for file in EMULATOR.rglob("*.py")
    }
    imports = {name: modules_imported_by(file) & names.keys() for name, file in names.items()}
    TopologicalSorter(imports).prepare()


def test_importing_hktune_loads_nothing_heavy() -> None:
    code = "import sys, hktune; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "optuna", "pandas", "msgspec", "rich", "tinygrad"} & set(loaded)
