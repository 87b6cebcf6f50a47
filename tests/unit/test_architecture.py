"""The folder list is the pipeline: nothing imports what comes after it, and production needs no tuning room."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from structure import Checkout, Module, in_cycles

ROOT = Path(__file__).resolve().parents[2]
CHECKOUT = Checkout(ROOT)
MACHINERY = {"compile", "emulator", "device", "verify", "measure", "search", "store"}
FOUND_OUT = {"core", "objects", "template", "space"}
OFFLINE = FOUND_OUT | MACHINERY | {"workers", "dispatch", "exchange", "tables"}

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
    "exchange": {"core", "dispatch"},
    "tables": {"core", "dispatch", "exchange"},
    "workers": FOUND_OUT | MACHINERY,
    "tuning": OFFLINE,
    "export": OFFLINE,
    "report": OFFLINE | {"tuning"},
    "session": OFFLINE | {"tuning", "export", "report", "runtime"},
    "commands": OFFLINE | {"tuning", "export", "report", "session"},
    "cli": {"core", "commands"},
    "entry": {"core", "cli"},
    "__main__": {"entry"},
}

EMULATOR_MAY_IMPORT: dict[str, set[str]] = {
    "machine": set(),
    "instructions": {"machine"},
    "hazards": {"machine", "instructions"},
    "clock": {"machine", "instructions"},
    "schedules": {"machine", "instructions", "hazards"},
    "slices": {"machine", "hazards"},
    "execution": {"machine", "instructions", "hazards", "schedules", "clock", "slices"},
}

RUNTIME_STATE = {"autocast_cache", "callers_line", "counts", "torch_state"}
"""Files of the runtime itself that its own rooms may import."""

RUNTIME_MAY_IMPORT: dict[str, set[str]] = {"calls": RUNTIME_STATE, "serving": {*RUNTIME_STATE, "calls"}}


TUNING_ROWS = {"trial_rows", "callbacks", "ledger"}
"""Files of tuning itself that rooms of it may import: how rows are made, and kept."""

TUNING_MAY_IMPORT: dict[str, set[str]] = {
    "searching": set(),
    "benches": {"searching"},
    "confirming": {"searching", "benches", "trial_rows"},
    "priors": {"searching", "confirming"},
    "calibrating": {"benches", "trial_rows"},
    "cluster": {"searching", "benches", "part", *TUNING_ROWS},
}


def named(module: Module) -> str:
    return module.name


def test_imports_point_one_way() -> None:
    for module in CHECKOUT.modules:
        if module.room:  # the package's own __init__ names the runtime for those who import hktune
            assert module.room in MAY_IMPORT, f"{module.room} is a new room: say in this test what it may import"
            assert CHECKOUT.rooms_imported_by(module) <= MAY_IMPORT[module.room] - {module.room}, module.name


def said_to_import(line: str, room: str) -> set[str]:
    """The rooms that the first line of a room's docstring allows."""
    rule = line.partition(" May import ")[2].removesuffix(".")
    others = set(MAY_IMPORT) - {"cli", "entry", "__main__", room}
    names = set(re.findall(r"[a-z]+", rule))
    if rule.startswith("every room but "):
        return others - names
    return names & others | (MACHINERY - {room} if "seams" in names else set())


@pytest.mark.parametrize("room", sorted(set(MAY_IMPORT) - {"cli", "entry", "__main__"}))
def test_the_first_line_of_a_room_says_what_it_may_import(room: str) -> None:
    [init] = [module for module in CHECKOUT.modules if module.name == f"hktune.{room}"]
    said = (ast.get_docstring(init.tree) or "").partition("\n")[0]
    assert said_to_import(said, room) == MAY_IMPORT[room] - {room}


def test_no_room_imports_itself_by_way_of_others() -> None:
    assert not in_cycles(CHECKOUT.arrows)


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Imports for type checking count: a cycle of those is a cycle of what must be understood together."""
    assert not in_cycles(CHECKOUT.file_imports)


RUNTIME = [module for module in CHECKOUT.modules if module.name.startswith("hktune.runtime.")]


@pytest.mark.parametrize("module", RUNTIME, ids=named)
def test_the_runtimes_rooms_import_one_way(module: Module) -> None:
    """Nothing of torch's operators, of modules or of a table is below what serves a call."""
    own = module.name.split(".")[2]
    imported = {name.split(".")[2] for name in module.imported({each.name for each in RUNTIME})}
    assert own not in RUNTIME_MAY_IMPORT or imported <= RUNTIME_MAY_IMPORT[own] | {own}


