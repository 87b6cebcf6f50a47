"""The one reader of files from outside: plain files of a bounded size, and inside a folder no links."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hktune.cli import main
from hktune.core.errors import StoreError
from hktune.core.outside_file import FileKind, own_folder

KIND = FileKind("a list", 16, StoreError, "pass another")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: os.mkfifo(path), "is a pipe, not a list"),
        (_socket, "is a socket, not a list"),
        (Path.mkdir, "is a directory, not a list"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device, not a list"),
        (lambda path: path.symlink_to("/dev/full"), "is a device, not a list"),
        (lambda path: path.symlink_to("nowhere"), "No such file or directory"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: path.symlink_to("/proc/self/maps"), "at most 16 bytes"),
        (lambda path: path.write_bytes(b"x" * 17), "at most 16 bytes"),
        (lambda path: None, "No such file or directory"),
    ],
)
def test_what_is_no_plain_file_of_its_size_is_one_line(
    tmp_path: Path, make: Callable[[Path], object], says: str
) -> None:
    path = tmp_path / "list"
    make(path)
    with pytest.raises(StoreError) as caught:
        KIND.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert says in message
    assert message.endswith(": pass another")
    assert "\n" not in message


def test_a_sparse_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "list").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(StoreError, match="at most 16 bytes"):
        KIND.read(tmp_path / "list")


def test_a_typed_path_may_be_a_link_but_nothing_inside_a_folder(tmp_path: Path) -> None:
    real = tmp_path / "real"
    (real / "objects").mkdir(parents=True)
    (real / "objects" / "one").write_bytes(b"one")
    (real / "list").write_bytes(b"list")
    typed = tmp_path / "typed"
    typed.symlink_to(real)
    assert KIND.read(typed / "list") == b"list"
    assert KIND.read_inside(typed, "list") == b"list"
    assert KIND.read_inside(typed, "objects/one") == b"one"
    other = tmp_path / "other"
    other.mkdir()
    (other / "objects").symlink_to(real / "objects")
    (other / "list").symlink_to(real / "list")
    (other / "dangling").symlink_to("nowhere")
    for name in ("list", "objects/one", "dangling"):
        with pytest.raises(StoreError, match="is a symbolic link, or is reached through one, not a list"):
            KIND.read_inside(other, name)
    with pytest.raises(StoreError, match="symbolic link"), KIND.opened_inside(other, "list", os.O_RDWR):
        pass
    with pytest.raises(StoreError, match="symbolic link"):
        KIND.read_if_there(other, "dangling")
    assert KIND.read_if_there(other, "absent") is None


@pytest.mark.parametrize("name", ["../list", "/etc/passwd", "objects/../../list", "a//b", "a\0b", "\ud800"])
def test_a_name_that_leads_out_of_its_folder_opens_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "list").write_bytes(b"list")
    (tmp_path / "folder" / "objects").mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be read"):
        KIND.read_inside(tmp_path / "folder", name)


def test_a_file_is_made_and_written_inside_where_asked(tmp_path: Path) -> None:
    with KIND.opened_inside(tmp_path, "list", os.O_RDWR | os.O_CREAT) as file:
        file.write(b"new")
    with KIND.opened_inside(tmp_path, "list", os.O_RDWR) as file:
        assert file.read() == b"new"
    assert KIND.read_inside(tmp_path, "list") == b"new"


def test_text_is_utf8_with_or_without_a_mark_and_without_nul(tmp_path: Path) -> None:
    assert KIND.text("é\r\n".encode("utf-8-sig"), tmp_path) == "é\r\n"
    assert KIND.text(b"", tmp_path) == ""
    for data, says in ((b"a\xff", "byte 1 is not"), (b"a\0", "NUL"), ("a".encode("utf-16"), "byte 0 is not")):
        with pytest.raises(StoreError, match=says):
            KIND.text(data, tmp_path)


def test_an_own_folder_is_made_and_never_a_link_or_a_file(tmp_path: Path) -> None:
    assert own_folder(tmp_path / "new", "objects", StoreError) == own_folder(tmp_path / "new", "objects", StoreError)
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "objects").symlink_to(tmp_path / "new" / "objects")
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "objects").write_bytes(b"")
    for place, found in (("link", "a symbolic link"), ("file", "a file")):
        with pytest.raises(StoreError, match=f"is {found}, not a folder of its own"):
            own_folder(tmp_path / place, "objects", StoreError)


@contextmanager
def no_right_to(folder: Path) -> Iterator[None]:
    """What is in `folder` may not be reached meanwhile, by root neither."""
    folder.chmod(0o000)
    own, is_root = os.geteuid(), os.geteuid() == 0
    try:
        if is_root:
            os.seteuid(65534)
        yield
    finally:
        if is_root:
            os.seteuid(own)
        folder.chmod(0o700)


def test_what_may_not_be_read_is_not_called_absent(tmp_path: Path) -> None:
    assert KIND.read_if_there(tmp_path, "list") is None
    assert KIND.read_if_there(tmp_path / "none", "list") is None
    (tmp_path / "file").touch()
    assert KIND.read_if_there(tmp_path / "file", "list") is None
    says = r"list: cannot be read \(Permission denied\): give this user the right to, or pass another$"
    with no_right_to(tmp_path), pytest.raises(StoreError, match=says):
        KIND.read_if_there(tmp_path, "list")


def test_nor_is_a_results_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for words in (["calibrate", str(folder)], ["explain", f"{folder}:0123abcd"], ["table", "show", str(folder)]):
        main(words)  # which imports what it needs
        assert "Permission" not in capsys.readouterr().err
        with no_right_to(tmp_path):
            assert main(words) == 2
        said = capsys.readouterr().err
        assert "(Permission denied)" in said, words
        assert said.count("\n") == 1


def test_a_file_in_the_place_of_its_folder_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "table.json"
    file.write_text("{}")
    says = f"{file}: is a file, not the folder that has table.json: pass that"
    for words in (
        ["table", "show", str(file)],
        ["table", "diff", str(file), str(file)],
        ["export", str(file), "-o", "o"],
    ):
        assert main(words) == 2
        assert capsys.readouterr().err == f"hktune: {says}\n"
    for absent in (file, tmp_path / "none"):
        assert main(["calibrate", str(absent)]) == 2
        assert f"{absent}: is no results directory: pass a DIR that" in capsys.readouterr().err


def test_the_working_directory_is_no_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    for place in (".", "..", "/"):
        assert main(["verify", "--kernel", place]) == 2
        said = f"hktune: {place}: is a directory, not a kernel: give HIP source or a code object\n"
        assert capsys.readouterr().err == said
