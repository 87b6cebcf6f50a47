"""Signatures, checked both ways against OpenSSL; and files that are not what or where they should be."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from naive_gemm import EMULATED, OBJECT, SHA256, published, table_of, trial

from hktune.cli import main
from hktune.core.errors import TableError, ToolchainError
from hktune.core.problem import Problem
from hktune.dispatch import Trust, content_sha256, read_table, sign_table, validate, write_table
from hktune.runtime import load

SMALL = Problem(8, 128, 64)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pair of ed25519 keys, another pair, and an RSA key."""
    pytest.importorskip("cryptography", reason="pip install 'hktune[sign]'")
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ed25519, x25519

    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "other"):
        key = ed25519.Ed25519PrivateKey.generate()
        private = (form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        (folder / f"{name}.pem").write_bytes(key.private_bytes(*private))
        public = (form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub").write_bytes(key.public_key().public_bytes(*public))
    wrong = x25519.X25519PrivateKey.generate().public_key()
    (folder / "x25519.pub").write_bytes(wrong.public_bytes(*public))
    return folder


def test_a_signed_table_is_read_with_its_key_and_with_no_other(tmp_path: Path, keys: Path) -> None:
    table = published(tmp_path, trial(SMALL))
    with pytest.raises(TableError, match=r"table\.json\.sig: cannot be read"):
        read_table(tmp_path, Trust(keys / "ours.pub"))
    sign_table(tmp_path, keys / "ours.pem")
    assert read_table(tmp_path, Trust(keys / "ours.pub")) == table
    assert read_table(tmp_path, Trust((keys / "ours.pub").read_bytes())) == table
    assert read_table(tmp_path) == table
    with pytest.raises(TableError, match=r"is not a signature of this file by .*other\.pub"):
        read_table(tmp_path, Trust(keys / "other.pub"))
    for wrong in ("x25519.pub", "ours.pem"):
        with pytest.raises(TableError, match="is no unencrypted ed25519 public key in PEM"):
            read_table(tmp_path, Trust(keys / wrong))
    with pytest.raises(TableError, match="is no unencrypted ed25519 private key in PEM"):
        sign_table(tmp_path, keys / "ours.pub")
    with pytest.raises(TableError, match=r"nowhere\.pub: cannot be read"):
        read_table(tmp_path, Trust(keys / "nowhere.pub"))


def test_one_changed_byte_breaks_the_signature_even_where_json_does_not_mind(tmp_path: Path, keys: Path) -> None:
    table = published(tmp_path, trial(SMALL))
    sign_table(tmp_path, keys / "ours.pem")
    path = tmp_path / "table.json"
    path.write_bytes(path.read_bytes() + b"\n")
    assert read_table(tmp_path) == table
    with pytest.raises(TableError, match="is not a signature of this file"):
        read_table(tmp_path, Trust(keys / "ours.pub"))
    published(tmp_path, trial(SMALL, 2.0))
    assert not (tmp_path / "table.json.sig").exists(), "a new table does not keep the old one's signature"


def test_openssl_agrees_both_ways(tmp_path: Path, keys: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here")
    published(tmp_path, trial(SMALL))
    files = ["-rawin", "-in", tmp_path / "table.json"]
    signature = tmp_path / "table.json.sig"
    sign_table(tmp_path, keys / "ours.pem")
    verify = [openssl, "pkeyutl", "-verify", "-pubin", "-inkey", keys / "ours.pub", *files, "-sigfile", signature]
    assert subprocess.run(verify, check=False, capture_output=True).returncode == 0
    signature.unlink()
    sign = [openssl, "pkeyutl", "-sign", "-inkey", keys / "ours.pem", *files, "-out", signature]
    subprocess.run(sign, check=True, capture_output=True)
    read_table(tmp_path, Trust(keys / "ours.pub"))


def test_the_commands(tmp_path: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published(tmp_path, trial(SMALL))
    assert main(["table", "sign", str(tmp_path), "--key", str(keys / "ours.pem")]) == 0
    assert main(["table", "verify", str(tmp_path), "--key", str(keys / "ours.pub")]) == 0
    assert "1 shapes, 1 code objects, 0 not as signed" in capsys.readouterr().out
    assert main(["table", "verify", str(tmp_path), "--key", str(keys / "other.pub")]) == 2
    (tmp_path / "objects" / f"{SHA256}.hsaco").write_bytes(b"other")
    assert main(["table", "verify", str(tmp_path), "--key", str(keys / "ours.pub")]) == 1
    assert "object changed" in capsys.readouterr().out


def test_without_the_library_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(tmp_path, trial(SMALL))
    (tmp_path / "table.json.sig").write_bytes(bytes(64))
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(ToolchainError, match=r"pip install 'hktune\[sign\]'"):
        read_table(tmp_path, Trust(b"any key"))
    assert read_table(tmp_path).entries, "a signature that nobody asks for needs no library"


REBUILD = "build it again with `hktune table build`"


def test_links_pipes_and_folders_are_not_read(tmp_path: Path) -> None:
    directory, elsewhere = tmp_path / "table", tmp_path / "elsewhere"
    table = published(directory, trial(SMALL))
    shutil.copytree(directory, elsewhere)
    name = directory / "objects" / f"{SHA256}.hsaco"

    def skipped() -> tuple[str, str]:
        (one,) = validate(table, directory, EMULATED, allow_modelled=True).skipped
        return str(one.reason), one.detail

    name.unlink()
    name.symlink_to(elsewhere / "objects" / name.name)
    assert "symbolic link" in skipped()[1]
    name.unlink()
    os.mkfifo(name)
    assert skipped() == (
        "object unreadable",
        f"{name}: is a pipe, not a code object: {REBUILD}",
    )
    name.unlink()
    (directory / "objects").rmdir()
    (directory / "objects").symlink_to(elsewhere / "objects")
    assert skipped()[0] == "object unreadable"
    assert "symbolic link" in skipped()[1]
    (directory / "table.json").unlink()
    os.mkfifo(directory / "table.json")
    with pytest.raises(TableError, match="is a pipe, not a table"):
        read_table(directory)
    (directory / "table.json").unlink()
    (directory / "table.json").symlink_to("/dev/zero")
    with pytest.raises(TableError, match="symbolic link"):
        read_table(directory)
    (tmp_path / "link").symlink_to(elsewhere)
    assert read_table(tmp_path / "link") == table, "the directory itself is the caller's to choose"


def test_an_older_table_of_the_same_author_is_refused_where_a_newer_one_is_pinned(tmp_path: Path, keys: Path) -> None:
    old, new, key = tmp_path / "old", tmp_path / "new", keys / "ours.pub"
    for folder, at in ((old, "2026-11-22T18:00:00+00:00"), (new, "2026-11-29T18:00:00+00:00")):
        made = msgspec.structs.replace(table_of(trial(SMALL)), created_at=at)
        write_table(made, {SHA256: OBJECT}, folder)
        sign_table(folder, keys / "ours.pem")
    pin = content_sha256(read_table(new))
    for trust in (
        Trust(key, sha256=pin),
        Trust(key, created_after="2026-11-29"),
        Trust(key, created_after="2026-11-29T18:00:00+00:00"),
        Trust(key, created_after=datetime(2026, 11, 29, 19, tzinfo=timezone(timedelta(hours=1)))),
        Trust(created_after="2026-11-28T23:59:59"),
    ):
        read_table(new, trust)
        with pytest.raises(TableError, match=r"before 2026-11-2|content_sha256 pinned=.* current=.*: get that table"):
            read_table(old, trust)
    with pytest.raises(TableError, match="before 2026-11-29T18:00:01"):
        read_table(new, Trust(created_after="2026-11-29T18:00:01"))
    nonsense: Any
    for nonsense in ("soon", "2026-13-01", "\x1b[2J", "", 3, 2.5, date(2026, 11, 29)):
        with pytest.raises(TableError, match="is no time: write it as 2026-11-29T12:00:00"):
            read_table(new, Trust(created_after=nonsense))
    write_table(msgspec.structs.replace(table_of(trial(SMALL)), created_at="long ago"), {SHA256: OBJECT}, new)
    with pytest.raises(TableError, match=r"table\.json: created_at='long ago' is no time"):
        read_table(new, Trust(created_after="2026-11-29"))


def test_load_and_the_commands_take_the_pins(tmp_path: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = published(tmp_path, trial(SMALL))
    sign_table(tmp_path, keys / "ours.pem")
    sha256, verify = content_sha256(table), ["table", "verify", str(tmp_path), "--key", str(keys / "ours.pub")]
    assert main(["table", "show", str(tmp_path)]) == 0
    assert f"content_sha256: {sha256}" in capsys.readouterr().out.replace("\n", " ").replace(":  ", ": ")
    assert main([*verify, "--sha256", sha256, "--created-after", "2026-11-22"]) == 0
    assert f"content_sha256 {sha256}, made {table.created_at}: pin either" in capsys.readouterr().out
    assert main([*verify, "--sha256", "0" * 64]) == 2
    assert main([*verify, "--created-after", "2026-11-23"]) == 2
    assert main(["table", "doctor", str(tmp_path), "--created-after", "2026-11-23"]) == 1
    assert main(["table", "doctor", str(tmp_path), "--created-after", "yesterday"]) == 2, (
        "nothing is wrong with the table"
    )
    load(tmp_path, allow_modelled=True, public_key=keys / "ours.pub", sha256=sha256, created_after="2026-11-22")
    for pin in ({"sha256": "0" * 64}, {"created_after": "2026-11-23"}):
        with pytest.raises(TableError, match=r"pinned=|before"):
            load(tmp_path, allow_modelled=True, **pin)  # type: ignore[arg-type]


def test_a_table_is_written_and_cleaned_up_in_its_own_folder_only(tmp_path: Path) -> None:
    elsewhere, directory = tmp_path / "elsewhere", tmp_path / "table"
    elsewhere.mkdir()
    directory.mkdir()
    theirs = {"a" * 64 + ".hsaco": b"theirs", "mine.hsaco": b"mine"}
    for name, data in theirs.items():
        (elsewhere / name).write_bytes(data)
    (directory / "objects").symlink_to(elsewhere)
    with pytest.raises(TableError, match="objects: is a symbolic link, not a folder of its own: move it away"):
        published(directory, trial(SMALL))
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == theirs
    (directory / "objects").unlink()

    (elsewhere / "table.json").write_bytes(b"another's")
    for name in ("table.json", "table.json.sig", "table.json.lock"):
        (directory / name).symlink_to(elsewhere / "table.json")
    with pytest.raises(TableError, match=r"lock: is a symbolic link.*: remove it"):
        published(directory, trial(SMALL))
    (directory / "table.json.lock").unlink()
    published(directory, trial(SMALL))
    assert (elsewhere / "table.json").read_bytes() == b"another's"
    assert not (directory / "table.json").is_symlink()
    assert not (directory / "table.json.sig").is_symlink()

    objects = directory / "objects"
    (objects / f"{'b' * 64}.hsaco").symlink_to(elsewhere / "mine.hsaco")
    (objects / "mine.hsaco").write_bytes(b"not an object of a table")
    (objects / f"{SHA256}.hsaco").unlink()
    (objects / f"{SHA256}.hsaco").symlink_to(elsewhere / "mine.hsaco")
    published(directory, trial(SMALL))
    assert (elsewhere / "mine.hsaco").read_bytes() == b"mine"
    assert sorted(path.name for path in objects.iterdir()) == sorted([f"{SHA256}.hsaco", "mine.hsaco"])
    assert (objects / f"{SHA256}.hsaco").read_bytes() == OBJECT


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return bytes([tag, len(content)]) + content


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_key_of_another_length_is_no_key(tmp_path: Path, length: int) -> None:
    """OpenSSL has no word for it."""
    pytest.importorskip("cryptography", reason="pip install 'hktune[sign]'")
    published(tmp_path, trial(SMALL))
    ed25519, key = _der(0x30, _der(6, bytes([0x2B, 0x65, 0x70]))), b"\1" * length
    private = _der(0x30, _der(2, b"\0"), ed25519, _der(4, _der(4, key)))
    public = _der(0x30, ed25519, _der(3, b"\0", key))
    for kind, data in (("PRIVATE", private), ("PUBLIC", public)):
        pem = f"-----BEGIN {kind} KEY-----\n{base64.b64encode(data).decode()}\n-----END {kind} KEY-----\n"
        (tmp_path / kind).write_text(pem)
    with pytest.raises(TableError, match="is no unencrypted ed25519 private key in PEM"):
        sign_table(tmp_path, tmp_path / "PRIVATE")
    (tmp_path / "table.json.sig").write_bytes(bytes(64))
    with pytest.raises(TableError, match="is no unencrypted ed25519 public key in PEM"):
        read_table(tmp_path, Trust(tmp_path / "PUBLIC"))
