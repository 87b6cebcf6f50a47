"""What lies in a results, table or build folder that a stranger sent: nothing outside is made, changed or removed."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from naive_gemm import OBJECT, published, table_of, trial
from test_store import OK

from hktune.core.errors import InputError, StoreError, TableError
from hktune.core.lock_file import lock_file
from hktune.core.problem import Problem
from hktune.core.publish import sweep, sweep_below
from hktune.dispatch import check_table_place, read_table, write_table
from hktune.store import TrialStore
from hktune.store.claims import Claims

HEX = "ab" * 32
PROBLEM = Problem(8, 128, 64)


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # a socket's path has at most 107 bytes


MAKERS: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a directory": Path.mkdir,
    "a socket": bind,
    "a device": lambda path: path.symlink_to("/dev/full"),
}


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder of somebody else, whose files a follower of links would take for its own."""
    folder = tmp_path / "elsewhere"
    (folder / ".kept.part").mkdir(parents=True)
    (folder / ".kept.part" / "precious").write_text("kept")
    for name in (".file.part", "scope-abc", f"{HEX}.hsaco"):
        (folder / name).write_text("kept")
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_claims_through_a_linked_folder_touch_nothing(tmp_path: Path, elsewhere: Path) -> None:
    before = contents(elsewhere)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "claims").symlink_to(elsewhere)
    claims = Claims(tmp_path / "run", "scope")
    assert claims.take("abc"), "a claim that cannot be made is given"
    assert claims.take("new")
    claims.close()
    assert contents(elsewhere) == before
    assert (tmp_path / "run" / "claims").is_symlink()


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("../victim")])
def test_a_claim_that_is_no_file_is_given_and_left(tmp_path: Path, make: Callable[[Path], object]) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "claims").mkdir()
    make(tmp_path / "claims" / "scope-abc")
    claims = Claims(tmp_path, "scope")
    assert claims.take("abc")
    claims.close()
    assert os.path.lexists(tmp_path / "claims" / "scope-abc")
    assert (tmp_path / "victim").read_text() == "kept"


@pytest.mark.parametrize("instead", [Path.touch, lambda path: path.symlink_to("elsewhere"), None])
def test_claims_are_given_back_whatever_became_of_their_folder(
    tmp_path: Path, elsewhere: Path, instead: Callable[[Path], object] | None
) -> None:
    before, handles = contents(elsewhere), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    claims = Claims(tmp_path, "scope")
    assert claims.take("abc")
    (tmp_path / "claims").rename(tmp_path / "aside")
    if instead:
        instead(tmp_path / "claims")
    claims.release("abc")
    claims.close()
    assert contents(elsewhere) == before
    assert len(os.listdir("/proc/self/fd")) == handles  # noqa: PTH208


def test_sweeps_pass_by_a_link(tmp_path: Path, elsewhere: Path) -> None:
    before = contents(elsewhere)
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    for name in ("link", "in/link", "in/deeper/.link.part"):
        (tmp_path / name).symlink_to(elsewhere)
    (tmp_path / "in" / "deeper" / ".left.part").write_text("of a crash")
    sweep(tmp_path / "link")
    sweep_below(tmp_path / "link", tmp_path / "in")
    assert contents(elsewhere) == before
    assert not (tmp_path / "in" / "deeper" / ".left.part").exists()


@pytest.mark.parametrize(("name", "use"), [("trials.csv.lock", TrialStore), ("table.json.lock", check_table_place)])
def test_a_lock_that_is_another_files_second_name_empties_nothing(
    tmp_path: Path, name: str, use: Callable[[Path], object]
) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / name).hardlink_to(tmp_path / "victim")
    with pytest.raises(InputError, match=f"{name}: is a second name of another file.*: remove it"):
        use(tmp_path)
    assert (tmp_path / "victim").read_text() == "kept"


@pytest.mark.parametrize("found", [*MAKERS, "a symbolic link"])
def test_a_lock_that_is_no_file_is_named(tmp_path: Path, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = TrialStore(tmp_path)
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "trials.csv.lock").unlink()
    MAKERS.get(found, lambda path: path.symlink_to("victim"))(tmp_path / "trials.csv.lock")
    with pytest.raises(StoreError, match=r"trials\.csv\.lock: is a .*, not a lock file: remove it|through one"):
        store.append(OK)
    assert (tmp_path / "victim").read_text() == "kept"
    assert store.read() == []


def test_a_lock_file_that_somebody_wrote_in_is_still_a_lock(tmp_path: Path) -> None:
    (tmp_path / "x.lock").write_text("4711\n")
    with lock_file(tmp_path, "x.lock", 1.0, StoreError):
        pass
    (tmp_path / "x.lock").write_bytes(b"x" * 5000)
    with pytest.raises(StoreError, match="has at most 4096 bytes"):
        lock_file(tmp_path, "x.lock", 1.0, StoreError)


@pytest.mark.parametrize("name", ["table.json", "table.json.sig", f"objects/{HEX}.hsaco", f"objects/{HEX}.cubin"])
@pytest.mark.parametrize("found", MAKERS)
def test_a_place_that_no_table_can_have_is_seen_at_the_start(
    tmp_path: Path, name: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "objects").mkdir()
    MAKERS[found](tmp_path / name)
    with pytest.raises(TableError, match=f"{name}: is {found}, where a table has a file: move it away"):
        check_table_place(tmp_path)


def test_an_unwritable_signature_leaves_the_old_table(tmp_path: Path) -> None:
    published(tmp_path, trial(PROBLEM))
    before = read_table(tmp_path)
    (tmp_path / "table.json.sig").mkdir()
    with pytest.raises(TableError, match=r"table\.json\.sig: is a directory"):
        write_table(table_of(trial(PROBLEM, time_us=77.0)), {hashlib.sha256(OBJECT).hexdigest(): OBJECT}, tmp_path)
    assert read_table(tmp_path) == before


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_what_is_named_like_an_object_and_is_none_is_left(tmp_path: Path, make: Callable[[Path], object]) -> None:
    published(tmp_path, trial(PROBLEM))
    make(tmp_path / "objects" / f"{HEX}.hsaco")
    (tmp_path / "objects" / f"{'cd' * 32}.hsaco").write_bytes(b"of an older table")
    new = table_of(trial(PROBLEM, time_us=77.0))
    write_table(new, {hashlib.sha256(OBJECT).hexdigest(): OBJECT}, tmp_path)
    assert read_table(tmp_path) == new
    assert os.path.lexists(tmp_path / "objects" / f"{HEX}.hsaco")
    assert not (tmp_path / "objects" / f"{'cd' * 32}.hsaco").exists()