TUNING = [module for module in CHECKOUT.modules if module.name.startswith("hktune.tuning.")]


@pytest.mark.parametrize("module", TUNING, ids=named)
def test_the_rooms_of_tuning_import_one_way(module: Module) -> None:
    """What proves, times and asks knows of no run; and but for what puts one together, nothing knows of a cluster."""
    own = module.name.split(".")[2]
    imported = {name.split(".")[2] for name in module.imported({each.name for each in TUNING})}
    assert own not in TUNING_MAY_IMPORT or imported <= TUNING_MAY_IMPORT[own] | {own}
    assert "cluster" not in imported or own in {"cluster", "begun_run", "run_options"}


EMULATOR = [module for module in CHECKOUT.modules if module.name.startswith("hktune.emulator.")]


@pytest.mark.parametrize("module", EMULATOR, ids=named)
def test_the_emulators_rooms_import_one_way(module: Module) -> None:
    own = module.name.split(".")[2]
    imported = {name.split(".")[2] for name in module.imported({each.name for each in EMULATOR})}
    assert imported <= EMULATOR_MAY_IMPORT[own] | {own}


def test_every_import_can_be_seen() -> None:
    """None is relative, and none of hktune's own files is imported by a name that is made up while it runs."""
    by_name = ("importlib.import_module", "import_module", "__import__")
    for module in CHECKOUT.modules:
        for node in ast.walk(module.tree):
            assert not (isinstance(node, ast.ImportFrom) and node.level), module.name
            if isinstance(node, ast.Call) and ast.unparse(node.func) in by_name:
                [name] = node.args
                assert isinstance(name, ast.Constant), module.name
                assert not name.value.startswith("hktune"), module.name


def test_imports_in_functions_and_for_type_checking_count(tmp_path: Path) -> None:
    """What the tests above rely on."""
    files = {
        "first/a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from hktune.second.b import B",
        "second/b": "def later() -> None:\n    if True:\n        import hktune.third",
        "third/__init__": "from hktune.third import c",
        "third/c": "from hktune.first.a import A",
    }
    for name, text in files.items():
        path = tmp_path / "hktune" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    checkout = Checkout(tmp_path)
    assert checkout.arrows == {"first": {"second"}, "second": {"third"}, "third": {"first"}}
    assert in_cycles(checkout.arrows) == {"first", "second", "third"}
    assert in_cycles(checkout.file_imports) == {
        f"hktune.{name}" for name in ("first.a", "second.b", "third", "third.c")
    }


BESIDE = sorted(path for folder in ("benchmarks", "scripts", "examples") for path in (ROOT / folder).glob("*.py"))


@pytest.mark.parametrize("path", BESIDE, ids=lambda path: path.name)
def test_what_files_beside_the_package_import_is_there(path: Path) -> None:
    """Most of them run for minutes, and in no test."""
    bound = {module.name: names_bound_by(module.tree) for module in CHECKOUT.modules}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "hktune":
            assert node.module in bound
            for alias in node.names:
                assert alias.name in bound[node.module] or f"{node.module}.{alias.name}" in bound


def names_bound_by(module: ast.Module) -> set[str]:
    """The names that a module binds, or only uses, outside its functions and classes."""
    found: set[str] = set()
    for statement in module.body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            found.add(statement.name)
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.ImportFrom):
                found.update(alias.asname or alias.name for alias in node.names)
    return found


TWICE = {"hip.py", "shapes.py", "summary.py", "table.py"}
"""docs/explanation/structure.md says why."""


def test_a_files_name_says_what_is_in_it_and_so_is_one_files() -> None:
    """But for names that mean the same thing twice: a command's, or what an implementation is for."""
    names = Counter(module.path.name for module in CHECKOUT.modules if module.path.name != "__init__.py")
    assert {name for name, count in names.items() if count > 1} <= TWICE


@pytest.mark.parametrize(
    ("code", "besides"),
    [
        ("import hktune", set()),
        ("from hktune.cli import make_parser; make_parser()", set()),
        ("import hktune.dispatch, hktune.core.shapes", {"msgspec"}),
    ],
)
def test_what_begins_or_only_reads_loads_nothing_heavy(code: str, besides: set[str]) -> None:
    code = f"import sys; {code}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "numpy", "optuna", "pandas", "msgspec", "rich", "tinygrad"} & set(loaded) == besides
